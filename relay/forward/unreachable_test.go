package forward_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
)

// The destination answers probes but takes no session: one try at a time, ever
// more rarely, however long the queue.
func TestDeadDestinationCostsItsProbe(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		dead := m.nodes[nam]
		dead.unserved = envelope.Refuse(notServing, "starting")
		m.nodes[bac].tune = func(c *forward.Config) { c.ProbeInterval = 10 * time.Second }
		dead.tune = m.nodes[bac].tune
		for i := range 300 {
			m.nodes[bac].send(fmt.Sprint(i), atNam)
		}
		m.start()
		pass(time.Hour)
		// 200 ms doubled reaches 60 s after 9 tries; then 30 to 60 s each.
		if got := dead.sessionsOpened(); got < 60 || got > 135 {
			t.Errorf("%d sessions were tried in an hour, want 60 to 135", got)
		}
		before := time.Now()
		dead.set(func() { dead.unserved = nil })
		until(t, "all delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
		if took := time.Since(before); took > time.Minute+time.Second {
			t.Errorf("recovery took %s, want at most the longest back-off", took)
		}
	})
}

// A link that is down is not tried at all, and what waits goes as soon as it is
// up again, not after the back-off.
func TestLinkUpEndsBackoff(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.start()
		m.nodes[bac].send("first", atNam)
		until(t, "first delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
		m.cutLink(bac, nam)
		m.nodes[bac].send("second", atNam)
		pass(10 * time.Minute)
		if got := m.nodes[nam].sessionsOpened(); got != 1 {
			t.Errorf("%d sessions, want the first alone", got)
		}
		m.mendLink(bac, nam)
		before := time.Now()
		until(t, "second delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
		if took := time.Since(before); took > 10*time.Second {
			t.Errorf("it took %s after the link came back, want seconds", took)
		}
	})
}

// The link goes down while the destination is in a long back-off, and comes
// back: that ends the back-off.
func TestLinkUpCutsBackoffShort(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		n := m.nodes[nam]
		n.unserved = errors.New("broken")
		m.start()
		id := m.nodes[bac].send("1", atNam)
		tried := 0
		until(t, "in a long back-off", func() bool {
			defer func() { tried = n.sessionsOpened() }()
			return tried < 12 && n.sessionsOpened() == 12
		})
		m.cutLink(bac, nam)
		pass(6 * time.Second)
		n.set(func() { n.unserved = nil })
		m.mendLink(bac, nam)
		before := time.Now()
		until(t, "delivered", func() bool { return n.has(id, atNam) })
		if took := time.Since(before); took > 5*time.Second {
			t.Errorf("it took %s after the link came back, want seconds", took)
		}
	})
}

// The peer answers neither probes nor offers, and the connection does not
// break: what is under way is taken back as soon as the link counts as down,
// and goes another way.
func TestBlackHoleIsLeft(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.start()
		until(t, "links measured", func() bool {
			up := 0
			for _, l := range m.nodes[bac].forwarder.Links() {
				if l.To == nam && l.Up {
					up++
				}
			}
			return up == 2 // from here and from the third
		})
		hole := make(chan struct{})
		m.nodes[nam].set(func() {
			m.nodes[nam].onProbe = func(from routing.RelayID) error {
				if from == bac {
					<-hole
				}
				return nil
			}
		})
		var stuck atomic.Bool
		m.nodes[nam].spool.onBegin = func(envelope.ID) error {
			if !stuck.Swap(true) {
				<-hole
			}
			return nil
		}
		before := time.Now()
		id := m.nodes[bac].send("1", atNam)
		until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) })
		if took := time.Since(before); took > 20*time.Second {
			t.Errorf("it took %s, want less than a peer may be silent", took)
		}
		if got := m.nodes[trung].spool.commitsOf(id); got != 1 {
			t.Errorf("%s took custody %d times, want once", trung, got)
		}
		close(hole)
	})
}

// A dead destination does not slow another down.
func TestDeadDestinationStopsOnlyItself(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.nodes[nam].unserved = errors.New("broken")
		for i := range 300 {
			m.nodes[bac].send(fmt.Sprint(i), atNam)
		}
		m.start()
		pass(time.Minute)
		id := m.nodes[bac].send("other", atTrung)
		before := time.Now()
		until(t, "delivered", func() bool { return m.nodes[trung].has(id, atTrung) })
		if took := time.Since(before); took > time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// Its destination is given up as lost while an envelope is being offered there:
// the recipient's new home gets it, though the sweep found it under way.
func TestLostWhileOffered(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		offered, hole := make(chan struct{}), make(chan struct{})
		m.nodes[nam].spool.onBegin = func(envelope.ID) error {
			close(offered)
			<-hole
			return errors.New("too late")
		}
		defer close(hole)
		m.start()
		id := m.nodes[bac].send("1", atNam)
		<-offered
		m.move(atNam, trung)
		pass(0) // the sweep
		m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: string(nam), Lost: true}}})
		until(t, "delivered", func() bool { return m.nodes[trung].has(id, atNam) })
	})
}

// A pause that was noted before the clock was put back is over.
func TestNextTryAfterTheClockWasPutBack(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		id := m.nodes[bac].send("1", atNam)
		if err := m.nodes[bac].spool.Defer(t.Context(), id, nam, 1, time.Now().Add(240*time.Hour), "broken"); err != nil {
			t.Fatal(err)
		}
		m.start()
		before := time.Now()
		until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) })
		if took := time.Since(before); took > time.Minute {
			t.Errorf("it took %s", took)
		}
	})
}

// A relay that accepts nothing is left alone until it does.
func TestNotAcceptingIsWaitedFor(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		full := m.nodes[nam]
		full.accepting = envelope.Refuse(diskFull, "above the watermark")
		m.start()
		id := m.nodes[bac].send("1", atNam)
		pass(2 * time.Minute)
		if got := full.sessionsOpened(); got != 0 {
			t.Errorf("%d sessions were opened to a relay that takes nothing", got)
		}
		full.set(func() { full.accepting = nil })
		until(t, "delivered", func() bool { return full.has(id, atNam) })
	})
}

// It stops accepting in the middle of a session: the whole destination waits,
// and no envelope is blamed.
func TestStopsAcceptingInSession(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.start()
		m.nodes[bac].send("first", atNam)
		until(t, "first delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
		n := m.nodes[nam]
		n.set(func() { n.accepting = envelope.Refuse(notServing, "draining") })
		id := m.nodes[bac].send("second", atNam)
		pass(time.Minute)
		if got := m.nodes[bac].spool.deferrals(id); got != 0 {
			t.Errorf("the envelope was deferred %d times, want the destination to wait as a whole", got)
		}
		n.set(func() { n.accepting = nil })
		until(t, "second delivered", func() bool { return n.has(id, atNam) })
	})
}

// A peer that says nothing is cut off, and what was under way is offered again.
func TestSilentPeerIsCutOff(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.nodes[bac].tune = func(c *forward.Config) { c.AnswerTimeout = 5 * time.Second }
		var answered atomic.Bool
		m.nodes[nam].spool.onCommit = func(envelope.ID) {
			if !answered.Swap(true) {
				pass(time.Minute)
			}
		}
		m.start()
		before := time.Now()
		m.nodes[bac].send("1", atNam)
		until(t, "handed on", func() bool { return m.nodes[bac].spool.queued() == 0 })
		if took := time.Since(before); took > 15*time.Second {
			t.Errorf("it took %s, want little more than the silence allowed", took)
		}
		if got := m.nodes[nam].sessionsOpened(); got != 2 {
			t.Errorf("%d sessions, want 2", got)
		}
	})
}
