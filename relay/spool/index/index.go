// Package index keeps what the journal says in a form that can be looked up:
// an ordered map of keys to values, in badger, behind an overlay in memory.
//
// It promises:
//   - what Apply has put in is seen by every View taken afterwards, all of one
//     batch or nothing of it;
//   - a View is a consistent picture of one instant, whatever is applied or
//     flushed while it is open, and taking one never waits for the disk;
//   - what reaches the disk is a prefix of the batches: one transaction, synced,
//     holds every batch up to some point and what Config.Seal added for that
//     point. So the position that Seal writes is exact;
//   - damage of its files is found by Open, and by Prove while it is open;
//   - memory is bounded: at most two overlay tables exist, and Freeze waits
//     while both are full.
//
// Between two Proves a block that is damaged after Open looks like keys that do
// not exist: badger has no other way to say it. What is decided then is decided
// by the journal again, once the index has been built anew.
//
// It does not promise durability: a batch that was not flushed is lost with the
// process, and is applied again from the journal. It knows nothing of envelopes;
// the layout of the keys is in layout.go, the values belong to package spool.
//
// One goroutine calls Apply, Freeze, Flush and Latest. Any number take Views.
package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/skl"
)

var (
	// ErrFormat says that the directory holds an index of another layout.
	ErrFormat = errors.New("index has another format")
	// ErrClosed says that the index was closed.
	ErrClosed = errors.New("spool is closed")
)

// formatVersion changes with every incompatible change of keys or values; an
// index with another one is rebuilt from the journal.
const formatVersion = 2

const (
	// DefaultMemory is the size of badger's memtable. Badger allows a
	// transaction 15 % of it, 9.6 MB and 104,000 entries: an overlay table, and
	// one envelope with 20,000 recipients on top of it.
	DefaultMemory = 64 << 20
	// DefaultOverlay is the size of one overlay table.
	DefaultOverlay = 4 << 20
	// valueThreshold keeps every value out of the value log.
	valueThreshold = 1 << 20
)

// Config is everything an index needs.
type Config struct {
	// Dir is badger's directory.
	Dir string
	// Memory is the size of badger's memtable, in bytes; 0: DefaultMemory.
	Memory int64
	// Overlay is the size of one overlay table, in bytes; 0: DefaultOverlay.
	Overlay int64
	// Barrier returns when everything that has been applied is durable in the
	// journal; called before each transaction.
	Barrier func(context.Context) error
	// Seal gives what must reflect exactly the last batch of a transaction, and
	// what to call once the transaction is durable. Views see it only then.
	Seal func(*Batch) (flushed func())
	// OnDamage is told when something cannot be read; nil: nobody is. It must
	// return soon.
	OnDamage func(error)
	// Logger takes badger's warnings.
	Logger *slog.Logger
}

// Store is an open index.
type Store struct {
	cfg Config
	db  *badger.DB

	layers atomic.Pointer[layers]
	// frozen hands the full overlay table to Run.
	frozen chan frozen

	mu sync.Mutex // guards what follows, and every change of layers
	// views counts open views by the transaction they read from.
	views  map[uint64]int
	closed bool
	// unused is signalled when the last view is closed.
	unused *sync.Cond

	// Owned by the goroutine that applies.
	latest *View
}

// layers is what one instant consists of: the newest version first.
type layers struct {
	// active takes batches, full waits to be flushed or is nil.
	active, full *skl.Skiplist
	// version is the last batch to be seen.
	version uint64
	// flushed is the number of the last transaction in badger.
	flushed uint64
	// free signals that full was flushed; replaced whenever full is set.
	free chan struct{}
}

// frozen is one transaction to be.
type frozen struct {
	table   *skl.Skiplist
	seal    Batch
	flushed func()
}

// Open opens or creates the index in cfg.Dir.
func Open(cfg Config) (*Store, error) {
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	if cfg.Overlay == 0 {
		cfg.Overlay = DefaultOverlay
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.OnDamage == nil {
		cfg.OnDamage = func(error) {}
	}
	if cfg.Barrier == nil || cfg.Seal == nil {
		return nil, errors.New("index: Barrier and Seal are needed")
	}
	if cfg.Memory < 4<<20 || cfg.Overlay < 64<<10 || cfg.Overlay > cfg.Memory/10 {
		return nil, fmt.Errorf("index: memtable of %d and overlay of %d bytes do not fit each other", cfg.Memory, cfg.Overlay)
	}
	if err := proveFiles(context.Background(), cfg); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	db, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	s := &Store{cfg: cfg, db: db, frozen: make(chan frozen, 1), views: make(map[uint64]int)}
	s.unused = sync.NewCond(&s.mu)
	first := &layers{active: newTable(cfg.Overlay), flushed: max(db.MaxVersion(), 1)}
	s.layers.Store(first)
	err = s.checkFormat()
	if err == nil {
		err = s.checkChain(s.layers.Load().flushed)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func badgerOptions(cfg Config) badger.Options {
	threshold := min(int64(valueThreshold), cfg.Memory*15/100)
	return badger.DefaultOptions(cfg.Dir).
		WithSyncWrites(true).
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithValueThreshold(threshold).
		// Nothing goes to the value log, but badger maps twice this size.
		WithValueLogFileSize(8 << 20).
		WithMemTableSize(cfg.Memory).
		WithNumMemtables(1).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(6).
		WithNumCompactors(2).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(32 << 20).
		WithMetricsEnabled(false).
		WithVerifyValueChecksum(true).
		// Open proves whole tables before.
		WithChecksumVerificationMode(options.OnBlockRead).
		WithLogger(quiet{cfg.Logger})
}

func (s *Store) checkFormat() error {
	v := s.View()
	defer v.Close()
	got, found, err := v.Get(FormatKey())
	if err != nil {
		return fmt.Errorf("read index format: %w", err)
	}
	want := binary.BigEndian.AppendUint32(nil, formatVersion)
	if found {
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%w: %x, this program writes %x", ErrFormat, got, want)
		}
		return nil
	}
	txn := s.db.NewTransactionAt(0, true)
	defer txn.Discard()
	if err := txn.Set(FormatKey(), want); err != nil {
		return fmt.Errorf("mark index format: %w", err)
	}
	l := *s.layers.Load()
	l.flushed++
	if err := link(txn, l.flushed); err != nil {
		return fmt.Errorf("mark index format: %w", err)
	}
	if err := txn.CommitAt(l.flushed, nil); err != nil {
		return fmt.Errorf("mark index format: %w", err)
	}
	s.layers.Store(&l)
	return nil
}

// Close waits for open views and closes badger; later views answer ErrClosed.
// What was not flushed is lost. Run, and the goroutine that applies, must have
// returned.
func (s *Store) Close() error {
	if s.latest != nil {
		s.latest.Close()
		s.latest = nil
	}
	s.mu.Lock()
	s.closed = true
	for len(s.views) > 0 {
		s.unused.Wait()
	}
	s.mu.Unlock()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// Collect lets badger give back space of its value log. It holds no value of
// ours, and yet its files are only dropped when asked for.
func (s *Store) Collect() error {
	v := s.View()
	defer v.Close()
	if v.s == nil {
		return ErrClosed
	}
	err := s.db.RunValueLogGC(0.5)
	if err == nil || errors.Is(err, badger.ErrNoRewrite) || errors.Is(err, badger.ErrRejected) {
		return nil
	}
	return fmt.Errorf("collect index value log: %w", err)
}

// Size returns the bytes badger's tables take on disk.
func (s *Store) Size() int64 {
	v := s.View() // keeps the tables open
	defer v.Close()
	if v.s == nil {
		return 0
	}
	var n int64
	for _, t := range s.db.Tables() {
		n += int64(t.OnDiskSize)
	}
	return n
}

// FlushEvery is how often the goroutine that applies calls Freeze: how long a
// batch waits in the overlay of an idle relay.
const FlushEvery = 300 * time.Millisecond

// quiet passes badger's warnings and errors on and drops its chatter.
type quiet struct{ log *slog.Logger }

func (q quiet) Errorf(format string, args ...any) {
	q.log.Error("index", "message", fmt.Sprintf(format, args...))
}
func (q quiet) Warningf(format string, args ...any) {
	q.log.Warn("index", "message", fmt.Sprintf(format, args...))
}
func (quiet) Infof(string, ...any)  {}
func (quiet) Debugf(string, ...any) {}
