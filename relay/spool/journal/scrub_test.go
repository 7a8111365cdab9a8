package journal_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/truclienthong/truc/relay/spool/journal"
)

func verifyAll(t testing.TB, j *journal.Journal) {
	t.Helper()
	for _, s := range j.Segments() {
		if err := j.Verify(t.Context(), s.Number, nil); err != nil {
			t.Fatalf("verify: %v", err)
		}
	}
}

func segmentFile(number uint64) string { return fmt.Sprintf("/j/%016x.segment", number) }

// Whatever bit of a record is turned, in whatever record, a look at the segment
// finds it in that record and nowhere else; the others stay readable.
func TestVerifyFindsEveryFlip(t *testing.T) {
	d := newDisk(2)
	w := write(t, d, true)
	last := map[uint64]int{} // the last record of each segment
	for i, p := range w.at {
		last[p.Segment] = i
	}
	places := map[string]func(length int64) int64{
		"check of the head": func(int64) int64 { return 0 }, "check of the payload": func(int64) int64 { return 5 },
		"type": func(int64) int64 { return 8 }, "length": func(int64) int64 { return 12 },
		"length, high": func(int64) int64 { return 15 }, "sequence": func(int64) int64 { return 16 },
		"synced": func(int64) int64 { return 24 }, "payload": func(int64) int64 { return 32 },
		"end of the payload": func(length int64) int64 { return 31 + length },
	}
	for place, offset := range places {
		t.Run(place, func(t *testing.T) {
			for i, p := range w.at {
				broken, file := d.snapshot(segmentFile(p.Segment))
				j := mustOpen(t, broken) // before the damage: this is not found at the start
				file.data[p.Offset+offset(int64(len(w.contents[i])))] ^= 4
				verifyAll(t, j)
				what := fmt.Sprintf("record %d of %d, the last of its segment: %v", i, len(w.at), last[p.Segment] == i)
				damage := j.Damage()
				if len(damage) != 1 || damage[0].Position != p {
					t.Fatalf("%s: found %+v, want one place at %v", what, damage, p)
				}
				if n := w.check(t, j, what); n != 1 {
					t.Fatalf("%s: one flip cost %d records", what, n)
				}
				for _, s := range j.Segments() {
					if s.Damaged != (s.Number == p.Segment) {
						t.Fatalf("%s: segment %d is said to be damaged: %v", what, s.Number, s.Damaged)
					}
				}
				verifyAll(t, j)
				if again := j.Damage(); len(again) != 1 {
					t.Fatalf("%s: the second look reports %+v", what, again)
				}
				j.Close()
			}
		})
	}
	for _, c := range []struct {
		name string
		at   int64 // from the end if below zero
	}{{"head of the segment", 20}, {"seal", -128 + 8}, {"copy of the head", -30}} {
		t.Run(c.name, func(t *testing.T) {
			broken, file := d.snapshot(segmentFile(2))
			j := mustOpen(t, broken)
			defer j.Close()
			at := c.at
			if at < 0 {
				at += int64(len(file.data))
			}
			file.data[at] ^= 1
			verifyAll(t, j)
			if got := j.Damage(); len(got) != 1 || got[0].Segment != 2 {
				t.Errorf("found %+v, want one place in segment 2", got)
			}
		})
	}
}

// The segment that is being written to has an end that moves, and no seal.
func TestVerifyOfTheTail(t *testing.T) {
	d := newDisk(1)
	j := mustOpen(t, d)
	r := run(j)
	var at []journal.Position
	for i := range 5 {
		at = append(at, put(t, j, true, fmt.Sprintf("record %d", i)))
		verifyAll(t, j)
	}
	if got := j.Damage(); len(got) != 0 {
		t.Fatalf("found %+v in what is as it was written", got)
	}
	d.mu.Lock()
	d.names[segmentFile(1)].data[at[4].Offset+33] ^= 1
	d.mu.Unlock()
	verifyAll(t, j)
	if got := j.Damage(); len(got) != 1 || got[0].Position != at[4] {
		t.Errorf("found %+v, want the last record at %v", got, at[4])
	}
	must(t, r.end())
}

// What is behind the last sync is cut off; what is before it is damage, also if
// it is the last record and nothing but the record behind it says so.
func TestTornIsToldFromDamaged(t *testing.T) {
	for _, c := range []struct {
		name      string
		synced    bool // the record in question
		behind    int  // records behind it
		tells     bool // they know that it is durable
		wantLost  bool // reported as damage
		wantStays int  // records behind it that are there after the start
	}{
		{"unacknowledged, nothing behind", false, 0, false, false, 0},
		{"unacknowledged, others behind", false, 2, false, false, 0},
		{"acknowledged, a good one behind that says so", true, 1, true, true, 1},
		{"acknowledged, good ones behind that say so", true, 3, true, true, 3},
	} {
		for _, field := range []int64{0, 12, 16, 33} {
			t.Run(fmt.Sprintf("%s, byte %d", c.name, field), func(t *testing.T) {
				d := newDisk(3)
				j, err := openOn(d, 64<<10)
				must(t, err)
				r := run(j)
				put(t, j, false, "first")
				at := put(t, j, c.synced, "in question")
				for i := range c.behind {
					put(t, j, false, fmt.Sprintf("behind %d", i))
				}
				d.mu.Lock()
				d.stopAt = d.calls + 1
				d.names[segmentFile(1)].data[at.Offset+field] ^= 1
				d.mu.Unlock()
				r.end()
				d.kill()
				j, err = openOn(d, 64<<10)
				must(t, err)
				defer j.Close()
				var stays int
				for _, rec := range replayAll(t, j) {
					if strings.HasPrefix(string(rec.Payload), "behind") {
						stays++
					}
				}
				if lost := len(j.Damage()) > 0; lost != c.wantLost || stays != c.wantStays {
					t.Errorf("damage %+v, %d records behind it stay; want damage: %v, %d", j.Damage(), stays, c.wantLost, c.wantStays)
				}
			})
		}
	}
}

func TestPaceEndsTheLook(t *testing.T) {
	d := newDisk(2)
	write(t, d, true)
	j := mustOpen(t, d)
	defer j.Close()
	enough := errors.New("enough")
	read := 0
	err := j.Verify(t.Context(), 1, func(_ context.Context, n int) error {
		read += n
		return enough
	})
	if !errors.Is(err, enough) || read == 0 {
		t.Errorf("verify: %v after %d bytes, want the pace's own error before the first", err, read)
	}
	if err := j.Verify(t.Context(), 999, nil); err == nil {
		t.Error("a segment that never was is verified")
	}
}

// A damaged segment is put aside as it is, and its file is never used again; of
// several the newest stay.
func TestDamagedSegmentsArePutAside(t *testing.T) {
	d := newDisk(2)
	w := write(t, d, true)
	j := mustOpen(t, d)
	var hurt []uint64
	images := map[uint64][]byte{}
	for i, p := range w.at {
		if i > 0 && w.at[i-1].Segment == p.Segment {
			continue
		}
		hurt = append(hurt, p.Segment)
		file := d.names[segmentFile(p.Segment)]
		file.data[p.Offset+4] ^= 1
		images[p.Segment] = bytes.Clone(file.data)
	}
	if len(hurt) < 6 {
		t.Fatalf("only %d segments", len(hurt))
	}
	verifyAll(t, j)
	for _, n := range hurt {
		must(t, j.Recycle(n))
		if _, err := j.Read(journal.Position{Segment: n, Offset: 64}); !errors.Is(err, journal.ErrGone) {
			t.Errorf("segment %d: read: %v, want ErrGone", n, err)
		}
	}
	r := run(j)
	for i := range 20 {
		put(t, j, true, content(i, d.rng))
	}
	must(t, r.end())
	var aside []uint64
	for name, file := range d.names {
		if filepath.Dir(name) != "/j/quarantine" {
			if n := binary.LittleEndian.Uint64(file.data[32:]); images[n] != nil && strings.HasSuffix(name, "free") {
				t.Errorf("%s is the file of damaged segment %d", name, n)
			}
			continue
		}
		var n uint64
		fmt.Sscanf(filepath.Base(name), "%x.damaged", &n)
		if !bytes.Equal(file.data, images[n]) {
			t.Errorf("%s is not what it was when it was found", name)
		}
		aside = append(aside, n)
	}
	slices.Sort(aside)
	if want := hurt[len(hurt)-4:]; !slices.Equal(aside, want) {
		t.Errorf("put aside are %v, want the newest four, %v", aside, want)
	}
	j = mustOpen(t, d)
	defer j.Close()
	if got := j.Damage(); len(got) != 0 {
		t.Errorf("what is put aside is damage again at the next start: %+v", got)
	}
}
