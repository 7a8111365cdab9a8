package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// open opens journal and index and brings them together.
func (s *Spool) open() (err error) {
	s.journal, err = journal.Open(journal.Config{
		Dir: s.cfg.journalDir(), SegmentSize: s.cfg.SegmentSize, PoolSize: 1, FS: s.cfg.FS,
		Logger: s.log, Meter: s.cfg.Meter,
	})
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if s.store != nil {
			err = errors.Join(err, s.store.Close())
		}
		err = errors.Join(err, s.journal.Close())
	}()
	if err := s.openIndex(); err != nil {
		return err
	}
	return s.catchUp()
}

// openIndex opens the index; one that cannot be read is set aside, and the new
// one is built from the journal.
func (s *Spool) openIndex() error {
	cfg := index.Config{
		Dir: s.cfg.indexDir(), Memory: s.cfg.IndexMemory, Overlay: s.cfg.IndexOverlay, Logger: s.log,
		Seal: s.machine.seal,
		Barrier: func(ctx context.Context) error {
			if !s.ran.Load() {
				return nil // what Open replays is durable
			}
			return s.journal.Sync(ctx)
		},
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make index directory: %w", err)
	}
	err := s.loadIndex(cfg)
	if err == nil {
		return nil
	}
	aside := cfg.Dir + ".damaged"
	s.log.Error("index cannot be read: it is set aside, and built again from the journal", "error", err, "aside", aside)
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.log.Warn("close damaged index", "error", err)
		}
		s.store = nil
	}
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("set index aside: %w", err)
	}
	if err := os.Rename(cfg.Dir, aside); err != nil {
		return fmt.Errorf("set index aside: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make index directory: %w", err)
	}
	*s.machine = *newMachine(s.cfg.Self, s.cfg.Retention)
	return s.loadIndex(cfg)
}

func (s *Spool) loadIndex(cfg index.Config) error {
	store, err := index.Open(cfg)
	if err != nil {
		return err
	}
	s.store, s.machine.store = store, store
	v := store.View()
	defer v.Close()
	return s.machine.load(v)
}

// catchUp compares what the index reflects with what the journal has, and
// applies what the index lacks.
func (s *Spool) catchUp() error {
	began := time.Now()
	m := s.machine
	tail := s.journal.Tail()
	switch {
	case m.position.Compare(tail) > 0:
		return fmt.Errorf("%w: index reflects %s, journal ends at %s; put the journal back, or take the index away to go on with what is left",
			ErrBehind, m.position, tail)
	case m.position == journal.Position{} && tail.Segment > 1:
		s.log.Warn("index is empty: it is built from the journal", "segments", len(s.journal.Segments()))
	}
	records := 0
	err := s.journal.Replay(m.position, func(rec journal.Record) error {
		if rec.Position == m.position {
			return nil // the last one that is reflected
		}
		r, err := recordOf(rec.Type, rec.Payload)
		if err != nil {
			return fmt.Errorf("%s: %w", rec.Position, err)
		}
		records++
		if err := m.apply(r, rec.Position, rec.Size); err != nil {
			return err
		}
		m.woken = woken{} // nobody waits yet
		if s.store.Full() {
			return s.store.Flush(context.Background())
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.sequence = m.sequence
	s.reconcile()
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
// was never counted.
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
