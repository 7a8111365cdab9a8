package forward_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
)

// usable reports whether a relay would hand on directly to another.
func (m *mesh) usable(from, to routing.RelayID) bool {
	_, ok := m.nodes[from].forwarder.Usable(to)
	return ok
}

// counts is what a relay has had to bear.
type counts struct {
	mu     sync.Mutex
	offers map[envelope.ID]int
	probes int
}

// count begins to count at a relay.
func (n *node) count() *counts {
	c := &counts{offers: make(map[envelope.ID]int)}
	n.spool.onBegin = func(id envelope.ID) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.offers[id]++
		return nil
	}
	n.onProbe = func(routing.RelayID) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.probes++
		return nil
	}
	return c
}

func (c *counts) probed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.probes
}

// repeats is how many offers came more than once.
func (c *counts) repeats() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, times := range c.offers {
		n += times - 1
	}
	return n
}

// One direction of a link is dead: that way goes by way of the third relay, the
// other way directly.
func TestAsymmetricCut(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.start()
		until(t, "links up", func() bool { return m.usable(bac, nam) && m.usable(nam, bac) && m.usable(trung, nam) })
		m.cutOneWay(bac, nam)
		there := m.nodes[bac].send("1", atNam)
		until(t, "delivered by way of the third", func() bool { return m.nodes[nam].has(there, atNam) })
		if got := m.nodes[trung].spool.commitsOf(there); got != 1 {
			t.Errorf("%s took it %d times, want once", trung, got)
		}
		back := m.nodes[nam].send("2", atBac)
		before := time.Now()
		until(t, "delivered directly", func() bool { return m.nodes[bac].has(back, atBac) })
		if took := time.Since(before); took > time.Second {
			t.Errorf("the way back took %s", took)
		}
		if got := m.nodes[trung].spool.commitsOf(back); got != 0 {
			t.Errorf("%s took what goes directly", trung)
		}
		if !m.usable(nam, bac) || m.usable(bac, nam) {
			t.Error("want the one direction down and the other up")
		}
	})
}

// A link comes and goes every 200 ms for a minute, with envelopes waiting: what
// that costs is bounded, and afterwards they arrive.
func TestFlappingLink(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		n := m.nodes[nam]
		c := n.count()
		m.start()
		until(t, "link up", func() bool { return m.usable(bac, nam) })
		probes := c.probed()
		n.spool.onCommit = func(envelope.ID) { pass(20 * time.Millisecond) }
		sent := 0
		for range 150 {
			for range 4 {
				m.nodes[bac].send(fmt.Sprint(sent), atNam)
				sent++
			}
			m.cutLink(bac, nam)
			pass(200 * time.Millisecond)
			m.mendLink(bac, nam)
			pass(200 * time.Millisecond)
		}
		sessions, repeats, probed := n.sessionsOpened(), c.repeats(), c.probed()-probes
		t.Logf("%d sessions, %d repeated offers, %d probes", sessions, repeats, probed)
		// Three breaks turn it down, a second apart at least; every try in
		// between is a session.
		if sessions > 15 {
			t.Errorf("%d sessions were opened in a minute, want at most 15", sessions)
		}
		// What is under way when a session breaks is offered again: at most a
		// window each time.
		if repeats > 2*256 {
			t.Errorf("%d offers were repeated, want at most two windows", repeats)
		}
		if probed > 150 {
			t.Errorf("%d probes came, want no more than of a good link: 2 a second and a few", probed)
		}
		before := time.Now()
		until(t, "all delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
		if took := time.Since(before); took > 45*time.Second {
			t.Errorf("it took %s after the link was good again", took)
		}
		if got := len(n.spool.inbox(atNam)); got != sent {
			t.Errorf("%d arrived, want %d", got, sent)
		}
	})
}

// A link that has gone down once needs little to be used again, and one that
// goes down again and again more each time, until it was calm for a while.
func TestFlapsAreRemembered(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.start()
		until(t, "link up", func() bool { return m.usable(bac, nam) })
		outage := func() time.Duration {
			m.cutLink(bac, nam)
			until(t, "link down", func() bool { return !m.usable(bac, nam) })
			m.mendLink(bac, nam)
			before := time.Now()
			until(t, "link up", func() bool { return m.usable(bac, nam) })
			return time.Since(before)
		}
		first, second, third, fourth := outage(), outage(), outage(), outage()
		if first > 3*time.Second {
			t.Errorf("after the first outage it took %s", first)
		}
		if second < first || third < 3*time.Second || fourth < 2*third-3*time.Second || fourth < 6*time.Second {
			t.Errorf("outages cost %s, %s, %s, %s, want each more than the one before", first, second, third, fourth)
		}
		// One that answers now and then is not calm.
		for range 30 {
			m.cutLink(bac, nam)
			pass(4 * time.Second)
			m.mendLink(bac, nam)
			pass(2 * time.Second)
		}
		restless := time.Now()
		until(t, "link up", func() bool { return m.usable(bac, nam) })
		if took := time.Since(restless); took < 6*time.Second {
			t.Errorf("after two restless minutes it took %s", took)
		}
		pass(2 * time.Minute)
		if again := outage(); again > 3*time.Second {
			t.Errorf("after a calm it took %s", again)
		}
	})
}

// Probes get through and sessions break: the link is taken down, and what waits
// goes another way.
func TestLinkThatBreaksSessions(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.start()
		until(t, "links up", func() bool { return m.usable(bac, nam) && m.usable(trung, nam) && m.usable(bac, trung) })
		pass(5 * time.Second) // told to each other
		m.nodes[nam].spool.onCommit = func(envelope.ID) { m.dropConns(bac, nam) }
		for i := range 20 {
			m.nodes[bac].send(fmt.Sprint(i), atNam)
			pass(1500 * time.Millisecond)
		}
		m.nodes[nam].spool.onCommit = nil
		until(t, "all delivered", func() bool { return m.nodes[bac].spool.queued()+m.nodes[trung].spool.queued() == 0 })
		if got := len(m.nodes[trung].spool.envelopes()); got < 5 {
			t.Errorf("%d went by way of the third, want those after the first few breaks", got)
		}
		if got := len(m.nodes[nam].spool.inbox(atNam)); got != 20 {
			t.Errorf("%d arrived, want 20", got)
		}
	})
}

// A peer takes connections and answers nothing on them: the link is measured
// down, and sessions are cut long before they would be for silence.
func TestHalfOpenConnection(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		n := m.nodes[nam]
		m.start()
		until(t, "link up", func() bool { return m.usable(bac, nam) })
		hole := make(chan struct{})
		n.set(func() {
			n.onProbe = func(routing.RelayID) error { <-hole; return nil }
			n.onPass = func(relayv1.PeerService_PassServer) error { <-hole; return nil }
		})
		before := time.Now()
		id := m.nodes[bac].send("1", atNam)
		until(t, "link down", func() bool { return !m.usable(bac, nam) })
		if took := time.Since(before); took > 12*time.Second {
			t.Errorf("it took %s to find out", took)
		}
		pass(10 * time.Minute)
		if got := n.sessionsOpened(); got != 1 {
			t.Errorf("%d sessions, want the first alone", got)
		}
		n.set(func() { n.onProbe, n.onPass = nil, nil })
		close(hole)
		until(t, "delivered", func() bool { return n.has(id, atNam) })
	})
}

// Probes are answered and sessions are not: each is cut after AnswerTimeout, and
// after a few the link counts as down.
func TestSilentSessions(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		n := m.nodes[nam]
		m.nodes[bac].tune = func(c *forward.Config) { c.AnswerTimeout = 5 * time.Second }
		m.start()
		until(t, "links up", func() bool { return m.usable(bac, nam) && m.usable(trung, nam) })
		pass(5 * time.Second)
		hole := make(chan struct{})
		defer close(hole)
		m.nodes[nam].set(func() {
			n.onPass = func(stream relayv1.PeerService_PassServer) error {
				if id, _ := callerByMetadata(stream.Context()); id.Name != string(bac) {
					return n.forwarder.Pass(stream)
				}
				select {
				case <-hole:
				case <-stream.Context().Done():
				}
				return nil
			}
		})
		before := time.Now()
		id := m.nodes[bac].send("1", atNam)
		until(t, "delivered by way of the third", func() bool { return n.has(id, atNam) })
		if took := time.Since(before); took > 25*time.Second {
			t.Errorf("it took %s, want three silences and little more", took)
		}
	})
}

// A slow link is full of urgent envelopes, so that probes do not get through in
// time: it is not taken for dead, and nothing is sent twice. Where one that
// rides inside its offer keeps the link for longer than the peer may be silent,
// that is found out soon, and the rest gets through.
func TestSlowLink(t *testing.T) {
	for name, c := range map[string]struct{ size, count, rate, sessions, repeats int }{
		"small":          {size: 200 << 10, count: 25, rate: 40 << 10, sessions: 1},
		"large":          {size: large, count: 2, rate: 20 << 10, sessions: 1},
		"small, slowest": {size: 250 << 10, count: 12, rate: 20 << 10, sessions: 4, repeats: 36},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				n := m.nodes[nam]
				counted := n.count()
				// What waits in front of the link delays a probe for seconds.
				m.lines[[2]routing.RelayID{bac, nam}] = line{rate: c.rate, buffer: 5 * c.rate}
				m.start()
				until(t, "link up", func() bool { return m.usable(bac, nam) })
				var sent []envelope.ID
				for i := range c.count {
					content := bulk(c.size)
					sent = append(sent, m.nodes[bac].accept(letter(fmt.Sprint(i), hoaToc, content), [][]byte{content}, atNam))
				}
				until(t, "all delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
				if got := n.sessionsOpened(); got > c.sessions {
					t.Errorf("%d sessions, want at most %d", got, c.sessions)
				}
				if got := counted.repeats(); got > c.repeats {
					t.Errorf("%d offers were repeated, want at most %d", got, c.repeats)
				}
				for _, id := range sent {
					if got := n.spool.writtenOf(id); got != c.size {
						t.Errorf("%d bytes were written, want %d", got, c.size)
					}
				}
			})
		})
	}
}

// A dead destination costs the same whether ten or thousands wait for it.
func TestDeadDestinationCostsNothingPerEntry(t *testing.T) {
	for name, close := range map[string]func(*mesh){
		"no connection": func(*mesh) {},
		"answers probes, takes no session": func(m *mesh) {
			m.nodes[nam].unserved = envelope.Refuse(notServing, "starting")
			m.start(nam)
		},
	} {
		t.Run(name, func(t *testing.T) {
			goroutines := make(map[int]int)
			for _, entries := range []int{10, 1000} {
				inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
					for i := range entries {
						m.nodes[bac].send(fmt.Sprint(i), atNam)
					}
					close(m)
					m.start(bac)
					pass(5 * time.Minute)
					synctest.Wait()
					goroutines[entries] = runtime.NumGoroutine()
					m.nodes[bac].spool.mu.Lock()
					defer m.nodes[bac].spool.mu.Unlock()
					if got := len(m.nodes[bac].spool.deferred); got != 0 {
						t.Errorf("%d envelopes were blamed", got)
					}
				})
			}
			if more := goroutines[1000] - goroutines[10]; more > 3 {
				t.Errorf("%d goroutines with ten entries and %d more with 1,000", goroutines[10], more)
			}
		})
	}
}

// A transfer is cut at every place of it, before the end and after: each time it
// goes on where it was, and nothing is written twice.
func TestResumeAfterCutAnywhere(t *testing.T) {
	const chunk = 256 << 10
	appendix := len("Phụ lục")
	for at := 0; at <= large; at += 2 * chunk {
		t.Run(fmt.Sprint("at ", at), func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				n := m.nodes[nam]
				cuts := 0
				n.spool.onWrite = func(id envelope.ID, offset uint64) {
					n.spool.mu.Lock()
					written := n.spool.written[id]
					n.spool.mu.Unlock()
					if cuts == 0 && written >= at {
						cuts++
						m.dropConns(bac, nam)
						pass(10 * time.Millisecond)
					}
				}
				n.spool.onCommit = func(envelope.ID) {
					if cuts == 1 { // once more, when everything is here
						cuts++
						m.dropConns(bac, nam)
					}
				}
				m.start()
				id := m.nodes[bac].sendLarge("1", 0, atNam)
				until(t, "delivered", func() bool { return n.has(id, atNam) && m.nodes[bac].spool.queued() == 0 })
				if got, want := n.spool.writtenOf(id), large+appendix; got != want || cuts != 2 {
					t.Errorf("%d bytes were written after %d cuts, want %d after 2", got, cuts, want)
				}
				if got := n.spool.commitsOf(id); got != 1 {
					t.Errorf("committed %d times, want once", got)
				}
				if got := n.spool.inbox(atNam); !slices.Equal(got, []envelope.ID{id}) {
					t.Errorf("inbox %v", got)
				}
			})
		})
	}
}
