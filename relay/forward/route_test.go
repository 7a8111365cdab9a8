package forward_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

func removal(code routing.AgencyCode) *directoryv1.Command {
	return &directoryv1.Command{Change: &directoryv1.Command_RemoveAgency{RemoveAgency: &directoryv1.RemoveAgency{AgencyCode: string(code)}}}
}

// The direct link is down: a third relay takes custody and hands on.
func TestTransit(t *testing.T) {
	for name, size := range map[string]int{"small": 100, "large": large} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
				m.cutLink(bac, nam)
				m.start()
				content := bulk(size)
				id := m.nodes[bac].accept(letter("1", 0, content), [][]byte{content}, atNam)
				until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) })
				until(t, "duties done", func() bool {
					return m.nodes[bac].spool.queued()+m.nodes[trung].spool.queued() == 0
				})
				if got := m.nodes[trung].spool.commitsOf(id); got != 1 {
					t.Errorf("transit took custody %d times, want once", got)
				}
				r, err := m.nodes[nam].spool.Record(id)
				if err != nil {
					t.Fatal(err)
				}
				if want := []routing.RelayID{bac, trung}; !slices.Equal(r.Visited, want) {
					t.Errorf("visited %v, want %v", r.Visited, want)
				}
				if r.Ingress != bac {
					t.Errorf("ingress %s, want %s", r.Ingress, bac)
				}
				h := m.nodes[bac].spool.handOns()
				if len(h) != 1 || h[0].Destination != nam || h[0].Peer != trung {
					t.Errorf("handed on %v, want for %s to %s", h, nam, trung)
				}
			})
		})
	}
}

// While the link is up, the direct way is taken, and no other relay sees the
// envelope.
func TestDirectWhereUp(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.start()
		id := m.nodes[bac].send("1", atNam)
		until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) })
		if got := m.nodes[trung].spool.envelopes(); len(got) > 0 {
			t.Errorf("%s has %v", trung, got)
		}
	})
}

// The destination is cut off from all after transit took the envelope: it waits
// there and does not go back and forth.
func TestNoCircles(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.cutLink(bac, nam)
		reached := make(chan struct{})
		m.nodes[trung].spool.onCommit = func(envelope.ID) {
			m.cutLink(trung, nam)
			close(reached)
		}
		m.start()
		id := m.nodes[bac].send("1", atNam)
		<-reached
		// bac is back in sight of nam's other neighbours, but trung must not
		// return the envelope to it.
		m.mendLink(bac, nam)
		pass(2 * time.Minute)
		if m.nodes[nam].has(id, atNam) {
			t.Fatal("delivered by way of a relay that had it before")
		}
		if got := m.nodes[bac].spool.commitsOf(id); got != 1 {
			t.Errorf("%s took custody %d times, want once", bac, got)
		}
		if got := m.nodes[trung].spool.deferrals(id); got != 0 {
			t.Errorf("%s offered it back %d times", trung, got)
		}
		m.mendLink(trung, nam)
		until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) })
		if got := m.nodes[trung].spool.commitsOf(id); got != 1 {
			t.Errorf("%s took custody %d times, want once", trung, got)
		}
	})
}

// Nothing reaches the destination: the envelope stays at its ingress.
func TestNoRouteWaits(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.cutLink(bac, nam)
		m.cutLink(trung, nam)
		m.start()
		id := m.nodes[bac].send("1", atNam)
		pass(2 * time.Minute)
		if got := m.nodes[trung].spool.envelopes(); len(got) > 0 {
			t.Errorf("%s took %v, which it cannot hand on", trung, got)
		}
		if got := m.nodes[bac].spool.deferrals(id); got != 0 {
			t.Errorf("the envelope was blamed %d times", got)
		}
		m.mendLink(trung, nam)
		until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) })
	})
}

// An agency moves while its envelope waits for a relay that is gone.
func TestRerouteOnMove(t *testing.T) {
	for name, home := range map[string]routing.RelayID{"to another relay": trung, "to this relay": bac} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
				m.putAgency("H30", nam)
				m.start(bac, trung)
				id := m.nodes[bac].send("1", atNam, "H30")
				pass(time.Minute)
				m.move(atNam, home)
				until(t, "delivered", func() bool { return m.nodes[home].has(id, atNam) })
				e, ok := m.nodes[bac].spool.entry(id)
				if !ok || !slices.Equal(e.Onward.Agencies, []routing.AgencyCode{"H30"}) || e.Onward.Relay != nam {
					t.Errorf("left in the queue: %v, want the recipient that did not move", e.Onward)
				}
				m.start(nam)
				until(t, "the other delivered", func() bool { return m.nodes[nam].has(id, "H30") })
				if m.nodes[nam].has(id, atNam) {
					t.Error("delivered at the old home too")
				}
			})
		})
	}
}

// A relay is lost: its agencies move to their standbys, and so do the duties.
func TestRerouteWhenRelayIsLost(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.start(bac, trung)
		id := m.nodes[bac].send("1", atNam)
		pass(time.Minute)
		m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: string(nam), Lost: true}}})
		until(t, "queue empty", func() bool { return m.nodes[bac].spool.queued() == 0 })
		agency, _ := m.nodes[bac].directory.View().Agency(atNam)
		if home := routing.RelayID(agency.GetHomeRelayId()); home == nam || !m.nodes[home].has(id, atNam) {
			t.Errorf("not in the inbox at the new home %s", home)
		}
	})
}

// The directory here is behind: the relay that was home refuses, and the
// recipient is rerouted when the move is known.
func TestNotHome(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.putAgency("H30", nam)
		m.start()
		m.move(atNam, trung, trung, nam)
		id := m.nodes[bac].send("1", atNam, "H30")
		until(t, "the other delivered", func() bool { return m.nodes[nam].has(id, "H30") })
		pass(10 * time.Second)
		synctest.Wait()
		if m.nodes[nam].has(id, atNam) {
			t.Fatal("delivered at the old home")
		}
		if got := len(m.nodes[bac].spool.settlements()); got != 0 {
			t.Fatal("given up though the directories only differ")
		}
		m.move(atNam, trung, bac)
		until(t, "delivered", func() bool { return m.nodes[trung].has(id, atNam) })
		if got := m.nodes[bac].spool.queued(); got != 0 {
			t.Errorf("%d duties left", got)
		}
	})
}

// An agency moves away and back, and the copy of the directory at its old and
// new home is behind: that relay handed the envelope on once, and must not say
// that it has it.
func TestCustodyComesBack(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.start()
		id := m.nodes[bac].send("1", atNam)
		until(t, "in the inbox", func() bool { return m.nodes[nam].has(id, atNam) })
		m.move(atNam, trung)
		until(t, "in the inbox of the new home", func() bool { return m.nodes[trung].has(id, atNam) })
		until(t, "out of the old inbox", func() bool { return !m.nodes[nam].has(id, atNam) })
		m.move(atNam, nam, trung)
		pass(10 * time.Second)
		if n := m.nodes[trung].spool.queued() + m.nodes[nam].spool.queued(); n == 0 && !m.nodes[trung].has(id, atNam) {
			t.Fatal("custody of the envelope ended with nobody")
		}
		m.move(atNam, nam, nam, bac)
		until(t, "in the inbox again", func() bool { return m.nodes[nam].has(id, atNam) })
	})
}

// The answer that a relay took an envelope is lost, and the recipient is
// suspended before it is offered again: what is in the inbox counts as taken.
func TestKnownRecipientCountsAsTaken(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		moved := make(chan struct{})
		m.nodes[nam].spool.onCommit = func(envelope.ID) {
			m.dropConns(bac, nam) // the answer is lost
			close(moved)
		}
		m.start()
		id := m.nodes[bac].send("1", atNam)
		<-moved
		m.suspend(atNam, nam) // it would be refused now
		until(t, "queue empty", func() bool { return m.nodes[bac].spool.queued() == 0 })
		if got := m.nodes[bac].spool.settlements(); len(got) > 0 {
			t.Errorf("given up: %v, though the recipient has it", got)
		}
		if got := m.nodes[nam].spool.inbox(atNam); !slices.Equal(got, []envelope.ID{id}) {
			t.Errorf("inbox %v, want the envelope once", got)
		}
	})
}

func TestReachableAndLinks(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		b := m.nodes[bac]
		link := func(from, to routing.RelayID) bool {
			return slices.ContainsFunc(b.forwarder.Links(), func(l routing.Link) bool { return l.From == from && l.To == to && l.Up })
		}
		m.start()
		until(t, "all measured and told", func() bool {
			return link(bac, trung) && link(bac, nam) && link(trung, nam) && link(nam, trung)
		})
		m.cutLink(bac, nam)
		until(t, "link down", func() bool { return !link(bac, nam) })
		if !b.forwarder.Reachable(nam) {
			t.Error("not reachable, want by way of the third")
		}
		m.cutLink(trung, nam)
		until(t, "not reachable", func() bool { return !b.forwarder.Reachable(nam) })
		if !b.forwarder.Reachable(bac) || !b.forwarder.Reachable(trung) || b.forwarder.Reachable("tay") {
			t.Error("want this relay and its neighbour reachable, and no relay that is unknown")
		}
		m.mendLink(bac, nam)
		until(t, "link up", func() bool { return link(bac, nam) })

		m.nodes[trung].stop()
		pass(time.Minute)
		if link(trung, bac) {
			t.Error("what a silent relay told is still believed")
		}
	})
}

// Two lost probes in a row do not turn a link down, three do.
func TestLinkHysteresis(t *testing.T) {
	for name, c := range map[string]struct {
		lost, of int
		up       bool
	}{
		"two of three are lost":  {lost: 2, of: 3, up: true},
		"three of four are lost": {lost: 3, of: 4, up: false},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				m.start()
				up := func() bool {
					return slices.ContainsFunc(m.nodes[bac].forwarder.Links(), func(l routing.Link) bool { return l.To == nam && l.Up })
				}
				until(t, "up", up)
				probes := 0
				m.nodes[nam].set(func() {
					m.nodes[nam].onProbe = func(routing.RelayID) error {
						if probes++; probes%c.of < c.lost {
							return errors.New("lost")
						}
						return nil
					}
				})
				stayed := true
				for range 60 {
					pass(time.Second)
					stayed = stayed && up()
				}
				if stayed != c.up {
					t.Errorf("stayed up: %t, want %t", stayed, c.up)
				}
			})
		})
	}
}

// The first probe of the destination is slow: what waits for it does not go by
// way of the neighbour that answered first.
func TestWaitsForFirstMeasurement(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.nodes[nam].onProbe = func(from routing.RelayID) error {
			if from == bac {
				pass(time.Second)
			}
			return nil
		}
		id := m.nodes[bac].send("1", atNam)
		m.start()
		until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) })
		if got := m.nodes[trung].spool.envelopes(); len(got) > 0 {
			t.Errorf("%s has %v", trung, got)
		}
	})
}

// An agency moves while an envelope waits in its inbox: the old home hands it
// to the new one.
func TestInboxMoves(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.start()
		id := m.nodes[bac].send("1", atNam)
		until(t, "in the inbox", func() bool { return m.nodes[nam].has(id, atNam) })
		m.move(atNam, trung)
		until(t, "in the inbox of the new home", func() bool { return m.nodes[trung].has(id, atNam) })
		until(t, "out of the old inbox", func() bool { return !m.nodes[nam].has(id, atNam) })
		if n := m.nodes[nam].spool.queued(); n != 0 {
			t.Errorf("%d duties are left at the old home, want 0", n)
		}
	})
}
