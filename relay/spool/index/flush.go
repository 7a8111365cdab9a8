package index

import (
	"context"
	"fmt"

	"github.com/dgraph-io/badger/v4/skl"
	"github.com/dgraph-io/badger/v4/y"
)

// Apply makes a batch visible, whole, to views taken from now on. The caller
// freezes or flushes when the overlay is Full afterwards, and not before: what
// Seal adds then reflects this batch too.
func (s *Store) Apply(b *Batch) {
	if b.Empty() {
		return
	}
	l := s.layers.Load()
	table := l.active
	if table.MemSize()+b.size > s.cfg.Overlay+slack {
		table = s.grow(b.size)
	}
	// Views do not see the version before it is published.
	b.writeTo(table, l.version+1)
	s.publish(func(l *layers) { l.version++ })
}

// grow puts a larger table in place of the active one.
func (s *Store) grow(need int64) *skl.Skiplist {
	old := s.layers.Load().active
	table := newTable(old.MemSize() + need)
	it := old.NewIterator()
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		table.Put(it.Key(), it.Value())
	}
	s.publish(func(l *layers) { l.active = table })
	return table
}

// slack is room beyond the size at which a table is full, so that most batches
// fit into one that is nearly full.
const slack = 256 << 10

// newTable returns a table with room for size bytes. Copies of entries may take
// a little more than the originals, because heights are drawn anew.
func newTable(size int64) *skl.Skiplist {
	return skl.NewSkiplist(size + size/4 + slack + 2*nodeSize)
}

// Full reports whether it is time for Freeze or Flush.
func (s *Store) Full() bool { return s.layers.Load().active.MemSize() >= s.cfg.Overlay }

// Idle reports whether there is something to freeze, and nobody to wait for.
func (s *Store) Idle() bool {
	l := s.layers.Load()
	return l.full == nil && !l.active.Empty()
}

// publish replaces the layers by a changed copy.
func (s *Store) publish(change func(*layers)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := *s.layers.Load()
	change(&l)
	s.layers.Store(&l)
}

// Freeze hands what was applied to Run, to be flushed; it waits until Run has
// finished the table before.
func (s *Store) Freeze(ctx context.Context) error {
	l := s.layers.Load()
	if l.free != nil {
		select {
		case <-l.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	f := frozen{table: l.active}
	f.flushed = s.cfg.Seal(&f.seal)
	next := newTable(s.cfg.Overlay)
	s.publish(func(l *layers) {
		l.full, l.active, l.free = f.table, next, make(chan struct{})
	})
	// Has room: the table before was taken out, or free would not be closed.
	s.frozen <- f
	return nil
}

// Run flushes full tables until ctx ends; it returns the first failure.
func (s *Store) Run(ctx context.Context) error {
	for {
		select {
		case f := <-s.frozen:
			// A flush that has begun is finished; it ends with the journal.
			if err := s.flush(context.WithoutCancel(ctx), f); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Flush writes everything that was applied; for use while Run does not run.
func (s *Store) Flush(ctx context.Context) error {
	for {
		select {
		case f := <-s.frozen:
			// A flush that has begun is finished; it ends with the journal.
			if err := s.flush(context.WithoutCancel(ctx), f); err != nil {
				return err
			}
			continue
		default:
		}
		if s.layers.Load().active.Empty() {
			return nil
		}
		if err := s.Freeze(ctx); err != nil {
			return err
		}
	}
}

func (s *Store) flush(ctx context.Context, f frozen) error {
	// The index must never know of more than the journal surely has: a record
	// that the power took away would otherwise be skipped by the next replay.
	if err := s.cfg.Barrier(ctx); err != nil {
		return fmt.Errorf("sync journal before index: %w", err)
	}
	number := s.layers.Load().flushed + 1
	if err := s.write(f, number); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	s.mu.Lock()
	l := *s.layers.Load()
	close(l.free)
	l.full, l.free, l.flushed = nil, nil, number
	s.layers.Store(&l)
	oldest := number
	for v := range s.views {
		oldest = min(oldest, v)
	}
	s.mu.Unlock()
	s.disk.Forget(oldest)
	f.flushed()
	return nil
}

// write puts the newest version of every key into one transaction.
func (s *Store) write(f frozen, number uint64) error {
	return s.disk.Write(number, func(txn Transaction) error {
		for _, o := range f.seal.ops {
			if err := setOrDelete(txn, o.key, o.value, o.mark); err != nil {
				return err
			}
		}
		it := f.table.NewIterator()
		defer it.Close()
		for it.SeekToFirst(); it.Valid(); {
			key := y.ParseKey(it.Key())
			newest := it.Value()
			oldest := newest
			for it.Next(); it.Valid() && y.SameKey(y.KeyWithTs(key, 0), it.Key()); it.Next() {
				oldest = it.Value()
			}
			if newest.UserMeta&gone != 0 && oldest.UserMeta&fresh != 0 {
				continue // came and went without the disk
			}
			if err := setOrDelete(txn, key, newest.Value, newest.UserMeta); err != nil {
				return err
			}
		}
		return link(txn, number)
	})
}

func setOrDelete(txn Transaction, key, value []byte, mark byte) error {
	if mark&gone != 0 {
		return txn.Delete(key)
	}
	return txn.Set(key, value)
}
