package agency

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
)

// Waiting is one document in an outbox.
type Waiting struct {
	ID         envelope.ID
	DocumentID string
	// Agency is who handed it over. Own: this client speaks for it, and so tends
	// the document.
	Agency string
	Own    bool
	// Since is when the outbox had it, Size the bytes of its files.
	Since time.Time
	Size  uint64
	// Relay gave the last receipt, saying that this many relays had the
	// envelope; "" and 0 for none.
	Relay  string
	Copies uint32
	// Tries counts the calls about it, LastTry is when the last began, LastError
	// how it failed; "" where it did not.
	Tries     int
	LastTry   time.Time
	LastError string
	// Dir is its folder.
	Dir string

	key string
}

// SetAside is one document that was taken out of an outbox: refused for good, or
// damaged. It is removed by whoever has read why.
type SetAside struct {
	// EnvelopeID and DocumentID as far as they could be read.
	EnvelopeID, DocumentID string
	At                     time.Time
	Damaged                bool
	// Reason is a name of ErrorReason in lower case, Message for people.
	Reason, Message string
	// Dir is its folder, with the reason in reason.json.
	Dir string
}

// List tells what waits, the oldest first.
func (o *Outbox) List() ([]Waiting, error) {
	found, err := os.ReadDir(o.config.Dir)
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	var all []Waiting
	for _, d := range found {
		if !d.IsDir() || !isKey(d.Name()) {
			continue
		}
		e, err := o.read(d.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		w := e.waiting()
		if err != nil {
			w.LastError = err.Error()
		}
		all = append(all, w)
	}
	slices.SortStableFunc(all, func(a, b Waiting) int { return a.Since.Compare(b.Since) })
	return all, nil
}

// own reports whether the client speaks for the agency that handed it over.
func (e *entry) own() bool { return e.kept.Agency == e.outbox.client.speaksFor() }

func (e *entry) waiting() Waiting {
	w := Waiting{
		ID: e.id, DocumentID: e.kept.DocumentID, Agency: e.kept.Agency, Own: e.own(), Since: e.kept.KeptAt,
		Relay: e.state.Relay, Copies: e.state.Copies, Tries: e.state.Tries, LastTry: e.state.LastTry, LastError: e.state.LastError,
		Dir: e.path, key: e.key,
	}
	for _, part := range e.header.GetParts() {
		w.Size += part.GetSize()
	}
	return w
}

// SetAside tells what was set aside, the oldest first.
func (o *Outbox) SetAside() ([]SetAside, error) {
	var all []SetAside
	for _, folder := range []string{failedDir, damagedDir} {
		dir := filepath.Join(o.config.Dir, folder)
		found, err := os.ReadDir(dir)
		if unlessGone(err) != nil {
			return nil, fmt.Errorf("outbox: %w", err)
		}
		for _, d := range found {
			if !d.IsDir() || strings.HasPrefix(d.Name(), ".") {
				continue
			}
			a := SetAside{Dir: filepath.Join(dir, d.Name()), Damaged: folder == damagedDir}
			var why reason
			if text, err := os.ReadFile(filepath.Join(a.Dir, reasonFile)); err == nil && json.Unmarshal(text, &why) == nil {
				a.EnvelopeID, a.DocumentID, a.At, a.Reason, a.Message = why.EnvelopeID, why.DocumentID, why.At, why.Reason, why.Message
			}
			all = append(all, a)
		}
	}
	slices.SortStableFunc(all, func(a, b SetAside) int { return a.At.Compare(b.At) })
	return all, nil
}
