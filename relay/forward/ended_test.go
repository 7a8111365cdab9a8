package forward_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
)

const idReused = exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED

// An envelope is offered to a relay where its delivery ended before. Given up,
// it is wanted again when its sender had it revived, with a later end of its
// lifetime; delivered, never.
func TestOfferOfWhatEnded(t *testing.T) {
	for name, c := range map[string]struct {
		transport exchangev1.TransportStatus
		later     bool
		elsewhere bool // the recipient's home has moved away meanwhile
		delivered bool
		repeat    bool
		reason    exchangev1.ErrorReason
	}{
		"given up, revived":            {transport: fail, later: true, delivered: true},
		"given up, not revived":        {transport: fail, repeat: true},
		"given up, revived, moved":     {transport: fail, later: true, elsewhere: true, reason: notHome},
		"given up, not revived, moved": {transport: fail, elsewhere: true, repeat: true},
		"delivered, revived":           {transport: done, later: true, repeat: true},
		"delivered, revived, moved":    {transport: done, later: true, elsewhere: true, repeat: true},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
				n := m.nodes[nam]
				m.start(nam)
				p := m.bacAtNam(t)
				o := offered(t, nil, []byte("Công văn"))
				o.ExpiresAt = timestamppb.New(time.Now().Add(time.Hour))
				p.offer(o)
				p.answer()
				id := envelope.ID(o.GetEnvelopeId())
				n.spool.mu.Lock()
				n.spool.inboxes[atNam] = nil
				n.spool.records[id].ContentReleased = true
				n.spool.mu.Unlock()
				if _, err := n.spool.Settle(t.Context(), []envelope.Settlement{{ID: id, Agency: atNam, Transport: c.transport}}); err != nil {
					t.Fatal(err)
				}
				if c.elsewhere {
					m.move(atNam, trung)
				}
				o.Number = 2
				if c.later {
					o.ExpiresAt = timestamppb.New(time.Now().Add(2 * time.Hour))
				}
				p.offer(o)
				a := p.answer()
				if got := a.GetRefused().GetReason(); got != c.reason {
					t.Errorf("answer %v, want reason %s", a, c.reason)
				}
				if got := a.GetAccepted().GetRepeat(); got != c.repeat {
					t.Errorf("answer %v, want a repeat: %t", a, c.repeat)
				}
				if got := a.GetAccepted().GetReleased(); got != c.repeat {
					t.Errorf("answer %v, want it to say that it is released: %t", a, c.repeat)
				}
				if got := n.has(id, atNam); got != c.delivered {
					t.Errorf("in the inbox: %t, want %t", got, c.delivered)
				}
			})
		})
	}
}

// A relay that only keeps a copy does not count as having taken an envelope for
// recipients that are at home elsewhere.
func TestKeptIsNotTaken(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		b := m.nodes[bac]
		id := b.send("1", atTrung)
		b.spool.copyTo(id, nam)
		m.start(bac, nam)
		until(t, "kept", func() bool { return m.nodes[nam].spool.places(id)[atTrung] == envelope.Kept })
		m.move(atTrung, nam, bac) // the others know nothing of it
		until(t, "refused", func() bool { return b.spool.deferrals(id) > 0 })
		if got := b.spool.handOns(); len(got) != 1 {
			t.Errorf("handed on %v, want the copy alone", got)
		}
		m.move(atTrung, nam, nam)
		until(t, "delivered", func() bool { return m.nodes[nam].has(id, atTrung) })
	})
}

// A sender gives two documents one id and hands them over at two ingresses: its
// recipient gets one of them, and the sender learns that the other failed, and
// why.
func TestDocumentIDReused(t *testing.T) {
	for _, second := range []routing.RelayID{bac, trung} {
		t.Run(fmt.Sprint("second at ", second), func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
				first := map[routing.RelayID]routing.RelayID{bac: trung, trung: bac}[second]
				m.start()
				until(t, "links up", func() bool {
					_, up := m.nodes[bac].forwarder.Usable(nam)
					_, alsoUp := m.nodes[trung].forwarder.Usable(nam)
					return up && alsoUp
				})
				good := m.nodes[first].accept(letter("01/CV", 0, []byte("một")), [][]byte{[]byte("một")}, atNam)
				until(t, "first delivered", func() bool { return m.nodes[nam].has(good, atNam) })
				bad := m.nodes[second].accept(letter("01/CV", 0, []byte("hai")), [][]byte{[]byte("hai")}, atNam)
				until(t, "queue empty", func() bool { return m.nodes[second].spool.queued() == 0 })
				if s := settledAs(t, m.nodes[second].spool, bad, atNam, idReused); s.Report != nil {
					t.Error("a report was written where the ingress itself gave up")
				}
				if got := m.nodes[nam].spool.inbox(atNam); len(got) != 1 || got[0] != good {
					t.Errorf("inbox %v, want the first, %s", got, good)
				}
				if got := m.nodes[first].spool.settlements(); len(got) > 0 {
					t.Errorf("the first was settled too: %v", got)
				}
			})
		})
	}
}

// Both at the same time: exactly one is delivered and the other fails.
func TestDocumentIDReusedAtOnce(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		one := m.nodes[bac].accept(letter("01/CV", 0, []byte("một")), [][]byte{[]byte("một")}, atNam)
		two := m.nodes[trung].accept(letter("01/CV", 0, []byte("hai")), [][]byte{[]byte("hai")}, atNam)
		m.start()
		until(t, "queues empty", func() bool { return m.nodes[bac].spool.queued()+m.nodes[trung].spool.queued() == 0 })
		if m.nodes[nam].has(one, atNam) == m.nodes[nam].has(two, atNam) {
			t.Fatalf("inbox %v, want exactly one of %s and %s", m.nodes[nam].spool.inbox(atNam), one, two)
		}
		loser, id := bac, one
		if m.nodes[nam].has(one, atNam) {
			loser, id = trung, two
		}
		settledAs(t, m.nodes[loser].spool, id, atNam, idReused)
	})
}

// Usable: reached directly, and takes envelopes.
func TestUsable(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.nodes[nam].tune = func(c *forward.Config) { c.ProbeInterval = time.Second }
		f := func() bool { _, ok := m.nodes[bac].forwarder.Usable(nam); return ok }
		m.start()
		until(t, "usable", f)
		if _, ok := m.nodes[bac].forwarder.Usable(bac); ok {
			t.Error("a relay is no second one to itself")
		}
		m.nodes[nam].set(func() { m.nodes[nam].accepting = envelope.Refuse(notServing, "draining") })
		pass(5 * time.Second)
		if f() {
			t.Error("usable though it takes no envelopes")
		}
		m.nodes[nam].set(func() { m.nodes[nam].accepting = nil })
		until(t, "usable again", f)
		m.cutLink(bac, nam)
		until(t, "not usable", func() bool { return !f() })
		if !m.nodes[bac].forwarder.Reachable(nam) {
			t.Error("not reachable by way of the third")
		}
	})
}

// What was only handed on from here is not taken for known when it comes back,
// nor does it fail for what this relay thinks of the recipient: its home is to
// be looked up again.
func TestOfferOfWhatWasHandedOn(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.start(nam, trung)
		p := m.bacAtNam(t)
		o := offered(t, nil, []byte("Công văn"))
		p.offer(o)
		p.answer()
		m.move(atNam, trung)
		id := envelope.ID(o.GetEnvelopeId())
		until(t, "handed on", func() bool { return m.nodes[nam].spool.places(id)[atNam] == envelope.Elsewhere })
		m.move(atNam, nam, nam)
		m.suspend(atNam, nam)
		o.Number = 2
		p.offer(o)
		if r := p.answer().GetRefused(); r.GetReason() != notHome || !r.GetTemporary() {
			t.Errorf("answer %v, want that it is looked up again", r)
		}
	})
}
