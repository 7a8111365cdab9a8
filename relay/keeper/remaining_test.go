package keeper_test

import (
	"testing"
	"testing/synctest"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// What a relay that drains still has to wait for.
func TestRemaining(t *testing.T) {
	for _, c := range []struct {
		name string
		put  func(*envelope.Record)
		says map[routing.RelayID]*relayv1.ReconcileAnswer // nil: it does not know the envelope
		want uint64
	}{
		{name: "nobody else has it", put: own, want: 1},
		{name: "waits here, though another has it", put: func(r *envelope.Record) { own(r); r.Holders = []routing.RelayID{"nam"} }, want: 1},
		{name: "waits at its home", put: toNam, says: map[routing.RelayID]*relayv1.ReconcileAnswer{"nam": says(stands("H29", inbox))}},
		{name: "ended at its home", put: toNam, says: map[routing.RelayID]*relayv1.ReconcileAnswer{"nam": without(ended("H29", done, 0))}},
		{name: "its home is silent", put: toNam, want: 1},
		{name: "its home lost it", put: toNam, says: map[routing.RelayID]*relayv1.ReconcileAnswer{"nam": nil}, want: 1},
		{
			name: "on its way, though the copy's keeper knows nothing of that", put: func(r *envelope.Record) {
				r.Deliveries, r.Holders = []envelope.Delivery{at("H29", envelope.Elsewhere, "nam")}, []routing.RelayID{"tay", "trung"}
			},
			says: map[routing.RelayID]*relayv1.ReconcileAnswer{"tay": says(stands("H29", queue)), "trung": says(stands("H29", kept))},
		},
		{name: "waits here for another ingress", put: func(r *envelope.Record) {
			own(r)
			r.FromSender, r.Ingress = false, "nam"
		}, want: 1},
		{name: "the only other copy is kept here", put: keptFor("H29"), want: 1, says: map[routing.RelayID]*relayv1.ReconcileAnswer{
			"nam": {HoldsContent: true, Ingress: true, Copies: 1, Standings: []*relayv1.Standing{stands("H29", inbox)}}}},
		{name: "a copy is kept here, another elsewhere", put: keptFor("H29"), says: map[routing.RelayID]*relayv1.ReconcileAnswer{
			"nam": {HoldsContent: true, Ingress: true, Copies: 2, Standings: []*relayv1.Standing{stands("H29", inbox)}}}},
		{name: "a copy is kept here, its ingress is silent", put: keptFor("H29"), want: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				id := w.put(1, c.put)
				for relay, answer := range c.says {
					w.others.up(relay, id, answer)
				}
				w.drain("bac")
				if got, err := w.keeper.Remaining(t.Context()); err != nil || got != c.want {
					t.Errorf("got %d, %v, want %d", got, err, c.want)
				}
			})
		})
	}
}
