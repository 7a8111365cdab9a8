package keeper_test

import (
	"testing"
	"testing/synctest"
	"time"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// lifetime has an envelope end some time after it was accepted.
func lifetime(d time.Duration) func(*envelope.Record) {
	return func(r *envelope.Record) { r.ExpiresAt = r.AcceptedAt.Add(d) }
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		mine := w.put(1, func(r *envelope.Record) {
			r.Deliveries = []envelope.Delivery{
				at("H26", envelope.InInbox, "bac"), at("G22", envelope.InQueue, "trung"), at("H29", envelope.Elsewhere, "nam"),
			}
			r.Holders = []routing.RelayID{"nam"}
			lifetime(10 * time.Second)(r)
		})
		w.others.up("nam", mine, says(stands("H29", inbox)))
		theirs := w.put(2, func(r *envelope.Record) {
			r.FromSender, r.Ingress = false, "nam"
			r.Held = true
			r.Deliveries = []envelope.Delivery{
				at("H26", envelope.InInbox, "bac"), at("G22", envelope.InQueue, "trung"), at("H29", envelope.Elsewhere, "nam"),
			}
			lifetime(10 * time.Second)(r)
		})
		copied := w.put(3, func(r *envelope.Record) { keptFor("H29")(r); lifetime(10 * time.Second)(r) })
		later := w.put(4, func(r *envelope.Record) { own(r); lifetime(time.Hour)(r) })
		bare := w.put(5, func(r *envelope.Record) { own(r); copyAt("tay")(r); lifetime(10 * time.Second)(r) })
		w.others.up("nam", theirs, &relayv1.ReconcileAnswer{Ingress: true})
		w.others.up("nam", copied, &relayv1.ReconcileAnswer{Ingress: true, HoldsContent: true})
		stop := w.run()
		defer stop()

		time.Sleep(9 * time.Second)
		w.want(mine, "H26", envelope.InInbox, "bac")
		time.Sleep(3 * time.Second)
		for _, id := range []envelope.ID{mine, theirs} {
			r, _ := w.Record(id)
			for _, d := range r.Deliveries[:2] {
				if d.Place != envelope.Settled || d.Transport != fail || d.Reason != expired {
					t.Errorf("%s: got %+v, want it expired", d.Agency, d)
				}
			}
		}
		w.want(mine, "H29", envelope.Elsewhere, "nam")
		w.want(theirs, "H29", envelope.Elsewhere, "nam")
		w.want(copied, "H29", envelope.Kept, "")
		w.want(later, "H26", envelope.InInbox, "bac")
		if len(w.reports) != 2 {
			t.Fatalf("got %d reports, want 2 to the ingress of the other's", len(w.reports))
		}
		for _, report := range w.reports {
			s, err := envelope.ParseReport(report)
			if err != nil || s.ID != theirs || s.Transport != fail || s.Reason != expired || report.Onward[0].Relay != "nam" {
				t.Errorf("report: got %+v, %v", s, err)
			}
		}
		if r, _ := w.Record(bare); len(r.Onward) > 0 {
			t.Errorf("duties: got %v, want the copy given up", r.Onward)
		}

		time.Sleep(58 * time.Minute)
		w.want(mine, "H29", envelope.Elsewhere, "nam")
		w.want(later, "H26", envelope.InInbox, "bac")
		time.Sleep(4 * time.Minute)
		w.want(mine, "H29", envelope.Settled, "nam")
		w.want(later, "H26", envelope.Settled, "bac")
		w.want(theirs, "H29", envelope.Elsewhere, "nam") // nobody's business here
		w.want(copied, "H29", envelope.Settled, "")
		if len(w.reports) != 2 {
			t.Errorf("got %d reports, want no more", len(w.reports))
		}
	})
}

// Many that cannot end yet keep nobody from ending, also not when they come
// first; and they are not read again every second.
func TestExpiryGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const n = 1200
		for i := range n {
			w.put(i, func(r *envelope.Record) { toNam(r); lifetime(time.Second)(r) })
			w.others.up("nam", idOf(i), says(stands("H29", inbox)))
		}
		last := w.put(n, func(r *envelope.Record) { own(r); lifetime(2 * time.Second)(r) })
		late := w.put(n+1, func(r *envelope.Record) { own(r); lifetime(30 * time.Second)(r) })
		stop := w.run()
		defer stop()
		time.Sleep(5 * time.Second)
		w.want(last, "H26", envelope.Settled, "bac")
		reads := 0
		w.edit(func() { w.onRead = func() { reads++ } })
		time.Sleep(27 * time.Second)
		w.want(late, "H26", envelope.Settled, "bac")
		w.edit(func() { w.onRead = nil })
		if reads > 10*n {
			t.Errorf("got %d records read in half a minute", reads)
		}
	})
}
