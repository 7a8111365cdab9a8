package simulation

import (
	"fmt"
	"math/rand/v2"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// stop is how a machine stops and starts again.
type stop struct {
	kind  string
	relay string
	loss  loss
	// silent: the machine is gone without a word; else its kernel answers that
	// nobody is there.
	silent bool
	downs  time.Duration
	// again: it stops once more at this call of its next start; 0: it does not.
	again int
	// indexLost: the index is gone, and is built again from the journal.
	indexLost bool
	// jump of the clock while it is down.
	jump time.Duration
	// wiped: the disk comes back empty.
	wiped bool
}

func (s stop) String() string {
	text := fmt.Sprintf("%s, unsynced lost: %s, silent %t, down for %s", s.relay, s.loss, s.silent, s.downs.Round(time.Millisecond))
	if s.again > 0 {
		text += fmt.Sprintf(", again at call %d of its start", s.again)
	}
	if s.indexLost {
		text += ", index lost"
	}
	if s.jump != 0 {
		text += fmt.Sprintf(", clock %s off", s.jump)
	}
	return text
}

func drawStop(p *plan, r *rand.Rand, kind string) stop {
	s := stop{
		kind: kind, relay: pick(r, p.relays), loss: loss(r.IntN(4)), silent: r.IntN(2) == 0,
		downs: lasting(r),
	}
	if r.IntN(4) == 0 {
		s.again = 1 + r.IntN(12)
	}
	if r.IntN(8) == 0 {
		s.indexLost = true
	}
	return s
}

// lifetime of an envelope, where its sender names none.
const lifetime = 30 * 24 * time.Hour

// Kinds of stops.
const (
	kindCall    = "relay stopped at a commit point (k-th call of its disk)"
	kindKill    = "relay killed (SIGKILL)"
	kindPower   = "power cut"
	kindStart   = "relay stopped while it starts"
	kindRestart = "relay restarted in good order"
	kindIndex   = "index lost with the crash"
	kindEnded   = "index lost when all had ended and was recycled"
	kindClock   = "clock of a relay jumps"
	kindDisk    = "disk lost, relay comes back empty"
	kindGivenUp = "disk lost, relay given up (retire --lost)"
)

func drawKill(p *plan, r *rand.Rand) event {
	s := drawStop(p, r, kindKill)
	s.loss, s.silent = nothing, false
	return s.event()
}

func drawPowerCut(p *plan, r *rand.Rand) event {
	s := drawStop(p, r, kindPower)
	s.loss, s.silent = pick(r, []loss{everything, some, torn}), true
	return s.event()
}

// event stops the machine at once.
func (s stop) event() event {
	return event{kind: s.kind, what: s.String(), lasts: s.downs, begin: func(w *world) func() {
		n := w.node(s.relay)
		if !n.claim() {
			return nil
		}
		n.crash(s.loss, s.silent)
		if s.wiped {
			w.loseDisk()
			n.disk.wipe()
		}
		w.faults.Go(func() { w.comesBack(n, s) })
		return nil
	}}
}

// drawStopAtCall stops the machine before or after the k-th call that changes
// something on its disk, counted from some moment on.
func drawStopAtCall(p *plan, r *rand.Rand) event {
	s := drawStop(p, r, kindCall)
	k, after := 1+r.IntN([]int{4, 40, 200}[r.IntN(3)]), r.IntN(2) == 0
	where := "before"
	if after {
		where = "after"
	}
	return event{kind: s.kind, what: fmt.Sprintf("%s call %d of %s", where, k, s), lasts: s.downs, begin: func(w *world) func() {
		w.stopAtCall(s, k, after)
		return nil
	}}
}

// stopAtCall has it stop there, and start again.
func (w *world) stopAtCall(s stop, k int, after bool) {
	n := w.node(s.relay)
	if !n.claim() {
		return
	}
	stopped := make(chan struct{})
	n.disk.stopAtCall(k, after, func() {
		n.kill(s.silent)
		close(stopped)
	})
	w.faults.Go(func() {
		select {
		case <-stopped:
		case <-w.healed:
			if n.disk.cancelStop() {
				n.release() // it never came so far
				return
			}
		}
		w.say("relay %s stopped at %q", n.id, n.disk.lastCalls())
		n.disk.crash(s.loss)
		w.comesBack(n, s)
	})
}

// comesBack starts a relay again, which may stop once more on the way.
func (w *world) comesBack(n *node, s stop) {
	if s.jump != 0 {
		n.setClock(s.jump)
	}
	if s.jump > lifetime {
		w.unclean() // what is revived may be given again
		w.mu.Lock()
		w.expires = true
		w.mu.Unlock()
	}
	for again := s.again; ; again = 0 {
		if !w.sleep(s.downs) {
			return
		}
		if s.indexLost {
			n.disk.dropIndex()
			w.count(kindIndex, w.since())
		}
		stopped := make(chan struct{})
		n.again = func(d *disk) {
			if again > 0 {
				d.stopAtCall(again, again%2 == 0, func() {
					n.kill(s.silent)
					close(stopped)
				})
			}
		}
		w.say("relay %s starts again", n.id)
		if err := n.start(); err != nil {
			w.violate("stopped", "relay %s does not start: %v", n.id, err)
			return
		}
		if again == 0 {
			break
		}
		select {
		case <-stopped:
		case <-time.After(2 * time.Second):
			if n.disk.cancelStop() {
				n.release()
				w.count(s.kind, w.since())
				return
			}
			<-stopped
		}
		w.say("relay %s stopped while it starts, at %q", n.id, n.disk.lastCalls())
		n.disk.crash(s.loss)
		w.count(kindStart, w.since())
	}
	n.release()
	w.count(s.kind, w.since())
}

func drawRestart(p *plan, r *rand.Rand) event {
	a := pick(r, p.relays)
	return event{kind: kindRestart, what: a, begin: func(w *world) func() {
		n := w.node(a)
		if !n.claim() {
			return nil
		}
		n.stopInOrder()
		return func() {
			n.release()
			if err := n.start(); err != nil {
				w.violate("stopped", "relay %s does not start: %v", a, err)
			}
		}
	}}
}

// drawLostDisk has a relay come back with nothing.
func (p *plan) drawLostDisk(r *rand.Rand) event {
	s := drawStop(p, r, kindDisk)
	s.loss, s.again, s.indexLost, s.wiped = everything, 0, false, true
	e := s.event()
	e.at = between(r, busy/4, busy)
	return e
}

// drawGivenUp has a relay lost for good, and an operator say so.
func (p *plan) drawGivenUp(r *rand.Rand) event {
	a := pick(r, p.relays)
	for i := range p.desks {
		if d := &p.desks[i]; len(d.knows) == 1 && d.knows[0] == a {
			d.knows = append(d.knows, names(p.relays, r)[:2]...)
		}
	}
	return event{kind: kindGivenUp, what: a, at: between(r, busy/4, busy), lasts: lasting(r), begin: func(w *world) func() {
		n := w.node(a)
		if !n.claim() {
			return nil
		}
		w.loseDisk()
		n.giveUp()
		n.crash(everything, true)
		n.disk.wipe()
		return func() {
			w.change(func() *directoryv1.Command {
				return &directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: a, Lost: true}}}
			})
		}
	}}
}

func leaderless(err error) bool {
	refusal, ok := envelope.AsRefusal(err)
	return ok && refusal.Has(exchangev1.ErrorReason_ERROR_REASON_NO_LEADER)
}

// unclean says that what was confirmed may be given again, because the relay
// that knows better is not asked any more.
func (w *world) unclean() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clean = false
}

// loseDisk says that a relay does not know any more what it had.
func (w *world) loseDisk() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clean, w.diskLost = false, true
}
