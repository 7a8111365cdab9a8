package index

import (
	"github.com/dgraph-io/badger/v4/skl"
	"github.com/dgraph-io/badger/v4/y"
)

// Marks on a version in the overlay.
const (
	// gone: the key was deleted.
	gone byte = 1 << iota
	// fresh: the key did not exist before, in badger or in the overlay, so that
	// a later deletion within the same overlay table leaves nothing to flush.
	fresh
)

// Batch collects the changes of one record. Of two changes of one key the later
// counts; Insert never follows a Delete of the same key.
type Batch struct {
	ops  []op
	size int64
}

type op struct {
	key, value []byte
	mark       byte
}

// nodeSize is the most that an entry takes in an overlay table besides key,
// version (8 bytes) and value with its marks (at most 12 bytes).
const nodeSize = int64(skl.MaxNodeSize) + 8 + 8 + 12

func (b *Batch) add(key, value []byte, mark byte) {
	b.ops = append(b.ops, op{key, value, mark})
	b.size += int64(len(key)+len(value)) + nodeSize
}

// Put sets a key. Key and value belong to the index from now on.
func (b *Batch) Put(key, value []byte) { b.add(key, value, 0) }

// Insert sets a key that certainly does not exist.
func (b *Batch) Insert(key, value []byte) { b.add(key, value, fresh) }

// Delete removes a key, which need not exist.
func (b *Batch) Delete(key []byte) { b.add(key, nil, gone) }

// Empty reports whether the batch changes nothing.
func (b *Batch) Empty() bool { return len(b.ops) == 0 }

// Reset empties the batch for another use.
func (b *Batch) Reset() {
	clear(b.ops)
	b.ops, b.size = b.ops[:0], 0
}

// writeTo puts the batch into an overlay table as one version.
func (b *Batch) writeTo(table *skl.Skiplist, version uint64) {
	for _, o := range b.ops {
		table.Put(y.KeyWithTs(o.key, version), y.ValueStruct{Value: o.value, UserMeta: o.mark})
	}
}
