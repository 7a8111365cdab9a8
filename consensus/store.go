package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync/atomic"
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
//
// and beside it, outliving it, Config.Dir + ".member": see memberMark.
const (
	logFile       = "raft.db"
	appliedFile   = "applied"
	keptSnapshots = 2
	// lockWait is how long another process may take to let the log go.
	lockWait = time.Second
)

// store is the log and the votes, each with a check sum. A write or sync that
// failed is reported to stop, once and for good: Raft itself would step down and
// try again. So is what was damaged since it was proven at the start.
type store struct {
	bolt       *raftboltdb.BoltStore
	dir        string
	summedFrom uint64
	stop       func(error)
	gaveUp     atomic.Bool // bbolt did, in the middle of something
}

var (
	_ raft.LogStore    = (*store)(nil)
	_ raft.StableStore = (*store)(nil)
)

// openStore opens the log in a folder, or begins one, and proves every byte that
// it will be asked for.
func openStore(dir string, stop func(error)) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(filepath.Clean(dir))); err != nil { // its own name
		return nil, err
	}
	path := filepath.Join(dir, logFile)
	s := &store{dir: dir, stop: stop}
	err := s.guard(func() error { return s.open(path) })
	if err != nil && s.bolt != nil {
		err = errors.Join(err, s.Close())
	}
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s is in use: a relay is running on it; stop it first", path)
	case errors.Is(err, errLogDamaged):
		return nil, s.damaged(err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return s, nil
}

// damaged words damage of the log for whoever has to do something about it.
func (s *store) damaged(err error) error {
	return fmt.Errorf("%s is damaged, and with it what this relay voted for: %s: %w", filepath.Join(s.dir, logFile), wayBack(s.dir), err)
}

// wayBack tells how a relay becomes a member again after the loss of its log.
func wayBack(dir string) string {
	return fmt.Sprintf("remove this relay from Raft (relayctl raft remove), move the folder %s and the file %s away, "+
		"start it without voters in its configuration, and add it again (relayctl raft add-voter)", dir, markOf(dir))
}

// guard makes an error of what bbolt does about a damaged file: it panics, or
// reads memory behind the end of the file. It cannot be relied on after that.
func (s *store) guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			s.gaveUp.Store(true)
			err = fmt.Errorf("%w: %v", errLogDamaged, cause)
		}
	}()
	return fn()
}

func (s *store) open(path string) error {
	indexes, err := prepare(path)
	if err != nil {
		return err
	}
	if s.bolt, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{Timeout: lockWait}}); err != nil {
		return err
	}
	switch from, err := s.vote([]byte(summedFromKey)); {
	case err == nil && len(from) == 8:
		s.summedFrom = binary.BigEndian.Uint64(from)
	case errors.Is(err, raftboltdb.ErrKeyNotFound): // a new log
		if err := s.bolt.Set([]byte(summedFromKey), voteWithSum([]byte(summedFromKey), make([]byte, 8))); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: where check sums begin: %w", errLogDamaged, err)
	}
	return s.prove(indexes)
}

// prepare proves the pages of an existing log, brings one of an earlier release
// to this one's, and returns the indexes of its entries.
func prepare(path string) (indexes []uint64, err error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return nil, err
	}
	// Its lock comes first: of a file that is written to nothing can be proven.
	// Nothing in it is looked at when it is opened for reading but the heads.
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, ReadOnly: true})
	switch {
	case errors.As(err, new(*os.PathError)), errors.As(err, new(syscall.Errno)), errors.Is(err, bbolterrors.ErrTimeout):
		return nil, err // says nothing about the file
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errLogDamaged, err)
	}
	proven := proveLog(file, info.Size())
	old := false
	if proven == nil {
		err = db.View(func(tx *bbolt.Tx) (err error) {
			indexes, old, err = contents(tx)
			return err
		})
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return nil, err
	}
	if proven != nil {
		return nil, fmt.Errorf("%w: %w", errLogDamaged, proven)
	}
	if !old {
		return indexes, nil
	}
	if db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait}); err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error { return bringUp(tx, indexes) })
	return indexes, errors.Join(err, db.Close())
}

// contents returns the indexes of all entries, and whether an earlier release
// wrote them.
func contents(tx *bbolt.Tx) (indexes []uint64, old bool, err error) {
	logs, votes := tx.Bucket([]byte("logs")), tx.Bucket([]byte("conf"))
	if logs == nil || votes == nil {
		return nil, false, nil
	}
	old = votes.Get([]byte(summedFromKey)) == nil
	err = votes.ForEach(func(key, _ []byte) error {
		if string(key) != summedFromKey && !slices.Contains(voteKeys, string(key)) {
			return fmt.Errorf("%w: %q among the votes", errLogDamaged, key)
		}
		return nil
	})
	return indexes, old, errors.Join(err, logs.ForEach(func(key, _ []byte) error {
		if len(key) != 8 {
			return fmt.Errorf("%w: key of %d bytes in the log", errLogDamaged, len(key))
		}
		indexes = append(indexes, binary.BigEndian.Uint64(key))
		return nil
	}))
}

// bringUp gives the votes of an earlier release their check sums; its entries
// stay without.
func bringUp(tx *bbolt.Tx, indexes []uint64) error {
	votes := tx.Bucket([]byte("conf"))
	put := func(key string, value []byte) error {
		return votes.Put([]byte(key), voteWithSum([]byte(key), value))
	}
	for _, key := range voteKeys {
		if value := votes.Get([]byte(key)); value != nil {
			if err := put(key, bytes.Clone(value)); err != nil {
				return err
			}
		}
	}
	var from [8]byte
	if len(indexes) > 0 {
		binary.BigEndian.PutUint64(from[:], indexes[len(indexes)-1]+1)
	}
	return put(summedFromKey, from[:])
}

// prove reads every entry and every vote once.
func (s *store) prove(indexes []uint64) error {
	var last raft.Log
	for _, index := range indexes {
		last = raft.Log{}
		if err := s.read(index, &last); err != nil {
			return err
		}
	}
	for _, key := range voteKeys {
		if _, err := s.vote([]byte(key)); err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
			return err
		}
	}
	term, err := s.GetUint64([]byte("CurrentTerm"))
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	if term < last.Term {
		return fmt.Errorf("%w: it knows of term %d and has an entry of term %d", errLogDamaged, term, last.Term)
	}
	return nil
}

// Close lets the file go. Where bbolt gave up it may hold its own locks for ever;
// then the end of the process does.
func (s *store) Close() error {
	if s.gaveUp.Load() {
		return nil
	}
	return s.bolt.Close()
}

func (s *store) report(what string, err error) error {
	if errors.Is(err, errLogDamaged) {
		err = s.damaged(err)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
		s.stop(err)
	}
	return err
}

// guarded is guard with a report of what went wrong.
func (s *store) guarded(what string, fn func() error) error { return s.report(what, s.guard(fn)) }

// write is guarded for what changes the log. Where bbolt gave up in the middle of
// a change it would wait for itself for ever.
func (s *store) write(what string, fn func() error) error {
	if s.gaveUp.Load() {
		return s.damaged(errLogDamaged)
	}
	return s.guarded(what, fn)
}

func (s *store) FirstIndex() (index uint64, err error) {
	err = s.guarded("read the beginning of the log", func() (err error) {
		index, err = s.bolt.FirstIndex()
		return err
	})
	return index, err
}

func (s *store) LastIndex() (index uint64, err error) {
	err = s.guarded("read the end of the log", func() (err error) {
		index, err = s.bolt.LastIndex()
		return err
	})
	return index, err
}

// read reads one entry and verifies it.
func (s *store) read(index uint64, l *raft.Log) error {
	return s.guard(func() error {
		err := s.bolt.GetLog(index, l)
		if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
			return fmt.Errorf("%w: entry %d: %w", errLogDamaged, index, err)
		}
		if err != nil {
			return err
		}
		return checkEntry(l, index, s.summedFrom)
	})
}

func (s *store) GetLog(index uint64, l *raft.Log) error {
	err := s.read(index, l)
	if errors.Is(err, errLogDamaged) {
		return s.report("read the log", err)
	}
	return err
}

func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *store) StoreLogs(ls []*raft.Log) error {
	summed := make([]*raft.Log, len(ls))
	for i, l := range ls {
		summed[i] = withSum(l)
	}
	return s.write("write the log", func() error { return s.bolt.StoreLogs(summed) })
}

func (s *store) DeleteRange(from, to uint64) error {
	return s.write("cut the log", func() error { return s.bolt.DeleteRange(from, to) })
}

// vote reads one vote and verifies it.
func (s *store) vote(key []byte) (value []byte, err error) {
	err = s.guard(func() error {
		summed, err := s.bolt.Get(key)
		if err != nil {
			return err
		}
		value, err = checkVote(key, summed)
		return err
	})
	return value, err
}

func (s *store) Get(key []byte) ([]byte, error) {
	value, err := s.vote(key)
	if errors.Is(err, errLogDamaged) {
		return nil, s.report("read a vote", err)
	}
	return value, err
}

func (s *store) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, s.report("read a vote", fmt.Errorf("%w: %s has %d bytes", errLogDamaged, key, len(value)))
	}
	return binary.BigEndian.Uint64(value), nil
}

func (s *store) Set(key, value []byte) error {
	return s.write("write a vote", func() error { return s.bolt.Set(key, voteWithSum(key, value)) })
}

// SetUint64 lets Raft believe that its term is kept once bbolt has given up: it
// ends the process otherwise. As nothing else is written any more, no vote and no
// entry of that term will be promised by this node, which is stopping.
func (s *store) SetUint64(key []byte, value uint64) error {
	err := s.Set(key, binary.BigEndian.AppendUint64(nil, value))
	if s.gaveUp.Load() && string(key) == "CurrentTerm" {
		return nil
	}
	return err
}
