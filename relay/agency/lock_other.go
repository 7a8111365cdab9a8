//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package agency

import "os"

// dirLock does nothing where the system has no such lock: one connector per
// folder is the operator's care.
type dirLock struct{}

func lock(dir string, _ bool) (*dirLock, error) {
	if _, err := os.Lstat(dir); err != nil {
		return nil, err
	}
	return &dirLock{}, nil
}

func (*dirLock) unlock() {}

func (*dirLock) at(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
