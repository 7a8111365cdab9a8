package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// quarantineDir holds the files of damaged segments, as they were found.
	quarantineDir    = "quarantine"
	suffixQuarantine = ".damaged"
	// maxQuarantine files stay; the oldest goes first.
	maxQuarantine = 4
)

// putAside moves the file of a damaged segment out of the way of everything
// that writes. The caller syncs the journal's directory; a kill before that
// leaves the file in one of the two.
func (j *Journal) putAside(number uint64) error {
	dir := filepath.Join(j.dir, quarantineDir)
	if err := j.fs.MakeDir(dir); err != nil {
		return err
	}
	aside := filepath.Join(dir, fmt.Sprintf("%016x", number)+suffixQuarantine)
	if err := j.fs.Rename(j.path(number, suffixLive), aside); err != nil {
		return err
	}
	j.log.Warn("damaged segment is put aside, nothing in it is needed any more", "segment", number, "file", aside)
	names, err := j.fs.List(dir)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, suffixQuarantine) })
	slices.Sort(names)
	for _, name := range names[:max(0, len(names)-maxQuarantine)] {
		j.log.Warn("oldest of the segments put aside is removed", "file", name)
		if err := j.fs.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return j.fs.SyncDir(dir)
}

// Stock has a spare file wait, if none does: the next start, or the next segment,
// then needs no room on the disk. For that it may go down to half of the floor.
func (j *Journal) Stock() error {
	if err := j.stock(); err != nil {
		return fmt.Errorf("keep a spare segment: %w", err)
	}
	return nil
}

func (j *Journal) stock() error {
	if j.readOnly {
		return ErrReadOnly
	}
	j.recycling.Lock()
	defer j.recycling.Unlock()
	j.mu.RLock()
	enough := len(j.pool) > 0 || j.closed
	j.mu.RUnlock()
	if enough {
		return nil
	}
	// The writer may have taken the one before, and not renamed it yet.
	j.spares++
	f, err := j.allocate(j.spares, j.segmentSize, j.floor/2)
	if err != nil {
		return err
	}
	undo := func(err error) error { return errors.Join(err, f.file.Close(), j.fs.Remove(f.name)) }
	if err := f.file.Sync(); err != nil {
		return undo(err)
	}
	free := j.path(j.spares, suffixFree)
	if err := j.fs.Rename(f.name, free); err != nil {
		return undo(err)
	}
	f.name = free
	if err := j.fs.SyncDir(j.dir); err != nil {
		return undo(err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return f.file.Close()
	}
	j.pool = append(j.pool, f)
	return nil
}
