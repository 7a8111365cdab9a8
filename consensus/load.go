package consensus

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"
)

// appliedMark keeps, across restarts, an index that is known to be committed.
// Raft keeps none: a member that starts alone would show the state of its last
// snapshot, or an empty directory, until a leader is found. Being a hint that may
// only be too low, it is written in place and nobody waits for its sync, which
// follows at once; a torn write reads as 0. It never goes back: after a start Raft
// hands in again what is behind the last snapshot, and who is killed meanwhile
// shall not come back with the directory of long ago.
//
//	index 8 bytes, CRC-32C of it 4 bytes, big endian
type appliedMark struct {
	file    *os.File
	highest uint64        // written so far; of who writes
	written chan struct{} // something waits for a sync
	synced  sync.WaitGroup
}

// openMark opens the mark; stop is told of a sync that failed.
func openMark(dir string, stop func(error)) (*appliedMark, error) {
	file, err := os.OpenFile(filepath.Join(dir, appliedFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	a := &appliedMark{file: file, written: make(chan struct{}, 1)}
	a.highest = a.read()
	a.synced.Go(func() {
		for range a.written {
			if err := file.Sync(); err != nil {
				stop(err)
			}
		}
	})
	return a, nil
}

func (a *appliedMark) read() uint64 {
	var b [12]byte
	if _, err := a.file.ReadAt(b[:], 0); err != nil || crc32.Checksum(b[:8], castagnoli) != binary.BigEndian.Uint32(b[8:]) {
		return 0
	}
	return binary.BigEndian.Uint64(b[:8])
}

func (a *appliedMark) write(index uint64) error {
	if index <= a.highest {
		return nil
	}
	b := binary.BigEndian.AppendUint64(nil, index)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := a.file.WriteAt(b, 0); err != nil {
		return fmt.Errorf("write %s: %w", a.file.Name(), err)
	}
	a.highest = index
	select {
	case a.written <- struct{}{}:
	default: // the sync to come covers it
	}
	return nil
}

// close waits for the last sync. Nothing is written any more.
func (a *appliedMark) close() error {
	close(a.written)
	a.synced.Wait()
	return a.file.Close()
}

// load brings the machine to what this member knows to be committed: its
// newest snapshot and the log up to the mark. It returns the index of the
// configuration in force there. What does not fit together is refused.
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
			return 0, fmt.Errorf("%w: open snapshot %s: %w", errLogDamaged, newest.ID, err)
		}
		err = m.restore(source)
		source.Close()
		if err != nil {
			return 0, fmt.Errorf("snapshot %s: %w", newest.ID, err)
		}
		from, configuration = newest.Index, newest.ConfigurationIndex
	}
	first, err := logs.FirstIndex()
	if err != nil {
		return 0, fmt.Errorf("read the beginning of the log: %w", err)
	}
	last, err := logs.LastIndex()
	if err != nil {
		return 0, fmt.Errorf("read the end of the log: %w", err)
	}
	if first > from+1 {
		return 0, fmt.Errorf("%w: the log begins at %d and the newest snapshot ends at %d: one between them is lost", errLogDamaged, first, from)
	}
	if mark > max(from, last) {
		return 0, fmt.Errorf("%w: %d entries were committed here and only %d are left", errLogDamaged, mark, max(from, last))
	}
	for index := from + 1; index <= last; index++ {
		var l raft.Log
		if err := logs.GetLog(index, &l); err != nil {
			return 0, fmt.Errorf("%w: read entry %d: %w", errLogDamaged, index, err)
		}
		if index > mark {
			continue // it only has to be there
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
