package index

import "context"

// Disk is the map that outlives the process, under the overlay: badger in
// Config.Dir, unless Config.Disk puts another in its place. Its state is a
// sequence of transactions, whose numbers grow.
//
// Write is called by one goroutine at a time, everything else by any number of
// them. Nothing is called after Close, and Close only when every Snapshot is
// released; only a Prove may still be under way.
type Disk interface {
	// Last is the number of the last transaction, 0 if there is none.
	Last() uint64
	// Read opens a picture of the moment after transaction number, which is the
	// last one or was not given to Forget.
	Read(number uint64) Snapshot
	// Write commits what fill does as transaction number. It is durable when
	// Write returns nil; a crash before leaves all of it or nothing. After an
	// error nothing is known.
	Write(number uint64, fill func(Transaction) error) error
	// Forget says that nobody reads a moment before transaction number any more.
	Forget(number uint64)
	// Prove reads everything that is stored and returns ErrDamaged where it is
	// not what was written. Pace is asked before each read.
	Prove(ctx context.Context, pace func(ctx context.Context, bytes int) error) error
	// Collect gives back space that nothing needs.
	Collect() error
	// Size is how many bytes it takes.
	Size() int64
	Close() error
}

// Transaction takes the changes of one Write. Keys and values belong to it from
// then on.
type Transaction interface {
	Set(key, value []byte) error
	// Delete removes a key, which need not exist.
	Delete(key []byte) error
}

// Snapshot is a picture of one moment, for one goroutine.
type Snapshot interface {
	// Get returns a copy of a value.
	Get(key []byte) (value []byte, found bool, err error)
	// Cursor walks the keys with a prefix in ascending order. It stands nowhere
	// before its first Seek, and is closed before the snapshot is released.
	Cursor(prefix []byte) Cursor
	Release()
}

// Cursor stands on a key, or behind the last one.
type Cursor interface {
	// Seek moves to the first key not below key.
	Seek(key []byte)
	Next()
	Valid() bool
	// Key is good until the cursor moves.
	Key() []byte
	// Value returns a copy.
	Value() ([]byte, error)
	Close()
}
