package spool_test

import (
	"context"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// modelLists are what is to be looked after.
type modelLists struct {
	sole, dead   []envelope.ID
	away, origin map[routing.RelayID][]envelope.ID
	envelopes    int64
	bytes        int64
	held         int64
	pending      int
}

// compare wants the spool to say what the model says.
func (m *model) compare(rt *rapid.T) {
	inboxes := make(map[routing.AgencyCode][]envelope.ID)
	queues := make(map[routing.RelayID]map[envelope.ID]int)
	lists := modelLists{away: make(map[routing.RelayID][]envelope.ID), origin: make(map[routing.RelayID][]envelope.ID)}
	for id, e := range m.envelopes {
		r, err := m.n.Record(id)
		if err != nil {
			rt.Fatalf("record of %s: %v", id, err)
		}
		e.compare(rt, r)
		lists.add(id, e)
		for a, d := range e.deliveries {
			switch d.place {
			case envelope.InInbox:
				inboxes[a] = append(inboxes[a], id)
			case envelope.InQueue:
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
		if m.keep || !e.done() || e.dead() {
			m.n.wantContent(e.p)
		}
	}
	m.compareEntries(rt, inboxes, queues)
	m.compareLists(rt, lists)
}

func (e *modelEnvelope) compare(rt *rapid.T, r *envelope.Record) {
	if len(r.Deliveries) != len(e.deliveries) || r.FromSender != e.fromSender || int(r.Copies) != e.copies() {
		rt.Fatalf("envelope %s has %d recipients, ingress %v, %d copies, want %d, %v, %d",
			r.ID, len(r.Deliveries), r.FromSender, r.Copies, len(e.deliveries), e.fromSender, e.copies())
	}
	if r.Ingress != e.ingress || !r.ExpiresAt.Equal(e.expiresAt) || r.Held != e.held || !slices.Equal(slices.Sorted(maps.Keys(e.holders)), sorted(r.Holders)) ||
		!slices.Equal(slices.Sorted(maps.Keys(e.keepers)), sorted(r.Keepers)) {
		rt.Fatalf("envelope %s is of %s, until %s, held %t, with %v, want %+v", r.ID, r.Ingress, r.ExpiresAt, r.Held, r.Holders, e)
	}
	kept := 0
	for _, got := range r.Deliveries {
		if d := e.deliveries[got.Agency]; d == nil || d.transport != got.Transport || d.place != got.Place ||
			d.place != envelope.Settled && d.home != got.Home {
			rt.Fatalf("envelope %s, %s: %+v, want %+v", r.ID, got.Agency, got, d)
		}
		if got.Place == envelope.Kept {
			kept++
		}
	}
	if len(r.Kept) != kept {
		rt.Fatalf("envelope %s keeps for %v, want %d", r.ID, r.Kept, kept)
	}
}

func sorted[T ~string](list []T) []T { return slices.Sorted(slices.Values(list)) }

func byID(a, b envelope.ID) int { return slices.Compare(a[:], b[:]) }

func (l *modelLists) add(id envelope.ID, e *modelEnvelope) {
	if e.held {
		l.held++
	}
	if e.dead() {
		l.dead = append(l.dead, id)
	}
	switch {
	case !e.fromSender && !e.done():
		l.origin[e.ingress] = append(l.origin[e.ingress], id)
	case e.fromSender && e.unsettled() > 0:
		l.envelopes++
		l.bytes += int64(e.p.Size())
		l.pending += e.unsettled()
		if e.sole() {
			l.sole = append(l.sole, id)
		}
		for relay := range e.holders {
			l.away[relay] = append(l.away[relay], id)
		}
	}
}

func (m *model) compareEntries(rt *rapid.T, inboxes map[routing.AgencyCode][]envelope.ID, queues map[routing.RelayID]map[envelope.ID]int) {
	for _, a := range modelAgencies {
		entries, err := m.n.Inbox(a, envelope.Position{}, 1000)
		if err != nil {
			rt.Fatal(err)
		}
		var got []envelope.ID
		for _, entry := range entries {
			if got = append(got, entry.ID); entry.Held != m.envelopes[entry.ID].held {
				rt.Fatalf("inbox of %s: %+v, want held %v", a, entry, !entry.Held)
			}
		}
		slices.SortFunc(got, byID)
		slices.SortFunc(inboxes[a], byID)
		if !slices.Equal(got, inboxes[a]) {
			rt.Fatalf("inbox of %s holds %v, want %v", a, got, inboxes[a])
		}
		if n, err := m.n.Waiting(a); err != nil || n != int64(len(got)) {
			rt.Fatalf("inbox of %s counts %d, %v, and has %d", a, n, err, len(got))
		}
	}
	for _, relay := range modelRelays {
		got := make(map[envelope.ID]int)
		for _, q := range m.n.queueOf(relay) {
			if got[q.ID] = len(q.Onward.Agencies); q.Held != m.envelopes[q.ID].held {
				rt.Fatalf("queue of %s: %+v, want held %v", relay, q, !q.Held)
			}
		}
		if counted := m.n.Stats().Queues[relay]; counted != int64(len(got)) {
			rt.Fatalf("queue of %s counts %d, and has %d", relay, counted, len(got))
		}
		if !maps.Equal(got, queues[relay]) {
			rt.Fatalf("queue of %s holds %v, want %v", relay, got, queues[relay])
		}
	}
}

func (m *model) compareLists(rt *rapid.T, want modelLists) {
	same := func(what string, got []envelope.ID, err error, want []envelope.ID) {
		rt.Helper()
		slices.SortFunc(got, byID)
		slices.SortFunc(want, byID)
		if err != nil || !slices.Equal(got, want) {
			rt.Fatalf("%s: %v, %v, want %v", what, got, err, want)
		}
	}
	var sole, dead []envelope.ID
	alone, err := m.n.Sole(0, 1000)
	for _, e := range alone {
		sole = append(sole, e.ID)
	}
	same("nowhere else", sole, err, want.sole)
	letters, err := m.n.DeadLetters(envelope.Due{}, 1000)
	for _, l := range letters {
		dead = append(dead, l.ID)
	}
	same("given up", dead, err, want.dead)
	holders, err := m.n.Holders()
	if err != nil || !slices.Equal(sorted(holders), slices.Sorted(maps.Keys(want.away))) {
		rt.Fatalf("holders are %v, %v, want those of %v", holders, err, want.away)
	}
	for relay, ids := range want.away {
		got, err := m.n.Away(relay, envelope.ID{}, 1000)
		same("with "+string(relay), got, err, ids)
	}
	origins, err := m.n.Origins()
	if err != nil || !slices.Equal(sorted(origins), slices.Sorted(maps.Keys(want.origin))) {
		rt.Fatalf("origins are %v, %v, want those of %v", origins, err, want.origin)
	}
	for relay, ids := range want.origin {
		got, err := m.n.Origin(relay, envelope.ID{}, 1000)
		same("from "+string(relay), got, err, ids)
	}
	if n, size, err := m.n.Usage("H26"); err != nil || n != want.envelopes || size != want.bytes {
		rt.Fatalf("the sender has %d, %d bytes, %v under way, want %d, %d", n, size, err, want.envelopes, want.bytes)
	}
	got := m.n.Stats()
	if got.Sole != int64(len(sole)) || got.DeadLetters != int64(len(dead)) || got.Held != want.held {
		rt.Fatalf("counters are %+v, want %+v", got.Counters, want)
	}
	pending := 0
	count, err := m.n.Recount(context.Background(), time.Time{}, func(spool.Pending) error { pending++; return nil })
	if err != nil || count.Counted != count.Kept || count.Kept != got.Tally || len(count.Findings) > 0 || pending != want.pending || got.Pending() != int64(pending) {
		rt.Fatalf("recount: %+v, %v, %d pending, want %+v, %d", count, err, pending, got.Tally, want.pending)
	}
}
