package simulation

import (
	"fmt"
	"time"
)

// sweepWays are the ways in which a relay is stopped at one place: three relays,
// before and after the call, and four losses.
const sweepWays = 3 * 2 * 4

// newSweepPlan is a small mesh in which nothing else goes wrong than that one
// relay stops at its k-th call: numbers count through the ways, and then the
// calls.
func newSweepPlan(number uint64) *plan {
	relays := []string{"bac", "trung", "nam"}
	k, way := int(number/sweepWays)+1, number%sweepWays
	s := stop{kind: kindCall, relay: relays[way%3], loss: loss(way / 6), silent: way%2 == 0, downs: time.Second}
	after, where := way/3%2 == 1, "before"
	if after {
		where = "after"
	}
	p := &plan{
		seed: number, relays: relays, segment: 128 << 10, probe: time.Second, copyWait: time.Second, delay: time.Millisecond, jitter: time.Millisecond,
		lags: make([]time.Duration, len(relays)), heal: 8 * time.Second,
	}
	for i, home := range relays {
		p.desks = append(p.desks, deskPlan{code: fmt.Sprintf("H%02d", i+1), home: home, standby: relays[(i+1)%3], knows: relays})
	}
	for i, to := range [][]int{{1, 2}, {0}, {0, 1, 2}, {2}} {
		p.documents = append(p.documents, documentPlan{
			at: time.Duration(i) * 700 * time.Millisecond, sender: i % 3, to: to, sizes: []int{3000, 40_000, 270_000}[:i],
			id: fmt.Sprintf("%d/CV", i+1), patience: time.Minute, priority: i,
		})
	}
	p.events = []event{{kind: s.kind, what: fmt.Sprintf("%s call %d of %s", where, k, s), lasts: s.downs, begin: func(w *world) func() {
		w.stopAtCall(s, k, after)
		return nil
	}}}
	return p
}
