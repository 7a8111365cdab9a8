package spool_test

import (
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// What the spool must know of an envelope, told as simply as possible.
type modelEnvelope struct {
	p          *parcel
	fromSender bool
	ingress    routing.RelayID
	expiresAt  time.Time
	held       bool
	deliveries map[routing.AgencyCode]*modelDelivery
	bare       map[routing.RelayID]bool
	holders    map[routing.RelayID]bool
	keepers    map[routing.RelayID]bool
}

// sole reports whether some delivery depends on this relay alone.
func (e *modelEnvelope) sole() bool {
	waiting := e.count(func(d *modelDelivery) bool {
		return d.place != envelope.Elsewhere && d.place != envelope.Settled
	})
	return e.fromSender && e.unsettled() > 0 && (len(e.holders) == 0 || len(e.keepers) == 0 && waiting > 0)
}

func (e *modelEnvelope) copies() int {
	if e.sole() {
		return 1
	}
	return 1 + len(e.holders)
}

// lacks reports whether a copy at a relay would add anything.
func (e *modelEnvelope) lacks(relay routing.RelayID) bool {
	if e.sole() {
		return !e.keepers[relay]
	}
	return !e.holders[relay]
}

type modelDelivery struct {
	place     envelope.Place
	home      routing.RelayID
	transport exchangev1.TransportStatus
	recalled  bool
}

func (d *modelDelivery) dead() bool {
	return d.place == envelope.Settled && d.transport == fail && !d.recalled
}

// open reports whether something is to be done here, or kept.
func (e *modelEnvelope) open() bool {
	for _, d := range e.deliveries {
		if d.place != envelope.Elsewhere && d.place != envelope.Settled {
			return true
		}
	}
	return len(e.bare) > 0
}

func (e *modelEnvelope) count(is func(*modelDelivery) bool) (n int) {
	for _, d := range e.deliveries {
		if is(d) {
			n++
		}
	}
	return n
}

func (e *modelEnvelope) unsettled() int {
	return e.count(func(d *modelDelivery) bool { return d.place != envelope.Settled })
}

func (e *modelEnvelope) dead() bool { return e.fromSender && e.count((*modelDelivery).dead) > 0 }

func (e *modelEnvelope) done() bool { return !e.open() && !(e.fromSender && e.unsettled() > 0) }

// tidy is what follows from any change: copies nobody waits for are not made,
// and what is done with is not held.
func (e *modelEnvelope) tidy() {
	if e.fromSender && e.unsettled() == 0 {
		clear(e.bare)
	}
	e.held = e.held && !e.done()
}

func (e *modelEnvelope) put(p *parcel) {
	again := p.FromSender && e.fromSender
	lacks := make(map[routing.RelayID]bool)
	for _, o := range p.Onward {
		lacks[o.Relay] = e.lacks(o.Relay)
	}
	longer := p.ExpiresAt.After(e.expiresAt) && !again
	changed := p.FromSender && !again || longer && !p.FromSender && e.open()
	wants := func(a routing.AgencyCode, to envelope.Place) bool {
		d := e.deliveries[a]
		switch {
		case d == nil:
			return true
		case d.place == envelope.Kept:
			return to != envelope.Kept
		case again:
			return false
		case d.dead():
			return longer
		case to == envelope.Kept:
			return false
		case d.place == envelope.InQueue:
			return to == envelope.InInbox
		}
		return d.place == envelope.Elsewhere
	}
	take := func(agencies []routing.AgencyCode, d modelDelivery) {
		for _, a := range agencies {
			if wants(a, d.place) {
				changed = true
				if d.place != envelope.Kept {
					clear(e.keepers)
				}
				fresh := d
				e.deliveries[a] = &fresh
			}
		}
	}
	take(p.Inboxes, modelDelivery{place: envelope.InInbox, home: self, transport: processing})
	take(p.Kept, modelDelivery{place: envelope.Kept, transport: initial})
	for _, o := range p.Onward {
		take(o.Agencies, modelDelivery{place: envelope.InQueue, home: o.Relay, transport: initial})
		if len(o.Agencies) == 0 && !again && lacks[o.Relay] {
			e.bare[o.Relay], changed = true, true
		}
	}
	if changed && longer {
		e.expiresAt = p.ExpiresAt
	}
	if p.FromSender && !again {
		e.fromSender, e.ingress = true, self
	}
}

// become makes duties of the recipients that stand so.
func (e *modelEnvelope) become(to map[routing.AgencyCode]routing.RelayID, so func(*modelDelivery) bool) {
	for a, relay := range to {
		switch d := e.deliveries[a]; {
		case d == nil || !so(d):
		case relay == self:
			*d = modelDelivery{place: envelope.InInbox, home: self, transport: processing}
		default:
			*d = modelDelivery{place: envelope.InQueue, home: relay, transport: initial}
		}
	}
}
