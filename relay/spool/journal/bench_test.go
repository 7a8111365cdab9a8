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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/truclienthong/truc/relay/spool/journal"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const benchWriters = 16

// kept is how many of the last parts a store still holds, as a relay does
// that hands them on.
const kept = 512

// store is what is compared. A part is durable when put returns; the part
// that it drops (0: none) need not be gone by then, and no store pays a sync of
// its own for that.
type store interface {
	put(n uint64, part []byte, drop uint64) error
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
	before := deviceWrites(dir)
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
				if err := s.put(n, mine, n-min(n, kept)); err != nil {
					return err
				}
			}
		})
	}
	must(b, writers.Wait())
	b.StopTimer()
	written := float64(b.N) * float64(size)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "parts/s")
	if after := deviceWrites(dir); after > before {
		b.ReportMetric(float64(after-before)/written, "device-B/B")
	}
	b.ReportMetric(float64(diskUse(dir))/(1<<20), "MiB-left")
	must(b, s.close())
}

// deviceWrites is what the block device under dir has written, by whomever: it
// wants a quiet machine. 0 where the system does not say. What the kernel
// counts by process is of no use here: it gave
// a third too much where files are overwritten, against the device and against
// the lengths of the calls.
func deviceWrites(dir string) uint64 {
	var stat syscall.Stat_t
	if syscall.Stat(dir, &stat) != nil {
		return 0
	}
	device := uint64(stat.Dev)
	line, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(device), unix.Minor(device)))
	fields := strings.Fields(string(line))
	if err != nil || len(fields) < 7 {
		return 0
	}
	sectors, _ := strconv.ParseUint(fields[6], 10, 64) // of 512 bytes, whatever the device's are
	return sectors * 512
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

func (s *journalStore) put(n uint64, part []byte, drop uint64) error {
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
	segment, ok := s.at[drop]
	if !ok {
		return nil
	}
	delete(s.at, drop)
	s.alive[segment]--
	if n%64 != 0 {
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

func (s badgerStore) put(n uint64, part []byte, drop uint64) error {
	return s.db.Update(func(tx *badger.Txn) error {
		if drop > 0 {
			if err := tx.Delete(binary.BigEndian.AppendUint64(nil, drop)); err != nil {
				return err
			}
		}
		return tx.Set(binary.BigEndian.AppendUint64(nil, n), part)
	})
}

func (s badgerStore) close() error {
	for s.db.RunValueLogGC(0.5) == nil {
	}
	return s.db.Close()
}

type fileStore struct{ dir string }

func openFileStore(dir string) (store, error) { return fileStore{dir}, nil }

func (s fileStore) path(n uint64) string { return filepath.Join(s.dir, fmt.Sprint(n)) }

func (s fileStore) put(n uint64, part []byte, drop uint64) error {
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
	if err := errors.Join(d.Sync(), d.Close()); err != nil || drop == 0 {
		return err
	}
	if err := os.Remove(s.path(drop)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // its writer is slower than the others
}

func (s fileStore) close() error { return nil }
