package campaign

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/truclienthong/truc/test/mesh"
	"github.com/truclienthong/truc/test/torture/tally"
)

// Sixty-four senders hand in at the same moment, documents of the same size with
// the same file names and different bytes, to recipients that overlap, while a
// relay is killed. The bytes of each are in the history: no document may arrive
// with those of another.
func TestConcurrentSenders(t *testing.T) {
	const senders = 64
	c := start(t, load{senders: 2, pause: 500 * time.Millisecond})
	kills := tally.Kind(t, "relay killed while 64 hand in at once (SIGKILL)", toProbe)
	r := c.random(streamFaults)
	for range tally.Pick(2, 25) {
		size := []int{0, 1, 900, 30_000, 100_000, 131_072, 262_145}[r.IntN(tally.Pick(4, 7))]
		begin := make(chan struct{})
		var handing sync.WaitGroup
		for i := range senders {
			first := r.IntN(8)
			from, to := c.codes[r.IntN(len(c.codes))], c.codes[first:first+2+r.IntN(3)]
			p := c.write(from, mesh.Files{"congvan.pdf": content(r, size), "phuluc.pdf": fmt.Appendf(content(r, size), "%020d", i)}, to...)
			outbox, resend := p.from.outbox, r.IntN(3) == 0
			if r.IntN(2) == 0 {
				outbox = nil
			}
			handing.Go(func() {
				<-begin
				if _, promised := p.hand(p.from.client, outbox, patience); !promised {
					c.wrong("document %s was not accepted within %s", p.id(), patience)
				}
				if resend {
					p.hand(p.from.client, nil, patience)
				}
			})
		}
		began := time.Now()
		close(begin)
		c.rest(between(r, 0, 300*time.Millisecond))
		victim := others(r, 1)[0]
		hit := kills.Inject()
		c.m.KillRelay(victim)
		c.rest(down(r))
		c.m.StartRelay(victim)
		hit.From()
		if err := c.probe(r, victim, victim, others(r, 1, victim)[0]); err != nil {
			c.wrong("%v", err)
			return
		}
		hit.Survived()
		handing.Wait()
		c.logf("%d times twice %d B handed in after %s, with %s killed meanwhile", senders, size, time.Since(began).Round(time.Millisecond), victim)
	}
	c.finish()
}
