package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// create makes the file of a new segment that a record of this size fits in.
//
// The file gets its head, and that is synced, while it is still named as a
// spare one; only then is it renamed, and the directory synced. A kill before
// the rename leaves a spare file, whose content nobody reads; after it, an
// empty segment. A recycled file still holds the records of its former
// segment, none of which proves itself under the new number.
func (j *Journal) create(number, first uint64, record int64) (*segment, error) {
	spare, size, err := j.spare(number, record)
	if err != nil {
		return nil, fmt.Errorf("begin segment %d: %w", number, err)
	}
	h := segmentHeader{version: formatVersion, id: j.id, number: number, size: size, first: first}.encode()
	if err := j.christen(spare, j.path(number, suffixLive), h, size); err != nil {
		spare.file.Close()
		return nil, fmt.Errorf("begin segment %d: %w", number, err)
	}
	s := &segment{number: number, first: first, size: size, seed: seedOf(j.id, number), file: spare.file}
	s.end.Store(segmentHead)
	return s, nil
}

// spare takes a file out of the pool, or makes one. Where there is no room for a
// whole segment a short one is made: with it a journal can be opened, and go on
// for a while, on a disk that others have filled. Without a record it is for a
// start.
func (j *Journal) spare(number uint64, record int64) (freeFile, int64, error) {
	size := fileSize(j.segmentSize, record)
	j.mu.Lock()
	if n := len(j.pool); n > 0 && size == j.segmentSize {
		f := j.pool[n-1]
		j.pool = j.pool[:n-1]
		j.mu.Unlock()
		return f, size, nil
	}
	j.mu.Unlock()
	f, err := j.allocate(number, size, j.floor)
	if short := fileSize(min(shortSegment, j.segmentSize), record); errors.Is(err, syscall.ENOSPC) && (short < size || j.floor > 0) {
		j.log.Warn("no room for a whole segment: a short one is begun", "segment", number, "bytes", short, "error", err)
		floor := j.floor / 2
		if record == 0 {
			floor = 0 // without it there is no start
		}
		size = short
		f, err = j.allocate(number, size, floor)
	}
	return f, size, err
}

// allocate makes a file of this size that is named as one in the making, and
// leaves nothing behind if it cannot; so much of the disk has to stay free.
func (j *Journal) allocate(number uint64, size int64, floor uint64) (freeFile, error) {
	free, _, err := j.fs.Space(j.dir)
	if err != nil {
		return freeFile{}, err
	}
	if free < uint64(size)+floor {
		return freeFile{}, fmt.Errorf("%d bytes are free, %d have to stay: %w", free, floor, syscall.ENOSPC)
	}
	name := j.path(number, suffixNew)
	f, err := j.fs.Create(name)
	if err != nil {
		return freeFile{}, err
	}
	if err := f.Allocate(size); err != nil {
		return freeFile{}, errors.Join(fmt.Errorf("allocate %d bytes: %w", size, err), f.Close(), j.fs.Remove(name))
	}
	return freeFile{name: name, file: f}, nil
}

func (j *Journal) christen(spare freeFile, name string, h []byte, size int64) error {
	if err := spare.file.WriteAt([][]byte{h}, 0); err != nil {
		return err
	}
	if err := spare.file.WriteAt([][]byte{make([]byte, sealLength), h}, size-segmentTrailer); err != nil {
		return err
	}
	if err := spare.file.Sync(); err != nil {
		return err
	}
	if err := j.fs.Rename(spare.name, name); err != nil {
		return err
	}
	return j.fs.SyncDir(j.dir)
}

// Recycle gives a sealed segment back: none of its records is needed any more,
// whatever happens. From then on its positions answer ErrGone. One that is
// damaged is put aside.
//
// The rename is synced before the file is used again. A kill before that
// leaves the segment live, with all its records, or a spare file.
func (j *Journal) Recycle(number uint64) error {
	if err := j.recycle(number); err != nil {
		return fmt.Errorf("recycle segment %d: %w", number, err)
	}
	j.meters.recycled.Add(context.Background(), 1)
	return nil
}

func (j *Journal) recycle(number uint64) error {
	if j.readOnly {
		return ErrReadOnly
	}
	j.recycling.Lock()
	defer j.recycling.Unlock()
	s, err := j.find(number)
	if err != nil {
		return err
	}
	j.mu.RLock()
	last := j.segments[len(j.segments)-1]
	damaged := j.damaged(number)
	keep := !damaged && s.size == j.segmentSize && len(j.pool) < j.poolSize
	j.mu.RUnlock()
	if s == last {
		return fmt.Errorf("it is still written to")
	}

	// Readers that are in the file are waited for; later ones find it gone.
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return ErrClosed
	}
	live, free := j.path(number, suffixLive), j.path(number, suffixFree)
	switch {
	case damaged:
		err = j.putAside(number)
	case keep:
		err = j.fs.Rename(live, free)
	default:
		err = j.fs.Remove(live)
	}
	if err != nil {
		return err
	}
	s.gone = true
	err = j.fs.SyncDir(j.dir)

	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments = slices.DeleteFunc(j.segments, func(other *segment) bool { return other == s })
	if keep && err == nil && !j.closed {
		j.pool = append(j.pool, freeFile{name: free, file: s.file})
		return nil
	}
	s.file.Close() // read from and synced already: nothing hangs on it
	return err
}
