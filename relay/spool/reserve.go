package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/truclienthong/truc/relay/spool/journal"
)

// What a full disk leaves possible. New envelopes stop long before (Space), so
// that what is in custody can go on: facts are small. Where others fill the disk,
// two things have been set aside. The journal has a spare segment, which the next
// start, or the next segment, is made of; after it come short ones, as long as
// there is room for them. The index, whose files badger writes through memory and
// ends the process if it cannot, has the ballast: a file that is removed when
// room is short, and made again when there is plenty. Before each transaction of
// the index there must be room for it; if there is not, the spool fails in good
// order. Who takes that room too leaves a relay that does not start until there
// is some; it has lost nothing.

// maxReserve bounds what is reserved by default on a large disk.
const maxReserve = 4 << 30

// Space returns the bytes free on the file system of the spool, and those that
// new envelopes must leave: below, only what is in custody goes on.
func (s *Spool) Space() (free, reserve uint64, err error) {
	free, total, err := s.fs().Space(s.cfg.Dir)
	if err != nil {
		return 0, 0, err
	}
	reserve = s.cfg.Reserve
	if reserve == 0 {
		reserve = max(4*uint64(s.cfg.SegmentSize), min(total/20, maxReserve))
	}
	// New envelopes stop before the journal has to.
	return free, max(reserve, s.cfg.floor()+uint64(s.cfg.SegmentSize+s.cfg.registerSegment())), nil
}

func (s *Spool) fs() journal.FS {
	if s.cfg.FS == nil {
		return journal.System()
	}
	return s.cfg.FS
}

func (s *Spool) ballast() string { return filepath.Join(s.cfg.Dir, "ballast") }

// indexRoom is what the index may need at any moment: a table in memory becomes
// one on the disk, while its log is still there and grows.
func (c *Config) indexRoom() uint64 { return uint64(c.IndexMemory + 4*c.IndexOverlay) }

// shortOfRoom is where the ballast is given up, and short segments are begun.
func (c *Config) shortOfRoom() uint64 { return c.indexRoom() + uint64(c.IndexMemory) }

// floor is what the journal leaves for the index: half of it is enough for some
// starts.
func (c *Config) floor() uint64 { return 2 * (c.indexRoom() + 8<<20) }

// makeRoom sees to it that the index can write, or says that it cannot.
func (s *Spool) makeRoom() error {
	free, _, err := s.fs().Space(s.cfg.Dir)
	if err != nil {
		return err
	}
	if free >= s.cfg.shortOfRoom() {
		return nil
	}
	switch err := s.fs().Remove(s.ballast()); {
	case err == nil:
		s.log.Error("disk is full: what was set aside for it is used now", "free", free)
		if free, _, err = s.fs().Space(s.cfg.Dir); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("use what was set aside: %w", err)
	}
	if need := s.cfg.indexRoom(); free < need {
		return fmt.Errorf("%d bytes are free on the disk, the index needs %d: %w", free, need, syscall.ENOSPC)
	}
	return nil
}

// keepReserve sets aside what a full disk will need, while there is room, until
// ctx ends.
func (s *Spool) keepReserve(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.reserveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		// A failure here has touched nothing that somebody relies on.
		for _, j := range []*journal.Journal{s.journal, s.register} {
			if err := j.Stock(); err != nil && !errors.Is(err, syscall.ENOSPC) {
				s.log.Warn("spare segment could not be set aside", "error", err)
			}
		}
		free, reserve, err := s.Space()
		if err != nil {
			return err
		}
		if s.cfg.Ballast < 0 || free < reserve+uint64(s.cfg.Ballast) {
			continue
		}
		if err := s.setBallast(); err != nil {
			s.log.Warn("ballast could not be set aside", "error", err)
		}
	}
}

func (s *Spool) setBallast() error {
	fsys := s.fs()
	f, err := fsys.Open(s.ballast(), true)
	if err == nil {
		size, err := f.Size()
		if err := errors.Join(err, f.Close()); err != nil || size == s.cfg.Ballast {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f, err = fsys.Create(s.ballast()); err != nil {
		return err
	}
	err = f.Allocate(s.cfg.Ballast)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, fsys.Remove(s.ballast()))
	}
	return fsys.SyncDir(s.cfg.Dir)
}
