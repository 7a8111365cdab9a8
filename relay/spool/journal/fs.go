package journal

import "io"

// FS is what the journal asks of a file system. The operating system is the
// default; tests put one in its place that fails, or forgets what was not
// synced, at a call of their choosing.
//
// Names are whole paths. The journal assumes of an implementation what it
// assumes of a disk: a sector of 512 bytes is written whole or not at all, a
// rename is atomic, and what a successful Sync or SyncDir covered stays.
type FS interface {
	// MakeDir makes dir and its missing parents, durably.
	MakeDir(dir string) error
	// Lock keeps every other process out of dir until the closer is closed.
	// It does not wait: the error wraps ErrLocked if somebody is there.
	Lock(dir string) (io.Closer, error)
	// List gives the names in dir, in no order.
	List(dir string) ([]string, error)
	// Create makes an empty file, or empties the one that is there.
	Create(name string) (File, error)
	// Open opens a file that is there, for reading only unless write is set.
	Open(name string, write bool) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes renames, creations and removals in dir durable.
	SyncDir(dir string) error
	// Space is how many bytes can be written below dir, and how many the file
	// system has.
	Space(dir string) (free, total uint64, err error)
}

// System is the operating system's file system.
func System() FS { return system{} }

// File is one open segment. Reads run at the same time as a write elsewhere
// in the file; there is never more than one writer.
type File interface {
	io.ReaderAt
	io.Closer
	Size() (int64, error)
	// Allocate gives an empty file its size and its blocks, so that later
	// writes neither grow it nor run out of space. It reads as zeros.
	Allocate(size int64) error
	// WriteAt writes the parts one after the other from off on, in one call
	// where the system has such a call. It writes all of it or fails.
	WriteAt(parts [][]byte, off int64) error
	// WriteBack asks that n bytes from off on go to the disk without waiting
	// for a Sync, and waits for those of the call before it: so no more than
	// two such stretches are on their way when an urgent Sync comes. It
	// promises nothing about durability.
	WriteBack(off, n int64) error
	// Sync returns when everything written to the file, and its size, is on
	// the disk. After an error nothing may be assumed about any write since
	// the last success, not even if a second call were to succeed.
	Sync() error
}
