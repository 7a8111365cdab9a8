package spool_test

import (
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

func (p *parcel) keep(agencies ...routing.AgencyCode) *parcel {
	p.Kept = append(p.Kept, agencies...)
	return p
}

// must wants a fact to be taken.
func must(t failer, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reopened ends a spool, proves it, and starts it again, the second time
// without its index.
func reopened(t *testing.T, cfg spool.Config, n *node, verify func(n *node)) *node {
	t.Helper()
	verify(n)
	for _, what := range []string{"journal", "index"} {
		n.end()
		check(t, cfg)
		if what == "index" {
			must(t, os.RemoveAll(filepath.Join(cfg.Dir, "index")))
			check(t, cfg)
		}
		n = start(t, cfg)
		verify(n)
	}
	return n
}

func (n *node) soles() []envelope.ID {
	n.t.Helper()
	list, err := n.Sole(0, 100)
	must(n.t, err)
	var ids []envelope.ID
	for _, e := range list {
		ids = append(ids, e.ID)
	}
	return ids
}

func (n *node) placeOf(p *parcel, agency routing.AgencyCode) envelope.Place {
	n.t.Helper()
	for _, d := range n.record(p).Deliveries {
		if d.Agency == agency {
			return d.Place
		}
	}
	return envelope.Unknown
}

// A copy is kept as long as its ingress needs it, and is no delivery.
func TestACopyIsKeptUntilItIsSettled(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 5000).keep("A", "B")
	n.mustPut(p)
	in := n.begin(newParcel(1, 5000).keep("B", "A"))
	if _, repeat := in.Repeat(); !repeat {
		t.Error("the same copy again is not a repeat")
	}
	in.Close()
	other := newParcel(2, 10).inbox("A")
	n.mustPut(other)
	n.settle(1, envelope.Settlement{ID: other.ID, Agency: "A", Transport: done})
	eventually(t, "a release", func() bool { return n.record(other).ContentReleased })
	n = reopened(t, cfg, n, func(n *node) {
		r := n.record(p)
		if r.ContentReleased || !slices.Equal(r.Kept, []routing.AgencyCode{"A", "B"}) || len(r.Inboxes)+len(r.Onward) > 0 {
			t.Errorf("record %+v, want that the copy is kept for A and B, and nothing else", r)
		}
		n.wantContent(p)
		if origins, err := n.Origins(); err != nil || !slices.Equal(origins, []routing.RelayID{"tay"}) {
			t.Errorf("origins %v, %v, want tay", origins, err)
		}
		if ids, err := n.Origin("tay", envelope.ID{}, 10); err != nil || !slices.Equal(ids, []envelope.ID{p.ID}) {
			t.Errorf("of tay %v, %v, want the copy", ids, err)
		}
	})
	// The home of B moves here: what was kept is delivered.
	n.mustPut(newParcel(1, 5000).inbox("B"))
	n.mustPut(newParcel(1, 5000).keep("B"))
	if got := n.inboxOf("B"); len(got) != 1 || n.placeOf(p, "B") != envelope.InInbox {
		t.Errorf("inbox of B holds %v, B is at %d, want the envelope in the inbox", got, n.placeOf(p, "B"))
	}
	n.settle(2, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done}, envelope.Settlement{ID: p.ID, Agency: "B", Transport: done})
	eventually(t, "the release of the copy", func() bool { return n.record(p).ContentReleased })
	if origins, err := n.Origins(); err != nil || len(origins) > 0 {
		t.Errorf("origins %v, %v, want none", origins, err)
	}
	n.end()
	check(t, cfg)
}

// What goes back to its ingress, because its recipient moved there, would be on
// one relay again: it is kept here until the ingress says how it ended.
func TestWhatGoesBackToItsIngressIsKept(t *testing.T) {
	for name, c := range map[string]struct {
		ingress  routing.RelayID
		released bool
		want     envelope.Place
	}{
		"to its ingress":                  {"nam", false, envelope.Kept},
		"to another relay":                {"tay", false, envelope.Elsewhere},
		"to its ingress, which let it go": {"nam", true, envelope.Elsewhere},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			n := start(t, cfg)
			p := newParcel(1, 5000).onward("nam", "A")
			p.Ingress = c.ingress
			n.mustPut(p)
			must(t, n.HandOn(t.Context(), envelope.HandedOn{
				ID: p.ID, Destination: "nam", Peer: "nam", Agencies: []routing.AgencyCode{"A"}, Released: c.released,
			}))
			if c.want != envelope.Kept {
				eventually(t, "a release", func() bool { return n.record(p).ContentReleased })
			}
			n = reopened(t, cfg, n, func(n *node) {
				if got := n.placeOf(p, "A"); got != c.want {
					t.Errorf("A is at %d, want %d", got, c.want)
				}
				if c.want == envelope.Kept {
					n.wantContent(p)
				}
			})
			if c.want == envelope.Kept {
				n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
				eventually(t, "a release", func() bool { return n.record(p).ContentReleased })
			}
			n.end()
			check(t, cfg)
		})
	}
}

// closed wants a channel to be closed soon.
func closed(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(time.Minute):
		t.Errorf("nobody told those who wait for %s", what)
	}
}

func TestASecondCopyIsMade(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	alone := n.SoleChanged()
	p := newParcel(1, 5000).fromSender().inbox("A").onward("nam")
	n.mustPut(p)
	closed(t, "what is nowhere else", alone)
	in := n.begin(newParcel(1, 5000).fromSender().inbox("A").onward("nam"))
	if _, repeat := in.Repeat(); !repeat {
		t.Error("a repeat of the submission is not one")
	}
	in.Close()
	must(t, n.Copy(t.Context(), envelope.Copy{ID: p.ID, Relay: "trung", Instead: []routing.RelayID{"nam"}}))
	must(t, n.Copy(t.Context(), envelope.Copy{ID: p.ID, Relay: "trung"}))
	must(t, n.Copy(t.Context(), envelope.Copy{ID: envelope.ID{9}, Relay: "trung"}))
	n = reopened(t, cfg, n, func(n *node) {
		if got := n.queueOf("nam"); len(got) != 0 {
			t.Errorf("queue of nam: %+v, want none", got)
		}
		if got := n.queueOf("trung"); len(got) != 1 || len(got[0].Onward.Agencies) != 0 {
			t.Errorf("queue of trung: %+v, want the copy", got)
		}
		if got := n.soles(); len(got) != 1 {
			t.Errorf("nowhere else: %v, want the envelope", got)
		}
	})
	copied := n.CopiesChanged(p.ID)
	n.handOn(p, "trung", "trung")
	closed(t, "a copy", copied)
	n = reopened(t, cfg, n, func(n *node) {
		if r := n.record(p); r.Copies != 2 || !slices.Equal(r.Holders, []routing.RelayID{"trung"}) || len(r.Onward) > 0 {
			t.Errorf("%d copies at %v, %v to be done, want one at trung", r.Copies, r.Holders, r.Onward)
		}
		if got := n.soles(); len(got) != 0 {
			t.Errorf("nowhere else: %v, want none", got)
		}
		if ids, err := n.Away("trung", envelope.ID{}, 10); err != nil || !slices.Equal(ids, []envelope.ID{p.ID}) {
			t.Errorf("with trung: %v, %v, want the envelope", ids, err)
		}
	})
	// A relay that has it needs no copy.
	must(t, n.Copy(t.Context(), envelope.Copy{ID: p.ID, Relay: "trung"}))
	if got := n.queueOf("trung"); len(got) != 0 {
		t.Errorf("queue of trung: %+v, want none", got)
	}
	// One that lost it does not count, whatever else.
	alone = n.SoleChanged()
	must(t, n.Forget(t.Context(), p.ID, "trung"))
	must(t, n.Forget(t.Context(), p.ID, "trung"))
	closed(t, "what is nowhere else", alone)
	if got := n.soles(); len(got) != 1 {
		t.Errorf("nowhere else: %v, want the envelope again", got)
	}
	if holders, err := n.Holders(); err != nil || len(holders) != 0 {
		t.Errorf("holders: %v, %v, want none", holders, err)
	}
	// Given up, nobody has it. Nobody needs it once all is done.
	must(t, n.Copy(t.Context(), envelope.Copy{ID: p.ID, Relay: "nam"}))
	n.handOn(p, "nam", self)
	if r := n.record(p); r.Copies != 1 || len(r.Onward) != 0 {
		t.Errorf("%d copies, %v to be done, want 1, none", r.Copies, r.Onward)
	}
	must(t, n.Copy(t.Context(), envelope.Copy{ID: p.ID, Relay: "nam"}))
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
	if got := n.queueOf("nam"); len(got) != 0 {
		t.Errorf("queue of nam: %+v, want none when all is done", got)
	}
	eventually(t, "the release", func() bool { return n.record(p).ContentReleased })
	var actions []exchangev1.TraceAction
	events, err := n.Events(p.ID)
	must(t, err)
	for _, e := range events {
		actions = append(actions, e.Action)
	}
	if !slices.Contains(actions, exchangev1.TraceAction_TRACE_ACTION_COPIED) || slices.Contains(actions, exchangev1.TraceAction_TRACE_ACTION_HANDED_ON) {
		t.Errorf("trace %v, want that it was copied, not that it was handed on", actions)
	}
	n.end()
	check(t, cfg)
}

// The ingress is lost: this relay remembers in its place.
func TestTakeOver(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 5000).inbox("A").onward("trung", "B", "C").keep("D", "E", "F")
	n.mustPut(p)
	n.handOn(p, "trung", "trung", "C")
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
	takeOver := envelope.TakeOver{
		ID: p.ID, Inboxes: []routing.AgencyCode{"D", "A", "Z"}, Onward: []envelope.Onward{{Relay: "tay", Agencies: []routing.AgencyCode{"E", "C"}}},
	}
	must(t, n.TakeOver(t.Context(), takeOver))
	must(t, n.TakeOver(t.Context(), takeOver))
	n = reopened(t, cfg, n, func(n *node) {
		r := n.record(p)
		if !r.FromSender || r.Ingress != self || r.Copies != 1 || !slices.Equal(r.Kept, []routing.AgencyCode{"F"}) {
			t.Errorf("record %+v, want that this relay is the ingress, and keeps it for F", r)
		}
		if got := n.inboxOf("D"); len(got) != 1 || len(n.inboxOf("A")) != 0 {
			t.Errorf("inbox of D holds %v, of A %v, want the envelope, none", got, n.inboxOf("A"))
		}
		if got := n.queueOf("tay"); len(got) != 1 || !slices.Equal(got[0].Onward.Agencies, []routing.AgencyCode{"E"}) {
			t.Errorf("queue of tay: %+v, want E", got)
		}
		if got := n.Stats(); got.Accepted != 6 || got.Delivered != 1 || got.Pending() != 5 {
			t.Errorf("counters %+v, want 1 of 6 delivered", got.Counters)
		}
		if id, found, err := n.ByDocument(p.Sender, p.DocumentID); id != p.ID || !found || err != nil {
			t.Errorf("the document is %v, %v, %v, want the envelope", id, found, err)
		}
		if ids, err := n.Away("trung", envelope.ID{}, 10); err != nil || len(ids) != 1 {
			t.Errorf("with trung: %v, %v, want the envelope", ids, err)
		}
		if origins, err := n.Origins(); err != nil || len(origins) != 0 {
			t.Errorf("origins %v, %v, want none", origins, err)
		}
		events, err := n.Events(p.ID)
		if err != nil || len(events) == 0 || events[0].Action != exchangev1.TraceAction_TRACE_ACTION_TAKEN {
			t.Errorf("trace %+v, %v, want that it was taken first", events, err)
		}
	})
	// The sender comes here now: everything is known.
	n.mustPut(newParcel(1, 5000).fromSender().inbox("A", "B", "C", "D").onward("tay", "E"))
	if got := n.Stats(); got.Accepted != 6 || len(n.inboxOf("B")) != 0 {
		t.Errorf("after a repeat: %+v, want no more", got.Counters)
	}
	var rest []envelope.Settlement
	for _, a := range []routing.AgencyCode{"B", "C", "D", "E", "F"} {
		rest = append(rest, envelope.Settlement{ID: p.ID, Agency: a, Transport: done})
	}
	n.settle(5, rest...)
	if holders, err := n.Holders(); err != nil || len(holders) != 0 {
		t.Errorf("holders %v, %v, want none when all is done", holders, err)
	}
	n.end()
	check(t, cfg)
}

// What is nowhere else after a take-over is looked after.
func TestTakeOverLeavesOneCopy(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	first := newParcel(1, 10).fromSender().inbox("A")
	p := newParcel(2, 10).keep("A")
	p.DocumentID = first.DocumentID
	n.mustPut(p)
	n.mustPut(first)
	alone := n.SoleChanged()
	must(t, n.TakeOver(t.Context(), envelope.TakeOver{ID: p.ID}))
	closed(t, "what is nowhere else", alone)
	if got, want := n.soles(), []envelope.ID{first.ID, p.ID}; !slices.Equal(got, want) {
		t.Errorf("nowhere else: %v, want %v", got, want)
	}
	if id, _, err := n.ByDocument(p.Sender, p.DocumentID); id != first.ID || err != nil {
		t.Errorf("the document is %v, %v, want the envelope that had its id first", id, err)
	}
	n.end()
	check(t, cfg)
}

func TestHoldIsSeenAndKept(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p, other := newParcel(1, 10).fromSender().inbox("A").onward("nam", "B"), newParcel(2, 10).inbox("A")
	n.mustPut(p)
	n.mustPut(other)
	must(t, n.Hold(t.Context(), envelope.Hold{ID: p.ID, Held: true, Note: "is it his"}))
	must(t, n.Hold(t.Context(), envelope.Hold{ID: p.ID, Held: true}))
	must(t, n.Hold(t.Context(), envelope.Hold{ID: envelope.ID{9}, Held: true}))
	held := func(n *node, want bool) {
		t.Helper()
		inbox, err := n.Inbox("A", envelope.Position{}, 10)
		must(t, err)
		queue := n.queueOf("nam")
		if len(inbox) != 2 || len(queue) != 1 || inbox[0].Held != want || inbox[1].Held || queue[0].Held != want || n.record(p).Held != want {
			t.Errorf("inbox %+v, queue %+v, record held %v, want held %v", inbox, queue, n.record(p).Held, want)
		}
	}
	n = reopened(t, cfg, n, func(n *node) { held(n, true) })
	inbox, queue := n.InboxChanged("A"), n.QueueChanged("nam")
	must(t, n.Hold(t.Context(), envelope.Hold{ID: p.ID}))
	closed(t, "the inbox", inbox)
	closed(t, "the queue", queue)
	held(n, false)
	var actions []exchangev1.TraceAction
	events, err := n.Events(p.ID)
	must(t, err)
	for _, e := range events {
		actions = append(actions, e.Action)
	}
	if !slices.Contains(actions, exchangev1.TraceAction_TRACE_ACTION_HELD) || !slices.Contains(actions, exchangev1.TraceAction_TRACE_ACTION_RELEASED) {
		t.Errorf("trace %v, want that it was held and released", actions)
	}
	// There is nothing to hold where nothing is left to do.
	must(t, n.Hold(t.Context(), envelope.Hold{ID: other.ID, Held: true}))
	n.settle(1, envelope.Settlement{ID: other.ID, Agency: "A", Transport: done})
	if got := n.Stats().Held; got != 0 || n.record(other).Held {
		t.Errorf("%d are held, want none", got)
	}
	n.end()
	check(t, cfg)
}

func TestElsewhere(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 10).fromSender().inbox("L").onward("nam", "A", "B", "C").onward("trung")
	n.mustPut(p)
	n.handOn(p, "nam", "nam", "A", "B")
	must(t, n.Reroute(t.Context(), envelope.Reroute{
		ID: p.ID, From: "nam", Agencies: []routing.AgencyCode{"A", "C", "L"},
		Elsewhere: []envelope.Onward{{Relay: "trung", Agencies: []routing.AgencyCode{"A", "C", "L"}}, {Relay: self, Agencies: []routing.AgencyCode{"B"}}},
	}))
	// B is still there: it may have been handed on since nam was asked.
	must(t, n.Forget(t.Context(), p.ID, "nam"))
	if r := n.record(p); !slices.Equal(r.Holders, []routing.RelayID{"nam", "trung"}) || r.Copies != 1 {
		t.Errorf("holders %v, %d copies, want nam too: it has B; and one copy: L depends on this relay", r.Holders, r.Copies)
	}
	n = reopened(t, cfg, n, func(n *node) {
		r := n.record(p)
		for _, d := range r.Deliveries {
			want := map[routing.AgencyCode]envelope.Delivery{
				"A": {Place: envelope.Elsewhere, Home: "trung"}, "B": {Place: envelope.Elsewhere, Home: "nam"},
				"C": {Place: envelope.Elsewhere, Home: "trung"}, "L": {Place: envelope.InInbox, Home: self},
			}[d.Agency]
			if d.Place != want.Place || d.Home != want.Home || d.Transport != processing {
				t.Errorf("%s: %+v, want %+v", d.Agency, d, want)
			}
		}
		if !slices.Equal(r.Holders, []routing.RelayID{"nam", "trung"}) || len(n.queueOf("nam")) != 0 {
			t.Errorf("holders %v, queue of nam %+v, want nam and trung, none", r.Holders, n.queueOf("nam"))
		}
		if got := n.queueOf("trung"); len(got) != 0 {
			t.Errorf("queue of trung: %+v, want none: it has the envelope", got)
		}
	})
	// B was at trung all the time; nam may be forgotten, and has it after all.
	must(t, n.Reroute(t.Context(), envelope.Reroute{
		ID: p.ID, From: "nam", Agencies: []routing.AgencyCode{"B"}, Elsewhere: []envelope.Onward{{Relay: "trung", Agencies: []routing.AgencyCode{"B"}}},
	}))
	must(t, n.Forget(t.Context(), p.ID, "nam"))
	if r := n.record(p); !slices.Equal(r.Holders, []routing.RelayID{"trung"}) {
		t.Errorf("holders %v, want trung alone", r.Holders)
	}
	must(t, n.Reroute(t.Context(), envelope.Reroute{
		ID: p.ID, From: "trung", Agencies: []routing.AgencyCode{"B"}, Elsewhere: []envelope.Onward{{Relay: "nam", Agencies: []routing.AgencyCode{"B"}}},
	}))
	if r := n.record(p); len(r.Holders) != 2 {
		t.Errorf("holders %v, want nam again", r.Holders)
	}
	n.end()
	check(t, cfg)
}

// A relay that has the envelope for its own recipients alone is no second copy
// for those who wait here; one that keeps it for them is, and one that lost it
// is not.
func TestACopyForSomeIsNoCopyForOthers(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 10).fromSender().inbox("L").onward("nam", "A").onward("trung", "B")
	n.mustPut(p)
	is := func(n *node, when string, copies uint32, sole int) {
		t.Helper()
		entries, err := n.Sole(0, 10)
		if r := n.record(p); err != nil || r.Copies != copies || len(entries) != sole {
			t.Errorf("%s: %d copies (holders %v, keepers %v), %d alone, %v; want %d, %d", when, r.Copies, r.Holders, r.Keepers, len(entries), err, copies, sole)
		}
	}
	is(n, "accepted", 1, 1)
	n.handOn(p, "nam", "nam", "A")
	is(n, "nam has it for A", 1, 1)
	changed := n.CopiesChanged(p.ID)
	must(t, n.HandOn(t.Context(), envelope.HandedOn{ID: p.ID, Destination: "trung", Peer: "trung", Agencies: []routing.AgencyCode{"B"}, Keeps: true}))
	select {
	case <-changed:
	case <-t.Context().Done():
	}
	n = reopened(t, cfg, n, func(n *node) {
		is(n, "trung keeps it for L", 3, 0)
	})
	// nam lost A, which waits here again: trung was never asked to keep it for A.
	must(t, n.Reroute(t.Context(), envelope.Reroute{ID: p.ID, From: "nam", Agencies: []routing.AgencyCode{"A"}, Inboxes: []routing.AgencyCode{"A"}}))
	is(n, "A waits here again", 1, 1)
	must(t, n.Copy(t.Context(), envelope.Copy{ID: p.ID, Relay: "trung"}))
	must(t, n.HandOn(t.Context(), envelope.HandedOn{ID: p.ID, Destination: "trung", Peer: "trung"}))
	is(n, "trung keeps it for all", 3, 0)
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "L", Transport: done})
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
	is(n, "only B is under way", 3, 0)
	// Brought again at an ingress that the homes do not know: nam had it, and has
	// let it go.
	again := newParcel(2, 10).fromSender().onward("nam", "A").onward("trung", "B")
	n.mustPut(again)
	must(t, n.HandOn(t.Context(), envelope.HandedOn{ID: again.ID, Destination: "nam", Peer: "nam", Agencies: []routing.AgencyCode{"A"}, Released: true}))
	n = reopened(t, cfg, n, func(n *node) {
		if r := n.record(again); r.Copies != 1 || len(r.Holders) != 0 {
			t.Errorf("handed to a relay that holds it no more: %d copies, holders %v", r.Copies, r.Holders)
		}
	})
	n.end()
	check(t, cfg)
}
