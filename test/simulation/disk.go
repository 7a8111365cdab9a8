package simulation

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/truclienthong/truc/relay/spool/journal"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// errStopped is the answer of a disk whose machine has stopped.
var errStopped = errors.New("the machine has stopped")

// loss is what a crash takes of what was not synced.
type loss uint8

const (
	// nothing: the process was killed, and the kernel kept what it held.
	nothing loss = iota
	// everything that was not synced.
	everything
	// some sectors and some names, as chance has it.
	some
	// torn: what was written last is there up to a sector, nothing behind it.
	torn
)

func (l loss) String() string {
	return [...]string{"nothing", "everything", "some sectors", "a torn end"}[l]
}

// disk is the file system under a relay, in memory. It keeps what is durable and
// what only the kernel has apart, and counts the calls that change something: at
// the one that was asked for, the machine stops.
//
// A relay that was stopped goes on running for a moment, as nothing can end its
// goroutines; but its disk answers errStopped and its network nothing, so that
// nobody learns of it. Handles of an earlier life stay dead for ever.
type disk struct {
	mu     sync.Mutex
	chance *rand.Rand
	// slow is the most that a sync of a segment in use takes. Nobody waits for
	// such a sync with a lock held, which the bubble's clock would not survive.
	slow time.Duration

	names, durable map[string]*inode
	changes        []change
	locks          map[string]bool
	index          *indexState

	life    int
	stopped bool
	// calls that change something, in all; at the stopAt-th the machine stops,
	// before it has an effect or after it.
	calls, stopAt int
	after         bool
	// onStop is called once at the stop, with mu held: it must not come back here.
	onStop func()
	// last are the names of the last calls, for who wants to know where it stopped.
	last []string
}

type change struct {
	from, to string // from "": created, to "": removed
	file     *inode
}

func (c change) in(dir string) bool {
	return c.from != "" && filepath.Dir(c.from) == dir || c.to != "" && filepath.Dir(c.to) == dir
}

// apply makes a change durable; requires mu.
func (d *disk) apply(c change) {
	if c.from != "" {
		delete(d.durable, c.from)
	}
	if c.to != "" {
		d.durable[c.to] = c.file
	}
}

type inode struct {
	name string
	data []byte // as the kernel shows it
	size int    // durable
	// dirty has each sector that was written since the last sync as it is on the
	// disk; writes are the sectors in the order in which they were written.
	dirty  map[int][]byte
	writes []int
}

func newDisk(seed, stream uint64) *disk {
	return &disk{
		chance: rand.New(rand.NewPCG(seed, stream)),
		names:  map[string]*inode{}, durable: map[string]*inode{}, locks: map[string]bool{}, index: new(indexState),
	}
}

var _ journal.FS = (*mounted)(nil)

// mounted is the disk for one life of its machine.
type mounted struct {
	d    *disk
	life int
}

// mount begins a new life of the machine.
func (d *disk) mount() *mounted {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life++
	d.stopped, d.stopAt, d.onStop = false, 0, nil
	clear(d.locks)
	return &mounted{d, d.life}
}

// stopAtCall has the machine stop at the n-th call from now.
func (d *disk) stopAtCall(n int, after bool, do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopAt, d.after, d.onStop = d.calls+n, after, do
}

// cancelStop takes stopAtCall back; false where it has happened.
func (d *disk) cancelStop() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return false
	}
	d.stopAt, d.onStop = 0, nil
	return true
}

// lastCalls are those before it stopped.
func (d *disk) lastCalls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.last)
}

// stop ends the life of the machine now.
func (d *disk) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.halt()
}

// halt requires mu.
func (d *disk) halt() {
	d.stopped = true
	if do := d.onStop; do != nil {
		d.onStop = nil
		do()
	}
}

// wipe leaves an empty disk.
func (d *disk) wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names, d.durable, d.changes, d.index = map[string]*inode{}, map[string]*inode{}, nil, new(indexState)
}

// crash takes what a crash takes. The machine has stopped.
func (d *disk) crash(l loss) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	d.life++
	if l == nothing {
		return
	}
	for i, c := range d.changes {
		if l == everything || l == some && d.chance.IntN(2) == 0 || l == torn && d.chance.IntN(len(d.changes)-i+1) == 0 {
			if l == torn {
				break // names are lost from the end
			}
			continue
		}
		d.apply(c)
	}
	d.changes = nil
	d.names = maps.Clone(d.durable)
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		d.names[name].crash(l, d.chance)
	}
}

func (f *inode) crash(l loss, chance *rand.Rand) {
	keep := func(int) bool { return false }
	switch l {
	case some:
		keep = func(int) bool { return chance.IntN(2) == 0 }
	case torn:
		until := chance.IntN(len(f.writes) + 1)
		written := map[int]bool{}
		for _, s := range f.writes[:until] {
			written[s] = true
		}
		keep = func(s int) bool { return written[s] }
	}
	for _, s := range slices.Sorted(maps.Keys(f.dirty)) {
		if !keep(s) {
			copy(f.data[s*sector:], f.dirty[s])
		}
	}
	if len(f.data) > f.size && (l == everything || chance.IntN(2) == 0) {
		f.data = f.data[:f.size]
	}
	f.size, f.dirty, f.writes = len(f.data), nil, nil
}

// call counts one that changes something. With stop the machine ends; where the
// call was to have its effect before, effect says so. Requires mu.
func (m *mounted) call(op, name string) (effect bool, err error) {
	d := m.d
	if d.stopped || m.life != d.life {
		return false, errStopped
	}
	d.calls++
	if len(d.last) == 8 {
		d.last = append(d.last[:0], d.last[1:]...)
	}
	d.last = append(d.last, op+" "+filepath.Base(name))
	if d.calls == d.stopAt {
		effect = d.after
		d.halt()
		return effect, errStopped
	}
	return true, nil
}

func (m *mounted) alive() error {
	if m.d.stopped || m.life != m.d.life {
		return errStopped
	}
	return nil
}

func (m *mounted) MakeDir(string) error { return nil }

func (m *mounted) Lock(dir string) (io.Closer, error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if err := m.alive(); err != nil {
		return nil, err
	}
	if m.d.locks[dir] {
		return nil, fmt.Errorf("%s: %w", dir, journal.ErrLocked)
	}
	m.d.locks[dir] = true
	return unlock{m, dir}, nil
}

type unlock struct {
	m   *mounted
	dir string
}

func (u unlock) Close() error {
	u.m.d.mu.Lock()
	defer u.m.d.mu.Unlock()
	if u.m.life == u.m.d.life {
		delete(u.m.d.locks, u.dir)
	}
	return nil
}

func (m *mounted) List(dir string) ([]string, error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if err := m.alive(); err != nil {
		return nil, err
	}
	var names []string
	for name := range m.d.names {
		if rest, ok := strings.CutPrefix(name, dir+"/"); ok && !strings.Contains(rest, "/") {
			names = append(names, rest)
		}
	}
	return names, nil
}

func (m *mounted) Create(name string) (journal.File, error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	effect, err := m.call("create", name)
	f := &inode{name: name}
	if effect {
		m.d.names[name] = f
		m.d.changes = append(m.d.changes, change{to: name, file: f})
	}
	if err != nil {
		return nil, err
	}
	return &file{m: m, inode: f}, nil
}

func (m *mounted) Open(name string, write bool) (journal.File, error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if err := m.alive(); err != nil {
		return nil, err
	}
	f, ok := m.d.names[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &file{m: m, inode: f, readOnly: !write}, nil
}

func (m *mounted) Rename(from, to string) error {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	f, ok := m.d.names[from]
	if !ok {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	effect, err := m.call("rename", to)
	if effect {
		m.d.names[to] = f
		delete(m.d.names, from)
		f.name = to
		m.d.changes = append(m.d.changes, change{from, to, f})
	}
	return err
}

func (m *mounted) Remove(name string) error {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if _, ok := m.d.names[name]; !ok {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	effect, err := m.call("remove", name)
	if effect {
		delete(m.d.names, name)
		m.d.changes = append(m.d.changes, change{from: name})
	}
	return err
}

func (m *mounted) SyncDir(dir string) error {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	effect, err := m.call("syncdir", dir)
	if effect {
		m.d.changes = slices.DeleteFunc(m.d.changes, func(c change) bool {
			if c.in(dir) {
				m.d.apply(c)
			}
			return c.in(dir)
		})
	}
	return err
}

// Space is plenty: what a full disk does is tested with real ones.
func (m *mounted) Space(string) (free, total uint64, err error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	return 1 << 40, 1 << 41, m.alive()
}
