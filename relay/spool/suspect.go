package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/truclienthong/truc/relay/spool/index"
)

// errUnfit says that the index is of no use, whatever the reason: it is built
// again from the journal, which knows everything that is in custody.
var errUnfit = errors.New("index cannot be used")

// unfit tells an index that is of no use from a machine that is short of
// something, or cannot read its disk just now: with more of it, or at the next
// start, the index is as good as before.
func unfit(err error) error {
	if err == nil {
		return nil
	}
	if unread(err) {
		return fmt.Errorf("index cannot be read; it may be whole, and is built again from the journal where %d starts in a row cannot read it: %w",
			maxOpenings, err)
	}
	for _, short := range []error{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
		syscall.EACCES, syscall.EPERM, syscall.EROFS,
	} {
		if errors.Is(err, short) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", errUnfit, err)
}

// unread reports whether a disk gave no answer, which says nothing of what is on
// it.
func unread(err error) bool { return errors.Is(err, syscall.EIO) || errors.Is(err, index.ErrUnread) }

// Beside the index stand, as long as they apply:
//
//	index.suspect  why the last run could not go on with it; it is not opened again
//	index.opening  one byte for each start that opened it and did not come to an end
//	index.damaged  the last one that was set aside, as it was
const (
	suspectMark = ".suspect"
	openingMark = ".opening"
	asideMark   = ".damaged"
	// maxOpenings is how many starts in a row may die of one index. Some may have
	// been killed by somebody, or by power that comes and goes; an index that is
	// built again has forgotten what the journal has recycled. The start after is
	// before systemd gives a service up (five in a row).
	maxOpenings = 4
)

func (s *Spool) mark(name string) string { return s.cfg.indexDir() + name }

// suspected says why the index must not be opened.
func (s *Spool) suspected() error {
	if _, err := os.Stat(s.cfg.indexDir()); errors.Is(err, fs.ErrNotExist) {
		return s.unmark(suspectMark, openingMark) // it was set aside, or never was
	}
	why, err := os.ReadFile(s.mark(suspectMark))
	if err == nil {
		return fmt.Errorf("%w: the last run found: %s", errUnfit, strings.TrimSpace(string(why)))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read what is known of the index: %w", err)
	}
	starts, err := os.ReadFile(s.mark(openingMark))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read what is known of the index: %w", err)
	}
	if len(starts) >= maxOpenings {
		return fmt.Errorf("%w: %d starts did not survive opening it", errUnfit, len(starts))
	}
	return nil
}

// tryIndex does what may end the process, and leaves a mark meanwhile. The mark
// stays where the disk could not be read.
func (s *Spool) tryIndex(fn func() error) error {
	f, err := os.OpenFile(s.mark(openingMark), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err == nil {
		_, err = f.WriteString("x")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		// Only a disk without room for one byte; the index may be good.
		s.log.Warn("cannot note that the index is being opened", "error", err)
	}
	err = fn()
	if unread(err) {
		return err
	}
	return errors.Join(err, s.unmark(openingMark))
}

// unmark removes marks for good: one that came back after a cut of the power would
// speak against an index that nothing is wrong with.
func (s *Spool) unmark(names ...string) error {
	removed := false
	for _, name := range names {
		err := os.Remove(s.mark(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove mark on the index: %w", err)
		}
		removed = removed || err == nil
	}
	if !removed {
		return nil
	}
	if err := s.fs().SyncDir(s.cfg.Dir); err != nil {
		return fmt.Errorf("remove mark on the index: %w", err)
	}
	return nil
}

// suspect has the next start build the index again, if that is what a failure
// speaks for.
func (s *Spool) suspect(failure error) {
	if !errors.Is(failure, errUnfit) && !errors.Is(failure, index.ErrDamaged) && !errors.Is(failure, errFormat) || unread(failure) {
		return
	}
	err := os.WriteFile(s.mark(suspectMark), []byte(failure.Error()+"\n"), 0o600)
	if err == nil {
		err = s.fs().SyncDir(s.cfg.Dir)
	}
	s.log.Error("index is not to be trusted: the next start builds it again from the journal",
		"error", failure, "marked", err == nil)
}

// setAside puts the index away. A kill on the way leaves one that is still
// marked, or none.
func (s *Spool) setAside(why error) error {
	dir, aside := s.cfg.indexDir(), s.mark(asideMark)
	s.log.Error("index is set aside, and built again from the journal", "reason", why, "aside", aside)
	if err := s.closeIndex(); err != nil {
		s.log.Warn("close the index that is set aside", "error", err)
	}
	s.store = nil
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("set index aside: %w", err)
	}
	if err := os.Rename(dir, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set index aside: %w", err)
	}
	if err := s.fs().SyncDir(s.cfg.Dir); err != nil {
		return fmt.Errorf("set index aside: %w", err)
	}
	if err := s.unmark(suspectMark, openingMark); err != nil {
		return err
	}
	*s.machine = *newMachine(s.cfg.Self, s.cfg.Retention)
	return nil
}
