package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// Layout of Config.Dir:
//
//	raft.db     log and votes (bbolt; its file lock keeps a second process out)
//	applied     index known to be committed, see appliedMark
//	snapshots/  snapshots, newest two
const (
	logFile       = "raft.db"
	appliedFile   = "applied"
	keptSnapshots = 2
	// lockWait is how long another process may take to let the log go.
	lockWait = time.Second
)

// store is the log and the votes. A write or sync that failed is reported to
// stop, once and for good: Raft itself would step down and try again.
type store struct {
	*raftboltdb.BoltStore
	stop func(error)
}

var (
	_ raft.LogStore    = (*store)(nil)
	_ raft.StableStore = (*store)(nil)
)

func openStore(dir string, stop func(error)) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, logFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		// The mark speaks of the log beside it; of a new log it would claim
		// entries as committed that are not.
		if err := os.Remove(filepath.Join(dir, appliedFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	var db *raftboltdb.BoltStore
	err := guard(func() (err error) {
		if err := proveLog(path); err != nil {
			return err
		}
		db, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{Timeout: lockWait}})
		return err
	})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s is in use: a relay is running on it; stop it first", path)
	case errors.Is(err, errLogDamaged):
		return nil, fmt.Errorf("%s is damaged, and with it what this relay voted for: remove this relay from Raft (relayctl raft remove), "+
			"move the folder %s away, start it without voters in its configuration, and add it again: %w", path, dir, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &store{BoltStore: db, stop: stop}, nil
}

// errLogDamaged says that a file is not what was written.
var errLogDamaged = errors.New("damaged")

// guard makes an error of what bbolt does about a damaged file: it panics, or
// reads memory behind the end of the file.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%w: %v", errLogDamaged, cause)
		}
	}()
	return fn()
}

// proveLog reads every page of an existing log once, in this goroutine: Raft
// reads them in others, where nothing can be made of a panic. It changes nothing.
func proveLog(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, ReadOnly: true})
	switch {
	case errors.As(err, new(*os.PathError)), errors.As(err, new(syscall.Errno)), errors.Is(err, bbolterrors.ErrTimeout):
		return err // says nothing about the file
	case err != nil:
		return fmt.Errorf("%w: %w", errLogDamaged, err)
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("%w: %d bytes are missing at its end", errLogDamaged, tx.Size()-info.Size())
		}
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(_, _ []byte) error { return nil })
		})
	})
}

func (s *store) report(what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
		s.stop(err)
	}
	return err
}

func (s *store) StoreLog(l *raft.Log) error {
	return s.report("write the log", s.BoltStore.StoreLog(l))
}

func (s *store) StoreLogs(ls []*raft.Log) error {
	return s.report("write the log", s.BoltStore.StoreLogs(ls))
}

func (s *store) DeleteRange(from, to uint64) error {
	return s.report("cut the log", s.BoltStore.DeleteRange(from, to))
}

func (s *store) Set(key, value []byte) error {
	return s.report("write a vote", s.BoltStore.Set(key, value))
}

func (s *store) SetUint64(key []byte, value uint64) error {
	return s.report("write a term", s.BoltStore.SetUint64(key, value))
}

// appliedMark keeps, across restarts, an index that is known to be committed.
// Raft keeps none: a member that starts alone would show the state of its last
// snapshot until a leader is found. Being a hint that may only be too low, it
// is written in place and not synced; a torn or lost write reads as 0.
//
//	index 8 bytes, CRC-32C of it 4 bytes, big endian
type appliedMark struct{ file *os.File }

func openMark(dir string) (*appliedMark, error) {
	file, err := os.OpenFile(filepath.Join(dir, appliedFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &appliedMark{file: file}, nil
}

func (a *appliedMark) read() uint64 {
	var b [12]byte
	if _, err := a.file.ReadAt(b[:], 0); err != nil || crc32.Checksum(b[:8], castagnoli) != binary.BigEndian.Uint32(b[8:]) {
		return 0
	}
	return binary.BigEndian.Uint64(b[:8])
}

func (a *appliedMark) write(index uint64) error {
	b := binary.BigEndian.AppendUint64(nil, index)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := a.file.WriteAt(b, 0); err != nil {
		return fmt.Errorf("write %s: %w", a.file.Name(), err)
	}
	return nil
}

func (a *appliedMark) close() error { return a.file.Close() }

// load brings the machine to what this member knows to be committed: its
// newest snapshot and the log up to the mark. It returns the index of the
// configuration in force there.
func load(m *machine, logs raft.LogStore, snapshots raft.SnapshotStore, mark uint64) (configuration uint64, _ error) {
	list, err := snapshots.List()
	if err != nil {
		return 0, fmt.Errorf("list snapshots: %w", err)
	}
	var from uint64
	if len(list) > 0 {
		newest := list[0]
		_, source, err := snapshots.Open(newest.ID)
		if err != nil {
			return 0, fmt.Errorf("open snapshot %s: %w", newest.ID, err)
		}
		err = m.restore(source)
		source.Close()
		if err != nil {
			return 0, fmt.Errorf("snapshot %s: %w", newest.ID, err)
		}
		from, configuration = newest.Index, newest.ConfigurationIndex
	}
	last, err := logs.LastIndex()
	if err != nil {
		return 0, fmt.Errorf("read the end of the log: %w", err)
	}
	for index := from + 1; index <= min(mark, last); index++ {
		var l raft.Log
		if err := logs.GetLog(index, &l); err != nil {
			return 0, fmt.Errorf("read entry %d: %w", index, err)
		}
		switch l.Type {
		case raft.LogCommand:
			if o := m.apply(l.Index, l.Data); o.err != nil {
				return 0, o.err
			}
		case raft.LogConfiguration:
			configuration = l.Index
		}
	}
	return configuration, nil
}
