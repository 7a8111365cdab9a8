package spool_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
)

// Where nobody has the bytes the envelope stays in quarantine, through a restart
// and the loss of the index; its duties stay, and everything else in the segment
// moves. When somebody has them after all, it is mended; when it is settled, it is
// over.
func TestWhereNobodyHasTheBytes(t *testing.T) {
	for layout, sizes := range map[string][]int{"in one record": {50_000}, "in chunks": {500_000}} {
		for _, end := range []string{"mended", "settled"} {
			t.Run(layout+", "+end, func(t *testing.T) {
				t.Parallel()
				cfg := spool.Vigilant(config(t))
				other := new(holder)
				cfg.Mend = other.Mend
				n := start(t, cfg)
				bad := newParcel(1, sizes...).fromSender().inbox("A").onward("nam", "B")
				var good []*parcel
				for i := range uint64(6) {
					good = append(good, newParcel(10+i, 40_000).inbox("A"))
					n.mustPut(good[i])
				}
				n.mustPut(bad)
				n.fill(100, cfg)
				hurt(t, cfg, bad.content[0][20_000:20_100])
				eventually(t, "the damage to be found", func() bool { return n.Stats().Quarantined == 1 })
				eventually(t, "the damaged segment to be put aside", func() bool { return len(putAside(t, cfg)) == 1 })
				verify := func(what string) {
					t.Helper()
					if _, err := n.readAll(bad, 0); !errors.Is(err, spool.ErrDamaged) {
						t.Errorf("%s: reading gives %v, want ErrDamaged", what, err)
					}
					for _, p := range good {
						n.wantContent(p)
					}
					if len(n.inboxOf("A")) != 7 || len(n.queueOf("nam")) != 1 {
						t.Errorf("%s: a duty is missing", what)
					}
					if got := n.Stats().Quarantined; got != 1 {
						t.Errorf("%s: %d in quarantine, want 1", what, got)
					}
					if r := n.record(bad); !r.Damaged || r.Receipt(self).GetCopies() != 0 {
						t.Errorf("%s: damaged %t, %d copies stated, want the copy not to count", what, r.Damaged, r.Receipt(self).GetCopies())
					}
				}
				verify("before a restart")
				n.end()
				n = start(t, cfg)
				eventually(t, "the quarantine to be recalled", func() bool { return n.Stats().Quarantined == 1 })
				verify("after a restart")
				n.end()
				if err := os.RemoveAll(filepath.Join(cfg.Dir, "index")); err != nil {
					t.Fatal(err)
				}
				n = start(t, cfg)
				if _, err := n.readAll(bad, 0); !errors.Is(err, spool.ErrDamaged) {
					t.Errorf("after a rebuild reading gives %v, want ErrDamaged", err)
				}
				verify("after a rebuild")
				if end == "settled" {
					n.settle(1, envelope.Settlement{ID: bad.ID, Agency: "A", Transport: fail})
					n.settle(1, envelope.Settlement{ID: bad.ID, Agency: "B", Transport: done})
					n.settle(0, envelope.Settlement{ID: bad.ID, Agency: "A", Transport: fail})
					return
				}
				other.has(bad)
				eventually(t, "the damage to be mended", func() bool { return n.Stats().Repaired == 1 })
				n.wantContent(bad)
				if r := n.record(bad); r.Damaged || r.Receipt(self).GetCopies() != 1 {
					t.Errorf("mended: damaged %t, %d copies stated", r.Damaged, r.Receipt(self).GetCopies())
				}
				n.end()
				check(t, cfg)
			})
		}
	}
}

// Statements have no other holder; the index has them.
func TestDamagedStatementsAreWrittenAgain(t *testing.T) {
	cfg := spool.Vigilant(config(t))
	n := start(t, cfg)
	p := newParcel(1, 0).fromSender().onward("nam", "A", "B").inbox("C")
	n.mustPut(p)
	n.handOn(p, "nam", "nam", "A")
	n.fill(100, cfg)
	before := n.record(p)
	hurt(t, cfg, p.Header) // the commit: without it the journal alone knows nothing
	eventually(t, "the damaged segment to be put aside", func() bool { return len(putAside(t, cfg)) == 1 })
	n.end()
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "index")); err != nil {
		t.Fatal(err)
	}
	n = start(t, cfg)
	after := n.record(p)
	if len(after.Deliveries) != 3 || after.Copies != before.Copies || len(after.Inboxes) != 1 || len(after.Onward) != 1 {
		t.Errorf("after the loss of the index %+v is left, want %+v", after, before)
	}
	n.end()
	check(t, cfg)
}

// A file of the journal that is gone is like one of which nothing can be read.
func TestAMissingSegmentIsMended(t *testing.T) {
	cfg := spool.Vigilant(config(t))
	other := new(holder)
	cfg.Mend = other.Mend
	n := start(t, cfg)
	var all []*parcel
	for i := range uint64(12) {
		p := newParcel(i, []int{100_000, 400_000}[i%2]).fromSender().inbox("A").onward("nam", "B")
		all = append(all, p)
		other.has(p)
		n.mustPut(p)
		n.handOn(p, "nam", "nam", "B")
	}
	want := n.custody(all)
	n.end()
	file, _, _, err := spool.Locate(cfg.Dir, all[4].ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	n = start(t, cfg)
	eventually(t, "what is missing to be mended", func() bool {
		st := n.Stats()
		return st.Repaired > 0 && st.Quarantined == 0
	})
	if got := n.custody(all); got != want {
		t.Errorf("custody is\n%s\nwant\n%s", got, want)
	}
	if st := n.Stats(); st.Damaged != st.Repaired {
		t.Errorf("%d envelopes were damaged, %d mended", st.Damaged, st.Repaired)
	}
	eventually(t, "the index to need nothing of it", func() bool { return !n.Counted(file) })
	n.end()
	check(t, cfg)
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "index")); err != nil {
		t.Fatal(err)
	}
	n = start(t, cfg)
	if got := n.custody(all); got != want {
		t.Errorf("after the loss of the index custody is\n%s\nwant\n%s", got, want)
	}
}

// A release that cannot be read any more is said again: what was settled does not
// come back from older segments when the index is lost.
func TestAReleaseInADamagedSegmentStays(t *testing.T) {
	cfg := config(t)
	cfg.SegmentSize = 256 << 10
	cfg = spool.Vigilant(cfg)
	cfg.CopyAfter = time.Hour // the old segment stays where it is
	n := start(t, cfg)
	cold, gone := newParcel(1, 200_000).inbox("COLD"), newParcel(2, 1000).inbox("GONE")
	n.mustPut(cold)
	n.mustPut(gone)
	n.mustPut(newParcel(3, 200_000).inbox("COLD"))
	n.settle(1, envelope.Settlement{ID: gone.ID, Agency: "GONE", Transport: done})
	eventually(t, "the release", func() bool { r := n.record(gone); return r.ContentReleased })
	n.mustPut(newParcel(4, 200_000).inbox("COLD"))
	names, err := filepath.Glob(filepath.Join(cfg.Dir, "journal", "*.segment"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for i, name := range slices.Backward(names) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.LastIndex(b, gone.ID[:]); at >= 0 {
			if i == 0 {
				t.Fatal("the release is where the envelope is")
			}
			turnBit(t, name, int64(at), 0)
			break
		}
	}
	eventually(t, "the damaged segment to be put aside", func() bool { return len(putAside(t, cfg)) == 1 })
	n.end()
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "index")); err != nil {
		t.Fatal(err)
	}
	n = start(t, cfg)
	if got := n.inboxOf("GONE"); len(got) != 0 {
		t.Errorf("%d envelopes that were settled wait again", len(got))
	}
	n.wantContent(cold)
	if got := n.inboxOf("COLD"); len(got) != 3 {
		t.Errorf("%d envelopes wait, want 3", len(got))
	}
}
