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

// Hysteresis of a link: so many probes in a row turn it up or down.
const (
	answersToUp  = 2
	missesToDown = 3
)

// links is the table of measured links: this relay's own, and those that other
// relays told of theirs. What others told is forgotten when they fall silent.
type links struct {
	self  routing.RelayID
	clock func() time.Time
	age   time.Duration

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
	answers    int // in a row
	misses     int // in a row
}

// table is what another relay told of its links.
type table struct {
	at    time.Time // by our clock
	links []routing.Link
}

func newLinks(self routing.RelayID, clock func() time.Time, age time.Duration) *links {
	return &links{
		self: self, clock: clock, age: age,
		direct:  make(map[routing.RelayID]*link),
		told:    make(map[routing.RelayID]table),
		changed: make(chan struct{}),
	}
}

// answered notes an answer to a probe. It reports whether the link is settled:
// a link that is not wants its next probe at once.
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
	up := k.up || k.answers >= answersToUp
	l.set(k, up, accepting)
	return up
}

// missed notes a probe that was not answered, and reports whether the link has
// gone down by it.
func (l *links) missed(relay routing.RelayID) (down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.link(relay)
	k.answers = 0
	k.misses++
	if k.misses < missesToDown {
		return false
	}
	was := k.up
	l.set(k, false, k.accepting)
	return was
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
