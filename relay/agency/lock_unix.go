//go:build linux || darwin || freebsd || netbsd || openbsd

package agency

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// dirLock is a lock on a folder. It stays with the folder when that is renamed,
// and the system lets go of it when the process ends.
type dirLock struct{ dir *os.File }

// lock keeps two connectors from working on one folder at once. Without wait it
// returns errLocked where another has it.
func lock(dir string, wait bool) (*dirLock, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	err = syscall.Flock(int(d.Fd()), how)
	for errors.Is(err, syscall.EINTR) {
		err = syscall.Flock(int(d.Fd()), how)
	}
	if err == nil {
		return &dirLock{d}, nil
	}
	_ = d.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errLocked
	}
	return nil, fmt.Errorf("lock %s: %w", dir, err)
}

func (l *dirLock) unlock() { _ = l.dir.Close() }

// at reports whether the folder that was locked is the one at path: it may have
// been renamed or removed before the lock was had.
func (l *dirLock) at(path string) bool {
	locked, err := l.dir.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(locked, there)
}
