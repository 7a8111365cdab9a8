package journal_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/truclienthong/truc/relay/spool/journal"
)

// With a spare file a start, and one more segment, need no room.
func TestStockLastsOnAFullDisk(t *testing.T) {
	full := func(op, _ string, _ int) error {
		if op == "create" || op == "allocate" {
			return errNoSpace
		}
		return nil
	}
	for _, stocked := range []bool{true, false} {
		t.Run(fmt.Sprintf("stocked %v", stocked), func(t *testing.T) {
			d := newDisk(1)
			j := mustOpen(t, d)
			r := run(j)
			put(t, j, true, "here")
			if stocked {
				must(t, j.Stock())
				must(t, j.Stock()) // one is enough
			}
			must(t, r.end())
			var spares int
			for name := range d.names {
				if strings.HasSuffix(name, ".free") {
					spares++
				}
			}
			if want := map[bool]int{true: 1}[stocked]; spares != want {
				t.Errorf("%d spare files wait, want %d", spares, want)
			}
			d.fault = full
			j, err := openOn(d, 4096)
			if !stocked {
				if !errors.Is(err, errNoSpace) {
					t.Errorf("open: %v, want the full disk", err)
				}
				return
			}
			must(t, err)
			r = run(j)
			put(t, j, true, "still going on")
			if err := j.Stock(); !errors.Is(err, errNoSpace) {
				t.Errorf("stock: %v, want the full disk", err)
			}
			d.fault = nil
			must(t, j.Stock())
			must(t, r.end())
			for name := range d.names {
				if strings.HasSuffix(name, ".new") {
					t.Errorf("%s was left behind", name)
				}
			}
		})
	}
}

// A spare file that the writer has just taken has its name for a moment still:
// one that is made in that moment must not take it away.
func TestStockWhileTheWriterTakesTheSpare(t *testing.T) {
	d := newDisk(1)
	var j *journal.Journal
	fs := &interrupted{disk: d, before: func() {
		if j != nil {
			must(t, j.Stock())
		}
	}}
	j, err := journal.Open(journal.Config{Dir: "/j", FS: fs, SegmentSize: 4096})
	must(t, err)
	must(t, j.Stock())
	r := run(j)
	var want []string
	for i := range 60 {
		want = append(want, content(i, d.rng))
		put(t, j, true, want[i])
	}
	must(t, r.end())
	if fs.times < 3 {
		t.Fatalf("the writer took a spare %d times", fs.times)
	}
	j = mustOpen(t, d)
	defer j.Close()
	got := replayAll(t, j)
	if len(got) != len(want) {
		t.Fatalf("%d records after a restart, want %d", len(got), len(want))
	}
	for i, rec := range got {
		if string(rec.Payload) != want[i] {
			t.Fatalf("record %d is %.20q, want %.20q", i, rec.Payload, want[i])
		}
	}
}

// Where there is no room for a whole segment a short one does; what is short does
// not stay when there is room.
func TestShortSegmentsOnAFullDisk(t *testing.T) {
	const floor = 3 << 20
	d := newDisk(1)
	config := journal.Config{Dir: "/j", FS: d, SegmentSize: 4 << 20, PoolSize: 2, Floor: floor}
	sizes := func(j *journal.Journal) (all []int64) {
		for _, s := range j.Segments() {
			all = append(all, s.Size>>20)
		}
		return all
	}
	d.free = 4<<20 + floor - 1
	j, err := journal.Open(config)
	must(t, err)
	r := run(j)
	record := strings.Repeat("x", 600<<10)
	for range 3 {
		put(t, j, true, record)
	}
	put(t, j, true, strings.Repeat("y", 1800<<10))       // longer than a short segment
	if got := sizes(j); fmt.Sprint(got) != "[1 1 1 1]" { // the last a page longer
		t.Errorf("segments of %v MiB, want short ones", got)
	}
	d.free = 4<<20 + floor/2 - 1
	if err := j.Stock(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("stock: %v, want ENOSPC", err)
	}
	must(t, r.end())
	d.free = floor/2 + 1<<19
	j, err = journal.Open(config)
	must(t, err)
	r = run(j)
	put(t, j, true, record) // a start has a short one whatever is left
	ticket, err := j.Append(t.Context(), true, entry(record))
	must(t, err)
	if _, err := ticket.Wait(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a second one below half of the floor: %v, want ENOSPC", err)
	}
	if err := r.end(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the end: %v, want ENOSPC", err)
	}
	d.free = 1 << 19
	if _, err := journal.Open(config); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("without room for a short one: %v, want ENOSPC", err)
	}
	d.free = 0
	j, err = journal.Open(config)
	must(t, err)
	r = run(j)
	if n := len(replayAll(t, j)); n != 5 {
		t.Errorf("%d records, want 5", n)
	}
	for _, s := range j.Segments() {
		if s.Sealed {
			must(t, j.Recycle(s.Number))
		}
	}
	if got := sizes(j); fmt.Sprint(got) != "[4]" {
		t.Errorf("segments of %v MiB, want a whole one", got)
	}
	must(t, r.end())
	for name := range d.names {
		if strings.HasSuffix(name, ".free") {
			t.Errorf("%s stays, which is short", name)
		}
	}
}

// interrupted does something before a spare file becomes a segment.
type interrupted struct {
	*disk
	before func()
	times  int
}

func (f *interrupted) Rename(from, to string) error {
	if strings.HasSuffix(from, ".free") && strings.HasSuffix(to, ".segment") {
		f.times++
		f.before()
	}
	return f.disk.Rename(from, to)
}

var errNoSpace = errors.New("no space left on device")
