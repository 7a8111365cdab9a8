package campaign

import (
	"testing"
	"time"

	"github.com/truclienthong/truc/test/torture/tally"
)

// Relays are stopped in their tracks: their connections stay, and nothing
// answers. Then they go on as if nothing had been.
func TestPauses(t *testing.T) {
	c := start(t, load{senders: tally.Pick(6, 12), pause: tally.Pick[time.Duration](60, 250) * time.Millisecond})
	const toProbe = "let go on to a document over it"
	one, two := tally.Kind(t, "relay stopped in its tracks (SIGSTOP)", toProbe), tally.Kind(t, "two relays stopped in their tracks at once (SIGSTOP)", toProbe)
	r := c.random(streamFaults)
	for n := range tally.Pick(3, 20) {
		c.rest(between(r, 0, tally.Pick[time.Duration](200, 1000)*time.Millisecond))
		victims, kind := others(r, 1), one
		switch k := r.IntN(6); {
		case n == 1 || k == 0:
			victims, kind = others(r, 2), two
		case k < 3:
			if leader := c.leader(); leader != "" {
				victims = []string{leader}
			}
		}
		var hits []*tally.Hit
		for _, id := range victims {
			hits = append(hits, kind.Inject())
			c.m.PauseRelay(id)
		}
		pause := between(r, 100*time.Millisecond, tally.Pick[time.Duration](1500, 15_000)*time.Millisecond)
		c.rest(pause)
		for i, id := range victims {
			c.m.ResumeRelay(id)
			hits[i].From()
		}
		for i, id := range victims {
			began := time.Now()
			if err := c.probe(r, id, id, others(r, 1, id)[0]); err != nil {
				c.wrong("%v", err)
				return
			}
			hits[i].Survived()
			c.logf("%v stopped for %s; %s carried a document after %s", victims, pause.Round(time.Millisecond), id, time.Since(began).Round(time.Millisecond))
		}
		c.ended()
	}
	c.finish()
}
