package spool_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

const (
	expired  = exchangev1.ErrorReason_ERROR_REASON_EXPIRED
	recalled = exchangev1.ErrorReason_ERROR_REASON_RECALLED
)

// until sets the end of an envelope's lifetime.
func (p *parcel) until(at time.Time) *parcel {
	p.ExpiresAt = at
	return p
}

var lifetime = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

func TestRevive(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 300<<10).fromSender().inbox("A", "B").onward("nam", "C", "D").until(lifetime)
	n.mustPut(p)
	n.handOn(p, "nam", "nam", "C", "D")
	n.settle(4, envelope.Settlement{ID: p.ID, Agency: "A", Transport: fail, Reason: expired, Note: "too late"},
		envelope.Settlement{ID: p.ID, Agency: "B", Transport: done},
		envelope.Settlement{ID: p.ID, Agency: "C", Transport: fail},
		envelope.Settlement{ID: p.ID, Agency: "D", Transport: fail, Reason: recalled})
	n = reopened(t, cfg, n, func(n *node) {
		n.wantContent(p)
		if got, err := n.DeadLetters(envelope.Due{}, 10); err != nil || len(got) != 1 || got[0].ID != p.ID {
			t.Errorf("given up: %+v, %v, want the envelope", got, err)
		}
	})
	wrong, invalid := exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	later := lifetime.Add(time.Hour)
	for name, c := range map[string]struct {
		f    envelope.Revive
		want exchangev1.ErrorReason
	}{
		"unknown":      {envelope.Revive{ID: envelope.ID{9}, Inboxes: []routing.AgencyCode{"A"}, ExpiresAt: later}, exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND},
		"delivered":    {envelope.Revive{ID: p.ID, Inboxes: []routing.AgencyCode{"B"}, ExpiresAt: later}, wrong},
		"taken back":   {envelope.Revive{ID: p.ID, Inboxes: []routing.AgencyCode{"D"}, ExpiresAt: later}, wrong},
		"stranger":     {envelope.Revive{ID: p.ID, Inboxes: []routing.AgencyCode{"Z"}, ExpiresAt: later}, wrong},
		"no more time": {envelope.Revive{ID: p.ID, Inboxes: []routing.AgencyCode{"A"}, ExpiresAt: lifetime}, invalid},
	} {
		t.Run(name, func(t *testing.T) { wantReason(t, n.Revive(t.Context(), c.f), c.want) })
	}
	revive := envelope.Revive{
		ID: p.ID, Inboxes: []routing.AgencyCode{"A", "B"}, Onward: []envelope.Onward{{Relay: "trung", Agencies: []routing.AgencyCode{"C", "D"}}},
		ExpiresAt: later, Note: "agreed with H26",
	}
	must(t, n.Revive(t.Context(), revive))
	n = reopened(t, cfg, n, func(n *node) {
		r := n.record(p)
		if !r.ExpiresAt.Equal(later) || r.Copies != 1 || len(n.soles()) != 1 {
			t.Errorf("record %+v, want more time, and that nobody else is known to have it", r)
		}
		for _, d := range r.Deliveries {
			if d.Agency == "A" && (d.Place != envelope.InInbox || d.Reason != 0 || d.Note != "") {
				t.Errorf("A: %+v, want it in the inbox, and no word of an end", d)
			}
		}
		if len(n.inboxOf("A")) != 1 || len(n.inboxOf("B")) != 0 {
			t.Errorf("inboxes of A and B: %v, %v, want the envelope, none", n.inboxOf("A"), n.inboxOf("B"))
		}
		if got := n.queueOf("trung"); len(got) != 1 || !slices.Equal(got[0].Onward.Agencies, []routing.AgencyCode{"C"}) {
			t.Errorf("queue of trung: %+v, want C", got)
		}
		if got := n.Stats(); got.Expired != 0 || got.Refused != 0 || got.Recalled != 1 || got.Pending() != 2 || got.DeadLetters != 0 {
			t.Errorf("counters %+v, want 2 pending, 1 recalled", got.Counters)
		}
		if got, err := n.Expired(later, envelope.Due{}, 10); err != nil || len(got) != 1 || !got[0].At.Equal(later) {
			t.Errorf("expires: %+v, %v, want at the later time", got, err)
		}
		if got, err := n.Expired(lifetime, envelope.Due{}, 10); err != nil || len(got) != 0 {
			t.Errorf("expires at the old time: %+v, %v, want nothing", got, err)
		}
	})
	wantReason(t, n.Revive(t.Context(), revive), invalid)
	n.end()
	check(t, cfg)
}

// The relay that gave it up takes it again, because it has more time.
func TestRevivedElsewhere(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	offer := func() *parcel { return newParcel(1, 300<<10).inbox("A", "B", "C").keep("D").until(lifetime) }
	p := offer()
	n.mustPut(p)
	n.settle(4, envelope.Settlement{ID: p.ID, Agency: "A", Transport: fail, Reason: expired},
		envelope.Settlement{ID: p.ID, Agency: "B", Transport: done},
		envelope.Settlement{ID: p.ID, Agency: "C", Transport: fail, Reason: recalled},
		envelope.Settlement{ID: p.ID, Agency: "D", Transport: fail, Reason: expired})
	eventually(t, "the release", func() bool { return n.record(p).ContentReleased })
	n.mustPut(offer())
	if got := n.inboxOf("A"); len(got) != 0 {
		t.Fatalf("inbox of A holds %v after a repeat, want nothing", got)
	}
	later := lifetime.Add(time.Hour)
	n.mustPut(offer().until(later))
	n = reopened(t, cfg, n, func(n *node) {
		r := n.record(p)
		if !slices.Equal(r.Inboxes, []routing.AgencyCode{"A"}) || !slices.Equal(r.Kept, []routing.AgencyCode{"D"}) || !r.ExpiresAt.Equal(later) {
			t.Errorf("record %+v, want the envelope for A, a copy for D, and more time", r)
		}
		n.wantContent(p)
	})
	wantReason(t, n.Revive(t.Context(), envelope.Revive{ID: p.ID, Inboxes: []routing.AgencyCode{"A"}, ExpiresAt: later.Add(1)}),
		exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE)
	// What waits here still has no less time than the ingress gives it.
	later = later.Add(time.Hour)
	n.mustPut(offer().until(later))
	if r := n.record(p); !r.ExpiresAt.Equal(later) || len(n.inboxOf("A")) != 1 {
		t.Errorf("record %+v, want more time for what waits", r)
	}
	n.end()
	check(t, cfg)
}

// What was given up for somebody stays for an operator; what comes after all
// ends that.
func TestDeadLettersAreKept(t *testing.T) {
	t.Parallel()
	cfg, now := config(t), newClock()
	cfg.Clock = now.Now
	cfg.Retention = spool.Retention{Dead: 48 * time.Hour, Record: 24 * time.Hour}
	n := start(t, cfg)
	var all []*parcel
	for i := range uint64(5) {
		p := newParcel(i, 100).fromSender().inbox("A")
		n.mustPut(p)
		all = append(all, p)
	}
	transit, back := newParcel(50, 100).inbox("A"), newParcel(51, 100).fromSender().inbox("A")
	n.mustPut(transit)
	n.mustPut(back)
	var at time.Time
	for i, p := range slices.Concat(all, []*parcel{transit, back}) {
		f := envelope.Settlement{ID: p.ID, Agency: "A", Transport: fail, Reason: expired}
		if p == back {
			f.Reason = recalled
		}
		n.settle(1, f)
		if i == 2 {
			at = now.Now()
		}
	}
	eventually(t, "the release of what is nobody's", func() bool {
		return n.record(transit).ContentReleased && n.record(back).ContentReleased
	})
	var got []envelope.ID
	for after := (envelope.Due{}); ; {
		page, err := n.DeadLetters(after, 2)
		must(t, err)
		for _, d := range page {
			got, after = append(got, d.ID), d
		}
		if len(page) < 2 {
			break
		}
	}
	if want := []envelope.ID{all[0].ID, all[1].ID, all[2].ID, all[3].ID, all[4].ID}; !slices.Equal(got, want) {
		t.Errorf("given up: %v, want %v", got, want)
	}
	if got, err := n.DeadLetters(envelope.Due{At: at}, 10); err != nil || len(got) != 2 {
		t.Errorf("given up later: %v, %v, want 2", got, err)
	}
	n.settle(1, envelope.Settlement{ID: all[0].ID, Agency: "A", Transport: done})
	eventually(t, "the release of what was delivered after all", func() bool { return n.record(all[0]).ContentReleased })
	now.Advance(47 * time.Hour)
	n.mustPut(newParcel(60, 10).inbox("A"))
	n.wantContent(all[1])
	if got := n.Stats().DeadLetters; got != 4 {
		t.Errorf("%d were given up, want 4", got)
	}
	now.Advance(2 * time.Hour)
	eventually(t, "the end of the last", func() bool { return n.Stats().DeadLetters == 0 })
	if r := n.record(all[1]); !r.ContentReleased {
		t.Error("content is kept, and nobody can find it")
	}
	now.Advance(25 * time.Hour)
	eventually(t, "the end of the record", func() bool {
		_, err := n.Record(all[1].ID)
		return errors.Is(err, spool.ErrNotFound)
	})
	n.end()
	check(t, cfg)
}

func TestExpiredHasPages(t *testing.T) {
	n := start(t, config(t))
	var want []envelope.ID
	for i := range uint64(6) {
		p := newParcel(i, 10).inbox("A").until(lifetime.Add(time.Duration(i/2) * time.Second))
		n.mustPut(p)
		want = append(want, p.ID)
	}
	n.mustPut(newParcel(9, 10).inbox("A").until(lifetime.Add(time.Hour)))
	var got []envelope.ID
	for after := (envelope.Due{}); ; {
		page, err := n.Expired(lifetime.Add(time.Minute), after, 4)
		must(t, err)
		for _, d := range page {
			got, after = append(got, d.ID), d
		}
		if len(page) < 4 {
			break
		}
	}
	for pair := range slices.Chunk(want, 2) {
		slices.SortFunc(pair, byID) // of the same instant
	}
	if !slices.Equal(got, want) {
		t.Errorf("expired: %v, want %v", got, want)
	}
}
