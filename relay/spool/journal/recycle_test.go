package journal_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/truclienthong/truc/relay/spool/journal"
	"golang.org/x/sync/errgroup"
)

// TestLeftoversNeverParse: a file goes round many times, always full of old
// records, and is cut short in every way; only the new ones are ever found.
func TestLeftoversNeverParse(t *testing.T) {
	d := newDisk(1)
	j := mustOpen(t, d)
	r := run(j)
	round := func(n int) {
		for i := range 6 {
			put(t, j, true, fmt.Sprintf("round %d record %d ", n, i)+strings.Repeat("x", 600))
		}
	}
	for n := range 20 {
		round(n)
		for _, s := range j.Segments() {
			if s.Sealed && s.Number > 1 { // the first stays, so that the id is known
				must(t, j.Recycle(s.Number))
			}
		}
		d.mu.Lock()
		files := len(d.names)
		d.mu.Unlock()
		if files > 4 {
			t.Fatalf("round %d: %d files, want the first, the active one and two in the pool", n, files)
		}
	}
	for full := j.Tail().Segment; j.Tail().Segment == full; {
		put(t, j, true, "round 19 once more "+strings.Repeat("x", 600))
	}
	for _, s := range j.Segments() {
		if s.Sealed && s.Number > 1 {
			must(t, j.Recycle(s.Number))
		}
	}
	number := j.Tail().Segment
	used := j.Tail().Offset
	must(t, r.end())
	if number < 20 {
		t.Fatalf("only %d segments", number)
	}
	live := fmt.Sprintf("/j/%016x.segment", number)
	if strings.Count(string(d.names[live].data), "round") < 3 {
		t.Fatal("the file holds nothing of former rounds: the test proves nothing")
	}
	for _, c := range []struct {
		name    string
		destroy func(data []byte)
	}{
		{"as it is", func([]byte) {}},
		{"seal lost", func(data []byte) { clear(data[len(data)-128 : len(data)-64]) }},
		{"first record lost", func(data []byte) { data[70] ^= 1 }},
		{"all of it lost", func(data []byte) { clear(data[:used]); clear(data[len(data)-128:]) }},
		{"records and seal lost", func(data []byte) { clear(data[64:900]); clear(data[len(data)-128 : len(data)-64]) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken, file := d.snapshot(live)
			c.destroy(file.data)
			j := mustOpen(t, broken)
			defer j.Close()
			for _, rec := range replayAll(t, j) {
				if rec.Segment == number && !strings.HasPrefix(string(rec.Payload), "round 19") {
					t.Errorf("%.20q at %v came back", rec.Payload, rec.Position)
				}
			}
		})
	}
}

// TestCutRecordsStayCut: records behind a torn one were cut off by one start.
// Later shorter writes, and even the loss of the seal, do not bring them back.
func TestCutRecordsStayCut(t *testing.T) {
	d := newDisk(1)
	r := run(mustOpen(t, d))
	put(t, r.Journal, true, "kept")
	tail := r.Tail()
	var entries []journal.Entry
	for range 6 {
		entries = append(entries, entry("cut"+strings.Repeat("x", 500)))
	}
	d.mu.Lock()
	d.fault = func(op, _ string, _ int) error {
		if op == "sync" {
			return errCrash
		}
		return nil
	}
	d.mu.Unlock()
	ticket, err := r.Append(t.Context(), true, entries...)
	must(t, err)
	if _, err := ticket.Wait(t.Context()); err == nil {
		t.Fatal("acknowledged without a sync")
	}
	r.end()
	d.kill()
	f := d.names["/j/0000000000000001.segment"]
	f.data[tail.Offset+200] ^= 1 // the first of them never reached the disk
	f.platter = append([]byte(nil), f.data...)

	for _, seal := range []string{"whole", "lost"} {
		t.Run("seal "+seal, func(t *testing.T) {
			j := mustOpen(t, d)
			r := run(j)
			put(t, j, true, "new")
			must(t, r.end())
			if seal == "lost" {
				clear(f.data[len(f.data)-128 : len(f.data)-64])
			}
			j = mustOpen(t, d)
			defer j.Close()
			for _, rec := range replayAll(t, j) {
				if strings.HasPrefix(string(rec.Payload), "cut") {
					t.Errorf("%.20q at %v came back", rec.Payload, rec.Position)
				}
			}
		})
	}
}

// TestReadDuringRecycle: a reader gets the record that it asked for or
// ErrGone, never one that took its place; and no file is taken away under it.
func TestReadDuringRecycle(t *testing.T) {
	fs := &watched{disk: newDisk(1), reading: map[string]int{}}
	j, err := journal.Open(journal.Config{Dir: "/j", FS: fs, SegmentSize: 8192, PoolSize: 2})
	must(t, err)
	r := run(j)
	type place struct {
		at      journal.Position
		content string
	}
	var mu sync.Mutex
	var places []place
	var gone, read atomic.Int64
	stop := make(chan struct{})
	var readers, writers errgroup.Group
	for g := range 3 {
		readers.Go(func() error {
			buf := make([]byte, 4096)
			for i := g; ; i++ {
				select {
				case <-stop:
					return nil
				default:
				}
				mu.Lock()
				if len(places) == 0 {
					mu.Unlock()
					continue
				}
				p := places[i*7%len(places)]
				mu.Unlock()
				rec, err := j.ReadInto(p.at, buf)
				switch {
				case errors.Is(err, journal.ErrGone):
					gone.Add(1)
				case err != nil:
					return err
				case string(rec.Payload) != p.content:
					return fmt.Errorf("at %v: got %.30q, want %.30q", p.at, rec.Payload, p.content)
				default:
					read.Add(1)
				}
			}
		})
	}
	for g := range 4 {
		writers.Go(func() error {
			for i := range 150 {
				c := fmt.Sprintf("writer %d record %d ", g, i) + strings.Repeat("x", i*5)
				ticket, err := j.Append(t.Context(), i%2 == 0, entry(c))
				if err != nil {
					return err
				}
				at, err := ticket.Wait(t.Context())
				if err != nil {
					return err
				}
				mu.Lock()
				places = append(places, place{at[0], c})
				mu.Unlock()
				if infos := j.Segments(); len(infos) > 5 {
					if err := j.Recycle(infos[0].Number); err != nil && !errors.Is(err, journal.ErrGone) {
						return err
					}
				}
			}
			return nil
		})
	}
	must(t, writers.Wait())
	for gone.Load() == 0 || read.Load() == 0 {
		runtime.Gosched()
	}
	close(stop)
	must(t, readers.Wait())
	must(t, r.end())
	if fs.violated != "" {
		t.Errorf("%s was taken away while it was read", fs.violated)
	}
}

// watched notices when a segment is renamed or removed while it is read.
type watched struct {
	*disk
	mu       sync.Mutex
	reading  map[string]int
	violated string
}

func (w *watched) takeAway(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reading[name] > 0 {
		w.violated = name
	}
}

func (w *watched) Rename(from, to string) error { w.takeAway(from); return w.disk.Rename(from, to) }
func (w *watched) Remove(name string) error     { w.takeAway(name); return w.disk.Remove(name) }

func (w *watched) Create(name string) (journal.File, error) {
	f, err := w.disk.Create(name)
	return watchedFile{f, w}, err
}

type watchedFile struct {
	journal.File
	w *watched
}

func (f watchedFile) ReadAt(b []byte, off int64) (int, error) {
	d := f.w.disk
	d.mu.Lock()
	name := f.File.(*diskFile).inode.name
	d.mu.Unlock()
	f.count(name, 1)
	defer f.count(name, -1)
	runtime.Gosched() // the longer, the better for whoever would take it away
	return f.File.ReadAt(b, off)
}

func (f watchedFile) count(name string, n int) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.reading[name] += n
}

func TestPoolIsBounded(t *testing.T) {
	dir := t.TempDir()
	config := journal.Config{Dir: dir, SegmentSize: 4096, PoolSize: 2}
	j, err := journal.Open(config)
	must(t, err)
	r := run(j)
	for range 10 {
		put(t, j, true, strings.Repeat("x", 3000))
	}
	put(t, j, true, strings.Repeat("y", 9000)) // a segment of its own size
	put(t, j, true, "z")
	for _, s := range j.Segments() {
		if s.Sealed {
			must(t, j.Recycle(s.Number))
		}
	}
	must(t, r.end())
	files := func() (n int) {
		entries, err := os.ReadDir(dir)
		must(t, err)
		return len(entries)
	}
	if n := files(); n != 3 {
		t.Errorf("%d files, want the active one and two in the pool", n)
	}
	// Spare files of another size are of no use.
	config.SegmentSize = 8192
	j, err = journal.Open(config)
	must(t, err)
	if n := files(); n != 2 {
		t.Errorf("%d files, want the sealed one and the new one", n)
	}
	must(t, j.Close())
}
