package simulation

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"github.com/truclienthong/truc/relay/spool/index"
)

// indexState is what badger would have on the disk: after a crash a transaction
// is there whole, or not at all. Its list is never changed, only replaced.
type indexState struct {
	mu      sync.Mutex
	last    uint64
	entries []entry            // of the last transaction, in order
	kept    map[uint64][]entry // of earlier ones that may be read
}

type entry struct{ key, value []byte }

// indexDisk is the index of one life of a machine.
type indexDisk struct {
	m *mounted
	s *indexState
}

var _ index.Disk = (*indexDisk)(nil)

// index gives the index on the disk to a new life.
func (m *mounted) index() *indexDisk {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	s := m.d.index
	// A life that ended took its snapshots along, and cannot write any more.
	fresh := &indexState{last: s.last, entries: s.entries, kept: map[uint64][]entry{s.last: s.entries}}
	m.d.index = fresh
	return &indexDisk{m, fresh}
}

// dropIndex has the next start build the index again from the journal.
func (d *disk) dropIndex() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index = new(indexState)
}

func (d *indexDisk) Last() uint64 {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return d.s.last
}

func (d *indexDisk) Write(number uint64, fill func(index.Transaction) error) error {
	var t transaction
	if err := fill(&t); err != nil {
		return err
	}
	d.m.pause()
	d.m.d.mu.Lock()
	defer d.m.d.mu.Unlock()
	effect, err := d.m.call("write index", "")
	if effect {
		d.s.commit(number, t.changes)
	}
	return err
}

type transaction struct{ changes []entry }

func (t *transaction) Set(key, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	t.changes = append(t.changes, entry{bytes.Clone(key), bytes.Clone(value)})
	return nil
}

func (t *transaction) Delete(key []byte) error {
	t.changes = append(t.changes, entry{key: bytes.Clone(key)})
	return nil
}

// commit puts the changes, of which the last of a key counts, among the entries.
func (s *indexState) commit(number uint64, changes []entry) {
	slices.SortStableFunc(changes, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	s.mu.Lock()
	defer s.mu.Unlock()
	merged := make([]entry, 0, len(s.entries)+len(changes))
	old := s.entries
	for i, c := range changes {
		if i+1 < len(changes) && bytes.Equal(changes[i+1].key, c.key) {
			continue
		}
		at, found := slices.BinarySearchFunc(old, c.key, func(e entry, key []byte) int { return bytes.Compare(e.key, key) })
		merged = append(merged, old[:at]...)
		if old = old[at:]; found {
			old = old[1:]
		}
		if c.value != nil {
			merged = append(merged, c)
		}
	}
	s.entries = append(merged, old...)
	s.last = number
	if s.kept == nil {
		s.kept = map[uint64][]entry{}
	}
	s.kept[number] = s.entries
}

func (d *indexDisk) Forget(number uint64) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	for n := range d.s.kept {
		if n < number && n != d.s.last {
			delete(d.s.kept, n)
		}
	}
}

func (d *indexDisk) Read(number uint64) index.Snapshot {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return snapshot(d.s.kept[number])
}

func (d *indexDisk) Prove(context.Context, func(context.Context, int) error) error { return nil }
func (d *indexDisk) Collect() error                                                { return nil }

func (d *indexDisk) Size() int64 {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return int64(len(d.s.entries)) * 128
}

func (d *indexDisk) Close() error { return nil }

// snapshot is the entries of one transaction.
type snapshot []entry

func (s snapshot) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(s, key, func(e entry, key []byte) int { return bytes.Compare(e.key, key) })
}

func (s snapshot) Get(key []byte) ([]byte, bool, error) {
	at, found := s.find(key)
	if !found {
		return nil, false, nil
	}
	return bytes.Clone(s[at].value), true, nil
}

func (s snapshot) Release() {}

func (s snapshot) Cursor(prefix []byte) index.Cursor {
	return &cursor{s: s, prefix: prefix, at: len(s)}
}

type cursor struct {
	s      snapshot
	prefix []byte
	at     int
}

func (c *cursor) Seek(key []byte)        { c.at, _ = c.s.find(key) }
func (c *cursor) Next()                  { c.at++ }
func (c *cursor) Key() []byte            { return c.s[c.at].key }
func (c *cursor) Value() ([]byte, error) { return bytes.Clone(c.s[c.at].value), nil }
func (c *cursor) Close()                 {}

func (c *cursor) Valid() bool {
	return c.at < len(c.s) && bytes.HasPrefix(c.s[c.at].key, c.prefix)
}
