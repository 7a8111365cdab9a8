package spool_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// limited is the system's file system on a disk whose room the test decides.
type limited struct {
	journal.FS
	mu          sync.Mutex
	free, total uint64
	// full: nothing more can be allocated.
	full bool
	// failAt fails the n-th call that changes something, once; 0: none.
	failAt, calls int
	failed        string
}

func newLimited() *limited {
	return &limited{FS: journal.System(), free: 1 << 40, total: 1 << 41}
}

func (l *limited) set(full bool, free uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full, l.free = full, free
}

func (l *limited) act(what, name string, allocates bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.calls == l.failAt {
		l.failed = what + " " + filepath.Base(name)
		return fmt.Errorf("%s: %w", l.failed, syscall.ENOSPC)
	}
	if allocates && l.full {
		return fmt.Errorf("%s %s: %w", what, name, syscall.ENOSPC)
	}
	return nil
}

func (l *limited) Space(string) (free, total uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.free, l.total, nil
}

func (l *limited) Create(name string) (journal.File, error) {
	if err := l.act("create", name, true); err != nil {
		return nil, err
	}
	return l.wrap(name)(l.FS.Create(name))
}

func (l *limited) Open(name string, write bool) (journal.File, error) {
	return l.wrap(name)(l.FS.Open(name, write))
}

func (l *limited) wrap(name string) func(journal.File, error) (journal.File, error) {
	return func(f journal.File, err error) (journal.File, error) {
		if err != nil {
			return nil, err
		}
		return &limitedFile{f, l, name}, nil
	}
}

func (l *limited) Rename(from, to string) error {
	if err := l.act("rename", to, false); err != nil {
		return err
	}
	return l.FS.Rename(from, to)
}

func (l *limited) SyncDir(dir string) error {
	if err := l.act("sync", dir, false); err != nil {
		return err
	}
	return l.FS.SyncDir(dir)
}

// Remove gives room back.
func (l *limited) Remove(name string) error {
	info, err := os.Stat(name)
	if err := errors.Join(err, l.FS.Remove(name)); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free += uint64(info.Size())
	return nil
}

type limitedFile struct {
	journal.File
	l    *limited
	name string
}

func (f *limitedFile) Allocate(size int64) error {
	if err := f.l.act("allocate", f.name, true); err != nil {
		return err
	}
	return f.File.Allocate(size)
}

func (f *limitedFile) WriteAt(parts [][]byte, off int64) error {
	if err := f.l.act("write", f.name, false); err != nil {
		return err
	}
	return f.File.WriteAt(parts, off)
}

func (f *limitedFile) Sync() error {
	if err := f.l.act("sync", f.name, false); err != nil {
		return err
	}
	return f.File.Sync()
}

func TestSpaceAndReserve(t *testing.T) {
	const gib = 1 << 30
	for name, c := range map[string]struct {
		total, reserve, want uint64
		segment              int64
	}{
		"four segments of a small disk": {total: 2 * gib, segment: 64 << 20, want: 256 << 20},
		"a twentieth of a larger one":   {total: 40 * gib, segment: 64 << 20, want: 2 * gib},
		"no more than 4 GiB":            {total: 4000 * gib, segment: 64 << 20, want: 4 * gib},
		"as configured":                 {total: 4000 * gib, segment: 64 << 20, reserve: 777 << 20, want: 777 << 20},
		"not less than is needed":       {total: 4000 * gib, segment: 64 << 20, reserve: 1, want: (64+16)<<20 + 2*(8+1+8)<<20},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			disk := newLimited()
			disk.free, disk.total = 1*gib, c.total
			cfg.FS, cfg.SegmentSize, cfg.Reserve = disk, c.segment, c.reserve
			s, err := spool.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if free, reserve, err := s.Space(); err != nil || free != 1*gib || reserve != c.want {
				t.Errorf("%d free, %d reserved, %v; want %d, %d", free, reserve, err, 1*gib, c.want)
			}
		})
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func spares(t testing.TB, cfg spool.Config) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(cfg.Dir, "journal", "*.free"))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// On a disk that others have filled a relay starts, again and again, and what it
// has can be handed on and settled.
func TestAFullDiskLetsGoOnWhatIsHere(t *testing.T) {
	cfg := spool.Vigilant(config(t))
	disk := newLimited()
	cfg.FS = disk
	ballast := filepath.Join(cfg.Dir, "ballast")
	n := start(t, cfg)
	var all []*parcel
	for i := range uint64(20) {
		all = append(all, newParcel(i, 100_000).fromSender().inbox("A").onward("nam", "B"))
		n.mustPut(all[i])
	}
	eventually(t, "the reserve", func() bool { return exists(ballast) && spares(t, cfg) > 0 })
	if info, err := os.Stat(ballast); err != nil || info.Size() != 2*cfg.IndexMemory {
		t.Errorf("the ballast is %v, %v; want %d bytes", info.Size(), err, 2*cfg.IndexMemory)
	}
	n.end()
	disk.set(true, 100<<10)
	for _, part := range [][]*parcel{all[:10], all[10:]} {
		n = start(t, cfg)
		if exists(ballast) {
			t.Error("the ballast stays while the disk is full")
		}
		for _, p := range part {
			n.wantContent(p)
			n.handOn(p, "nam", "nam", "B")
			n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
			n.settle(1, envelope.Settlement{ID: p.ID, Agency: "B", Transport: done})
		}
		eventually(t, "a spare segment out of what is done with", func() bool { return spares(t, cfg) > 0 })
		n.end()
	}
	disk.set(false, 1<<40)
	n = start(t, cfg)
	eventually(t, "the reserve to be made again", func() bool { return exists(ballast) && spares(t, cfg) > 0 })
	n.end()
	check(t, cfg)
}

// Where even the reserve is used up the spool fails in good order, and blames the
// disk and not its index.
func TestWithoutRoomForTheIndexTheSpoolFails(t *testing.T) {
	cfg := spool.Careless(config(t))
	disk := newLimited()
	cfg.FS, cfg.Ballast = disk, -1
	p, q := newParcel(1, 1000).inbox("A"), newParcel(2, 1000).inbox("A")
	err := untilItFails(t, cfg, func(n *node) {
		n.mustPut(p)
		eventually(t, "the index", n.Flushed)
		disk.set(false, 1000)
		n.mustPut(q) // the journal has room of its own
		<-n.Failing()
		disk.set(false, 1<<40) // badger's end would wait for it
	})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Run ends with %v, want ENOSPC", err)
	}
	disk.set(false, 1000)
	if s, err := spool.Open(cfg); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("open: %v, want ENOSPC", err)
		if err == nil {
			s.Close()
		}
	}
	disk.set(false, 1<<40)
	n := start(t, cfg)
	n.wantContent(p)
	n.wantContent(q)
	if exists(filepath.Join(cfg.Dir, "index.damaged")) {
		t.Error("a good index was set aside because the disk was full")
	}
	n.end()
	check(t, cfg)
}

// Whichever call fails for want of room: what needs it fails, nothing is tried
// again, and what was acknowledged is there after a restart.
func TestTheEndOfTheDiskAtEveryCall(t *testing.T) {
	t.Parallel()
	calls := 26
	if testing.Short() {
		calls = 10
	}
	harmless := map[string]int{}
	for at := 1; at <= calls; at++ {
		cfg := spool.Vigilant(config(t))
		cfg.SegmentSize, cfg.Ballast = 256<<10, -1
		disk := newLimited()
		disk.failAt = at
		cfg.FS = disk
		acked, failed, err := workUntilItFails(t, cfg)
		what := fmt.Sprintf("call %d, %s", at, disk.failed)
		switch {
		case err == nil && !failed:
			// Only what nobody relies on may fail without an end: the spare.
			harmless[strings.Fields(disk.failed + " nothing")[0]]++
			if disk.failed != "" && !strings.Contains(disk.failed, ".new") && !strings.Contains(disk.failed, ".free") && disk.failed != "sync journal" {
				t.Errorf("%s: failed, and the spool went on", what)
			}
		case err != nil && !errors.Is(err, syscall.ENOSPC):
			t.Errorf("%s: ended with %v, want ENOSPC", what, err)
		}
		disk.failAt = 0
		check(t, cfg)
		n := start(t, cfg)
		for _, p := range acked {
			n.wantContent(p)
		}
		if got := len(n.inboxOf("A")); got < len(acked) {
			t.Errorf("%s: %d envelopes wait, %d were acknowledged", what, got, len(acked))
		}
		n.end()
		if t.Failed() {
			return
		}
	}
	t.Logf("failures that harmed nothing: %v", harmless)
}

// workUntilItFails puts envelopes until one is refused or there are enough.
func workUntilItFails(t *testing.T, cfg spool.Config) (acked []*parcel, failed bool, err error) {
	t.Helper()
	s, err := spool.Open(cfg)
	if err != nil {
		return nil, true, err
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	n := &node{Spool: s, t: t}
	for i := range uint64(12) {
		p := newParcel(i, 60_000).inbox("A")
		if _, err := n.put(p); err != nil {
			failed = true
			wantReason(t, err, exchangev1.ErrorReason_ERROR_REASON_STORAGE_FAILED)
			break
		}
		acked = append(acked, p)
	}
	if failed { // for good
		_, err := n.put(newParcel(99, 10).inbox("A"))
		wantReason(t, err, exchangev1.ErrorReason_ERROR_REASON_STORAGE_FAILED)
	}
	cancel()
	err = <-ran
	if closeErr := s.Close(); closeErr != nil {
		t.Error(closeErr)
	}
	return acked, failed, err
}
