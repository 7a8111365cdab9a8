package forward_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// A relay that takes no envelopes, because it drains or its disk is full, still
// learns what became of those it accepted, past urgent ones that wait for it;
// else it could never end its duties.
func TestReportsReachARelayThatTakesNoEnvelopes(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		var decided atomic.Bool
		m.nodes[nam].spool.onBegin = func(envelope.ID) error {
			if !decided.Load() {
				return errors.New("not now")
			}
			return envelope.Refuse(tooLarge, "larger than is taken")
		}
		m.start()
		m.cutLink(bac, nam)
		id := m.nodes[bac].send("1", atNam)
		until(t, "on its way", func() bool { return m.nodes[trung].spool.queued() == 1 })
		m.nodes[bac].set(func() { m.nodes[bac].accepting = envelope.Refuse(notServing, "draining") })
		pass(10 * time.Second) // trung has heard of it
		content := []byte("hỏa tốc")
		waits := m.nodes[trung].accept(letter("2", exchangev1.Priority_PRIORITY_HOA_TOC, content), [][]byte{content}, atBac)
		decided.Store(true)
		until(t, "reported", func() bool { return len(m.nodes[bac].reports.list()) > 0 })
		if got := m.nodes[bac].reports.list()[0]; got.ID != id || got.Transport != fail {
			t.Errorf("reported %+v", got)
		}
		if m.nodes[bac].has(waits, atBac) {
			t.Error("a document was taken")
		}
		m.nodes[bac].set(func() { m.nodes[bac].accepting = nil })
		until(t, "delivered", func() bool { return m.nodes[bac].has(waits, atBac) })
	})
}

// A relay that drains goes on handing on: its queue, and the inboxes of agencies
// that have moved away. Nothing goes by way of it any more.
func TestDrainingRelayHandsOn(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		n := m.nodes[nam]
		m.start(bac, nam)
		inbox := m.nodes[bac].send("1", atNam)
		queue := n.send("2", atTrung) // which is not there yet
		until(t, "in the inbox", func() bool { return n.has(inbox, atNam) })
		n.set(func() { n.accepting = envelope.Refuse(notServing, "draining") })
		m.cutLink(bac, trung)
		m.start(trung)
		detour := m.nodes[bac].send("3", atTrung)
		m.move(atNam, bac)
		until(t, "queue handed on", func() bool { return m.nodes[trung].has(queue, atTrung) })
		until(t, "inbox handed on", func() bool { return m.nodes[bac].has(inbox, atNam) })
		until(t, "nothing left", func() bool { return n.spool.queued() == 0 && len(n.spool.inbox(atNam)) == 0 })
		pass(time.Minute)
		if got := n.spool.places(detour); len(got) > 0 {
			t.Errorf("%s was used on the way though it drains", nam)
		}
		m.mendLink(bac, trung)
		until(t, "delivered", func() bool { return m.nodes[trung].has(detour, atTrung) })
	})
}

// A relay that was given up as lost comes back with its disk: its queue and its
// inboxes go to the homes of now, also what waited for an agency that was at
// home here, and a report goes to its ingress.
func TestLostRelayComesBack(t *testing.T) {
	for name, lost := range map[string]bool{"lost": true, "retired": false} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
				n := m.nodes[nam]
				m.start(bac, nam)
				inbox := m.nodes[bac].send("1", atNam)
				until(t, "in the inbox", func() bool { return n.has(inbox, atNam) })
				n.stop()
				m.nodes[bac].stop()
				queue := n.send("2", atTrung, atBac)
				if !lost {
					m.change(&directoryv1.Command{Change: &directoryv1.Command_SetRelayState{SetRelayState: &directoryv1.SetRelayState{
						RelayId: string(nam), State: directoryv1.RelayState_RELAY_STATE_DRAINING}}})
				}
				m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: string(nam), Lost: lost}}})
				agency, _ := n.directory.View().Agency(atNam)
				home := routing.RelayID(agency.GetHomeRelayId())
				n.accepting = envelope.Refuse(notServing, "given up as lost")

				// Nothing is offered to it any more, nor by way of it.
				m.start()
				offered := m.nodes[trung].send("3", atNam)
				until(t, "inbox handed over", func() bool { return m.nodes[home].has(inbox, atNam) })
				until(t, "queue handed over", func() bool {
					return m.nodes[trung].has(queue, atTrung) && m.nodes[bac].has(queue, atBac)
				})
				until(t, "nothing left", func() bool { return n.spool.queued() == 0 && len(n.spool.inbox(atNam)) == 0 })
				until(t, "what is new goes to the new home", func() bool { return m.nodes[home].has(offered, atNam) })
				for _, relay := range []routing.RelayID{bac, trung} {
					if _, ok := m.nodes[relay].forwarder.Usable(nam); ok || m.nodes[relay].forwarder.Reachable(nam) {
						t.Errorf("%s still counts on %s", relay, nam)
					}
				}
			})
		})
	}
}
