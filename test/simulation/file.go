package simulation

import (
	"errors"
	"io"
	"strings"
	"time"

	"github.com/truclienthong/truc/relay/spool/journal"
)

// file is an open file of a mounted disk.
type file struct {
	m        *mounted
	inode    *inode
	readOnly bool
}

var _ journal.File = (*file)(nil)

func (f *file) Close() error { return nil }

func (f *file) Size() (int64, error) {
	f.m.d.mu.Lock()
	defer f.m.d.mu.Unlock()
	return int64(len(f.inode.data)), f.m.alive()
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	f.m.d.mu.Lock()
	defer f.m.d.mu.Unlock()
	if err := f.m.alive(); err != nil {
		return 0, err
	}
	if off < 0 || off > int64(len(f.inode.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.inode.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Allocate(size int64) error {
	f.m.d.mu.Lock()
	defer f.m.d.mu.Unlock()
	effect, err := f.m.call("allocate", f.inode.name)
	if effect {
		f.inode.resize(int(size))
	}
	return err
}

func (f *inode) resize(n int) {
	if n > len(f.data) {
		f.data = append(f.data, make([]byte, n-len(f.data))...)
	}
}

func (f *file) WriteAt(parts [][]byte, off int64) error {
	if f.readOnly {
		return errors.New("write to a file opened for reading")
	}
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	d := f.m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	dead := f.m.alive()
	effect, err := f.m.call("write", f.inode.name)
	if err != nil && !effect && dead == nil && total > 0 {
		// The machine stops in the middle of the write.
		total = d.chance.IntN(total + 1)
		effect = true
	}
	if effect {
		f.inode.write(parts, int(off), total)
	}
	return err
}

// write puts the first total bytes of parts at off.
func (f *inode) write(parts [][]byte, off, total int) {
	if total == 0 {
		return
	}
	f.resize(off + total)
	if f.dirty == nil {
		f.dirty = map[int][]byte{}
	}
	for s := off / sector; s*sector < off+total; s++ {
		if _, ok := f.dirty[s]; !ok {
			f.dirty[s] = append([]byte(nil), f.data[s*sector:min((s+1)*sector, len(f.data))]...)
		}
		f.writes = append(f.writes, s)
	}
	for _, p := range parts {
		n := copy(f.data[off:], p[:min(len(p), total)])
		off, total = off+n, total-n
	}
}

// WriteBack may bring some of what was written to the disk early.
func (f *file) WriteBack(int64, int64) error {
	f.m.d.mu.Lock()
	defer f.m.d.mu.Unlock()
	return f.m.alive()
}

func (f *file) Sync() error {
	d := f.m.d
	d.mu.Lock()
	inUse := strings.HasSuffix(f.inode.name, ".segment")
	d.mu.Unlock()
	if inUse {
		f.m.pause()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	effect, err := f.m.call("sync", f.inode.name)
	if effect {
		f.inode.size, f.inode.dirty, f.inode.writes = len(f.inode.data), nil, nil
	}
	return err
}

// pause is how long a sync takes.
func (m *mounted) pause() {
	m.d.mu.Lock()
	var d time.Duration
	if m.d.slow > 0 {
		d = time.Duration(m.d.chance.Int64N(int64(m.d.slow)))
	}
	m.d.mu.Unlock()
	if d > 0 {
		time.Sleep(d)
	}
}
