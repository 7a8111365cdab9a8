package journal_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/truclienthong/truc/relay/spool/journal"
	"golang.org/x/sync/errgroup"
)

const benchWriters = 16

// kept is how many of the last parts a store still holds, as a relay does
// that hands them on.
const kept = 512

// store is what is compared: put is durable on return.
type store interface {
	put(n uint64, part []byte) error
	drop(n uint64) error
	close() error
}

func benchStore(b *testing.B, size int, open func(dir string) (store, error)) {
	dir := b.TempDir()
	s, err := open(dir)
	must(b, err)
	part := make([]byte, size)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range part {
		part[i] = byte(random.Uint32())
	}
	before := diskWrites()
	b.SetBytes(int64(size))
	b.ResetTimer()
	var next atomic.Uint64
	var writers errgroup.Group
	for range benchWriters {
		writers.Go(func() error {
			mine := bytes.Clone(part)
			for {
				n := next.Add(1)
				if n > uint64(b.N) {
					return nil
				}
				if err := s.put(n, mine); err != nil {
					return err
				}
				if n > kept {
					if err := s.drop(n - kept); err != nil {
						return err
					}
				}
			}
		})
	}
	must(b, writers.Wait())
	b.StopTimer()
	written := float64(b.N) * float64(size)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "parts/s")
	if after := diskWrites(); after > before {
		b.ReportMetric(float64(after-before)/written, "disk-B/B")
	}
	b.ReportMetric(float64(diskUse(dir))/(1<<20), "MiB-left")
	must(b, s.close())
}

// diskWrites is what this process has made the disk write, 0 where the system
// does not say.
func diskWrites() uint64 {
	io, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(io)) {
		var n uint64
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &n); err == nil {
			return n
		}
	}
	return 0
}

func diskUse(dir string) (total int64) {
	filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var stat syscall.Stat_t
		if err == nil && syscall.Stat(path, &stat) == nil {
			total += stat.Blocks * 512
		}
		return nil
	})
	return total
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{2 << 10, 100 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) { benchStore(b, size, openJournalStore) })
	}
}

// BenchmarkStores compares what the journal is with what it could have been.
func BenchmarkStores(b *testing.B) {
	for name, open := range map[string]func(string) (store, error){
		"journal": openJournalStore, "badger": openBadgerStore, "files": openFileStore,
	} {
		b.Run(name, func(b *testing.B) { benchStore(b, 100<<10, open) })
	}
}

type journalStore struct {
	*running
	mu    sync.Mutex
	at    map[uint64]uint64 // segment of a part
	alive map[uint64]int    // parts in a segment
}

func openJournalStore(dir string) (store, error) {
	j, err := journal.Open(journal.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	return &journalStore{running: run(j), at: map[uint64]uint64{}, alive: map[uint64]int{}}, nil
}

func (s *journalStore) put(n uint64, part []byte) error {
	ticket, err := s.Append(context.Background(), true, journal.Entry{Type: 1, Payload: [][]byte{part}})
	if err != nil {
		return err
	}
	at, err := ticket.Wait(context.Background())
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[n] = at[0].Segment
	s.alive[at[0].Segment]++
	return nil
}

func (s *journalStore) drop(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	segment, ok := s.at[n]
	delete(s.at, n)
	s.alive[segment]--
	if !ok || n%64 != 0 {
		return nil
	}
	for _, info := range s.Segments() {
		// Parts of the newest two may be written and not yet counted.
		if s.alive[info.Number] > 0 || info.Number+1 >= s.Tail().Segment {
			break
		}
		if err := s.Recycle(info.Number); err != nil {
			return err
		}
	}
	return nil
}

func (s *journalStore) close() error { return s.end() }

type badgerStore struct{ db *badger.DB }

func openBadgerStore(dir string) (store, error) {
	db, err := badger.Open(badger.DefaultOptions(dir).WithSyncWrites(true).WithValueThreshold(1 << 10).
		WithDetectConflicts(false).WithLogger(nil))
	return badgerStore{db}, err
}

func (s badgerStore) put(n uint64, part []byte) error {
	return s.db.Update(func(tx *badger.Txn) error { return tx.Set(binary.BigEndian.AppendUint64(nil, n), part) })
}

func (s badgerStore) drop(n uint64) error {
	return s.db.Update(func(tx *badger.Txn) error { return tx.Delete(binary.BigEndian.AppendUint64(nil, n)) })
}

func (s badgerStore) close() error {
	for s.db.RunValueLogGC(0.5) == nil {
	}
	return s.db.Close()
}

type fileStore struct{ dir string }

func openFileStore(dir string) (store, error) { return fileStore{dir}, nil }

func (s fileStore) path(n uint64) string { return filepath.Join(s.dir, fmt.Sprint(n)) }

func (s fileStore) put(n uint64, part []byte) error {
	f, err := os.Create(s.path(n) + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(part)
	if err := errors.Join(err, f.Sync(), f.Close(), os.Rename(f.Name(), s.path(n))); err != nil {
		return err
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s fileStore) drop(n uint64) error {
	if err := os.Remove(s.path(n)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // its writer is slower than the others
}

func (s fileStore) close() error { return nil }
