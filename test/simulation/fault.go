package simulation

import (
	"fmt"
	"math/rand/v2"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// event is one thing that is done to the mesh, for a while.
type event struct {
	kind      string
	at, lasts time.Duration
	what      string
	// begin does it, and returns what ends it; nil: it ends by itself, or there was
	// nothing to do it to.
	begin func(w *world) (end func())
}

func (e event) String() string { return e.kind + ": " + e.what }

// hit is a fault that was injected.
type hit struct {
	kind string
	// ended is when it was over; recovery how long after that everything that had
	// been accepted before was in the books of its recipients.
	ended    time.Duration
	recovery time.Duration
	done     bool
}

// count notes a fault that is over.
func (w *world) count(kind string, ended time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hits = append(w.hits, &hit{kind: kind, ended: ended})
}

// do runs the events of the plan; it returns when the last one has ended.
func (w *world) do() {
	for _, e := range w.plan.events {
		w.faults.Go(func() {
			if !w.sleep(e.at - w.since()) {
				return
			}
			w.say("FAULT %s", e)
			end := e.begin(w)
			if end == nil {
				return
			}
			w.sleep(e.lasts)
			w.say("FAULT ends: %s", e)
			end()
			w.count(e.kind, w.since())
		})
	}
}

// watch measures recoveries until the simulation ends.
func (w *world) watchRecovery() {
	for w.sleep(500 * time.Millisecond) {
		w.recovered()
	}
}

// recovered closes the faults after which nothing is missing that was accepted
// before their end.
func (w *world) recovered() {
	lacks, _ := w.history.Missing()
	now := w.since()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.hits {
		if h.done || len(lacks) > 0 && lacks[0].Promised.Sub(w.begun) <= h.ended {
			continue
		}
		h.recovery, h.done = now-h.ended, true
	}
}

// drawn makes an event by chance.
type drawn func(p *plan, r *rand.Rand) event

// weights are how often each kind is drawn.
var weights = []struct {
	weight int
	draw   drawn
}{
	{6, drawCut}, {3, drawIsolation}, {3, drawSlow}, {3, drawReset}, {2, drawRefusal},
	{12, drawStopAtCall}, {5, drawKill}, {5, drawPowerCut}, {2, drawRestart},
	{3, drawLeaderless}, {2, drawBehind}, {3, drawMove}, {2, drawDrain}, {3, drawClock},
}

// lasting is how long most things go on: some long enough for a connection to be
// given up, most of them not.
func lasting(r *rand.Rand) time.Duration {
	if r.IntN(14) == 0 {
		return between(r, 0, 35*time.Second)
	}
	return between(r, 10*time.Millisecond, 3*time.Second)
}

// planEvents decides what is done to the mesh. A disk is lost once at most: two
// copies are promised, not three.
func (p *plan) planEvents(r *rand.Rand) {
	total := 0
	for _, k := range weights {
		total += k.weight
	}
	lost := r.IntN(12)
	p.lossy = lost < 2
	for range 2 + r.IntN(5) {
		n := r.IntN(total)
		for _, k := range weights {
			if n -= k.weight; n < 0 {
				e := k.draw(p, r)
				e.at = between(r, 0, busy)
				if e.lasts == 0 {
					e.lasts = lasting(r)
				}
				p.events = append(p.events, e)
				break
			}
		}
	}
	switch lost {
	case 0:
		p.events = append(p.events, p.drawLostDisk(r))
	case 1:
		p.events = append(p.events, p.drawGivenUp(r))
	}
	p.heal = busy
	for _, e := range p.events {
		p.heal = max(p.heal, e.at+e.lasts+100*time.Millisecond)
	}
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func (p *plan) two(r *rand.Rand) (a, b string) {
	i := r.Perm(len(p.relays))
	return p.relays[i[0]], p.relays[i[1]]
}

// hosts other than relays take part in few faults.
func (p *plan) anyLink(r *rand.Rand) (a, b string) {
	if r.IntN(4) == 0 {
		return pick(r, p.relays), "desk-" + pick(r, p.desks).code
	}
	return p.two(r)
}

func drawCut(p *plan, r *rand.Rand) event {
	a, b := p.anyLink(r)
	if r.IntN(2) == 0 {
		return event{kind: "link cut in one direction", what: a + " to " + b, begin: func(w *world) func() {
			w.net.cut(a, b, true)
			return func() { w.net.cut(a, b, false) }
		}}
	}
	return event{kind: "link cut in both directions", what: a + " and " + b, begin: func(w *world) func() {
		w.net.cut(a, b, true)
		w.net.cut(b, a, true)
		return func() { w.net.cut(a, b, false); w.net.cut(b, a, false) }
	}}
}

func drawIsolation(p *plan, r *rand.Rand) event {
	a := pick(r, p.relays)
	with := r.IntN(2) == 0
	what := a + " from the other relays"
	if with {
		what = a + " from everybody"
	}
	return event{kind: "relay cut off", what: what, begin: func(w *world) func() {
		hosts := w.plan.relays
		if with {
			for _, d := range w.desks {
				hosts = append(hosts[:len(hosts):len(hosts)], d.host)
			}
		}
		set := func(is bool) {
			for _, b := range hosts {
				if b != a {
					w.net.cut(a, b, is)
					w.net.cut(b, a, is)
				}
			}
		}
		set(true)
		return func() { set(false) }
	}}
}

func drawSlow(p *plan, r *rand.Rand) event {
	a, b := p.anyLink(r)
	delay := between(r, 50*time.Millisecond, 3*time.Second)
	jitter := between(r, 0, 2*time.Second)
	rate := []int64{0, 2_000, 20_000}[r.IntN(3)]
	return event{
		kind: "link slow and late", what: fmt.Sprintf("%s to %s by %s and up to %s, %d bytes/s", a, b, delay, jitter, rate),
		begin: func(w *world) func() {
			w.net.shape(a, b, delay, jitter, rate)
			return func() { w.net.shape(a, b, w.plan.delay, w.plan.jitter, 0) }
		},
	}
}

func drawReset(p *plan, r *rand.Rand) event {
	a, b := p.anyLink(r)
	part := []float64{.3, 1}[r.IntN(2)]
	return event{kind: "connections reset", what: fmt.Sprintf("%.0f %% of those of %s and %s", part*100, a, b),
		lasts: time.Millisecond, begin: func(w *world) func() {
			w.net.reset(a, b, part)
			return func() {}
		}}
}

func drawRefusal(p *plan, r *rand.Rand) event {
	a := pick(r, p.relays)
	return event{kind: "connections refused", what: "by " + a, begin: func(w *world) func() {
		w.net.refuse(a, true)
		return func() { w.net.refuse(a, false) }
	}}
}

func drawLeaderless(p *plan, r *rand.Rand) event {
	return event{kind: "directory without a leader", begin: func(w *world) func() {
		w.ledger.leader(false)
		return func() { w.ledger.leader(true) }
	}}
}

func drawBehind(p *plan, r *rand.Rand) event {
	a := pick(r, p.relays)
	return event{kind: "copy of the directory stands still", what: a, begin: func(w *world) func() {
		w.node(a).hold(true)
		return func() { w.node(a).hold(false) }
	}}
}

// change is a command of an operator; while there is no leader he waits.
func (w *world) change(c func() *directoryv1.Command) {
	for w.ctx.Err() == nil {
		err := w.ledger.change(c())
		if err == nil {
			return
		}
		w.say("operator: %v", err)
		if !leaderless(err) {
			return // it was decided without knowing of the rest
		}
		w.sleep(time.Second)
	}
}

func drawMove(p *plan, r *rand.Rand) event {
	d := pick(r, p.desks)
	home := pick(r, p.relays)
	return event{kind: "agency moved to another home", what: d.code + " to " + home, lasts: time.Millisecond, begin: func(w *world) func() {
		w.unclean()
		w.change(func() *directoryv1.Command {
			return &directoryv1.Command{Change: &directoryv1.Command_MoveAgency{MoveAgency: &directoryv1.MoveAgency{
				AgencyCode: d.code, HomeRelayId: home,
			}}}
		})
		return func() {}
	}}
}

func drawDrain(p *plan, r *rand.Rand) event {
	a := pick(r, p.relays)
	moves := r.IntN(2) == 0
	set := func(w *world, state directoryv1.RelayState, moves bool) {
		w.change(func() *directoryv1.Command {
			return &directoryv1.Command{Change: &directoryv1.Command_SetRelayState{SetRelayState: &directoryv1.SetRelayState{
				RelayId: a, State: state, MoveAgencies: moves,
			}}}
		})
	}
	return event{kind: "relay drained, and back in service", what: fmt.Sprintf("%s, its agencies move: %t", a, moves), begin: func(w *world) func() {
		n := w.node(a)
		if n.isGone() {
			return nil
		}
		w.unclean()
		set(w, directoryv1.RelayState_RELAY_STATE_DRAINING, moves)
		return func() {
			if !n.isGone() { // nobody puts a relay back into service that is lost
				set(w, directoryv1.RelayState_RELAY_STATE_ACTIVE, false)
			}
		}
	}}
}

// drawClock puts the clock of a relay forward or back. By more than a moment only
// while the relay is down: what a process has in memory is timed by a clock that
// is never put back (Go's monotonic one), and a simulated clock has none. When
// everything is mended, clocks are set right and their relays start anew.
func drawClock(p *plan, r *rand.Rand) event {
	s := drawStop(p, r, kindClock)
	s.indexLost = false
	s.jump = []time.Duration{time.Second, time.Minute, time.Hour, 26 * time.Hour, 10 * 24 * time.Hour}[r.IntN(5)]
	switch {
	case r.IntN(2) == 0:
		s.jump = -s.jump
	case !p.lossy && !p.ahead && r.IntN(3) == 0:
		// What it is the ingress of has expired, as far as it knows. It tells the
		// senders, and an operator revives it once the clock is right. One relay
		// at most: where two clocks are wrong by so much, one can end a document
		// and the other let go what was kept of it.
		s.jump, p.ahead = 40*24*time.Hour, true
	}
	if s.jump.Abs() > time.Second {
		return s.event()
	}
	return event{kind: kindClock, what: fmt.Sprintf("%s by %s", s.relay, s.jump), begin: func(w *world) func() {
		n := w.node(s.relay)
		n.jump(s.jump)
		return func() { n.jump(-s.jump) }
	}}
}
