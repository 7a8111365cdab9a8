package spool_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// ended is a spool in which envelopes of each kind were released long ago: every
// record about them has been recycled.
func ended(t *testing.T, cfg spool.Config, count int) (*node, []*parcel) {
	t.Helper()
	n := start(t, cfg)
	var all []*parcel
	for i := range count {
		p := newParcel(uint64(100+i), 60_000).inbox("A", "B")
		if i%2 == 0 {
			p.fromSender()
		}
		n.mustPut(p)
		n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done, Report: report(p, "A")})
		n.settle(1, envelope.Settlement{ID: p.ID, Agency: "B", Transport: done})
		must(t, n.HandOn(t.Context(), envelope.HandedOn{ID: report(p, "A").ID, Destination: "tay", Peer: "tay"}))
		all = append(all, p)
	}
	recycled(t, n, all)
	return n, all
}

// recycled waits until nothing in the journal says that the envelopes were ever
// here.
func recycled(t *testing.T, n *node, all []*parcel) {
	t.Helper()
	seed := uint64(1_000_000)
	eventually(t, "everything to be released and recycled", func() bool {
		for range 10 { // others fill the segments
			seed++
			p := newParcel(seed, 60_000).onward("nam")
			p.Report = true
			n.mustPut(p)
			must(t, n.HandOn(t.Context(), envelope.HandedOn{ID: p.ID, Destination: "nam", Peer: "nam"}))
		}
		left, err := n.InJournal(all[0].ID, all[len(all)-1].ID)
		if err != nil {
			t.Fatal(err)
		}
		return left == 0
	})
}

func withoutIndex(t *testing.T, cfg spool.Config) {
	t.Helper()
	must(t, os.RemoveAll(filepath.Join(cfg.Dir, "index")))
}

// remembers wants everything to be known that keeps a document out of the books
// a second time.
func remembers(t *testing.T, n *node, all []*parcel) {
	t.Helper()
	for i, p := range all {
		r, err := n.Record(p.ID)
		if err != nil {
			t.Fatalf("envelope %d of %d: %v", i, len(all), err)
		}
		if !r.ContentReleased || len(r.Inboxes)+len(r.Onward)+len(r.Kept) > 0 || r.FromSender != p.FromSender {
			t.Errorf("envelope %d: %+v, want it as it ended", i, r)
		}
		for _, d := range r.Deliveries {
			if d.Place != envelope.Settled || d.Transport != done {
				t.Errorf("envelope %d, %s: %+v, want that it was delivered", i, d.Agency, d)
			}
		}
		in := n.begin(p)
		repeat, known := in.Repeat()
		in.Close()
		if !known || !repeat.AcceptedAt.Equal(r.AcceptedAt) {
			t.Errorf("envelope %d again: %+v, %t, want what was said the first time", i, repeat, known)
		}
		other := newParcel(uint64(500_000+i), 10).inbox("A")
		other.DocumentID = p.DocumentID
		_, err = n.put(other)
		if refusal, ok := envelope.AsRefusal(err); !ok || refusal.Reason != exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED {
			t.Errorf("another document with the id of envelope %d: %v", i, err)
		}
	}
	for _, a := range []routing.AgencyCode{"A", "B"} {
		if got := n.inboxOf(a); len(got) > 0 {
			t.Errorf("inbox of %s holds %v", a, got)
		}
	}
}

// What was released is known for as long as its time is, whatever is lost: the
// index, the register, or a part of it.
func TestWhatWasReleasedIsRemembered(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, cfg spool.Config){
		"nothing":  func(*testing.T, spool.Config) {},
		"index":    withoutIndex,
		"register": func(t *testing.T, cfg spool.Config) { must(t, os.RemoveAll(filepath.Join(cfg.Dir, "register"))) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := spool.Hurried(config(t))
			n, all := ended(t, cfg, 40)
			before := n.Stats().Tally
			n.end()
			check(t, cfg)
			lose(t, cfg)
			check(t, cfg)
			n = start(t, cfg)
			if now := n.Stats().Tally; now != before {
				t.Errorf("counts %+v, before %+v", now, before)
			}
			remembers(t, n, all)
			eventually(t, "a lost register to be written again", func() bool { return n.Unregistered() == 0 })
			n.end()
			withoutIndex(t, cfg)
			check(t, cfg)
			remembers(t, start(t, cfg), all)
		})
	}
}

// The index of the release before the register goes on: what ended is remembered,
// and what is under way is listed.
func TestAnOlderIndexGoesOn(t *testing.T) {
	cfg := spool.Hurried(config(t))
	n, all := ended(t, cfg, 20)
	waits := newParcel(9, 100).fromSender().inbox("C")
	n.mustPut(waits)
	n.end()
	must(t, spool.Older(cfg))
	check(t, cfg)
	n = start(t, cfg)
	remembers(t, n, all)
	if got := n.inboxOf("C"); !slices.Equal(got, []envelope.ID{waits.ID}) {
		t.Errorf("inbox of C holds %v", got)
	}
	eventually(t, "the register to be written", func() bool { return n.Unregistered() == 0 })
	n.end()
	withoutIndex(t, cfg)
	check(t, cfg)
	remembers(t, start(t, cfg), all)
}

// A register that is damaged is written again, and put aside.
func TestADamagedRegisterIsWrittenAgain(t *testing.T) {
	cfg := spool.Vigilant(config(t))
	cfg.CopyAfter = time.Millisecond
	n, all := ended(t, cfg, 20)
	n.end()
	flip := func(what string) {
		t.Helper()
		hurtIn(t, cfg, what, fmt.Appendf(nil, "header %d", 110))
	}
	// Whole at the next start: found by the scrub, and mended from the index.
	flip("register")
	n = start(t, cfg)
	eventually(t, "the damaged segment to be put aside", func() bool {
		names, err := filepath.Glob(filepath.Join(cfg.Dir, "register", "quarantine", "*.damaged"))
		must(t, err)
		return len(names) == 1
	})
	n.end()
	check(t, cfg)
	withoutIndex(t, cfg)
	n = start(t, cfg)
	remembers(t, n, all)
	n.end()
	// Index and register: what can be read is remembered, and nothing else is lost.
	flip("register")
	withoutIndex(t, cfg)
	n = start(t, cfg)
	if _, err := n.Record(all[10].ID); !errors.Is(err, spool.ErrNotFound) {
		t.Errorf("what nobody knows any more: %v", err)
	}
	remembers(t, n, slices.Concat(all[:10], all[11:]))
}

// Starts leave segments behind that have room for more: they are put together.
func TestTheRegisterTakesFewSegments(t *testing.T) {
	cfg := spool.Hurried(config(t))
	n, all := ended(t, cfg, 20)
	for i := range 6 {
		n.end()
		n = start(t, cfg)
		recycled(t, n, []*parcel{newParcel(uint64(10+i), 1)})
	}
	eventually(t, "few segments", func() bool { return n.RegisterSegments() <= 4 })
	n.end()
	check(t, cfg)
	withoutIndex(t, cfg)
	remembers(t, start(t, cfg), all)
}

// What is over leaves the register by the segment.
func TestTheRegisterForgets(t *testing.T) {
	clock := &clock{now: time.Unix(1_700_000_000, 0)}
	cfg := spool.Hurried(config(t))
	cfg.Clock = clock.Now
	cfg.Retention.Record = time.Hour
	n, all := ended(t, cfg, 20)
	n.end()
	clock.Advance(2 * time.Hour)
	withoutIndex(t, cfg)
	n = start(t, cfg)
	for _, p := range all {
		if r, err := n.Record(p.ID); err == nil {
			t.Errorf("%+v is still known", r)
		}
	}
	eventually(t, "the register to be empty", func() bool { return n.RegisterSegments() == 1 })
}
