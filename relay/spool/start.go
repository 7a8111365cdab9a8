package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// open opens journal and index and brings them together. An index that cannot be
// used is set aside once, and the new one is built from the journal.
func (s *Spool) open() (err error) {
	if err := s.fs().MakeDir(s.cfg.Dir); err != nil {
		return err
	}
	if err := s.makeRoom(); err != nil {
		return err
	}
	s.journal, err = journal.Open(journal.Config{
		Dir: s.cfg.journalDir(), SegmentSize: s.cfg.SegmentSize, PoolSize: 1, Floor: s.cfg.floor(),
		FS: s.cfg.FS, Logger: s.log, Meter: s.cfg.Meter,
	})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeIndex(), s.closeRegister(), s.journal.Close())
		}
	}()
	if err := s.openRegister(); err != nil {
		return err
	}
	err = s.suspected()
	if err == nil {
		err = s.openIndex()
	}
	if err == nil || !errors.Is(err, errUnfit) {
		return err
	}
	if err := s.setAside(err); err != nil {
		return err
	}
	return s.openIndex()
}

// openIndex opens the index and brings it to what the journal says.
func (s *Spool) openIndex() error {
	return s.tryIndex(func() error {
		if err := s.loadIndex(); err != nil {
			return err
		}
		return s.catchUp()
	})
}

func (s *Spool) loadIndex() error {
	store, err := index.Open(index.Config{
		Dir: s.cfg.indexDir(), Memory: s.cfg.IndexMemory, Overlay: s.cfg.IndexOverlay, Logger: s.log, Disk: s.cfg.Index,
		Seal: s.machine.seal,
		OnDamage: func(err error) {
			if s.ran.Load() { // Open finds out by itself
				s.fail(err)
			}
		},
		Barrier: func(ctx context.Context) error {
			if err := s.makeRoom(); err != nil {
				return err
			}
			if !s.ran.Load() {
				return nil // what Open replays is durable
			}
			return s.journal.Sync(ctx)
		},
	})
	if err != nil {
		return unfit(err)
	}
	s.store, s.machine.store = store, store
	v := store.View()
	defer v.Close()
	return unfit(s.machine.load(v))
}

// closeIndex closes it, if there is room for what badger writes then; if not, it
// is left as a kill would leave it.
func (s *Spool) closeIndex() error {
	if s.store == nil {
		return nil
	}
	if err := s.makeRoom(); err != nil {
		return fmt.Errorf("index is left as it is: %w", err)
	}
	return s.store.Close()
}

// catchUp compares what the index reflects with what the journal has, and
// applies what the index lacks.
func (s *Spool) catchUp() error {
	began := time.Now()
	m := s.machine
	tail := s.journal.Tail()
	behind := func() error {
		return fmt.Errorf("%w: index reflects %s, journal ends at %s; put the journal back, or take the index away to go on with what is left",
			ErrBehind, m.position, tail)
	}
	switch {
	case m.position.Compare(tail) > 0:
		return behind()
	case m.position == journal.Position{} && tail.Segment > 1:
		s.log.Warn("index is empty: it is built from the journal", "segments", len(s.journal.Segments()))
	}
	records := 0
	s.reflected = m.position
	m.rebuilding = m.position == journal.Position{}
	defer func() { m.rebuilding = false }()
	if m.rebuilding {
		if err := s.readRegister(); err != nil {
			return err
		}
	}
	err := s.journal.Replay(m.position, func(rec journal.Record) error {
		if rec.Position == s.reflected {
			return nil
		}
		r, err := recordOf(rec.Type, rec.Payload)
		if err != nil {
			return fmt.Errorf("%s: %w", rec.Position, err)
		}
		records++
		if r, ok := r.(*indexed); ok && s.reflected != (journal.Position{}) && r.Position.Compare(s.reflected) > 0 {
			return unfit(fmt.Errorf("it reflects %s, and had reached %s when segments were recycled", s.reflected, r.Position))
		}
		if err := m.apply(r, rec.Position, rec.Size); err != nil {
			return unfit(err)
		}
		m.woken = woken{} // nobody waits yet
		if s.store.Full() {
			return s.store.Flush(context.Background())
		}
		return nil
	})
	if errors.Is(err, journal.ErrAhead) { // in the middle: its segment ended before
		return behind()
	}
	if err != nil {
		return err
	}
	s.sequence = m.sequence
	s.reconcile()
	if err := s.renewRegister(); err != nil {
		return unfit(err)
	}
	if err := s.store.Flush(context.Background()); err != nil {
		return err
	}
	if records > 0 {
		s.log.Info("spool is up to date", "records", records, "took", time.Since(began))
	}
	return s.assess()
}

// reconcile makes the segments that the index counts those that the journal
// has: a recycled one may not have been crossed off, an empty or a damaged one
// was never counted. One that is needed and not there is like one of which
// nothing can be read.
func (s *Spool) reconcile() {
	there := make(map[uint64]bool)
	for _, info := range s.journal.Segments() {
		there[info.Number] = true
	}
	var gone []uint64
	for n, seg := range s.machine.segments {
		if there[n] {
			continue
		}
		if seg.live > 0 {
			s.log.Error("journal lacks a segment that is needed", "segment", n, "bytes", seg.live)
			s.absent[n] = true
			continue
		}
		gone = append(gone, n)
	}
	s.machine.recycled(gone...)
	for n := range there {
		if s.machine.segments[n] == nil {
			s.machine.live(n, 0)
		}
	}
}
