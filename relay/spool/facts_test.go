package spool_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

const (
	done = exchangev1.TransportStatus_TRANSPORT_STATUS_DONE
	fail = exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL

	initial    = exchangev1.TransportStatus_TRANSPORT_STATUS_INITIAL
	processing = exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING
)

// settle ends deliveries and wants that many of them to be new.
func (n *node) settle(want int, batch ...envelope.Settlement) {
	n.t.Helper()
	got, err := n.Settle(context.Background(), batch)
	if err != nil || got != want {
		n.t.Fatalf("settle: %d, %v, want %d", got, err, want)
	}
}

func (n *node) handOn(p *parcel, destination, peer routing.RelayID, agencies ...routing.AgencyCode) {
	n.t.Helper()
	err := n.HandOn(context.Background(), envelope.HandedOn{ID: p.ID, Destination: destination, Peer: peer, Agencies: agencies})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) record(p *parcel) *envelope.Record {
	n.t.Helper()
	r, err := n.Record(p.ID)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

func (n *node) transportOf(p *parcel, agency routing.AgencyCode) exchangev1.TransportStatus {
	n.t.Helper()
	for _, d := range n.record(p).Deliveries {
		if d.Agency == agency {
			return d.Transport
		}
	}
	n.t.Fatalf("%s is no recipient", agency)
	return 0
}

// report is a relay's statement for the ingress.
func report(p *parcel, agency routing.AgencyCode) *envelope.Custody {
	r := newParcel(uint64(len(agency))+uint64(p.ID[0])<<16+uint64(p.ID[1])<<24+1<<40, []int{}...)
	r.Header = fmt.Appendf(nil, "report of %s about %s", agency, p.ID)
	r.ID = envelope.ComputeID("bac", string(r.Header), r.Header)
	r.Report, r.Lane = true, 2
	r.Onward = []envelope.Onward{{Relay: "nam"}}
	return &r.Custody
}

func TestHandOnEndsTheDuty(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 5000).fromSender().onward("nam", "A", "B").onward("trung", "C")
	n.mustPut(p)
	n.handOn(p, "nam", "trung", "A")
	if got := n.queueOf("nam"); len(got) != 1 || !slices.Equal(got[0].Onward.Agencies, []routing.AgencyCode{"B"}) {
		t.Errorf("queue after the first of two: %+v, want one for B", got)
	}
	if got := n.transportOf(p, "A"); got != exchangev1.TransportStatus_TRANSPORT_STATUS_INITIAL {
		t.Errorf("A by way of another relay is %s, want initial", got)
	}
	n.handOn(p, "nam", "nam", "B", "A")
	n.handOn(p, "nam", "nam", "B", "A") // again
	n.handOn(p, "trung", "trung", "C")
	if got := n.queueOf("nam"); len(got) != 0 {
		t.Errorf("queue at the end: %+v, want none", got)
	}
	if got := n.transportOf(p, "B"); got != exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING {
		t.Errorf("B at its home is %s, want processing", got)
	}
	if got := n.record(p); got.Copies != 3 || len(got.Onward) != 0 || got.ContentReleased {
		t.Errorf("record has %d copies, %v open, released %v, want 3, none, false", got.Copies, got.Onward, got.ContentReleased)
	}
	if got, _ := n.Destinations(); len(got) != 0 {
		t.Errorf("destinations %v, want none", got)
	}
	var actions []exchangev1.TraceAction
	events, err := n.Events(p.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		actions = append(actions, e.Action)
	}
	handed := exchangev1.TraceAction_TRACE_ACTION_HANDED_ON
	if want := []exchangev1.TraceAction{exchangev1.TraceAction_TRACE_ACTION_ACCEPTED, handed, handed, handed}; !slices.Equal(actions, want) {
		t.Errorf("trace %v, want %v", actions, want)
	}
	n.end()
	check(t, cfg)
}

func TestSettleIsOnceAndTakesTheReport(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 5000).inbox("A", "B")
	n.mustPut(p)
	a := envelope.Settlement{ID: p.ID, Agency: "A", Transport: done, Report: report(p, "A")}
	b := envelope.Settlement{ID: p.ID, Agency: "B", Transport: fail, Note: "no", Report: report(p, "B")}
	stranger := envelope.Settlement{ID: p.ID, Agency: "Z", Transport: done, Report: report(p, "Z")}
	unknown := envelope.Settlement{ID: envelope.ID{9}, Agency: "A", Transport: done, Report: report(p, "U")}
	n.settle(1, a, a, stranger, unknown)
	n.settle(1, a, b)
	n.settle(0, a, b)
	if got := n.queueOf("nam"); len(got) != 2 || got[0].ID != a.Report.ID || got[1].ID != b.Report.ID {
		t.Errorf("queue of the ingress: %+v, want the two reports", got)
	}
	// Given up may still turn out to be done; done stays.
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "B", Transport: done})
	n.settle(0, envelope.Settlement{ID: p.ID, Agency: "B", Transport: fail})
	if got := n.inboxOf("A"); len(got) != 0 {
		t.Errorf("inbox of A holds %v, want nothing", got)
	}
	n.HandOn(context.Background(), envelope.HandedOn{ID: a.Report.ID, Destination: "nam", Peer: "nam"})
	if got := n.queueOf("nam"); len(got) != 1 {
		t.Errorf("queue after a report was handed on: %+v, want the other", got)
	}
	eventually(t, "the release of the content", func() bool { return n.record(p).ContentReleased })
	n.mustPut(p.with().inbox("A", "B"))
	if got := n.inboxOf("A"); len(got) != 0 {
		t.Errorf("a settled delivery is in the inbox again: %v", got)
	}
	n.end()
	check(t, cfg)
}

// Two calls settle the same deliveries at the same time: each is counted once,
// and one report is taken for each.
func TestSettleRaces(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	const agencies, callers = 200, 4
	p := newParcel(1, 100)
	var batch []envelope.Settlement
	for i := range agencies {
		a := routing.AgencyCode(fmt.Sprintf("H26.%03d", i))
		p.inbox(a)
		batch = append(batch, envelope.Settlement{ID: p.ID, Agency: a, Transport: done, Report: report(p, a)})
	}
	n.mustPut(p)
	counts := make(chan int, callers)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			mine := slices.Clone(batch)
			if c%2 == 1 {
				slices.Reverse(mine)
			}
			got, err := n.Settle(context.Background(), mine)
			if err != nil {
				t.Error(err)
			}
			counts <- got
		})
	}
	wg.Wait()
	close(counts)
	total := 0
	for c := range counts {
		total += c
	}
	if got := n.Stats(); total != agencies || got.Queues["nam"] != agencies || got.Inboxed != 0 {
		t.Errorf("settled %d, %d reports, %d left, want %d, %d, 0", total, got.Queues["nam"], got.Inboxed, agencies, agencies)
	}
	// A record without effect would have one in a rebuild without the others.
	if got, err := n.Settlements(); err != nil || got != agencies {
		t.Errorf("the journal has %d settlements, %v, want %d", got, err, agencies)
	}
	n.end()
	check(t, cfg)
}

func TestRerouteMovesOnlyWhoIsThere(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 300<<10).fromSender().inbox("L1", "L2").onward("nam", "A", "B", "C", "D")
	n.mustPut(p)
	n.handOn(p, "nam", "nam", "A", "B")
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
	reroute := func(r envelope.Reroute) {
		t.Helper()
		r.ID = p.ID
		if err := n.Reroute(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	// nam is lost: A is done, B was there, C waits, D stays.
	reroute(envelope.Reroute{
		From: "nam", Agencies: []routing.AgencyCode{"A", "B", "C"},
		Onward: []envelope.Onward{{Relay: "trung", Agencies: []routing.AgencyCode{"A", "B"}}}, Inboxes: []routing.AgencyCode{"C", "L1"},
	})
	if got := n.queueOf("trung"); len(got) != 1 || !slices.Equal(got[0].Onward.Agencies, []routing.AgencyCode{"B"}) {
		t.Errorf("queue of trung: %+v, want B", got)
	}
	if got := n.queueOf("nam"); len(got) != 1 || !slices.Equal(got[0].Onward.Agencies, []routing.AgencyCode{"D"}) {
		t.Errorf("queue of nam: %+v, want D", got)
	}
	if got := n.inboxOf("C"); len(got) != 1 {
		t.Errorf("inbox of C: %v, want the envelope", got)
	}
	// Homes move away from here.
	reroute(envelope.Reroute{
		From: self, Agencies: []routing.AgencyCode{"L1", "L2", "D"},
		Onward: []envelope.Onward{{Relay: "trung", Agencies: []routing.AgencyCode{"L1", "D"}}},
	})
	if got := n.queueOf("trung"); len(got) != 1 || !slices.Equal(got[0].Onward.Agencies, []routing.AgencyCode{"B", "L1"}) {
		t.Errorf("queue of trung: %+v, want B and L1", got)
	}
	if got := n.inboxOf("L2"); len(got) != 1 {
		t.Errorf("inbox of L2, who was given no other duty: %v, want the envelope", got)
	}
	// The same relay, which lost what it had.
	n.handOn(p, "trung", "trung", "B", "L1")
	reroute(envelope.Reroute{
		From: "trung", Agencies: []routing.AgencyCode{"B"},
		Onward: []envelope.Onward{{Relay: "trung", Agencies: []routing.AgencyCode{"B"}}},
	})
	if got := n.queueOf("trung"); len(got) != 1 || !slices.Equal(got[0].Onward.Agencies, []routing.AgencyCode{"B"}) {
		t.Errorf("queue of trung: %+v, want B again", got)
	}
	n.end()
	check(t, cfg)
}

func TestDeferIsSeenAndKept(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 10).onward("nam", "A")
	n.mustPut(p)
	next := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	for tries := range uint32(10) {
		if err := n.Defer(context.Background(), p.ID, "nam", tries+1, next, "no route"); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Defer(context.Background(), p.ID, "trung", 1, next, "no such duty"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got := n.queueOf("nam")
		if len(got) != 1 || got[0].Tries != 10 || !got[0].NextTry.Equal(next) || got[0].LastError != "no route" {
			t.Errorf("queue: %+v, want the tenth try", got)
		}
		n.end()
		check(t, cfg)
		n = start(t, cfg)
	}
	if events, _ := n.Events(p.ID); len(events) != 5 {
		t.Errorf("trace has %d lines, want that it was taken, and tries 1, 2, 4 and 8", len(events))
	}
}

func TestQueueAndInboxOrder(t *testing.T) {
	n := start(t, config(t))
	var want []envelope.ID
	byLane := map[envelope.Lane][]envelope.ID{}
	for i := range 50 {
		p := newParcel(uint64(i), 10).inbox("A").onward("nam", "B")
		p.Lane = envelope.Lane(i * 7 % 5)
		n.mustPut(p)
		byLane[p.Lane] = append(byLane[p.Lane], p.ID)
	}
	for _, lane := range envelope.LaneOrder {
		want = append(want, byLane[lane]...)
	}
	for _, page := range []int{1, 7, 50, 100} {
		var queue, inbox []envelope.ID
		var at envelope.Position
		for {
			entries, err := n.Queue("nam", at, page)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				queue = append(queue, e.ID)
				at = envelope.Position{Lane: e.Lane, Sequence: e.Sequence}
			}
			if len(entries) < page {
				break
			}
		}
		at = envelope.Position{}
		for {
			entries, err := n.Inbox("A", at, page)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				inbox = append(inbox, e.ID)
				at = envelope.Position{Lane: e.Lane, Sequence: e.Sequence}
			}
			if len(entries) < page {
				break
			}
		}
		if !slices.Equal(queue, want) || !slices.Equal(inbox, want) {
			t.Errorf("in pages of %d: the order is not that of lanes and sequences", page)
		}
	}
	// The head of a queue leaves; nothing behind it is lost from sight.
	for _, id := range want[:30] {
		if err := n.HandOn(context.Background(), envelope.HandedOn{ID: id, Destination: "nam", Peer: "nam", Agencies: []routing.AgencyCode{"B"}}); err != nil {
			t.Fatal(err)
		}
		n.queueOf("nam")
	}
	p := newParcel(99, 10).onward("nam", "B")
	p.Lane = 3
	n.mustPut(p)
	if got := n.queueOf("nam"); len(got) != 21 || got[0].ID != p.ID {
		t.Errorf("queue has %d entries, want 21, the urgent one first", len(got))
	}
}

func TestChangesWakeThoseWhoWait(t *testing.T) {
	n := start(t, config(t))
	inbox, queue, destinations := n.InboxChanged("A"), n.QueueChanged("nam"), n.DestinationsChanged()
	if _, err := n.put(newParcel(1, 10).inbox("A").onward("nam", "B")); err != nil {
		t.Fatal(err)
	}
	for name, ch := range map[string]<-chan struct{}{"inbox": inbox, "queue": queue, "destinations": destinations} {
		select {
		case <-ch:
		case <-time.After(time.Minute):
			t.Errorf("nobody told those who wait for the %s", name)
		}
	}
	again := n.DestinationsChanged()
	n.mustPut(newParcel(2, 10).onward("nam", "B"))
	select {
	case <-again:
		t.Error("a second envelope for the same relay is no new destination")
	default:
	}
}
