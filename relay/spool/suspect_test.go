package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/relay/spool/index"
)

// copyTree copies a spool as a kill would leave it; zeros at the end of files
// take no room.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			return nil // badger is done with it
		}
		if err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(to, rel))
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Write(bytes.TrimRight(b, "\x00")); err != nil {
			return err
		}
		return f.Truncate(int64(len(b)))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func turnBit(t testing.TB, name string, at int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// custody is what a relay must not lose: duties, outcomes, content.
func (n *node) custody(parcels []*parcel) string {
	n.t.Helper()
	var out strings.Builder
	for _, p := range parcels {
		r, err := n.Record(p.ID)
		if err != nil {
			fmt.Fprintln(&out, p.DocumentID, err)
			continue
		}
		fmt.Fprintln(&out, p.DocumentID, r.FromSender, r.Inboxes, r.Onward, r.Copies)
		for _, d := range r.Deliveries {
			fmt.Fprintln(&out, " ", d.Agency, d.Home, d.Transport, d.Reason)
		}
		for part := range p.content {
			b, err := n.readAll(p, part)
			fmt.Fprintln(&out, "  part", part, bytes.Equal(b, p.content[part]), err)
		}
	}
	fmt.Fprintln(&out, n.inboxOf("A"))
	for _, q := range n.queueOf("nam") {
		fmt.Fprintln(&out, q.ID, q.Onward, q.Sequence)
	}
	return out.String()
}

// Whatever bit of whatever file of the index is turned, in good order or after a
// kill: the next start has everything that is in custody, and does not need a
// second one for it.
func TestNoFlipInTheIndexLosesCustody(t *testing.T) {
	t.Parallel()
	flips := 24
	if testing.Short() {
		flips = 12
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 3))
	cfg := config(t)
	cfg.IndexMemory, cfg.IndexOverlay = 4<<20, 64<<10
	n := start(t, spool.Careless(cfg))
	var all []*parcel
	put := func(count int) {
		for range count {
			i := len(all)
			p := newParcel(uint64(i), [][]int{{2000}, {30_000}, {300_000}}[i%3]...).fromSender().inbox("A").onward("nam", "B")
			all = append(all, p)
			n.mustPut(p)
			if i%4 == 0 {
				n.handOn(p, "nam", "nam", "B")
			}
			if i%5 == 0 {
				n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: fail})
			}
		}
	}
	put(15)
	n.end() // what is so far is in a table
	n = start(t, spool.Careless(cfg))
	put(10)
	eventually(t, "the index", n.Flushed)
	put(3) // not in the index yet, perhaps
	want := n.custody(all)
	killed := t.TempDir()
	copyTree(t, cfg.Dir, killed)
	n.end()
	for _, state := range []struct{ name, dir string }{{"after a kill", killed}, {"after an end in good order", cfg.Dir}} {
		files, err := filepath.Glob(filepath.Join(state.dir, "index", "*"))
		if err != nil || len(files) < 4 {
			t.Fatalf("%d files in the index: %v", len(files), err)
		}
		rebuilt := 0
		for i := range flips / 2 {
			name := files[i%len(files)]
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			used := len(bytes.TrimRight(b, "\x00"))
			if used == 0 || filepath.Base(name) == "LOCK" {
				continue
			}
			at, bit := random.IntN(used), random.IntN(8)
			if random.IntN(2) == 0 {
				at = max(0, used-1-random.IntN(40))
			}
			trial := cfg
			trial.Dir = t.TempDir()
			copyTree(t, state.dir, trial.Dir)
			turnBit(t, filepath.Join(trial.Dir, "index", filepath.Base(name)), int64(at), bit)
			what := fmt.Sprintf("%s, %s byte %d bit %d", state.name, filepath.Base(name), at, bit)
			n := start(t, spool.Careless(trial))
			if got := n.custody(all); got != want {
				t.Errorf("%s: custody is\n%s\nwant\n%s", what, got, want)
			}
			n.end()
			if _, err := os.Stat(filepath.Join(trial.Dir, "index.damaged")); err == nil {
				rebuilt++
			}
			check(t, trial)
			if t.Failed() {
				return
			}
			os.RemoveAll(trial.Dir)
		}
		t.Logf("%s: the index was built again %d times", state.name, rebuilt)
	}
}

// untilItFails has a running spool do something that ends with its failure.
func untilItFails(t *testing.T, cfg spool.Config, do func(*node)) error {
	t.Helper()
	n := start(t, cfg)
	do(n)
	<-n.Failing()
	var err error
	n.once.Do(func() { err = n.stop() })
	return err
}

// A running relay whose index goes bad stops, and the next start does not trust
// the index again, even if it reads well by then.
func TestASuspectIndexIsNotOpenedAgain(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 100_000).fromSender().inbox("A").onward("nam", "B")
	n.mustPut(p)
	n.end() // into a table
	want := func() string { n = start(t, spool.Careless(cfg)); defer n.end(); return n.custody([]*parcel{p}) }()
	tables, err := filepath.Glob(filepath.Join(cfg.Dir, "index", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no table: %v", err)
	}
	info, err := os.Stat(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	err = untilItFails(t, spool.Vigilant(cfg), func(n *node) {
		turnBit(t, tables[0], info.Size()/2, 3)
	})
	if err == nil {
		t.Fatal("the relay goes on with a damaged index")
	}
	turnBit(t, tables[0], info.Size()/2, 3) // a bad read, not a bad disk
	n = start(t, spool.Careless(cfg))
	if _, err := os.Stat(filepath.Join(cfg.Dir, "index.damaged")); err != nil {
		t.Errorf("the index was opened again: %v", err)
	}
	if got := n.custody([]*parcel{p}); got != want {
		t.Errorf("custody is\n%s\nwant\n%s", got, want)
	}
	n.end()
	// That was it: the new index is trusted.
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "index.damaged")); err != nil {
		t.Fatal(err)
	}
	n = start(t, spool.Careless(cfg))
	if _, err := os.Stat(filepath.Join(cfg.Dir, "index.damaged")); err == nil {
		t.Error("the new index was set aside as well")
	}
	n.end()
	check(t, cfg)
}

// An index that takes the process along is not tried for ever.
func TestAnIndexThatStartsDieOfIsRebuilt(t *testing.T) {
	for deaths, rebuilt := range map[int]bool{1: false, 3: false, 4: true} {
		t.Run(fmt.Sprint(deaths), func(t *testing.T) {
			cfg := config(t)
			n := start(t, cfg)
			p := newParcel(1, 1000).inbox("A")
			n.mustPut(p)
			n.end()
			if err := os.WriteFile(filepath.Join(cfg.Dir, "index.opening"), bytes.Repeat([]byte("x"), deaths), 0o600); err != nil {
				t.Fatal(err)
			}
			n = start(t, cfg)
			n.wantContent(p)
			_, err := os.Stat(filepath.Join(cfg.Dir, "index.damaged"))
			if got := err == nil; got != rebuilt {
				t.Errorf("built again: %v, want %v", got, rebuilt)
			}
			if _, err := os.Stat(filepath.Join(cfg.Dir, "index.opening")); err == nil {
				t.Error("a start that came through is counted")
			}
		})
	}
}

// An index that has gone back in time cannot be brought forward when segments
// have been recycled that it would need.
func TestAnIndexThatWentBackIsRebuilt(t *testing.T) {
	cfg := spool.Hurried(config(t))
	n := start(t, cfg)
	var kept, gone []*parcel
	for i := range uint64(10) {
		kept = append(kept, newParcel(i, 5000).inbox("A"))
		gone = append(gone, newParcel(50+i, 150_000).inbox("A"))
		n.mustPut(kept[i])
		n.mustPut(gone[i])
	}
	n.end()
	old := t.TempDir()
	copyTree(t, filepath.Join(cfg.Dir, "index"), old)
	n = start(t, cfg)
	for _, p := range gone {
		n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
	}
	segments := func() []string {
		names, err := filepath.Glob(filepath.Join(cfg.Dir, "journal", "*.segment"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	before := segments()
	n.fill(100, cfg)
	n.fill(200, cfg)
	// What was said of those that are gone is gone as well.
	eventually(t, "segments to be recycled", func() bool {
		now := segments()
		return !slices.ContainsFunc(before, func(name string) bool { return slices.Contains(now, name) })
	})
	want := n.custody(kept)
	n.end()
	dir := filepath.Join(cfg.Dir, "index")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	copyTree(t, old, dir)
	n = start(t, cfg)
	if got := n.custody(kept); got != want {
		t.Errorf("custody is\n%s\nwant\n%s", got, want)
	}
	n.end()
	check(t, cfg)
}

// silent is an index on a disk that gives no answer.
type silent struct{ index.Disk }

func (silent) Last() uint64               { return 1 }
func (silent) Read(uint64) index.Snapshot { return silentSnapshot{} }
func (silent) Close() error               { return nil }

type silentSnapshot struct{ index.Snapshot }

func (silentSnapshot) Get([]byte) ([]byte, bool, error) { return nil, false, syscall.EIO }
func (silentSnapshot) Release()                         {}

// A disk that cannot be read just now speaks for nothing: the index is as good as
// before at the next start. One that cannot be read again and again is replaced.
func TestAnIndexThatCannotBeReadIsNotSetAsideAtOnce(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 10).inbox("A")
	n.mustPut(p)
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
	n.end()
	broken := cfg
	broken.Index = silent{}
	for try := range 4 {
		if _, err := spool.Open(broken); !errors.Is(err, syscall.EIO) {
			t.Fatalf("start %d: %v, want the error of the disk", try, err)
		}
		if try == 0 {
			n := start(t, cfg)
			if r, err := n.Record(p.ID); err != nil || r.Deliveries[0].Transport != done {
				t.Errorf("after a disk that could not be read: %+v, %v", r, err)
			}
			if _, err := os.Stat(filepath.Join(cfg.Dir, "index.damaged")); err == nil {
				t.Error("the index is set aside, and nothing is wrong with it")
			}
			n.end()
			if _, err := spool.Open(broken); !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
		}
	}
	n = start(t, cfg)
	if _, err := os.Stat(filepath.Join(cfg.Dir, "index.damaged")); err != nil {
		t.Errorf("four starts could not read the index, and it is not set aside: %v", err)
	}
	n.end()
}
