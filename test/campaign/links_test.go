package campaign

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/truclienthong/truc/test/faults"
	"github.com/truclienthong/truc/test/torture/tally"
)

// breakage is one way of breaking a link. The proxy is that of one end's dialling,
// away the way in it that leads from the first relay of a pair to the second.
type breakage struct {
	name string
	do   func(r *rand.Rand, p *faults.Proxy, away faults.Way)
}

var breakages = []breakage{
	{"cut", func(_ *rand.Rand, p *faults.Proxy, _ faults.Way) { p.Cut() }},
	{"half open, both ways lost", func(_ *rand.Rand, p *faults.Proxy, _ faults.Way) { p.HalfOpen() }},
	{"half open, one way lost", func(_ *rand.Rand, p *faults.Proxy, away faults.Way) { p.Lose(away) }},
	{"held back, nothing lost", func(_ *rand.Rand, p *faults.Proxy, _ faults.Way) { p.Hold(faults.Both) }},
	{"late (delay and jitter)", func(r *rand.Rand, p *faults.Proxy, _ faults.Way) {
		p.Delay(between(r, 10*time.Millisecond, 300*time.Millisecond), between(r, time.Millisecond, 400*time.Millisecond))
	}},
	{"throttled", func(r *rand.Rand, p *faults.Proxy, _ faults.Way) { p.Throttle(20_000 + r.Int64N(200_000)) }},
	{"reset after so many bytes", func(r *rand.Rand, p *faults.Proxy, _ faults.Way) {
		p.ResetEvery(1000+r.Int64N(300_000), 1+r.IntN(20))
	}},
	{"flapping", func(r *rand.Rand, p *faults.Proxy, _ faults.Way) {
		p.Flap(between(r, 200*time.Millisecond, 2*time.Second), between(r, 100*time.Millisecond, time.Second))
	}},
	{"refusing new connections", func(_ *rand.Rand, p *faults.Proxy, _ faults.Way) { p.Refuse() }},
}

// hurt is one breakage of one link: between two relays, or where other is empty
// of agencies to a relay.
type hurt struct {
	breakage
	relay, other string
	kind         *tally.Faults
	r            *rand.Rand
}

// Every kind of breakage between every pair of relays, and between agencies and
// every relay, several at once.
func TestLinks(t *testing.T) {
	c := start(t, load{senders: tally.Pick(6, 12), pause: tally.Pick[time.Duration](60, 250) * time.Millisecond})
	r := c.random(streamFaults)
	var pairs [][2]string
	for i, one := range relays {
		for _, other := range relays[:i] {
			pair := [2]string{one, other}
			if r.IntN(2) == 0 {
				pair = [2]string{other, one}
			}
			pairs = append(pairs, pair)
		}
	}
	r.Shuffle(len(pairs), func(i, k int) { pairs[i], pairs[k] = pairs[k], pairs[i] })
	var inside, edge []hurt
	toAgencies := tally.Kind(t, "link of agencies broken, any of these", "healed to a document over it")
	for i, b := range breakages {
		kind := tally.Kind(t, "link between two relays: "+b.name, "healed to a document over it, both ways")
		some, few := pairs, relays
		if !tally.Long() {
			some, few = pairs[i:i+1], relays[i%len(relays):][:i%2]
		}
		for _, p := range some {
			inside = append(inside, hurt{b, p[0], p[1], kind, rand.New(rand.NewPCG(r.Uint64(), 1))})
		}
		for _, relay := range few {
			edge = append(edge, hurt{b, relay, "", toAgencies, rand.New(rand.NewPCG(r.Uint64(), 2))})
		}
	}
	// A probe goes over the links of agencies too: so one sort after the other.
	c.hurtAll(r, inside, tally.Pick(len(inside), 4))
	c.hurtAll(r, edge, tally.Pick(len(edge), 3))
	if !t.Failed() {
		c.finish()
	}
}

// hurtAll does so many at once, and never two to the same link.
func (c *campaign) hurtAll(r *rand.Rand, all []hurt, atOnce int) {
	r.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	var locks sync.Map
	todo := make(chan hurt, len(all))
	for _, h := range all {
		todo <- h
	}
	close(todo)
	var going sync.WaitGroup
	for range atOnce {
		going.Go(func() {
			for h := range todo {
				lock, _ := locks.LoadOrStore(h.relay+" "+h.other, &sync.Mutex{})
				lock.(*sync.Mutex).Lock()
				err := c.hurt(h)
				lock.(*sync.Mutex).Unlock()
				if err != nil {
					c.wrong("%v", err)
					return
				}
			}
		})
	}
	going.Wait()
	c.ended()
}

// hurt breaks a link for a while, heals it, and waits until it carries documents.
func (c *campaign) hurt(h hurt) error {
	hit, length := h.kind.Inject(), between(h.r, 200*time.Millisecond, tally.Pick[time.Duration](1500, 12_000)*time.Millisecond)
	if h.other == "" {
		link := c.m.AgencyLink(h.relay)
		h.do(h.r, link, []faults.Way{faults.Up, faults.Down}[h.r.IntN(2)])
		c.rest(length)
		link.Heal()
		hit.From()
		began := time.Now()
		if err := c.probe(h.r, h.relay, h.relay); err != nil {
			return fmt.Errorf("link of agencies to %s was %s for %s: %w", h.relay, h.name, length, err)
		}
		hit.Survived()
		c.logf("agencies to %s %s for %s; a document over it after %s", h.relay, h.name, length.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		return nil
	}
	h.do(h.r, c.m.Link(h.relay, h.other), faults.Up)
	h.do(h.r, c.m.Link(h.other, h.relay), faults.Down)
	c.rest(length)
	c.m.Between(h.relay, h.other).Heal()
	hit.From()
	began := time.Now()
	for _, way := range [][2]string{{h.relay, h.other}, {h.other, h.relay}} {
		if err := c.probeLink(h.r, way[0], way[1]); err != nil {
			return fmt.Errorf("link %s-%s was %s for %s: %w", h.relay, h.other, h.name, length, err)
		}
	}
	hit.Survived()
	c.logf("%s-%s %s for %s; documents over it after %s", h.relay, h.other, h.name, length.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	return nil
}

// probeLink sends from one relay to another until a document took the link
// between them, and not a way around it.
func (c *campaign) probeLink(r *rand.Rand, from, to string) error {
	const size = 40_000
	deadline := time.Now().Add(patience)
	for {
		before := c.carried(from, to)
		if err := c.probeWith(r, size, from, to); err != nil {
			return err
		}
		if c.carried(from, to)-before >= size {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("for %s, documents from %s to %s take another way", patience, from, to)
		}
		c.rest(50 * time.Millisecond)
	}
}

// carried are the bytes that went from one relay to another, whichever dialled.
func (c *campaign) carried(from, to string) int64 {
	up, _ := c.m.Link(from, to).Carried()
	_, down := c.m.Link(to, from).Carried()
	return up + down
}
