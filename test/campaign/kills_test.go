package campaign

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/truclienthong/truc/test/torture/tally"
)

const (
	killed      = "relay killed (SIGKILL)"
	killedTwo   = "two relays killed at once (SIGKILL)"
	killedAgain = "relay killed again while it starts (SIGKILL)"
	toProbe     = "started to a document over it"
)

// Relays are killed at random moments under load, alone, two at once, and again
// while they start.
func TestKills(t *testing.T) {
	c := start(t, load{senders: tally.Pick(6, 12), pause: tally.Pick[time.Duration](60, 250) * time.Millisecond})
	one, two, again := tally.Kind(t, killed, toProbe), tally.Kind(t, killedTwo, toProbe), tally.Kind(t, killedAgain, toProbe)
	r := c.random(streamFaults)
	for kills := 0; kills < tally.Pick(5, 200); {
		c.rest(between(r, 0, tally.Pick[time.Duration](300, 1000)*time.Millisecond))
		victims, kind := others(r, 1), one
		switch k := r.IntN(8); {
		case kills == 1 || k == 0:
			victims, kind = others(r, 2), two
		case k == 1:
			if leader := c.leader(); leader != "" {
				victims = []string{leader}
			}
		}
		var hits []*tally.Hit
		for _, id := range victims {
			hits = append(hits, kind.Inject())
			c.m.KillRelay(id)
			kills++
		}
		c.rest(down(r))
		for _, id := range victims {
			c.m.StartRelay(id)
		}
		if kills == 3 || r.IntN(4) == 0 {
			for range 1 + r.IntN(3) {
				c.rest(between(r, 0, 600*time.Millisecond))
				hits = append(hits, again.Inject())
				c.m.KillRelay(victims[0])
				kills++
				c.m.StartRelay(victims[0])
			}
		}
		for _, hit := range hits {
			hit.From()
		}
		for _, id := range victims {
			began := time.Now()
			if err := c.probe(r, id, id, others(r, 1, id)[0]); err != nil {
				c.wrong("%v", err)
				return
			}
			c.logf("%d killed, %v; %s carried a document after %s", kills, victims, id, time.Since(began).Round(time.Millisecond))
		}
		for _, hit := range hits {
			hit.Survived()
		}
		c.ended()
	}
	c.finish()
}

// down is for how long a relay that was killed stays away: mostly a moment.
func down(r *rand.Rand) time.Duration {
	if r.IntN(8) == 0 {
		return between(r, 0, tally.Pick[time.Duration](1, 8)*time.Second)
	}
	return between(r, 0, tally.Pick[time.Duration](200, 1500)*time.Millisecond)
}
