package routing

import (
	"cmp"
	"math"
	"time"
)

// Link is what is known of the way from one relay to another.
type Link struct {
	From, To RelayID
	// RoundTrip is the measured round-trip time.
	RoundTrip time.Duration
	// Up: the other side answers.
	Up bool
}

// way is a path as far as choosing between paths goes.
type way struct {
	roundTrip time.Duration
	hops      int
	first     RelayID // next hop from where the path begins
}

func (w way) compare(other way) int {
	return cmp.Or(cmp.Compare(w.roundTrip, other.roundTrip), cmp.Compare(w.hops, other.hops), cmp.Compare(w.first, other.first))
}

// NextHop returns the relay to hand an envelope to that is to reach another
// one: that relay itself while the direct link is up, else the first on the
// way with the shortest round-trip time over links that are up, then the
// fewest hops, then the smallest id. No relay in avoid is passed through or
// returned. False: there is no way.
//
// Relays that see the same links send along one way without a circle; that
// tables differ for a while is why envelopes carry the relays they visited.
func NextHop(self, to RelayID, links []Link, avoid map[RelayID]bool) (RelayID, bool) {
	if self == to || avoid[to] {
		return "", false
	}
	out := map[RelayID][]Link{}
	for _, l := range links {
		if !l.Up || avoid[l.To] {
			continue
		}
		if l.From == self && l.To == to {
			return to, true
		}
		out[l.From] = append(out[l.From], l)
	}
	// Dijkstra's search; a mesh has tens of relays, so the nearest open one is
	// found by looking at all.
	open, closed := map[RelayID]way{self: {}}, map[RelayID]bool{}
	for len(open) > 0 {
		var here RelayID
		var best way
		for id, w := range open {
			if here == "" || cmp.Or(w.compare(best), cmp.Compare(id, here)) < 0 {
				here, best = id, w
			}
		}
		if here == to {
			return best.first, true
		}
		delete(open, here)
		closed[here] = true
		for _, l := range out[here] {
			if closed[l.To] {
				continue
			}
			w := way{sum(best.roundTrip, l.RoundTrip), best.hops + 1, best.first}
			if here == self {
				w.first = l.To
			}
			if known, ok := open[l.To]; !ok || w.compare(known) < 0 {
				open[l.To] = w
			}
		}
	}
	return "", false
}

// sum adds round-trip times; a negative one counts as none, and the sum stays
// within what a Duration holds.
func sum(a, b time.Duration) time.Duration {
	if b = max(b, 0); a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
