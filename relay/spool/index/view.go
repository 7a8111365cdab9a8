package index

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"

	"github.com/dgraph-io/badger/v4/skl"
	"github.com/dgraph-io/badger/v4/y"
)

// View is the index at one instant. It is for one goroutine; Close it soon,
// because badger keeps old versions for it.
type View struct {
	s *Store // nil: the store was closed before
	l *layers
	// below is opened with the first look at the disk.
	below Snapshot
}

// View returns a picture of now.
func (s *Store) View() *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return &View{}
	}
	l := s.layers.Load()
	s.views[l.flushed]++
	return &View{s: s, l: l}
}

// Close lets the view go.
func (v *View) Close() {
	if v.s == nil {
		return
	}
	if v.below != nil {
		v.below.Release()
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if v.s.views[v.l.flushed]--; v.s.views[v.l.flushed] == 0 {
		delete(v.s.views, v.l.flushed)
		v.s.unused.Broadcast()
	}
}

// Latest returns a view of now for the goroutine that applies; it is good until
// the next Apply or Latest, and is not closed.
func (s *Store) Latest() *View {
	l := s.layers.Load()
	switch {
	case s.latest == nil:
		s.latest = s.View()
	case s.latest.l.flushed != l.flushed:
		s.latest.Close()
		s.latest = s.View()
	default:
		s.latest.l = l
	}
	return s.latest
}

func (v *View) disk() Snapshot {
	if v.below == nil {
		v.below = v.s.disk.Read(v.l.flushed)
	}
	return v.below
}

// Get returns the value of a key; it must not be changed.
func (v *View) Get(key []byte) ([]byte, bool, error) {
	if v.s == nil {
		return nil, false, ErrClosed
	}
	versioned := y.KeyWithTs(key, v.l.version)
	for _, table := range v.tables() {
		// A version is never 0, so 0 means that nothing was found.
		if got := table.Get(versioned); got.Version != 0 {
			return got.Value, got.UserMeta&gone == 0, nil
		}
	}
	value, found, err := v.disk().Get(key)
	if err != nil {
		return nil, false, v.damaged(key, err)
	}
	return value, found, nil
}

func (v *View) damaged(key []byte, cause error) error {
	err := fmt.Errorf("%w: read %x: %w", ErrDamaged, key, cause)
	switch {
	case errors.Is(cause, ErrUnread):
		err = fmt.Errorf("read %x: %w", key, cause)
	case errors.Is(cause, syscall.EIO):
		err = fmt.Errorf("%w: read %x: %w", ErrUnread, key, cause)
	}
	v.s.cfg.OnDamage(err)
	return err
}

// Has reports whether a key exists.
func (v *View) Has(key []byte) (bool, error) {
	_, found, err := v.Get(key)
	return found, err
}

func (v *View) tables() []*skl.Skiplist {
	if v.l.full == nil {
		return []*skl.Skiplist{v.l.active}
	}
	return []*skl.Skiplist{v.l.active, v.l.full}
}

// Iterator walks the keys with one prefix in ascending order.
type Iterator struct {
	v       *View
	prefix  []byte
	overlay []overlayIterator
	disk    Cursor
	key     []byte
	value   []byte
	err     error
}

// Iterator returns an iterator at the first key with the prefix.
func (v *View) Iterator(prefix []byte) *Iterator {
	if v.s == nil {
		return &Iterator{err: ErrClosed}
	}
	it := &Iterator{v: v, prefix: prefix, disk: v.disk().Cursor(prefix)}
	for _, table := range v.tables() {
		it.overlay = append(it.overlay, overlayIterator{Iterator: table.NewIterator(), version: v.l.version})
	}
	it.Seek(prefix)
	return it
}

// Close frees the iterator; the view must still be open.
func (it *Iterator) Close() {
	if it.disk == nil {
		return
	}
	it.disk.Close()
	for i := range it.overlay {
		it.overlay[i].Close()
	}
}

// Seek moves to the first key not below key; key must begin with the prefix.
func (it *Iterator) Seek(key []byte) {
	if it.disk == nil {
		return
	}
	for i := range it.overlay {
		it.overlay[i].seek(key)
	}
	it.disk.Seek(key)
	it.settle()
}

// Valid reports whether the iterator stands on a key.
func (it *Iterator) Valid() bool { return it.err == nil && it.key != nil }

// Err returns what went wrong.
func (it *Iterator) Err() error { return it.err }

// Key returns the key; it stays good.
func (it *Iterator) Key() []byte { return it.key }

// Value returns the value; it stays good and must not be changed.
func (it *Iterator) Value() []byte { return it.value }

// Next moves to the next key.
func (it *Iterator) Next() {
	it.leave(it.key)
	it.settle()
}

// leave moves every source that stands on key past it.
func (it *Iterator) leave(key []byte) {
	for i := range it.overlay {
		if o := &it.overlay[i]; o.Valid() && bytes.Equal(o.key(), key) {
			o.next()
		}
	}
	if it.disk.Valid() && bytes.Equal(it.disk.Key(), key) {
		it.disk.Next()
	}
}

// settle finds the smallest key that is not deleted; the newest source wins.
func (it *Iterator) settle() {
	for {
		var least []byte
		for i := range it.overlay {
			if o := &it.overlay[i]; o.Valid() && (least == nil || bytes.Compare(o.key(), least) < 0) {
				least = o.key()
			}
		}
		onDisk := it.disk.Valid()
		if onDisk {
			if k := it.disk.Key(); least == nil || bytes.Compare(k, least) < 0 {
				least = k
			}
		}
		if least == nil || !bytes.HasPrefix(least, it.prefix) {
			it.key, it.value = nil, nil
			return
		}
		it.key = bytes.Clone(least)
		deleted := false
		found := false
		for i := range it.overlay {
			if o := &it.overlay[i]; o.Valid() && bytes.Equal(o.key(), it.key) {
				value := o.Value()
				it.value, deleted, found = value.Value, value.UserMeta&gone != 0, true
				break
			}
		}
		if !found {
			var err error
			if it.value, err = it.disk.Value(); err != nil {
				it.err = it.v.damaged(it.key, err)
			}
			return
		}
		if !deleted {
			return
		}
		it.leave(it.key)
	}
}

// overlayIterator shows of each key the newest version that the view may see.
type overlayIterator struct {
	*skl.Iterator
	version uint64
}

func (o *overlayIterator) key() []byte { return y.ParseKey(o.Key()) }

func (o *overlayIterator) seek(key []byte) {
	o.Seek(y.KeyWithTs(key, o.version))
	o.skipUnseen()
}

func (o *overlayIterator) next() {
	// The key with version 0 sorts after every version of the key.
	o.Seek(y.KeyWithTs(o.key(), 0))
	o.skipUnseen()
}

// skipUnseen passes versions that are newer than the view.
func (o *overlayIterator) skipUnseen() {
	for o.Valid() && y.ParseTs(o.Key()) > o.version {
		o.Seek(y.KeyWithTs(o.key(), o.version))
	}
}

// Each gives every key with a prefix to fn, in order, until one fails.
func (v *View) Each(prefix []byte, fn func(key, value []byte) error) error {
	it := v.Iterator(prefix)
	defer it.Close()
	for ; it.Valid(); it.Next() {
		if err := fn(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return it.Err()
}
