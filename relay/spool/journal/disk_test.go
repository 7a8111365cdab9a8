package journal_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"

	"github.com/truclienthong/truc/relay/spool/journal"
)

const sector = 512

var errCrash = errors.New("the machine has stopped")

// disk is a file system in memory that knows what a power cut would leave. A
// file has what is on the platter and what the kernel holds; a directory has
// the names that are durable and the changes that are not.
type disk struct {
	mu      sync.Mutex
	names   map[string]*inode
	durable map[string]*inode
	changes []change
	locked  bool
	epoch   int // files of an earlier epoch answer errCrash

	rng     *rand.Rand
	calls   int                                // that change something
	stopAt  int                                // the call at which the machine stops; 0 never
	stopped bool                               // it has
	fault   func(op, name string, n int) error // asked before each changing call
	log     []string                           // the changing calls
	free    uint64                             // what Space says; 0: plenty
}

type change struct {
	from, to string // from "": created, to "": removed
	file     *inode // created
}

type inode struct {
	name    string             // for the log
	data    []byte             // as the kernel shows it
	platter []byte             // as the disk has it
	dirty   map[int64][][]byte // by sector: every content written since the last sync
	resized bool
}

func newDisk(seed uint64) *disk {
	return &disk{names: map[string]*inode{}, durable: map[string]*inode{}, rng: rand.New(rand.NewPCG(seed, 7))}
}

var _ journal.FS = (*disk)(nil)

// call counts a changing call; with stop the call may still have its effect,
// or a part of it, on what the kernel holds.
func (d *disk) call(op, name string) (stop bool, err error) {
	if d.stopped {
		return true, errCrash
	}
	d.calls++
	d.log = append(d.log, op+" "+filepath.Base(name))
	if d.calls == d.stopAt {
		d.stopped = true
		return true, errCrash
	}
	if d.fault != nil {
		return false, d.fault(op, filepath.Base(name), d.calls)
	}
	return false, nil
}

// kill ends the process: the kernel keeps what it holds.
func (d *disk) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.epoch++
	d.locked, d.stopped, d.stopAt, d.fault = false, false, 0, nil
}

// powerCut ends the machine: of what was not synced, each sector survives with
// this probability, in any of the contents that it had.
func (d *disk) powerCut(survive float64) {
	d.kill()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.changes {
		if d.rng.Float64() >= survive {
			continue
		}
		switch {
		case c.from == "":
			d.durable[c.to] = c.file
		case c.to == "":
			delete(d.durable, c.from)
		default:
			if f, ok := d.durable[c.from]; ok {
				d.durable[c.to] = f
				delete(d.durable, c.from)
			}
		}
	}
	d.changes = nil
	d.names = maps.Clone(d.durable)
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		d.names[name].powerCut(d.rng, survive)
	}
}

func (f *inode) powerCut(rng *rand.Rand, survive float64) {
	if f.resized && rng.Float64() < survive {
		f.platter = resize(f.platter, len(f.data))
	}
	for _, s := range slices.Sorted(maps.Keys(f.dirty)) {
		if versions := f.dirty[s]; rng.Float64() < survive {
			v := versions[rng.IntN(len(versions))]
			if at := s * sector; at < int64(len(f.platter)) {
				copy(f.platter[at:], v)
			}
		}
	}
	f.data, f.dirty, f.resized = slices.Clone(f.platter), map[int64][][]byte{}, false
}

func resize(b []byte, n int) []byte {
	if n <= len(b) {
		return b[:n]
	}
	return append(b, make([]byte, n-len(b))...)
}

func (d *disk) MakeDir(string) error { return nil }

func (d *disk) Lock(dir string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked {
		return nil, fmt.Errorf("%s: %w", dir, journal.ErrLocked)
	}
	d.locked = true
	return unlock{d, d.epoch}, nil
}

type unlock struct {
	d     *disk
	epoch int
}

func (u unlock) Close() error {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	if u.epoch == u.d.epoch {
		u.d.locked = false
	}
	return nil
}

func (d *disk) List(string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return nil, errCrash
	}
	var names []string
	for name := range d.names {
		names = append(names, filepath.Base(name))
	}
	return names, nil
}

func (d *disk) Create(name string) (journal.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.call("create", name); err != nil {
		return nil, err
	}
	f := &inode{name: name, dirty: map[int64][][]byte{}}
	d.names[name] = f
	d.changes = append(d.changes, change{to: name, file: f})
	return &diskFile{d: d, inode: f, epoch: d.epoch}, nil
}

func (d *disk) Open(name string, write bool) (journal.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.names[name]
	if !ok {
		return nil, fmt.Errorf("open %s: no such file", name)
	}
	return &diskFile{d: d, inode: f, epoch: d.epoch, readOnly: !write}, nil
}

func (d *disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	stop, err := d.call("rename", to)
	if err != nil && !stop {
		return err
	}
	f, ok := d.names[from]
	if !ok {
		return fmt.Errorf("rename %s: no such file", from)
	}
	if err == nil || d.rng.IntN(2) == 0 {
		d.names[to], f.name = f, to
		delete(d.names, from)
		d.changes = append(d.changes, change{from: from, to: to})
	}
	return err
}

func (d *disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.call("remove", name); err != nil {
		return err
	}
	delete(d.names, name)
	d.changes = append(d.changes, change{from: name})
	return nil
}

func (d *disk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.call("syncdir", "."); err != nil {
		return err
	}
	d.durable, d.changes = maps.Clone(d.names), nil
	return nil
}

func (d *disk) Space(string) (free, total uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.free > 0 {
		return d.free, 1 << 41, nil
	}
	return 1 << 40, 1 << 41, nil
}

type diskFile struct {
	d        *disk
	inode    *inode
	epoch    int
	readOnly bool
}

func (f *diskFile) dead() bool { return f.epoch != f.d.epoch }

func (f *diskFile) Close() error { return nil }

func (f *diskFile) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.inode.data)), nil
}

func (f *diskFile) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.dead() {
		return 0, errCrash
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

func (f *diskFile) Allocate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	stop, err := f.d.call("allocate", f.inode.name)
	if f.dead() {
		return errCrash
	}
	if err == nil || stop {
		f.inode.data, f.inode.resized = resize(f.inode.data, int(size)), true
	}
	return err
}

func (f *diskFile) WriteAt(parts [][]byte, off int64) error {
	whole := slices.Concat(parts...)
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.dead() {
		return errCrash
	}
	if f.readOnly {
		return errors.New("write to a file opened for reading")
	}
	done := f.d.stopped
	_, err := f.d.call("write", f.inode.name)
	if done {
		return err
	}
	if err != nil {
		whole = whole[:f.d.rng.IntN(len(whole)+1)]
	}
	f.inode.write(whole, off)
	return err
}

func (f *inode) write(b []byte, off int64) {
	if end := int(off) + len(b); end > len(f.data) {
		f.data, f.resized = resize(f.data, end), true
	}
	copy(f.data[off:], b)
	for s := off / sector; s*sector < off+int64(len(b)); s++ {
		f.dirty[s] = append(f.dirty[s], slices.Clone(f.data[s*sector:min(int64(len(f.data)), (s+1)*sector)]))
	}
}

func (f *diskFile) WriteBack(int64, int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	_, err := f.d.call("writeback", f.inode.name)
	return err
}

// Sync that fails does what Linux does: the pages count as clean from then on,
// and the next sync succeeds without them.
func (f *diskFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.dead() {
		return errCrash
	}
	stop, err := f.d.call("sync", f.inode.name)
	if stop {
		return err
	}
	if err == nil {
		f.inode.platter = resize(f.inode.platter, len(f.inode.data))
		for s, versions := range f.inode.dirty {
			copy(f.inode.platter[s*sector:], versions[len(versions)-1])
		}
	}
	f.inode.dirty, f.inode.resized = map[int64][][]byte{}, false
	return err
}
