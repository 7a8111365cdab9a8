// Package spool is a relay's durable store of the envelopes in its custody.
//
// It promises:
//   - Commit, Settle, HandOn and the other facts return after what they did is on
//     the disk, and have it done whole or not at all, whatever crashes;
//   - an envelope that was committed is there after every restart, with its
//     content, and with an entry in a queue or an inbox for every duty that is
//     open; no entry is there without its envelope;
//   - readers see what was committed at once, and one instant of it at a time;
//   - the same envelope is kept once, whatever comes again: a recipient whose
//     copy waits in an inbox or was settled never gets a second one, unless it
//     was given up and its ingress revived it;
//   - of two documents to which their sender gave one id the second is refused,
//     by their ingress and by the home of their recipients;
//   - content stays as long as something is to be done, and at the ingress for
//     30 days more what was given up for somebody;
//   - what has to be looked after stands in lists (lists.go): what nobody else
//     has, who has what, whose envelopes these are, what expires, was given up;
//   - content is checked against its checksum on every read, and against the
//     sender's SHA-256 before it is accepted;
//   - what the disk damaged is found, also where nobody reads, and never given
//     out; everything around it moves away, and what another holder has comes
//     back (quarantine.go). All of it is counted, traced and logged;
//   - space comes back: what every duty is done with is recycled within seconds,
//     and the journal takes at most 1.3 times what is alive, and two segments,
//     apart from a spare one and the files of four damaged ones; what is known of
//     an envelope after its release lies in the register (register.go);
//   - memory does not grow with sizes, queues or recipients that wait; when the
//     index falls behind, commits wait;
//   - a write or a sync that fails ends Run, and everything after it is refused
//     with STORAGE_FAILED; so does an index that is not to be trusted, which the
//     next start builds again from the journal (suspect.go);
//   - a disk that others have filled does not keep it from starting, and from
//     going on with what is here (reserve.go).
//
// It does not decide who gets what, and does not talk to anybody: Config.Mend
// does, for bytes that are damaged here. What no other holder has stays damaged
// (ErrDamaged), and is tried again. An index that is built again knows what is in
// custody and what was released, not the trace of the latter, nor how many were
// forgotten.
//
// How it works. The journal (spool/journal) is the truth: records of what
// happened, in order (record.go), and nothing is acknowledged before the sync
// that covers its record. What was released is written into the register before
// the journal lets go of its records. The machine (machine.go and apply_*.go) turns each
// record into changes of the index (spool/index), which readers look at; the lists
// follow from the state of each envelope, in one place (members.go). The
// index reaches the disk later, in large transactions that carry the position
// they reflect; Open replays from there. Segments that nothing needs any more
// are recycled, and what is left in nearly empty ones is written again (space.go).
//
// Invariants:
//   - Records are appended and applied in one order, by one goroutine.
//   - What is decided from the index about an envelope is decided while none of
//     its records is between journal and index (order.go), so no record is void.
//   - A record is recycled only when the index on disk no longer needs it, and,
//     if it says that an envelope is gone, after every record that would bring
//     the envelope back.
package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
	"github.com/truclienthong/truc/routing"
)

// Errors that callers tell apart.
var (
	// ErrNotFound says that the envelope, or the part, is not known here.
	ErrNotFound = errors.New("envelope is not known here")
	// ErrReleased says that the envelope is known, and its content was let go.
	ErrReleased = errors.New("content was released")
	// ErrDamaged says that the content here is not what was written.
	ErrDamaged = errors.New("content is damaged")
	// ErrClosed says that the spool has ended in good order.
	ErrClosed = index.ErrClosed
	// ErrLocked says that another process has the spool.
	ErrLocked = journal.ErrLocked
	// ErrBehind says that the journal lacks records that the index has seen:
	// somebody took segments away, or put an older copy back.
	ErrBehind = errors.New("journal is behind its index")
)

// Config is everything a spool needs.
type Config struct {
	// Dir holds the spool: journal/, register/ and index/ below it. Made if
	// missing.
	Dir string
	// Self is this relay.
	Self routing.RelayID
	// Retention says how long what is kept.
	Retention Retention
	// SegmentSize is the size of the journal's segments in bytes; 0: 64 MiB.
	SegmentSize int64
	// CopyRate bounds how fast what is alive in nearly empty segments is
	// written again, in bytes a second; 0: 64 MiB.
	CopyRate int
	// CopyAfter is how long a segment is full before what is alive in it may be
	// written again: most of it is done with by then; 0: 3 seconds.
	CopyAfter time.Duration
	// reclaimEvery is how often segments are looked at, scrubAfter when scrubbing
	// begins, mendAgain the pause behind a first try, stuckFor how long a segment
	// is left alone that cannot be emptied, reserveEvery how often the reserve is
	// looked at; tests hurry.
	reclaimEvery, scrubAfter, mendAgain, stuckFor, reserveEvery time.Duration
	// IndexMemory and IndexOverlay size the index, in bytes; 0: see there.
	IndexMemory, IndexOverlay int64
	// OnDamage is told of content found damaged; nil: it is only logged. It
	// must return soon.
	OnDamage func(id envelope.ID, part int, err error)
	// Mend asks another holder for bytes of a part that are damaged here. What
	// comes is proved by the part's SHA-256; a later call may ask another
	// holder. nil: nothing is mended.
	Mend func(ctx context.Context, record *envelope.Record, part int, offset, length uint64) (io.ReadCloser, error)
	// ScrubRate bounds how fast sealed segments and the index are read to find
	// damage, in bytes a second; 0: 4 MiB.
	ScrubRate int64
	// ScrubEvery is how often everything is read once; 0: 24 hours. The first
	// time is within it after the start.
	ScrubEvery time.Duration
	// Reserve is how many bytes of the disk new envelopes must leave; 0: the
	// larger of four segments and 5 % of the disk, the latter 4 GiB at most. It
	// is never less than what the spool needs to go on with what it has: a
	// segment, and three times IndexMemory or so.
	Reserve uint64
	// Ballast is how much of the disk is set aside so that the index can go on
	// when the disk is full, in bytes; 0: twice IndexMemory; below: none.
	Ballast int64
	// FS is the journal's file system; nil: the operating system's.
	FS journal.FS
	// Index is what the index lies on in place of badger, for simulations; nil:
	// badger. Whoever gives one gives another to the next start.
	Index index.Disk
	// Clock tells the time; nil: time.Now.
	Clock func() time.Time
	// Logger and Meter may be nil.
	Logger *slog.Logger
	Meter  metric.Meter
}

// Spool is an open spool.
type Spool struct {
	cfg        Config
	log        *slog.Logger
	now        func() time.Time
	journal    *journal.Journal
	register   *journal.Journal // see register.go
	store      *index.Store
	machine    *machine
	notify     notifier
	quarantine *quarantine
	// reflected is the last record that the index had when it was opened.
	reflected journal.Position
	// absent are segments that are needed and were not there; the cleaner's.
	absent map[uint64]bool

	// order is held while a record is decided on and appended; see order.go.
	order    chan struct{}
	sequence uint64      // the next to give out; guarded by order
	ending   bool        // groups is closed; guarded by order
	groups   chan *group // to the goroutine that applies
	pending  pending     // records between journal and index
	// claims are dedupe keys and deliveries that such records are about.
	claims claims

	// incoming is the writer of each envelope under way.
	incomingMu sync.Mutex
	incoming   map[envelope.ID]*Incoming

	// heads are the first live entries of the queues, as far as known.
	heads heads
	// due wakes the goroutine that releases content.
	due chan struct{}

	// failing ends with the failure that ends the spool.
	failing   context.Context
	setFailed context.CancelCauseFunc
	// ended is closed when nothing is applied any more.
	ended   chan struct{}
	ran     atomic.Bool
	closing sync.Once
	// observed is the meter's claim on Stats.
	observed metric.Registration
}

// Open opens the spool in cfg.Dir, or makes one, and brings its index to what
// the journal says. Nothing moves before Run.
func Open(cfg Config) (*Spool, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := &Spool{
		cfg: cfg, log: cfg.Logger, now: cfg.Clock,
		order:      make(chan struct{}, 1),
		groups:     make(chan *group, 256),
		incoming:   make(map[envelope.ID]*Incoming),
		due:        make(chan struct{}, 1),
		ended:      make(chan struct{}),
		machine:    newMachine(cfg.Self, cfg.Retention),
		quarantine: newQuarantine(),
		absent:     make(map[uint64]bool),
		notify:     notifier{relays: newStriped(), agencies: newStriped(), copies: newStriped()},
	}
	s.failing, s.setFailed = context.WithCancelCause(context.Background())
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open spool %s: %w", cfg.Dir, err)
	}
	if err := s.observe(); err != nil {
		return nil, errors.Join(fmt.Errorf("spool: meter: %w", err), s.store.Close(), s.register.Close(), s.journal.Close())
	}
	return s, nil
}

func (c *Config) check() error {
	if c.Dir == "" {
		return errors.New("no directory is given")
	}
	if _, err := routing.ParseRelayID(string(c.Self)); err != nil {
		return err
	}
	r := &c.Retention
	for _, d := range []time.Duration{r.Ingress, r.Dead, r.Transit, r.Record, r.Report, r.Transfer} {
		if d < 0 {
			return fmt.Errorf("retention %s is negative", d)
		}
	}
	orDefault(&r.Dead, 30*24*time.Hour)
	orDefault(&r.Record, 400*24*time.Hour)
	orDefault(&r.Report, 7*24*time.Hour)
	orDefault(&r.Transfer, 24*time.Hour)
	orDefault(&c.CopyRate, 64<<20)
	orDefault(&c.CopyAfter, 3*time.Second)
	orDefault(&c.reclaimEvery, 250*time.Millisecond)
	orDefault(&c.mendAgain, mendAgain)
	orDefault(&c.stuckFor, stuckFor)
	orDefault(&c.reserveEvery, time.Minute)
	orDefault(&c.SegmentSize, 64<<20)
	orDefault(&c.IndexMemory, index.DefaultMemory)
	orDefault(&c.IndexOverlay, index.DefaultOverlay)
	orDefault(&c.Ballast, 2*c.IndexMemory)
	orDefault(&c.ScrubRate, 4<<20)
	orDefault(&c.ScrubEvery, 24*time.Hour)
	orDefault(&c.scrubAfter, min(time.Minute, c.ScrubEvery))
	if c.ScrubRate < 0 || c.ScrubEvery < 0 {
		return errors.New("scrub rate or interval is negative")
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func orDefault[T comparable](v *T, value T) {
	if *v == *new(T) {
		*v = value
	}
}

func (c *Config) journalDir() string  { return filepath.Join(c.Dir, "journal") }
func (c *Config) indexDir() string    { return filepath.Join(c.Dir, "index") }
func (c *Config) registerDir() string { return filepath.Join(c.Dir, "register") }

// Run does the work of the spool until ctx ends, and returns the failure that
// ended it earlier. It runs once; calls that change something wait for it.
//
// The order of the end: nothing more is appended; what was appended is written
// and applied; the index is flushed; the journal stops.
func (s *Spool) Run(ctx context.Context) error {
	if s.ran.Swap(true) {
		return errors.New("spool: Run was called before")
	}
	defer close(s.ended)
	base := context.WithoutCancel(ctx)
	writing, stopWriting := context.WithCancel(base)
	defer stopWriting()
	flushing, stopFlushing := context.WithCancel(s.failing)
	defer stopFlushing()
	working, stopWorking := context.WithCancel(s.failing)
	defer stopWorking()

	written := s.start(func() error { return s.journal.Run(writing) })
	registered := s.start(func() error { return s.register.Run(writing) })
	flushed := s.start(func() error { return s.store.Run(flushing) })
	applied := s.start(func() error { return s.applyAll(s.failing) })
	released := s.start(func() error { return s.releaseDue(working) })
	reclaimed := s.start(func() error { return s.reclaim(working) })
	mended := s.start(func() error { return s.mendAll(working) })
	scrubbed := s.start(func() error { return s.scrub(working) })
	reserved := s.start(func() error { return s.keepReserve(working) })
	select {
	case <-ctx.Done():
	case <-s.failing.Done():
	}
	stopWorking()
	<-released
	<-reclaimed
	<-mended
	<-scrubbed
	<-reserved
	s.refuseAppends()
	<-applied
	stopFlushing()
	<-flushed
	if s.failing.Err() == nil {
		if err := s.store.Flush(base); err != nil {
			s.fail(err)
		}
	}
	stopWriting()
	<-written
	<-registered
	if s.failing.Err() != nil {
		return fmt.Errorf("spool %s: %w", s.cfg.Dir, context.Cause(s.failing))
	}
	return nil
}

// start runs fn, whose failure fails the spool; the channel is closed when it
// has returned.
func (s *Spool) start(fn func() error) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := fn(); err != nil {
			s.fail(err)
		}
	}()
	return done
}

// Close lets the directory go; call it after Run has returned, or instead of it.
func (s *Spool) Close() error {
	var err error
	s.closing.Do(func() {
		s.refuseAppends()
		err = errors.Join(s.observed.Unregister(), s.closeIndex(), s.register.Close(), s.journal.Close())
		if !s.ran.Swap(true) {
			close(s.ended)
		}
	})
	if err != nil {
		return fmt.Errorf("close spool %s: %w", s.cfg.Dir, err)
	}
	return nil
}

// fail remembers the first failure, from which there is no way back.
func (s *Spool) fail(err error) {
	if s.failing.Err() == nil {
		s.log.Error("spool failed, nothing more is accepted", "error", err)
		s.suspect(err)
	}
	s.setFailed(err)
}

// refusal is the answer once the spool has failed; nil before.
func (s *Spool) refusal() error {
	if s.failing.Err() == nil {
		return nil
	}
	return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STORAGE_FAILED,
		"storage failed: %v", context.Cause(s.failing))
}
