package forward

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/routing"
)

// Hysteresis of a link: so many probes in a row turn it up or down. One that
// flaps, going down or breaking a session, needs twice as many answers each
// time, up to mostAnswers, and goes down although it answers probes when it has
// broken breaksToDown sessions; until nothing of it was seen for a calm.
const (
	answersToUp  = 2
	mostAnswers  = 32
	missesToDown = 3
	breaksToDown = 3
)

// calmProbes is how many probe intervals a calm lasts.
const calmProbes = 60

// links is the table of measured links: this relay's own, and those that other
// relays told of theirs. What others told is forgotten when they fall silent.
type links struct {
	self     routing.RelayID
	clock    func() time.Time
	age      time.Duration
	interval time.Duration // between probes

	mu      sync.Mutex
	direct  map[routing.RelayID]*link
	told    map[routing.RelayID]table
	version uint64        // counts what changes a choice of hop; see changed
	changed chan struct{} // closed when a link goes up or down, or a relay begins or ceases to accept
}

// link is what this relay measured of its own link to another.
type link struct {
	roundTrip  time.Duration // smoothed
	up         bool
	measured   bool // up or down by hysteresis, once at least
	accepting  bool
	since      time.Time // of the last change of up or accepting
	measuredAt time.Time
	heard      bool      // a session has told that the peer is there, since the last miss
	answers    int       // in a row
	misses     int       // in a row
	flaps      int       // since the last calm
	flappedAt  time.Time // and when it was last restless
	broke      bool      // a session broke since it went up
}

// table is what another relay told of its links.
type table struct {
	at    time.Time // by our clock
	links []routing.Link
}

func newLinks(c *Config) *links {
	return &links{
		self: c.Self, clock: c.Clock, age: c.linkAge(), interval: c.ProbeInterval,
		direct:  make(map[routing.RelayID]*link),
		told:    make(map[routing.RelayID]table),
		changed: make(chan struct{}),
	}
}

// answered notes an answer to a probe. It reports whether the next probe has
// time: a link that comes up without having flapped wants it at once.
func (l *links) answered(relay routing.RelayID, roundTrip time.Duration, accepting bool) (settled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.link(relay)
	k.misses = 0
	k.answers++
	k.measuredAt = l.clock()
	if k.up {
		// RFC 6298: an eighth of the new sample.
		k.roundTrip += (roundTrip - k.roundTrip) / 8
	} else {
		// The first sample contains the making of the connection; the one that
		// turns the link up does not.
		k.roundTrip = roundTrip
	}
	need := l.answersNeeded(k)
	up := k.up || k.answers >= need
	if up && !k.up {
		k.broke = false
	}
	l.set(k, up, accepting)
	return up || need > answersToUp
}

// missed notes a probe that was not answered, and reports whether the link has
// gone down by it. Where a session shows that the peer is there, the probe has
// only found no room on a busy link.
func (l *links) missed(relay routing.RelayID) (down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.link(relay)
	if k.up && k.heard {
		k.heard, k.misses = false, 0
		return false
	}
	if !k.up && k.answers > 0 {
		k.flappedAt = l.clock() // a run that broke off is no calm
	}
	k.answers = 0
	k.misses++
	if k.misses < missesToDown {
		return false
	}
	was := k.up
	if was && !k.broke {
		l.flap(k)
	}
	l.set(k, false, k.accepting)
	return was
}

// heard notes a sign of life in a session.
func (l *links) heard(relay routing.RelayID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.direct[relay]; k != nil {
		k.heard = true
	}
}

// broken notes that a session was cut, and reports whether the link has gone
// down by it. Sessions that are cut together count as one.
func (l *links) broken(relay routing.RelayID) (down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.direct[relay]
	if k == nil || !k.up || (k.broke && l.clock().Sub(k.flappedAt) < l.interval) {
		return false
	}
	k.broke = true
	if l.flap(k) < breaksToDown {
		return false
	}
	k.answers = 0
	l.set(k, false, k.accepting)
	return true
}

// flap counts one more; l.mu is held.
func (l *links) flap(k *link) int {
	l.answersNeeded(k)
	k.flaps++
	k.flappedAt = l.clock()
	return k.flaps
}

// answersNeeded returns how many probes in a row have to be answered before the
// link goes up; l.mu is held.
func (l *links) answersNeeded(k *link) int {
	if l.clock().Sub(k.flappedAt) > calmProbes*l.interval {
		k.flaps = 0
	}
	return min(answersToUp<<min(max(k.flaps-1, 0), 8), mostAnswers)
}

// forget drops a relay that left the directory.
func (l *links) forget(relay routing.RelayID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.direct, relay)
	delete(l.told, relay)
	l.turn()
}

// link returns the entry of a relay; l.mu is held.
func (l *links) link(relay routing.RelayID) *link {
	k := l.direct[relay]
	if k == nil {
		k = &link{accepting: true}
		l.direct[relay] = k
	}
	return k
}

// set changes up and accepting; l.mu is held.
func (l *links) set(k *link, up, accepting bool) {
	measured := k.measured || up || k.misses >= missesToDown
	if k.up == up && k.accepting == accepting && k.measured == measured {
		return
	}
	k.up, k.accepting, k.measured, k.since = up, accepting, measured, l.clock()
	l.turn()
}

func (l *links) turn() {
	l.version++
	close(l.changed)
	l.changed = make(chan struct{})
}

// hear notes the link table of another relay.
func (l *links) hear(from routing.RelayID, told []*relayv1.Link) {
	t := table{at: l.clock()}
	for _, k := range told {
		to, err := routing.ParseRelayID(k.GetRelayId())
		if err != nil || to == from {
			continue
		}
		t.links = append(t.links, routing.Link{
			From: from, To: to, RoundTrip: max(k.GetRoundTrip().AsDuration(), 0), Up: k.GetUp(),
		})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.told[from].links
	l.told[from] = t
	if !slices.EqualFunc(before, t.links, func(a, b routing.Link) bool { return a.To == b.To && a.Up == b.Up }) {
		l.turn()
	}
}

// change is closed at the next change that may move a choice of hop; it is
// taken before the table is read.
func (l *links) change() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// current returns the version of the table; it changes with every change that
// may move a choice of hop.
func (l *links) current() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.version
}

// measured reports whether the direct link has been found to be up or down;
// until then it is neither.
func (l *links) measured(relay routing.RelayID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.direct[relay]
	return k != nil && k.measured
}

// up reports whether the direct link carries traffic.
func (l *links) up(relay routing.RelayID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.direct[relay]
	return k != nil && k.up
}

// usable reports whether the relay is reached directly and takes envelopes,
// and since when.
func (l *links) usable(relay routing.RelayID) (since time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.direct[relay]
	if k == nil || !k.up || !k.accepting {
		return time.Time{}, false
	}
	return k.since, true
}

// trip is the round trip to a relay that is usable.
func (l *links) trip(relay routing.RelayID) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.direct[relay]
	if k == nil || !k.up || !k.accepting {
		return 0, false
	}
	return k.roundTrip, true
}

// refusing lists the neighbours that take no envelopes just now.
func (l *links) refusing() []routing.RelayID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var relays []routing.RelayID
	for relay, k := range l.direct {
		if !k.accepting {
			relays = append(relays, relay)
		}
	}
	return relays
}

// snapshot lists all links that are known, in order of their ends.
func (l *links) snapshot() []routing.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]routing.Link, 0, len(l.direct)*(len(l.told)+1))
	for relay, k := range l.direct {
		all = append(all, routing.Link{From: l.self, To: relay, RoundTrip: k.roundTrip, Up: k.up})
	}
	oldest := l.clock().Add(-l.age)
	for from, t := range l.told {
		if t.at.Before(oldest) {
			delete(l.told, from)
			continue
		}
		all = append(all, t.links...)
	}
	slices.SortFunc(all, func(a, b routing.Link) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return all
}

// tell lists this relay's own links, as it tells them to others.
func (l *links) tell() []*relayv1.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := make([]*relayv1.Link, 0, len(l.direct))
	for relay, k := range l.direct {
		told := &relayv1.Link{RelayId: string(relay), Up: k.up}
		if k.up {
			told.RoundTrip = durationpb.New(k.roundTrip)
		}
		if !k.measuredAt.IsZero() {
			told.MeasuredAt = timestamppb.New(k.measuredAt)
		}
		own = append(own, told)
	}
	slices.SortFunc(own, func(a, b *relayv1.Link) int { return cmp.Compare(a.RelayId, b.RelayId) })
	return own
}
