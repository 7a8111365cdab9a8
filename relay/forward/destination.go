package forward

import (
	"context"
	"sync"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// feedAll keeps two feeders for each destination that has, or had, something
// in its queue, until ctx ends.
func (f *Forwarder) feedAll(ctx context.Context) {
	var feeders sync.WaitGroup
	defer feeders.Wait()
	running := make(map[routing.RelayID]bool)
	for {
		changed := f.Queues.DestinationsChanged()
		relays, err := f.Queues.Destinations()
		var again <-chan time.Time
		if err != nil {
			f.Logger.ErrorContext(ctx, "destinations cannot be read", "error", err)
			again = time.After(f.jitter.around(f.Rescan))
		}
		for _, relay := range relays {
			if running[relay] {
				continue
			}
			running[relay] = true
			d := &destination{relay: relay, breaker: newBreaker(f.jitter)}
			for _, urgent := range []bool{true, false} {
				fd := newFeeder(f, d, urgent)
				f.feeders.add(fd)
				feeders.Go(func() { fd.run(ctx) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

// destination is a relay that has to have envelopes in the end.
type destination struct {
	relay   routing.RelayID
	breaker *breaker
}

// place is a place in the lanes of one feeder's part of a queue: the entries up
// to these sequences were seen.
type place [len(envelope.LaneOrder)]uint64

// before returns the position before the first entry of a lane.
func before(lane envelope.Lane) envelope.Position {
	for i, l := range envelope.LaneOrder {
		if l == lane && i > 0 {
			return envelope.Position{Lane: envelope.LaneOrder[i-1], Sequence: ^uint64(0)}
		}
	}
	return envelope.Position{}
}

// after returns the position of the place in a lane.
func (p *place) after(lane envelope.Lane) envelope.Position {
	if p[lane] == 0 {
		return before(lane)
	}
	return envelope.Position{Lane: lane, Sequence: p[lane]}
}

// lanes returns the lanes of a stream in their order.
func lanes(urgent bool) []envelope.Lane {
	var out []envelope.Lane
	for _, lane := range envelope.LaneOrder {
		if lane.Urgent() == urgent {
			out = append(out, lane)
		}
	}
	return out
}

// rank is the lane's place in the order; 0 is the most urgent.
func rank(lane envelope.Lane) int {
	for i, l := range envelope.LaneOrder {
		if l == lane {
			return i
		}
	}
	return len(envelope.LaneOrder)
}
