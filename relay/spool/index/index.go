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
	// Disk is what the index lies on in place of badger, for simulations; nil:
	// badger in Dir.
	Disk Disk
}

// Store is an open index.
type Store struct {
	cfg  Config
	disk Disk

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
	disk := cfg.Disk
	if disk == nil {
		var err error
		if disk, err = openBadger(cfg); err != nil {
			return nil, fmt.Errorf("open index: %w", err)
		}
	}
	s := &Store{cfg: cfg, disk: disk, frozen: make(chan frozen, 1), views: make(map[uint64]int)}
	s.unused = sync.NewCond(&s.mu)
	first := &layers{active: newTable(cfg.Overlay), flushed: max(disk.Last(), 1)}
	s.layers.Store(first)
	err := s.checkFormat()
	if err == nil {
		err = s.checkChain(s.layers.Load().flushed)
	}
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	return s, nil
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
	l := *s.layers.Load()
	l.flushed++
	err = s.disk.Write(l.flushed, func(txn Transaction) error {
		if err := txn.Set(FormatKey(), want); err != nil {
			return err
		}
		return link(txn, l.flushed)
	})
	if err != nil {
		return fmt.Errorf("mark index format: %w", err)
	}
	s.layers.Store(&l)
	return nil
}

// Close waits for open views and closes the disk; later views answer ErrClosed.
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
	if err := s.disk.Close(); err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// Prove reads everything that badger has in tables, and proves it.
func (s *Store) Prove(ctx context.Context, pace func(ctx context.Context, bytes int) error) error {
	// Without a view: it takes long, and badger keeps old versions for one.
	return s.disk.Prove(ctx, pace)
}

// Collect lets badger give back space that nothing needs.
func (s *Store) Collect() error {
	v := s.View()
	defer v.Close()
	if v.s == nil {
		return ErrClosed
	}
	if err := s.disk.Collect(); err != nil {
		return fmt.Errorf("collect index value log: %w", err)
	}
	return nil
}

// Size returns the bytes badger's tables take on disk.
func (s *Store) Size() int64 {
	v := s.View() // keeps the tables open
	defer v.Close()
	if v.s == nil {
		return 0
	}
	return s.disk.Size()
}

// FlushEvery is how often the goroutine that applies calls Freeze: how long a
// batch waits in the overlay of an idle relay.
const FlushEvery = 300 * time.Millisecond
