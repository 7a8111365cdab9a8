package spool_test

import (
	"context"
	"time"

	"pgregory.net/rapid"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

func (m *model) copy(rt *rapid.T) {
	e, ok := m.any(rt)
	if !ok || !m.keep && e.done() {
		return // whether its content is there is a matter of time
	}
	f := envelope.Copy{
		ID: e.p.ID, Relay: rapid.SampledFrom(append(modelRelays, self)).Draw(rt, "relay"),
		Instead: rapid.SliceOfNDistinct(rapid.SampledFrom(modelRelays), 0, 2, rapid.ID).Draw(rt, "instead"),
	}
	if err := m.n.Copy(context.Background(), f); err != nil {
		rt.Fatal(err)
	}
	for _, relay := range f.Instead {
		if relay != f.Relay {
			delete(e.bare, relay)
		}
	}
	if e.unsettled() > 0 && e.lacks(f.Relay) && f.Relay != self {
		e.bare[f.Relay] = true
	}
	e.tidy()
}

func (m *model) forget(rt *rapid.T) {
	e, ok := m.any(rt)
	if !ok {
		return
	}
	relay := rapid.SampledFrom(modelRelays).Draw(rt, "relay")
	if err := m.n.Forget(context.Background(), e.p.ID, relay); err != nil {
		rt.Fatal(err)
	}
	if e.count(func(d *modelDelivery) bool { return d.place == envelope.Elsewhere && d.home == relay }) == 0 {
		delete(e.holders, relay)
		delete(e.keepers, relay)
	}
}

// destinations draws where recipients are to go.
func (m *model) destinations(rt *rapid.T) (to map[routing.AgencyCode]routing.RelayID, inboxes []routing.AgencyCode, onward []envelope.Onward) {
	to = make(map[routing.AgencyCode]routing.RelayID)
	for _, a := range m.agencies(rt) {
		if to[a] = rapid.SampledFrom(append(modelRelays, self)).Draw(rt, "to"); to[a] == self {
			inboxes = append(inboxes, a)
		} else {
			onward = onwardTo(onward, to[a], a)
		}
	}
	return to, inboxes, onward
}

func (m *model) takeOver(rt *rapid.T) {
	e, ok := m.any(rt)
	if !ok || !m.keep && e.done() {
		return // whether its content is there is a matter of time
	}
	f := envelope.TakeOver{ID: e.p.ID}
	var to map[routing.AgencyCode]routing.RelayID
	to, f.Inboxes, f.Onward = m.destinations(rt)
	if err := m.n.TakeOver(context.Background(), f); err != nil {
		rt.Fatal(err)
	}
	if !e.fromSender {
		e.fromSender, e.ingress = true, self
	}
	for a := range to {
		if d := e.deliveries[a]; d != nil && d.place == envelope.Kept {
			clear(e.keepers)
		}
	}
	e.become(to, func(d *modelDelivery) bool { return d.place == envelope.Kept })
	e.tidy()
}

func (m *model) hold(rt *rapid.T) {
	e, ok := m.any(rt)
	if !ok {
		return
	}
	f := envelope.Hold{ID: e.p.ID, Held: rapid.Bool().Draw(rt, "held")}
	if err := m.n.Hold(context.Background(), f); err != nil {
		rt.Fatal(err)
	}
	e.held = f.Held && !e.done()
}

func (m *model) revive(rt *rapid.T) {
	e, ok := m.any(rt)
	if !ok {
		return
	}
	f := envelope.Revive{ID: e.p.ID, ExpiresAt: e.expiresAt.Add(time.Hour)}
	var to map[routing.AgencyCode]routing.RelayID
	to, f.Inboxes, f.Onward = m.destinations(rt)
	revivable := false
	for a := range to {
		d := e.deliveries[a]
		revivable = revivable || e.fromSender && d != nil && d.dead()
	}
	err := m.n.Revive(context.Background(), f)
	if !revivable {
		if r, ok := envelope.AsRefusal(err); !ok || r.Reason != exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE {
			rt.Fatalf("revive what was not given up: %v", err)
		}
		return
	}
	if err != nil {
		rt.Fatal(err)
	}
	clear(e.keepers)
	if e.unsettled() == 0 {
		clear(e.holders)
	}
	e.expiresAt = f.ExpiresAt
	e.become(to, (*modelDelivery).dead)
	e.tidy()
}
