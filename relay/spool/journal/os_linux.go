package journal

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxGather is how many parts one pwritev takes (IOV_MAX).
const maxGather = 1024

func (f *systemFile) Allocate(size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.zeroFill(size)
	}
	if err != nil {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	return nil
}

func (f *systemFile) WriteAt(parts [][]byte, off int64) error {
	// The list is shortened as it is written; the caller keeps his.
	rest := append(make([][]byte, 0, len(parts)), parts...)
	for {
		for len(rest) > 0 && len(rest[0]) == 0 {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			return nil
		}
		n, err := unix.Pwritev(int(f.Fd()), rest[:min(len(rest), maxGather)], off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "pwritev", Path: f.Name(), Err: err}
		}
		if n == 0 {
			return fmt.Errorf("pwritev %s: %w", f.Name(), io.ErrShortWrite)
		}
		off += int64(n)
		for n > 0 {
			part := min(n, len(rest[0]))
			rest[0] = rest[0][part:]
			n -= part
			if len(rest[0]) == 0 {
				rest = rest[1:]
			}
		}
	}
}

func (f *systemFile) WriteBack(off, n int64) error {
	const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	err := unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
	if err == nil && f.backLength > 0 {
		err = unix.SyncFileRange(int(f.Fd()), f.backOff, f.backLength, wait)
	}
	f.backOff, f.backLength = off, n
	switch {
	case err == nil, errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP),
		errors.Is(err, unix.EINVAL), errors.Is(err, unix.ESPIPE):
		return nil // a file system without it: the next Sync does the work
	default:
		return &os.PathError{Op: "sync_file_range", Path: f.Name(), Err: err}
	}
}

func (f *systemFile) Sync() error {
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

// forget is advice: if it is not taken, the next reader sees the memory's copy.
func (f *systemFile) forget(off, n int64) {
	_ = unix.Fadvise(int(f.Fd()), off, n, unix.FADV_DONTNEED)
}
