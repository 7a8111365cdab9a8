package spool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// counted is what statistics read of an envelope.
type counted struct {
	ID                      envelope.ID
	Header                  []byte
	Sender                  routing.AgencyCode
	Lane                    envelope.Lane
	AcceptedAt, CommittedAt time.Time
	Deliveries              []envelope.Delivery
	Outcomes                []envelope.Outcome
}

func (n *node) accepted(from, to time.Time) (all []counted) {
	n.t.Helper()
	err := n.Accepted(context.Background(), from, to, func(r *envelope.Record) error {
		c := counted{r.ID, r.Header, r.Sender, r.Lane, r.AcceptedAt, r.CommittedAt, r.Deliveries, nil}
		for i := range r.Deliveries {
			c.Outcomes = append(c.Outcomes, r.Deliveries[i].Outcome())
			c.Deliveries[i].Note = "" // of many recipients the register has none
		}
		all = append(all, c)
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b counted) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return all
}

// What is counted of a time is what was accepted in it from a sender: from its first
// instant on, before its end.
func TestAccepted(t *testing.T) {
	clock := newClock()
	cfg := config(t)
	cfg.Clock = clock.Now
	n := start(t, cfg)
	first := n.mustPut(newParcel(1, 100).fromSender().inbox("A", "B"))
	clock.Advance(time.Hour)
	second := n.mustPut(newParcel(2, 100).fromSender().onward("nam", "C"))
	of := newParcel(3, 100).inbox("A")
	n.mustPut(of) // another relay's
	statement := newParcel(4, 100).onward("tay")
	statement.Report = true
	n.mustPut(statement)
	taken := newParcel(5, 100)
	taken.Kept = []routing.AgencyCode{"D"}
	n.mustPut(taken)
	clock.Advance(time.Hour)
	must(t, n.TakeOver(t.Context(), envelope.TakeOver{ID: taken.ID, Inboxes: taken.Kept, At: clock.Now()}))
	n.settle(1, envelope.Settlement{ID: first.ID, Agency: "A", Transport: done})

	a, b := first.CommittedAt, second.CommittedAt
	for name, c := range map[string]struct {
		from, to time.Time
		want     []envelope.ID
	}{
		"ever":                      {time.Time{}, time.Time{}, []envelope.ID{first.ID, second.ID, taken.ID}},
		"to the second":             {a, b, []envelope.ID{first.ID}},
		"to the instant behind it":  {a, b.Add(1), []envelope.ID{first.ID, second.ID}},
		"from behind the first":     {a.Add(1), b.Add(1), []envelope.ID{second.ID}},
		"from the second, and on":   {b, time.Time{}, []envelope.ID{second.ID, taken.ID}},
		"before anything was there": {a.Add(-time.Hour), a, nil},
	} {
		var got []envelope.ID
		deliveries := int64(0)
		for _, r := range n.accepted(c.from, c.to) {
			got = append(got, r.ID)
			deliveries += int64(len(r.Deliveries))
		}
		slices.SortFunc(c.want, func(a, b envelope.ID) int { return bytes.Compare(a[:], b[:]) })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
		if !c.to.IsZero() {
			continue
		}
		if again, err := n.Recount(t.Context(), c.from, nil); err != nil || again.Counted.Accepted != deliveries {
			t.Errorf("%s: the recount has %+v, %v, want %d deliveries", name, again, err, deliveries)
		}
	}

	stop := errors.New("enough")
	if err := n.Accepted(t.Context(), time.Time{}, time.Time{}, func(*envelope.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want what was returned", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Accepted(ctx, time.Time{}, time.Time{}, func(*envelope.Record) error { return nil }); err == nil {
		t.Error("counted with a context that has ended")
	}
}

// A time counts the same whatever of it was released, and recycled, and after the
// loss of the index: the register has all that is counted.
func TestAcceptedWithoutIndex(t *testing.T) {
	cfg := spool.Hurried(config(t))
	cfg.Retention.Dead = time.Millisecond // so that what failed is released too
	n := start(t, cfg)
	many := make([]routing.AgencyCode, 40)
	for i := range many {
		many[i] = routing.AgencyCode(fmt.Sprintf("R%02d", i))
	}
	const expired, recalled, reused = exchangev1.ErrorReason_ERROR_REASON_EXPIRED, exchangev1.ErrorReason_ERROR_REASON_RECALLED,
		exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED
	var all []*parcel
	for i, recipients := range [][]routing.AgencyCode{{"A", "B", "C", "D"}, many, {"A"}} {
		p := newParcel(uint64(100+i), 60_000).fromSender().inbox(recipients...)
		p.Header, p.Lane = bytes.Repeat([]byte{byte(i)}, 400_000*i+10), envelope.Lane(i)
		p.ID = envelope.ComputeID(string(p.Sender), p.DocumentID, p.Header)
		n.mustPut(p)
		var batch []envelope.Settlement
		for j, a := range recipients {
			s := envelope.Settlement{ID: p.ID, Agency: a, Transport: done, At: p.AcceptedAt.Add(time.Duration(j) * time.Minute), Note: "ghi chú"}
			if reason := []exchangev1.ErrorReason{0, expired, recalled, reused}[j%4]; reason != 0 {
				s.Transport, s.Reason = exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL, reason
			}
			batch = append(batch, s)
		}
		n.settle(len(batch), batch...)
		must(t, n.Say(t.Context(), sayAt(p, 3, "03", recipients[0])))
		all = append(all, p)
	}
	waits := newParcel(9, 100).fromSender().inbox("A", "B")
	n.mustPut(waits)
	n.settle(1, envelope.Settlement{ID: waits.ID, Agency: "B", Transport: done})

	want := n.accepted(time.Time{}, time.Time{})
	if len(want) != 4 || len(want[0].Deliveries) == 0 {
		t.Fatalf("%d counted, want 4", len(want))
	}
	recycled(t, n, all)
	eventually(t, "the register", func() bool { return n.Unregistered() == 0 })
	verify := func(when string) {
		t.Helper()
		if diff := cmp.Diff(want, n.accepted(time.Time{}, time.Time{})); diff != "" {
			t.Errorf("%s: was - is +\n%s", when, diff)
		}
	}
	verify("released and recycled")
	n.end()
	withoutIndex(t, cfg)
	check(t, cfg)
	n = start(t, cfg)
	verify("without the index")
	must(t, n.Say(t.Context(), sayAt(all[1], 5, "06", many[0]))) // and is registered again
	want = n.accepted(time.Time{}, time.Time{})
	n.end()
	withoutIndex(t, cfg)
	n = start(t, cfg)
	verify("without it a second time")
}
