//go:build linux || darwin || freebsd || netbsd || openbsd

package agency

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lock keeps two connectors with one folder from writing the same envelope at
// once. The system lets go of it when the process ends.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = d.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.New("another connector is saving it to the same folder just now")
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { _ = d.Close() }, nil
}
