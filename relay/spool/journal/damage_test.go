package journal_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/truclienthong/truc/relay/spool/journal"
)

// written is a journal of many segments in which every record is known, by the
// journal itself, to be durable.
type written struct {
	contents []string
	at       []journal.Position
	size     []int64
}

func write(t testing.TB, d *disk, clean bool) written {
	t.Helper()
	var w written
	rng := rand.New(rand.NewPCG(3, 4))
	j := mustOpen(t, d)
	r := run(j)
	for n := range 25 {
		c := content(n, rng)
		w.contents = append(w.contents, c)
		w.at = append(w.at, put(t, j, true, c))
	}
	for _, p := range w.at {
		rec, err := j.Read(p)
		must(t, err)
		w.size = append(w.size, rec.Size)
	}
	if clean {
		must(t, r.end())
		d.powerCut(0) // what the end wrote down is durable
		return w
	}
	// A kill: the last record is there to say that those before it are synced.
	put(t, j, false, "the last one")
	d.mu.Lock()
	d.stopAt = d.calls + 1
	d.mu.Unlock()
	r.end()
	d.kill()
	return w
}

// check: a record is there unchanged, or its place is reported. None else is.
func (w written) check(t *testing.T, j *journal.Journal, what string) (missing int) {
	t.Helper()
	got := map[journal.Position]string{}
	for _, r := range replayAll(t, j) {
		got[r.Position] = string(r.Payload)
	}
	whole := len(got)
	damage := j.Damage()
	for i, p := range w.at {
		c, ok := got[p]
		delete(got, p)
		if ok && c != w.contents[i] {
			t.Fatalf("%s: record %d is %.20q, want %.20q", what, i, c, w.contents[i])
		}
		if _, err := j.Read(p); ok != (err == nil) {
			t.Fatalf("%s: record %d: replayed %v, but read: %v", what, i, ok, err)
		} else if err != nil && !errors.Is(err, journal.ErrDamaged) {
			t.Fatalf("%s: record %d: read: %v", what, i, err)
		}
		if ok {
			continue
		}
		missing++
		reported := false
		for _, d := range damage {
			reported = reported || d.Segment == p.Segment && d.Offset < p.Offset+w.size[i] && p.Offset < d.Offset+d.Length
		}
		if !reported {
			t.Fatalf("%s: record %d at %v is lost in silence; damage: %+v", what, i, p, damage)
		}
	}
	for p, c := range got {
		if c != "the last one" {
			t.Fatalf("%s: %.20q at %v was never written", what, c, p)
		}
	}
	// An index that reflects a record goes on behind it, whatever became of it.
	for i := len(w.at) - 1; i >= 0; i -= 4 {
		behind, before := 0, 0
		must(t, j.Replay(w.at[i], func(r journal.Record) error {
			behind++
			return nil
		}))
		must(t, j.Replay(journal.Position{}, func(r journal.Record) error {
			if r.Compare(w.at[i]) < 0 {
				before++
			}
			return nil
		}))
		if before+behind != whole {
			t.Fatalf("%s: %d records before %v and %d from there on, there are %d", what, before, w.at[i], behind, whole)
		}
	}
	return missing
}

// snapshot gives a disk on which only the named file can be changed.
func (d *disk) snapshot(name string) (*disk, *inode) {
	out := newDisk(1)
	for n, f := range d.names {
		copied := &inode{data: append([]byte(nil), f.data...), dirty: map[int64][][]byte{}}
		copied.platter = append([]byte(nil), f.data...)
		out.names[n], out.durable[n] = copied, copied
	}
	return out, out.names[name]
}

func TestDamage(t *testing.T) {
	for _, clean := range []bool{true, false} {
		d := newDisk(2)
		w := write(t, d, clean)
		ends := map[bool]string{true: "ended in good order", false: "killed"}[clean]

		t.Run("bit flips, "+ends, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(5, 6))
			for name, f := range d.names {
				for off := rng.IntN(16); off < len(f.data); off += 1 + rng.IntN(50) {
					broken, file := d.snapshot(name)
					bit := rng.IntN(8)
					file.data[off] ^= 1 << bit
					j := mustOpen(t, broken)
					what := fmt.Sprintf("%s byte %d bit %d", name, off, bit)
					if n := w.check(t, j, what); n > 1 {
						t.Fatalf("%s: one flip cost %d records", what, n)
					}
					j.Close()
				}
			}
		})
		t.Run("pages lost, "+ends, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(5, 7))
			for name, f := range d.names {
				for range 30 {
					broken, file := d.snapshot(name)
					off := rng.IntN(len(f.data))
					n := 1 + rng.IntN(600)
					clear(file.data[off:min(off+n, len(file.data))])
					what := fmt.Sprintf("%s %d bytes at %d", name, n, off)
					j := mustOpen(t, broken)
					// The record that says what was synced may go with them.
					if clean || off+n < int(w.at[len(w.at)-1].Offset) || !strings.Contains(name, fmt.Sprintf("%016x", w.at[len(w.at)-1].Segment)) {
						w.check(t, j, what)
					}
					j.Close()
				}
			}
		})
		t.Run("cut short, "+ends, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(5, 8))
			for name, f := range d.names {
				lengths := []int{0, 1, 6, 63, 64, 65, len(f.data) - 128, len(f.data) - 64, len(f.data) - 1}
				for range 30 {
					lengths = append(lengths, rng.IntN(len(f.data)))
				}
				for _, n := range lengths {
					broken, file := d.snapshot(name)
					file.data = file.data[:n]
					j := mustOpen(t, broken)
					w.check(t, j, fmt.Sprintf("%s cut to %d", name, n))
					if len(j.Damage()) == 0 {
						t.Fatalf("%s cut to %d: not reported", name, n)
					}
					// What was reported once, and went on, stays so.
					r := run(j)
					put(t, j, true, "the last one")
					must(t, r.end())
					j = mustOpen(t, broken)
					w.check(t, j, fmt.Sprintf("%s cut to %d, second start", name, n))
					j.Close()
				}
			}
		})
	}
}

func TestDamageIsWorded(t *testing.T) {
	d := newDisk(2)
	j := mustOpen(t, d)
	r := run(j)
	var at []journal.Position
	for _, c := range []string{"one", strings.Repeat("2", 700), "three"} {
		at = append(at, put(t, j, true, c))
	}
	var sequences []uint64
	for _, rec := range replayAll(t, j) {
		sequences = append(sequences, rec.Sequence)
	}
	must(t, r.end())
	for _, c := range []struct {
		name  string
		flip  int64
		cause string
	}{
		{"in the payload", at[1].Offset + 300, "payload does not match its check"},
		{"in the head", at[1].Offset + 17, "no record here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken, file := d.snapshot("/j/0000000000000001.segment")
			file.data[c.flip] ^= 4
			j := mustOpen(t, broken)
			defer j.Close()
			if n := len(replayAll(t, j)); n != 2 {
				t.Errorf("got %d records, want 2", n)
			}
			if got := j.Damage(); len(got) != 1 || got[0].Position != at[1] || got[0].Cause != c.cause ||
				got[0].First > sequences[1] || got[0].Last < sequences[1] {
				t.Errorf("got %+v, want %v with sequence %d, %s", got, at[1], sequences[1], c.cause)
			}
			if _, err := j.Read(at[1]); !errors.Is(err, journal.ErrDamaged) || !strings.Contains(err.Error(), at[1].String()) {
				t.Errorf("read: got %v, want ErrDamaged at %v", err, at[1])
			}
		})
	}
}

// TestContentIsNotSearched: a document that imitates records, even with bytes
// copied from this very journal, is not taken for them when the record around
// it is damaged.
func TestContentIsNotSearched(t *testing.T) {
	d := newDisk(2)
	j := mustOpen(t, d)
	r := run(j)
	put(t, j, true, "victim")
	d.mu.Lock()
	forged := string(d.names["/j/0000000000000001.segment"].data[64:1024])
	d.mu.Unlock()
	at := put(t, j, true, "xx"+forged+forged)
	put(t, j, true, "behind")
	must(t, r.end())
	d.names["/j/0000000000000001.segment"].data[at.Offset+13] ^= 1
	j = mustOpen(t, d)
	defer j.Close()
	var got []string
	for _, rec := range replayAll(t, j) {
		got = append(got, string(rec.Payload))
	}
	if want := "[victim behind]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestUnreadableSector: a page that the disk does not give back is damage like
// any other, if the journal knows what was there; at the end, where it cannot
// know, it does not start.
func TestUnreadableSector(t *testing.T) {
	d := newDisk(2)
	w := write(t, d, true)
	for _, c := range []struct {
		name    string
		segment uint64
		from    int64
		refused bool
	}{
		{"in the middle", 2, 1024, false},
		{"in the last segment", w.at[len(w.at)-1].Segment, 1024, false},
		{"whole segment", 2, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken, _ := d.snapshot("")
			fs := unreadable{disk: broken, name: fmt.Sprintf("%016x.segment", c.segment), from: c.from, to: c.from + 512}
			if c.refused {
				fs.to = 1 << 40
			}
			j, err := journal.Open(journal.Config{Dir: "/j", FS: fs, SegmentSize: 4096})
			if c.refused {
				if !errors.Is(err, errUnreadable) {
					t.Fatalf("open: got %v, want %v", err, errUnreadable)
				}
				return
			}
			must(t, err)
			defer j.Close()
			if w.check(t, j, c.name) == 0 {
				t.Error("nothing was lost")
			}
		})
	}
}

var errUnreadable = errors.New("input/output error")

type unreadable struct {
	*disk
	name     string
	from, to int64
}

func (u unreadable) Open(name string, write bool) (journal.File, error) {
	f, err := u.disk.Open(name, write)
	if err == nil && strings.HasSuffix(name, u.name) {
		return unreadableFile{f, u}, nil
	}
	return f, err
}

type unreadableFile struct {
	journal.File
	u unreadable
}

func (f unreadableFile) ReadAt(b []byte, off int64) (int, error) {
	if off < f.u.to && f.u.from < off+int64(len(b)) {
		return 0, errUnreadable
	}
	return f.File.ReadAt(b, off)
}
