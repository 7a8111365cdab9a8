package forward_test

import (
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
)

// A copy is kept for the recipients named, wherever their homes are, and not
// delivered.
func TestCopyIsKept(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.start(nam)
		p := m.bacAtNam(t)
		o := offered(t, nil, []byte("Công văn"))
		o.Purpose, o.AgencyCodes = relayv1.Purpose_PURPOSE_COPY, []string{string(atNam), "H99"}
		p.offer(o)
		if a := p.answer(); a.GetAccepted() == nil || len(a.GetAccepted().GetRefused()) > 0 {
			t.Fatalf("answer %v, want accepted for all", a)
		}
		want := map[routing.AgencyCode]envelope.Place{atNam: envelope.Kept, "H99": envelope.Kept}
		if got := m.nodes[nam].spool.places(envelope.ID(o.GetEnvelopeId())); !maps.Equal(got, want) {
			t.Errorf("in custody: %v, want %v", got, want)
		}
		if got := m.nodes[nam].spool.inbox(atNam); len(got) > 0 {
			t.Errorf("delivered: %v", got)
		}
	})
}

// A relay that takes no envelopes takes no copies.
func TestCopyIsNotTakenWhileDraining(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.nodes[nam].accepting = envelope.Refuse(notServing, "draining")
		m.start(nam)
		p := m.bacAtNam(t)
		o := offered(t, nil, []byte("Công văn"))
		o.Purpose = relayv1.Purpose_PURPOSE_COPY
		p.offer(o)
		if r := p.answer().GetRefused(); r.GetReason() != notServing || !r.GetTemporary() {
			t.Errorf("answer %v, want refused for now", r)
		}
	})
}

// A second copy is offered to the relay that shall keep it, for those whose
// deliveries have not ended.
func TestCopyIsMade(t *testing.T) {
	for name, priority := range map[string]exchangev1.Priority{
		"ordinary": exchangev1.Priority_PRIORITY_THUONG, "urgent": exchangev1.Priority_PRIORITY_HOA_TOC,
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				m.putAgency("H25", bac)
				b := m.nodes[bac]
				content := []byte("Công văn")
				id := b.accept(letter("1", priority, content), [][]byte{content}, atBac, "H25")
				if _, err := b.spool.Settle(t.Context(), []envelope.Settlement{{ID: id, Agency: "H25", Transport: done}}); err != nil {
					t.Fatal(err)
				}
				b.spool.copyTo(id, nam)
				m.start()
				until(t, "made", func() bool { return b.spool.queued() == 0 })
				want := map[routing.AgencyCode]envelope.Place{atBac: envelope.Kept}
				if got := m.nodes[nam].spool.places(id); !maps.Equal(got, want) {
					t.Errorf("kept for %v, want %v", got, want)
				}
				h := b.spool.handOns()
				if len(h) != 1 || h[0].Destination != nam || h[0].Peer != nam || len(h[0].Agencies) > 0 {
					t.Errorf("recorded %v, want the copy at %s", h, nam)
				}
				if got := b.spool.places(id)[atBac]; got != envelope.InInbox {
					t.Errorf("the delivery here stands at %d, want it in its inbox", got)
				}
			})
		})
	}
}

// The relay that shall keep the copy cannot be reached directly, or takes
// nothing: the copy waits, however the rest travels.
func TestCopyTakesNoDetour(t *testing.T) {
	for name, c := range map[string]struct{ close, open func(*mesh) }{
		"link down": {
			close: func(m *mesh) { m.cutLink(bac, nam) },
			open:  func(m *mesh) { m.mendLink(bac, nam) },
		},
		"takes no envelopes": {
			close: func(m *mesh) {
				m.nodes[nam].set(func() { m.nodes[nam].accepting = envelope.Refuse(notServing, "draining") })
			},
			open: func(m *mesh) { m.nodes[nam].set(func() { m.nodes[nam].accepting = nil }) },
		},
	} {
		for lane, priority := range map[string]exchangev1.Priority{
			"ordinary": exchangev1.Priority_PRIORITY_THUONG, "urgent": exchangev1.Priority_PRIORITY_HOA_TOC,
		} {
			t.Run(name+", "+lane, func(t *testing.T) {
				inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
					c.close(m)
					m.start()
					b, content := m.nodes[bac], []byte("Công văn")
					id := b.accept(letter("1", priority, content), [][]byte{content}, atBac)
					b.spool.copyTo(id, nam)
					other := b.accept(letter("2", priority, content), [][]byte{content}, atTrung, atNam)
					until(t, "the other delivered", func() bool { return m.nodes[trung].has(other, atTrung) })
					pass(time.Minute)
					synctest.Wait()
					if got := m.nodes[trung].spool.places(id); len(got) > 0 {
						t.Errorf("%s has the copy: %v", trung, got)
					}
					if got := m.nodes[nam].spool.places(id); len(got) > 0 {
						t.Errorf("%s has the copy by a way around: %v", nam, got)
					}
					if _, waits := b.spool.entry(id); !waits {
						t.Fatal("the duty has ended")
					}
					c.open(m)
					until(t, "made", func() bool { return m.nodes[nam].spool.places(id)[atBac] == envelope.Kept })
					until(t, "all handed on", func() bool { return b.spool.queued() == 0 })
				})
			})
		}
	}
}

// A copy that is not needed any more, or that its keeper will never take, ends
// as a duty, and nobody counts as holding it.
func TestCopyIsGivenUp(t *testing.T) {
	for name, end := range map[string]func(*mesh, envelope.ID){
		"every delivery ended": func(m *mesh, id envelope.ID) {
			_, _ = m.nodes[bac].spool.Settle(m.t.Context(), []envelope.Settlement{{ID: id, Agency: atBac, Transport: done}})
		},
		"its keeper is lost": func(m *mesh, _ envelope.ID) {
			m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: string(nam), Lost: true}}})
		},
		"its keeper refuses it for good": func(m *mesh, _ envelope.ID) {
			m.nodes[nam].spool.onBegin = func(envelope.ID) error { return envelope.Refuse(tooLarge, "larger than is taken") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
				b := m.nodes[bac]
				id := b.send("1", atBac)
				b.spool.copyTo(id, nam)
				end(m, id)
				m.start()
				until(t, "given up", func() bool { return b.spool.queued() == 0 })
				if h := b.spool.handOns(); len(h) != 1 || h[0].Destination != nam || h[0].Peer != bac {
					t.Errorf("recorded %v, want that %s itself ended it", h, bac)
				}
				if got := m.nodes[nam].spool.envelopes(); len(got) > 0 {
					t.Errorf("%s holds %v", nam, got)
				}
			})
		})
	}
}

// The ingress is told that a peer had its envelope before; other relays need
// not know. That the peer holds it no more is known to both.
func TestOnRepeat(t *testing.T) {
	for name, c := range map[string]struct {
		relay routing.RelayID // that hands on what nam has
		want  bool
	}{
		"by its ingress":      {relay: bac, want: true},
		"by a relay on a way": {relay: trung, want: false},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
				var calls atomic.Int32
				m.nodes[c.relay].tune = func(f *forward.Config) { f.OnRepeat = func() { calls.Add(1) } }
				first := true
				m.nodes[nam].spool.onCommit = func(envelope.ID) {
					if first {
						first = false
						m.dropConns(c.relay, nam) // the answer is lost
					}
				}
				m.nodes[nam].spool.letsGo = true
				if c.relay == trung {
					m.cutLink(bac, nam)
				}
				m.start()
				id := m.nodes[bac].send("1", atNam)
				until(t, "handed on", func() bool {
					h := m.nodes[c.relay].spool.handOns()
					return slices.ContainsFunc(h, func(h envelope.HandedOn) bool { return h.ID == id && h.Peer == nam && h.Released })
				})
				if got := calls.Load() > 0; got != c.want {
					t.Errorf("told: %t, want %t", got, c.want)
				}
			})
		})
	}
}
