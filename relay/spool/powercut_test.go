package spool_test

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/truclienthong/truc/relay/spool/journal"
)

var errPowerCut = errors.New("power was cut")

// disk is a file system in memory that can lose its power: then every call
// fails, and restore leaves of what was not synced whichever sectors it likes.
type disk struct {
	mu    sync.Mutex
	files map[string]*diskFile
	rand  *rand.Rand
	off   bool
	// countdown cuts the power at the n-th write or sync from now; 0: never.
	countdown int
	locked    map[string]bool
}

type diskFile struct {
	d       *disk
	content []byte // as the kernel shows it
	synced  []byte // as the platters have it
}

var _ journal.FS = (*disk)(nil)

func newDisk(seed uint64) *disk {
	return &disk{files: make(map[string]*diskFile), rand: rand.New(rand.NewPCG(seed, 1))}
}

// act counts a call that changes something; the caller has the lock.
func (d *disk) act() error {
	if d.countdown > 0 {
		if d.countdown--; d.countdown == 0 {
			d.off = true
		}
	}
	if d.off {
		return errPowerCut
	}
	return nil
}

// cutAfter cuts the power at the n-th change from now.
func (d *disk) cutAfter(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.countdown = n
}

// restore gives the power back.
func (d *disk) restore() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off, d.countdown = false, 0
	clear(d.locked)
	for _, f := range d.files {
		now := slices.Clone(f.synced)
		for at := 0; at < len(f.content) && at < len(now); at += 512 {
			if end := min(at+512, len(now), len(f.content)); d.rand.IntN(2) == 0 {
				copy(now[at:end], f.content[at:end])
			}
		}
		f.content, f.synced = now, slices.Clone(now)
	}
}

func (d *disk) MakeDir(string) error { return nil }

func (d *disk) Lock(dir string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked[dir] {
		return nil, journal.ErrLocked
	}
	if d.locked == nil {
		d.locked = make(map[string]bool)
	}
	d.locked[dir] = true
	return unlock{d, dir}, nil
}

type unlock struct {
	d   *disk
	dir string
}

func (u unlock) Close() error {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	delete(u.d.locked, u.dir)
	return nil
}

func (d *disk) List(dir string) (names []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.files {
		if strings.HasPrefix(name, dir) {
			names = append(names, filepath.Base(name))
		}
	}
	return names, nil
}

func (d *disk) Create(name string) (journal.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &diskFile{d: d}
	d.files[name] = f
	return f, d.act()
}

func (d *disk) Open(name string, _ bool) (journal.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.files[name]; f != nil {
		return f, nil
	}
	return nil, fs.ErrNotExist
}

func (d *disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.act(); err != nil {
		return err
	}
	d.files[to] = d.files[from]
	delete(d.files, from)
	return nil
}

func (d *disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, name)
	return d.act()
}

func (d *disk) SyncDir(string) error { return nil }

func (d *disk) Space(string) (free, total uint64, err error) { return 1 << 40, 1 << 41, nil }

func (f *diskFile) Close() error { return nil }

func (f *diskFile) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.content)), nil
}

func (f *diskFile) Allocate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.content, f.synced = make([]byte, size), make([]byte, size)
	return f.d.act()
}

func (f *diskFile) ReadAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if off >= int64(len(f.content)) {
		return 0, io.EOF
	}
	n := copy(p, f.content[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *diskFile) WriteAt(parts [][]byte, off int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.act(); err != nil {
		return err
	}
	for _, p := range parts {
		copy(f.content[off:], p)
		off += int64(len(p))
	}
	return nil
}

func (f *diskFile) WriteBack(int64, int64) error { return nil }

func (f *diskFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.act(); err != nil {
		return err
	}
	f.synced = slices.Clone(f.content)
	return nil
}
