package agency

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// entry is one document in an outbox.
type entry struct {
	outbox *Outbox
	key    string
	// path is its folder, which lock holds.
	path string
	lock *dirLock

	id     envelope.ID
	header *exchangev1.Header
	kept   kept
	state  state
}

// state is what is known of the hand-over: the layout of state.json. Without
// it, or with an old one, the document is handed over again, a repeat.
type state struct {
	// Relay gave the last receipt, at AcceptedAt, with this many copies; "" for
	// no receipt yet.
	Relay      string    `json:"relay"`
	AcceptedAt time.Time `json:"accepted_at"`
	Copies     uint32    `json:"copies"`
	// Tries counts the calls about it, LastTry is when the last began, LastError
	// how it failed.
	Tries     int       `json:"tries"`
	LastTry   time.Time `json:"last_try"`
	LastError string    `json:"last_error"`
}

// reason is the layout of reason.json.
type reason struct {
	EnvelopeID string    `json:"envelope_id"`
	DocumentID string    `json:"document_id"`
	At         time.Time `json:"at"`
	// Damaged: the copy is not what was written; else the mesh refused it.
	Damaged bool `json:"damaged"`
	// Reason is the name of an ErrorReason in lower case, Message for people.
	Reason  string        `json:"reason"`
	Message string        `json:"message"`
	Fields  []faultyField `json:"fields"`
	State   *state        `json:"state,omitempty"`
}

type faultyField struct {
	Field       string `json:"field"`
	Reason      string `json:"reason"`
	Description string `json:"description"`
}

func reasonName(r exchangev1.ErrorReason) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "ERROR_REASON_"))
}

// damageError says that an entry is not what was written.
type damageError struct{ problem string }

func (e *damageError) Error() string { return "the copy is damaged: " + e.problem }

func (e *damageError) reason() reason {
	return reason{Damaged: true, Reason: reasonName(exchangev1.ErrorReason_ERROR_REASON_DAMAGED), Message: e.Error()}
}

func damaged(format string, args ...any) error {
	return &damageError{fmt.Sprintf(format, args...)}
}

// open locks the entry of a key: fs.ErrNotExist, errLocked.
func (o *Outbox) open(key string) (*entry, error) {
	path := filepath.Join(o.config.Dir, key)
	locked, err := lock(path, false)
	if err != nil {
		return nil, err
	}
	if !locked.at(path) {
		locked.unlock()
		return nil, fs.ErrNotExist
	}
	return &entry{outbox: o, key: key, path: path, lock: locked}, nil
}

// read reads an entry that another may be at work on: fs.ErrNotExist where that
// one removed it.
func (o *Outbox) read(key string) (*entry, error) {
	e := &entry{outbox: o, key: key, path: filepath.Join(o.config.Dir, key)}
	err := e.load()
	if _, gone := os.Lstat(e.path); errors.Is(gone, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	return e, err
}

// load reads what an entry says of itself. A *damageError is its own fault,
// another error that of the disk, perhaps for a moment.
func (e *entry) load() error {
	text, err := os.ReadFile(filepath.Join(e.path, envelopeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return damaged("%s is missing", envelopeFile)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &e.kept); err != nil {
		return damaged("%s: %v", envelopeFile, err)
	}
	if e.header, err = envelope.ParseCanonical(e.kept.Header); err != nil {
		return damaged("%s: %v", envelopeFile, err)
	}
	e.id = envelope.ComputeID(e.header.GetSender().GetCode(), e.header.GetDocumentId(), e.kept.Header)
	if e.id.String() != e.kept.EnvelopeID || keyOf(e.header) != e.key {
		return damaged("the header in %s is that of envelope %s", envelopeFile, e.id)
	}
	names := e.files()
	for i, part := range e.header.GetParts() {
		info, err := os.Lstat(filepath.Join(e.path, names[i]))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return damaged("file %s is missing", names[i])
		case err != nil:
			return err
		case !info.Mode().IsRegular() || uint64(info.Size()) != part.GetSize():
			return damaged("file %s has %d bytes, %d were written", names[i], info.Size(), part.GetSize())
		}
	}
	// What cannot be read is not known.
	if text, err := os.ReadFile(filepath.Join(e.path, stateFile)); err != nil || json.Unmarshal(text, &e.state) != nil {
		e.state = state{}
	}
	return nil
}

// verify reads the files and compares them with the header.
func (e *entry) verify(ctx context.Context) error {
	for i, source := range e.sources() {
		part := e.header.GetParts()[i]
		size, sum, err := digest(ctx, source, io.Discard, func(int) {})
		if ctx.Err() != nil {
			return ended(ctx)
		}
		if err != nil {
			return damaged("%v", err)
		}
		if size != part.GetSize() || !slices.Equal(sum[:], part.GetSha256()) {
			return damaged("file %s is not what was written (SHA-256 differs)", source.Name())
		}
	}
	return nil
}

// files are the names of the files in the entry's folder.
func (e *entry) files() []string {
	return fileNames(e.header.GetParts(), stateFile, reasonFile, replacing)
}

func (e *entry) sources() []Source {
	var sources []Source
	for _, name := range e.files() {
		sources = append(sources, fileSource(filepath.Join(e.path, name)))
	}
	return sources
}

// submission is the document as it is in the entry.
func (e *entry) submission(progress func(Progress)) *submission {
	s := &submission{
		client: e.outbox.client, header: e.header, canonical: sha256.Sum256(e.kept.Header), id: e.id,
		sources: e.sources(), progress: progress,
	}
	for _, part := range e.header.GetParts() {
		s.total += part.GetSize()
	}
	return s
}

// note is step 6: it replaces state.json. Failing is no harm but that things
// are asked twice.
func (e *entry) note() {
	if err := e.replaceState(); err != nil {
		e.outbox.logger.Warn("outbox: what is known of a document is not noted", "envelope", e.id, "error", err)
	}
}

func (e *entry) replaceState() error {
	text, err := json.MarshalIndent(e.state, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(e.path, replacing), append(text, '\n'), keptFileMode); err != nil {
		return err
	}
	return e.outbox.config.disk.Rename(filepath.Join(e.path, replacing), filepath.Join(e.path, stateFile))
}

// remove is steps 7 to 9.
func (e *entry) remove() error {
	d, dir := e.outbox.config.disk, e.outbox.config.Dir
	gone := filepath.Join(dir, gonePrefix+rand.Text())
	if err := d.Rename(e.path, gone); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	e.path = gone
	if err := d.SyncDir(dir); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}

// discard takes away what was never in the outbox for its caller.
func (e *entry) discard() error {
	if strings.HasPrefix(filepath.Base(e.path), newPrefix) {
		return os.RemoveAll(e.path)
	}
	return e.remove()
}

// setAside moves a locked entry to the folder failed or damaged, and lets go of
// it.
func (o *Outbox) setAside(e *entry, to string, why reason) error {
	defer e.lock.unlock()
	why.EnvelopeID, why.DocumentID, why.At = e.kept.EnvelopeID, e.kept.DocumentID, time.Now()
	if e.state != (state{}) {
		why.State = &e.state
	}
	if err := e.writeJSON(reasonFile, why); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return o.moveAside(e, to)
}

// moveAside is setAside from where the reason is on disk.
func (o *Outbox) moveAside(e *entry, to string) error {
	d := o.config.disk
	folder := filepath.Join(o.config.Dir, to)
	if err := makeDir(folder); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	// The reason too has to be there after a power failure.
	if err := d.SyncDir(e.path); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	leave, err := o.alone()
	if err != nil {
		return err
	}
	defer leave()
	name := e.kept.EnvelopeID
	if _, err := envelope.ParseID(name); err != nil {
		name = e.key
	}
	target := filepath.Join(folder, name)
	for n := 2; ; n++ {
		if _, err := os.Lstat(target); errors.Is(err, fs.ErrNotExist) {
			break
		}
		target = filepath.Join(folder, fmt.Sprintf("%s (%d)", name, n))
	}
	if err := d.Rename(e.path, target); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	e.path = target
	if err := errors.Join(d.SyncDir(folder), d.SyncDir(o.config.Dir)); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}

// setAsideBefore finds the reason of a move that was cut short.
func (e *entry) setAsideBefore() (to string, ok bool) {
	var why reason
	text, err := os.ReadFile(filepath.Join(e.path, reasonFile))
	if err != nil || json.Unmarshal(text, &why) != nil {
		return "", false
	}
	if why.Damaged {
		return damagedDir, true
	}
	return failedDir, true
}
