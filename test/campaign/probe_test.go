package campaign

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/truclienthong/truc/test/mesh"
)

// probe hands a document in at a relay, for the witnesses of some relays, and
// waits until that relay has accepted it and all of them have it.
func (c *campaign) probe(r *rand.Rand, at string, to ...string) error {
	return c.probeWith(r, 1000, at, to...)
}

func (c *campaign) probeWith(r *rand.Rand, size int, at string, to ...string) error {
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	var desks []string
	for _, relay := range to {
		desks = append(desks, witness(relay))
	}
	p := c.write(prober(at), mesh.Files{"probe.bin": content(r, size)}, desks...)
	for tries := range 1000 {
		// A program that begins: no client that waits longer and longer for a
		// relay that was away. On a busy machine a relay takes its time.
		client := p.from.only(at, min(200*time.Millisecond<<min(tries/8, 6), 10*time.Second))
		receipt, promised := p.hand(client, nil, 10*time.Second)
		_ = client.Close()
		if promised && receipt.Relay == at {
			for _, code := range desks {
				if err := c.desks[code].await(ctx, receipt.ID); err != nil {
					return fmt.Errorf("probe at %s: %w\n%s", at, err, c.trace(receipt.ID))
				}
			}
			return nil
		}
		if receipt != nil { // another relay has it, or one copy does not count
			p = c.write(prober(at), mesh.Files{"probe.bin": content(r, size)}, desks...)
		}
		if !c.rest(20*time.Millisecond) || ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("probe at %s: not accepted there within %s", at, patience)
}

// ended reports relays that ended by themselves.
func (c *campaign) ended() {
	for _, id := range relays {
		if c.m.Ended(id) {
			c.wrong("relay %s ended by itself: %v", id, c.m.AwaitEnd(id))
		}
	}
}
