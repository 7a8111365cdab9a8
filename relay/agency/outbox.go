package agency

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// Outbox keeps the agency's own copy of each document until two relays have it,
// and hands it over again where the one relay that had it is lost. It promises:
//
//   - Before a relay hears of a document, header and files are durable in the
//     folder: what is sent is this copy. A file that changes while it is copied
//     is noticed.
//   - The copy is removed when a relay said that two have the envelope, or that
//     every delivery ended; and when Submit itself returned a refusal, because
//     then the caller knows.
//   - What is in the outbox is handed over sooner or later, by this process or
//     the next that calls Tend, Run or Submit with the same document, always as
//     the same envelope: the mesh drops repeats. So a document has been taken
//     once Submit returned a receipt, or a KeptError, or the process died while
//     it was in the folder.
//   - A copy that the mesh refuses for good after that is moved to the folder
//     failed, and one that is damaged to the folder damaged, with a reason.json.
//     Nothing vanishes.
//
// What it does not: it does not outlive the disk that it is on, and it takes
// room for everything that waits, up to OutboxConfig.MaxBytes.
//
// Several processes may use one folder, and several agencies; each tends what it
// handed over itself. Outboxes are for use by many goroutines.
type Outbox struct {
	config OutboxConfig
	client *Client
	logger *slog.Logger
	// claims are the documents that this process works on, by key.
	claims claims
	// left has an element when a document stayed behind since Run looked.
	left chan struct{}
	// moving is held with the lock of the folder: see alone.
	moving sync.Mutex
}

// OutboxConfig shapes an outbox.
type OutboxConfig struct {
	// Dir is the folder, made where missing. It has to be on a disk that keeps
	// what it has synced.
	Dir string
	// Client hands over. It speaks for the agency whose documents are tended.
	Client *Client
	// MaxBytes bounds everything in the folder, what was set aside included, in
	// bytes; 0: 16 GiB. Submit refuses with QUOTA_EXCEEDED beyond that.
	MaxBytes int64
	// Logger gets a line for what becomes of documents that stayed; nil: that of
	// the client.
	Logger *slog.Logger

	disk   disk
	passes passes
}

// passes are the waits between two looks at what stayed: the first after it did,
// and the longest.
type passes struct{ first, most time.Duration }

var defaultPasses = passes{first: time.Second, most: time.Minute}

const defaultOutboxBytes = 16 << 30

// OpenOutbox opens the outbox in a folder, and clears away what was being made
// or removed when a process died. Nothing is sent before Submit, Tend or Run.
func OpenOutbox(config OutboxConfig) (*Outbox, error) {
	if config.Dir == "" || config.Client == nil {
		return nil, errors.New("outbox: a folder and a client are needed")
	}
	if config.MaxBytes < 0 {
		return nil, fmt.Errorf("outbox: MaxBytes is %d", config.MaxBytes)
	}
	if config.MaxBytes == 0 {
		config.MaxBytes = defaultOutboxBytes
	}
	if config.Logger == nil {
		config.Logger = config.Client.logger
	}
	if config.disk == nil {
		config.disk = osDisk{}
	}
	if config.passes == (passes{}) {
		config.passes = defaultPasses
	}
	o := &Outbox{
		config: config, client: config.Client, logger: config.Logger,
		claims: claims{held: map[string]chan struct{}{}}, left: make(chan struct{}, 1),
	}
	if err := makeDir(config.Dir); err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	if err := o.sweep(); err != nil {
		return nil, err
	}
	return o, nil
}

// KeptError says that no relay has accepted a document yet, or that it is not
// known, and that the outbox has it and will hand it over. Submitting it again
// with the same document id does the same at once.
type KeptError struct {
	// ID of the envelope it is or will be, DocumentID the sender's own.
	ID         envelope.ID
	DocumentID string
	// Dir is where the copy is.
	Dir string
	// Err is why it was not accepted now.
	Err error
}

func (e *KeptError) Error() string {
	return fmt.Sprintf("document %s is kept in the outbox, %s, and will be handed over from there: %v", e.DocumentID, e.Dir, e.Err)
}

func (e *KeptError) Unwrap() error { return e.Err }

// Submit makes a document durable in the outbox and then hands it over as
// Client.Submit does. With a receipt of fewer than two copies the document stays
// in the outbox and is tended. An error is
//   - a *KeptError: the outbox has the document and will hand it over;
//   - else a refusal, or a failure on this machine: the outbox does not have it.
//
// A header without document id is given one, which the receipt and a KeptError
// name. While a document waits, its id with other content is refused.
func (o *Outbox) Submit(ctx context.Context, document Document) (*Receipt, error) {
	if document.Header != nil && document.Header.GetDocumentId() == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("outbox: document id: %w", err)
		}
		document.Header = proto.CloneOf(document.Header)
		document.Header.DocumentId = id.String()
	}
	s, err := o.client.outline(document)
	if err != nil {
		return nil, err
	}
	// Before anything is written: a state secret must not enter the folder.
	if err := s.checkOutline(); err != nil {
		return nil, err
	}
	if err := s.refuseMarked(ctx); err != nil {
		return nil, err
	}
	key := keyOf(s.header)
	release, err := o.claims.wait(ctx, key)
	if err != nil {
		return nil, err
	}
	defer release()
	return o.submit(ctx, s, key)
}

// submit is Submit of the document that has the claim on its key.
func (o *Outbox) submit(ctx context.Context, s *submission, key string) (*Receipt, error) {
	e, fresh, err := o.keep(ctx, s, key)
	if err != nil {
		return nil, err
	}
	if e == nil {
		// Another process hands the kept copy over just now. The mesh drops
		// the repeat, and both get a receipt.
		return s.submit(ctx)
	}
	defer e.lock.unlock()
	receipt, err := o.handOver(ctx, e, s.progress)
	switch {
	case err == nil:
		return receipt, nil
	case envelope.Temporary(err):
		o.stays()
		return nil, o.kept(e, err)
	case fresh:
		return nil, errors.Join(err, e.remove())
	}
	// An earlier Submit promised to hand it over.
	stays, cause := o.refused(ctx, e, err)
	if stays {
		return nil, o.kept(e, cause)
	}
	if damage := (*damageError)(nil); errors.As(cause, &damage) {
		// The caller's files are those that were kept; they are now kept anew.
		return o.submit(ctx, s, key)
	}
	return nil, cause
}

func (o *Outbox) kept(e *entry, err error) error {
	return &KeptError{ID: e.id, DocumentID: e.header.GetDocumentId(), Dir: e.path, Err: err}
}

// checkOutline finds what every relay would refuse, before the files are read.
func (s *submission) checkOutline() error {
	header := proto.CloneOf(s.header)
	for _, part := range header.GetParts() {
		if len(part.GetSha256()) == 0 {
			part.Sha256 = make([]byte, 32)
		}
	}
	return check(header)
}

// keep finds the document in the outbox or puts it there, and returns it locked.
// Fresh: it was put there now. It returns nil where another process works on it.
func (o *Outbox) keep(ctx context.Context, s *submission, key string) (e *entry, fresh bool, err error) {
	for {
		e, err = o.open(key)
		if errors.Is(err, fs.ErrNotExist) {
			if e, err = o.make(ctx, s, key); errors.Is(err, fs.ErrExist) {
				continue // another process was faster
			}
			return e, err == nil, err
		}
		busy := errors.Is(err, errLocked)
		switch {
		case busy:
			if e, err = o.read(key); errors.Is(err, fs.ErrNotExist) {
				continue
			}
		case err == nil:
			err = e.load()
		}
		if damage := (*damageError)(nil); errors.As(err, &damage) && !busy {
			// The caller has the files again.
			if err := o.setAside(e, damagedDir, damage.reason()); err != nil {
				return nil, false, err
			}
			continue
		}
		if err != nil {
			if !busy && e != nil {
				e.lock.unlock()
			}
			return nil, false, fmt.Errorf("outbox: %w", err)
		}
		if to, ok := e.setAsideBefore(); ok && !busy {
			err := o.moveAside(e, to)
			e.lock.unlock()
			if err != nil {
				return nil, false, err
			}
			continue
		}
		err := o.same(ctx, s, e)
		if err == nil && !busy {
			return e, false, nil
		}
		if !busy {
			e.lock.unlock()
		}
		return nil, false, err
	}
}

// same compares a document with the one of its id that waits.
func (o *Outbox) same(ctx context.Context, s *submission, e *entry) error {
	if s.id.IsZero() {
		if err := s.hash(ctx); err != nil {
			return err
		}
		if err := s.seal(); err != nil {
			return err
		}
	}
	if s.id == e.id {
		return nil
	}
	return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED,
		"document id %s waits in the outbox, %s, as envelope %s with other content; give the new document an id of its own",
		s.header.GetDocumentId(), e.path, e.id)
}

// stays wakes Run.
func (o *Outbox) stays() {
	select {
	case o.left <- struct{}{}:
	default:
	}
}

// claims keep the goroutines of one process from working on one document at
// once.
type claims struct {
	mu sync.Mutex
	// held has a channel per key, closed on release. Guarded by mu.
	held map[string]chan struct{}
}

// try takes the claim on a key, or returns what is closed once it is free.
func (c *claims) try(key string) (release func(), taken <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if held, ok := c.held[key]; ok {
		return nil, held
	}
	free := make(chan struct{})
	c.held[key] = free
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.held, key)
		close(free)
	}, nil
}

func (c *claims) wait(ctx context.Context, key string) (release func(), err error) {
	for {
		release, taken := c.try(key)
		if release != nil {
			return release, nil
		}
		select {
		case <-taken:
		case <-ctx.Done():
			return nil, ended(ctx)
		}
	}
}
