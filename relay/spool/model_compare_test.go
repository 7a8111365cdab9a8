package spool_test

import (
	"maps"
	"slices"

	"pgregory.net/rapid"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// compare wants the spool to say what the model says.
func (m *model) compare(rt *rapid.T) {
	inboxes := make(map[routing.AgencyCode][]envelope.ID)
	queues := make(map[routing.RelayID]map[envelope.ID]int)
	for id, e := range m.envelopes {
		r, err := m.n.Record(id)
		if err != nil {
			rt.Fatalf("record of %s: %v", id, err)
		}
		if len(r.Deliveries) != len(e.deliveries) || r.FromSender != e.fromSender || int(r.Copies) != 1+len(e.holders) {
			rt.Fatalf("envelope %s has %d recipients, ingress %v, %d copies, want %d, %v, %d",
				id, len(r.Deliveries), r.FromSender, r.Copies, len(e.deliveries), e.fromSender, 1+len(e.holders))
		}
		for _, got := range r.Deliveries {
			if d := e.deliveries[got.Agency]; d == nil || d.transport != got.Transport || d.where != "settled" && d.home != got.Home {
				rt.Fatalf("envelope %s, %s: %+v, want %+v", id, got.Agency, got, d)
			}
		}
		for a, d := range e.deliveries {
			switch d.where {
			case "inbox":
				inboxes[a] = append(inboxes[a], id)
			case "queue":
				if queues[d.home] == nil {
					queues[d.home] = make(map[envelope.ID]int)
				}
				queues[d.home][id]++
			}
		}
		for relay := range e.bare {
			if queues[relay] == nil {
				queues[relay] = make(map[envelope.ID]int)
			}
			queues[relay][id] += 0
		}
		if m.keep || !e.done() {
			m.n.wantContent(e.p)
		}
	}
	byID := func(a, b envelope.ID) int { return slices.Compare(a[:], b[:]) }
	for _, a := range modelAgencies {
		got := m.n.inboxOf(a)
		slices.SortFunc(got, byID)
		slices.SortFunc(inboxes[a], byID)
		if !slices.Equal(got, inboxes[a]) {
			rt.Fatalf("inbox of %s holds %v, want %v", a, got, inboxes[a])
		}
	}
	for _, relay := range modelRelays {
		got := make(map[envelope.ID]int)
		for _, q := range m.n.queueOf(relay) {
			got[q.ID] = len(q.Onward.Agencies)
		}
		if counted := m.n.Stats().Queues[relay]; counted != int64(len(got)) {
			rt.Fatalf("queue of %s counts %d, and has %d", relay, counted, len(got))
		}
		if !maps.Equal(got, queues[relay]) {
			rt.Fatalf("queue of %s holds %v, want %v", relay, got, queues[relay])
		}
	}
}
