package agency

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// What is in the folder of an outbox:
//
//	<key>/            one document that waits: envelope.json, the description
//	                  with the header as it is sent; the files; state.json, what
//	                  is known of its hand-over
//	failed/<id>/      the same, refused for good, with reason.json
//	damaged/<id>/     the same, not what was written, with reason.json
//	.new-<random>/    being made, or left by a process that died: nothing yet
//	.gone-<random>/   being removed: nothing any more
//
// The key is made of sender and document id, so two documents with one id cannot
// both wait. These are the steps, and what is on disk after each, should the
// process be killed or the power fail there:
//
//	make    1  .new-x with files of their final length: room is taken, nothing else
//	        2  the files are copied, compared and synced, then envelope.json
//	        3  .new-x is synced: whole, and still nothing
//	        4  .new-x is renamed to <key>; it is there, or after a power failure not
//	        5  the outbox is synced. The document is in the outbox. Only now a relay
//	           hears of it, and only now Submit can return a receipt or a KeptError
//	tell    6  state.json is replaced by rename, and not synced: old, new or empty,
//	           what it says can be asked for again
//	remove  7  <key> is renamed to .gone-x; it is there, or after a power failure
//	           still <key>, and handed over again, which is a repeat
//	        8  the outbox is synced, so that a removed file is never one of <key>
//	        9  .gone-x is deleted
//	aside   as 7 and 8, with reason.json synced in <key> before and the folder it
//	        goes to after: it is in one of the two
const (
	stateFile  = "state.json"
	reasonFile = "reason.json"
	// replacing is the name of a state.json that is not whole yet.
	replacing = ".state.json"

	failedDir  = "failed"
	damagedDir = "damaged"

	newPrefix  = ".new-"
	gonePrefix = ".gone-"
)

// A document waiting is read by nobody but its agency.
const (
	keptDirMode  = 0o700
	keptFileMode = 0o600
)

// disk is what makes a document last. Tests cut the power between its calls.
type disk interface {
	// Sync makes what was written to a file durable, SyncDir the names in a
	// folder.
	Sync(file *os.File) error
	SyncDir(dir string) error
	Rename(from, to string) error
}

type osDisk struct{}

func (osDisk) Sync(file *os.File) error     { return file.Sync() }
func (osDisk) SyncDir(dir string) error     { return syncDir(dir) }
func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }

// keyOf is the name of a document's folder: unique for sender and document id,
// and a file name on every system.
func keyOf(header *exchangev1.Header) string {
	sum := sha256.Sum256([]byte(header.GetSender().GetCode() + "\x00" + header.GetDocumentId()))
	return hex.EncodeToString(sum[:16])
}

func isKey(name string) bool {
	b, err := hex.DecodeString(name)
	return err == nil && len(b) == 16 && name == strings.ToLower(name)
}

// kept is the layout of envelope.json in an outbox.
type kept struct {
	EnvelopeID string `json:"envelope_id"`
	DocumentID string `json:"document_id"`
	// Agency is who handed it over.
	Agency string    `json:"agency"`
	KeptAt time.Time `json:"kept_at"`
	// Header holds the canonical bytes, in base64.
	Header []byte          `json:"header"`
	Files  []describedFile `json:"files"`
}

// make copies a document into the outbox, steps 1 to 5, and returns it locked.
// The submission then has hashes and id. fs.ErrExist: one with its document id
// appeared meanwhile.
func (o *Outbox) make(ctx context.Context, s *submission, key string) (*entry, error) {
	e, sizes, err := o.reserve(s, key)
	if err != nil {
		return nil, err
	}
	if err = o.fill(ctx, s, e, sizes); err == nil {
		err = o.publish(e)
	}
	if err != nil {
		defer e.lock.unlock()
		return nil, errors.Join(err, e.discard())
	}
	return e, nil
}

// fill is steps 2 and 3.
func (o *Outbox) fill(ctx context.Context, s *submission, e *entry, sizes []int64) error {
	s.total = 0
	names := e.files()
	for i := range s.sources {
		if err := o.copyFile(ctx, s, i, filepath.Join(e.path, names[i]), sizes[i]); err != nil {
			return err
		}
	}
	if err := s.seal(); err != nil {
		return err
	}
	_, canonical, err := envelope.HeaderID(s.header)
	if err != nil {
		return err
	}
	e.id = s.id
	e.kept = kept{
		EnvelopeID: s.id.String(), DocumentID: s.header.GetDocumentId(), Agency: o.client.speaksFor(),
		KeptAt: time.Now(), Header: canonical,
	}
	for i, part := range s.header.GetParts() {
		e.kept.Files = append(e.kept.Files, describedFile{
			Name: part.GetName(), File: names[i], Size: part.GetSize(), SHA256: hex.EncodeToString(part.GetSha256()),
		})
	}
	if err := e.writeJSON(envelopeFile, e.kept); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	if err := o.config.disk.SyncDir(e.path); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}

// copyFile copies one file, and reads it once more: what was changed while it
// was copied may be half of the old and half of the new.
func (o *Outbox) copyFile(ctx context.Context, s *submission, i int, path string, size int64) error {
	source := s.sources[i]
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	defer file.Close()
	copied := s.total
	length, sum, err := digest(ctx, source, &bounded{file, size}, func(n int) {
		copied += uint64(n)
		s.progress(Progress{Done: copied})
	})
	if errors.Is(err, errGrew) || err == nil && length != uint64(size) {
		return changed(source)
	}
	if err != nil {
		return err
	}
	again, sumAgain, err := digest(ctx, source, io.Discard, func(int) {})
	if err != nil {
		return err
	}
	if again != length || sumAgain != sum {
		return changed(source)
	}
	if err := s.found(i, length, sum); err != nil {
		return err
	}
	if err := o.config.disk.Sync(file); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return file.Close()
}

func changed(source Source) error {
	return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH,
		"file %s changed while it was being read; send it again once it is complete", source.Name())
}

var errGrew = errors.New("more than there was room made for")

// bounded writes no more than left bytes.
type bounded struct {
	w    io.Writer
	left int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		return 0, errGrew
	}
	n, err := b.w.Write(p)
	b.left -= int64(n)
	return n, err
}

// publish is steps 4 and 5.
func (o *Outbox) publish(e *entry) error {
	if err := o.show(e); err != nil {
		return err
	}
	if err := o.config.disk.SyncDir(o.config.Dir); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}

// show is step 4.
func (o *Outbox) show(e *entry) error {
	leave, err := o.alone()
	if err != nil {
		return err
	}
	defer leave()
	final := filepath.Join(o.config.Dir, e.key)
	if _, err := os.Lstat(final); err == nil {
		return fs.ErrExist
	}
	if err := o.config.disk.Rename(e.path, final); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	e.path = final
	return nil
}

// writeJSON writes and syncs one description.
func (e *entry) writeJSON(name string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(e.path, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, keptFileMode)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(append(text, '\n')); err != nil {
		return err
	}
	if err := e.outbox.config.disk.Sync(file); err != nil {
		return err
	}
	return file.Close()
}
