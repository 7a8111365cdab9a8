package spool_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
)

// A list shows what comes to be alone later behind what was before.
func TestSoleHasPages(t *testing.T) {
	n := start(t, config(t))
	var all []*parcel
	for i := range uint64(5) {
		p := newParcel(i, int(i)).fromSender().onward("nam", "A")
		n.mustPut(p)
		all = append(all, p)
	}
	must(t, n.Copy(t.Context(), envelope.Copy{ID: all[0].ID, Relay: "trung"}))
	n.handOn(all[0], "trung", "trung")
	must(t, n.Forget(t.Context(), all[0].ID, "trung"))
	n.handOn(all[2], "nam", "nam", "A")
	var got []envelope.ID
	for after := uint64(0); ; {
		page, err := n.Sole(after, 2)
		must(t, err)
		for _, e := range page {
			if r, err := n.Record(e.ID); err != nil || !e.Since.Equal(r.CommittedAt) || e.Size != r.Size() {
				t.Errorf("entry %+v, want that of %+v", e, r)
			}
			got, after = append(got, e.ID), e.Sequence
		}
		if len(page) < 2 {
			break
		}
	}
	if want := []envelope.ID{all[1].ID, all[3].ID, all[4].ID, all[0].ID}; !slices.Equal(got, want) {
		t.Errorf("nowhere else: %v, want %v", got, want)
	}
	ids, err := n.Away("nam", all[2].ID, 10)
	if err != nil || len(ids) != 0 {
		t.Errorf("with nam behind the one: %v, %v, want none", ids, err)
	}
}

func TestUsageAndWaiting(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	want := func(envelopes, bytes, waiting int64) func(*node) {
		return func(n *node) {
			t.Helper()
			if got, size, err := n.Usage("H26"); got != envelopes || size != bytes || err != nil {
				t.Errorf("usage %d, %d bytes, %v, want %d, %d", got, size, err, envelopes, bytes)
			}
			if got, err := n.Waiting("A"); got != waiting || err != nil {
				t.Errorf("%d wait, %v, want %d", got, err, waiting)
			}
		}
	}
	for i := range uint64(5) {
		n.mustPut(newParcel(i, 100).fromSender().inbox("A").onward("nam", "B"))
	}
	n.mustPut(newParcel(9, 1000).inbox("A"))
	n = reopened(t, cfg, n, want(5, 500, 6))
	for i := range uint64(3) {
		id := newParcel(i, 100).ID
		n.settle(1, envelope.Settlement{ID: id, Agency: "A", Transport: done})
		if i > 0 {
			n.settle(1, envelope.Settlement{ID: id, Agency: "B", Transport: fail})
		}
	}
	n = reopened(t, cfg, n, want(3, 300, 3))
	n.end()
	for name, broken := range map[string]string{"usage": "usage of H26", "waiting": "inbox of A counts"} {
		must(t, spool.Break(cfg, name, newParcel(0, 100).ID))
		var all []string
		must(t, spool.Check(cfg, func(f spool.Finding) { all = append(all, f.String()) }))
		if len(all) == 0 || !slices.ContainsFunc(all, func(s string) bool { return len(s) > len(broken) && s[:len(broken)] == broken }) {
			t.Errorf("check finds %q, want something with %q", all, broken)
		}
	}
}

// A tally is recounted while envelopes come and go.
func TestRecount(t *testing.T) {
	cfg, now := config(t), newClock()
	cfg.Clock = now.Now
	n := start(t, cfg)
	for i := range uint64(20) {
		p := newParcel(i, 10).fromSender().inbox("A").onward("nam", "B")
		n.mustPut(p)
		if i%2 == 0 {
			n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
		}
	}
	now.Advance(time.Hour)
	since := now.Now()
	late := newParcel(50, 10).fromSender().inbox("A")
	n.mustPut(late)
	ctx, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	defer busy.Wait()
	defer stop()
	for w := range uint64(8) {
		busy.Go(func() {
			for i := 100 + w; ctx.Err() == nil; i += 8 {
				p := newParcel(i, 10).fromSender().inbox("A")
				if _, err := n.put(p); err != nil {
					t.Error(err)
				}
				if _, err := n.Settle(context.Background(), []envelope.Settlement{{ID: p.ID, Agency: "A", Transport: done}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 60 {
		got, err := n.Recount(t.Context(), time.Time{}, nil)
		if err != nil || got.Counted != got.Kept || got.Kept.Accepted < 41 || len(got.Findings) > 0 {
			t.Fatalf("recount %+v, %v, want that it agrees", got, err)
		}
	}
	stop()
	busy.Wait()
	places := make(map[string]int)
	got, err := n.Recount(t.Context(), time.Time{}, func(p spool.Pending) error {
		places[fmt.Sprint(p.Agency, p.Place, p.Home)]++
		return nil
	})
	if err != nil || got.Kept != n.Stats().Tally || places["A1bac"] != 11 || places["B2nam"] != 20 || len(places) != 2 {
		t.Errorf("recount %+v, %v, pending %v, want 11 for A in the inbox and 20 for B in the queue of nam", got, err, places)
	}
	if got, err := n.Recount(t.Context(), since, nil); err != nil || got.Counted.Accepted-got.Counted.Delivered != 1 {
		t.Errorf("recount since the last hour: %+v, %v, want one pending", got, err)
	}
	if _, err := n.Recount(ctx, since, nil); err == nil {
		t.Error("a recount that nobody waits for ends in good order")
	}
	n.end()
	must(t, spool.Break(cfg, "inbox entry", late.ID))
	n = start(t, cfg)
	if got, err := n.Recount(t.Context(), time.Time{}, nil); err != nil || !slices.ContainsFunc(got.Findings, func(f spool.Finding) bool {
		return f.ID == late.ID && f.Agency == "A"
	}) {
		t.Errorf("recount %+v, %v, want that the entry of A is found to be missing", got, err)
	}
}

// What was accepted here is listed by lane and by when its delivery target began
// to run, until its last recipient is settled; also from an index built again.
func TestUndelivered(t *testing.T) {
	cfg, now := config(t), newClock()
	cfg.Clock = now.Now
	n := start(t, cfg)
	put := func(i uint64, lane envelope.Lane, hour time.Time) envelope.ID {
		p := newParcel(i, 10).fromSender().inbox("A").onward("nam", "B")
		p.Lane, p.NotBefore = lane, hour
		n.mustPut(p)
		now.Advance(time.Minute)
		return p.ID
	}
	begin := now.Now()
	ordinary, later := put(0, 0, time.Time{}), put(1, 0, time.Time{})
	urgent := put(2, 3, time.Time{})
	atHour, before := put(3, 4, begin.Add(5*time.Hour)), put(4, 4, begin.Add(-time.Hour))
	transit := newParcel(5, 10).inbox("A")
	n.mustPut(transit)

	list := func(lane envelope.Lane, end time.Duration, page int) (ids []envelope.ID) {
		t.Helper()
		for after := (envelope.Due{}); ; {
			got, err := n.Undelivered(lane, after, begin.Add(end), page)
			must(t, err)
			for _, d := range got {
				ids, after = append(ids, d.ID), d
			}
			if len(got) < page {
				return ids
			}
		}
	}
	want := func(when string, page int, wanted map[envelope.Lane][]envelope.ID, end time.Duration) {
		t.Helper()
		for lane := range envelope.Lane(5) {
			if got := list(lane, end, page); !slices.Equal(got, wanted[lane]) {
				t.Errorf("%s: lane %d: got %v, want %v", when, lane, got, wanted[lane])
			}
		}
	}
	all := map[envelope.Lane][]envelope.ID{0: {ordinary, later}, 3: {urgent}, 4: {before, atHour}}
	want("all, page by page", 1, all, 6*time.Hour)
	want("before the hour", 10, map[envelope.Lane][]envelope.ID{0: {ordinary, later}, 3: {urgent}, 4: {before}}, time.Hour)
	want("of the first minute", 10, map[envelope.Lane][]envelope.ID{0: {ordinary}}, 30*time.Second)

	n.settle(1, envelope.Settlement{ID: ordinary, Agency: "A", Transport: done})
	want("one recipient is settled", 10, all, 6*time.Hour)
	n.settle(1, envelope.Settlement{ID: ordinary, Agency: "B", Transport: fail})
	all[0] = []envelope.ID{later}
	want("the other one too", 10, all, 6*time.Hour)
	n.end()
	check(t, cfg)
	must(t, os.RemoveAll(filepath.Join(cfg.Dir, "index")))
	n = start(t, cfg)
	want("built again", 10, all, 6*time.Hour)
}
