package campaign

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/test/faults"
	"github.com/truclienthong/truc/test/mesh"
	"github.com/truclienthong/truc/test/torture/tally"
)

// Operators move agencies, hold and release documents, drain relays, give one up
// whose disk is gone and take it back empty, and remove an index, under load.
func TestOperations(t *testing.T) {
	c := start(t, load{senders: tally.Pick(4, 8), pause: tally.Pick[time.Duration](80, 400) * time.Millisecond, disksLost: true})
	r := c.random(streamFaults)
	o := operations{c: c, r: r,
		moved:   tally.Kind(t, "agency moved under load", "moved to a document for it"),
		held:    tally.Kind(t, "document held and released", "released to taken"),
		index:   tally.Kind(t, "relay killed, its index removed", toProbe),
		drained: tally.Kind(t, "relay drained and activated", "begun to active again, and a document over it"),
		lost:    tally.Kind(t, "relay lost with its disk, and given up", "given up to a document for its agencies"),
		back:    tally.Kind(t, "lost relay taken back with an empty disk", toProbe),
	}
	plan := []func() error{o.move, o.hold, o.removeIndex, o.drain, o.lose}
	if tally.Long() {
		plan = append(plan, o.move, o.move, o.hold, o.removeIndex)
	}
	for range tally.Pick(1, 5) {
		r.Shuffle(len(plan), func(i, k int) { plan[i], plan[k] = plan[k], plan[i] })
		for _, do := range plan {
			c.rest(between(r, 0, tally.Pick[time.Duration](100, 1500)*time.Millisecond))
			if err := do(); err != nil {
				c.wrong("%v", err)
				return
			}
			c.ended()
		}
	}
	c.finish()
}

type operations struct {
	c                                       *campaign
	r                                       *rand.Rand
	moved, held, index, drained, lost, back *tally.Faults
	losses                                  int
}

// steadyOne draws an agency under load that receives all the time.
func (o *operations) steadyOne() string { return o.c.codes[3*o.r.IntN((len(o.c.codes)+2)/3)] }

func (o *operations) move() error {
	code, to := o.steadyOne(), others(o.r, 1)[0]
	hit := o.moved.Inject()
	if err := o.c.operate("agency", "move", code, to); err != nil {
		return err
	}
	hit.From()
	began := time.Now()
	if err := o.deliver(code); err != nil {
		return err
	}
	hit.Survived()
	o.c.logf("%s moved to %s; it took a document after %s", code, to, time.Since(began).Round(time.Millisecond))
	return nil
}

// deliver hands a document in at some relay, for an agency, until it is promised,
// and waits until the agency has it.
func (o *operations) deliver(code string) error {
	ctx, cancel := context.WithTimeout(o.c.ctx, patience)
	defer cancel()
	for ctx.Err() == nil {
		p := o.c.write(prober(others(o.r, 1)[0]), mesh.Files{"a.bin": content(o.r, 2000)}, code)
		if receipt, promised := p.hand(p.from.client, nil, 10*time.Second); promised {
			if err := o.c.desks[code].await(ctx, receipt.ID); err != nil {
				return fmt.Errorf("%w\n%s", err, o.c.trace(receipt.ID))
			}
			return nil
		}
	}
	return fmt.Errorf("no document for %s was accepted within %s", code, patience)
}

// hold keeps a document back that waits in an inbox or on its way there.
func (o *operations) hold() error {
	c, desk := o.c, o.c.desks[idle]
	var receipt *agency.Receipt
	for promised := false; !promised; {
		p := c.write(prober(others(o.r, 1)[0]), mesh.Files{"a.bin": content(o.r, 2000)}, idle)
		if receipt, promised = p.hand(p.from.client, nil, 10*time.Second); c.ctx.Err() != nil {
			return c.ctx.Err()
		}
	}
	id := receipt.ID
	hit := o.held.Inject()
	if err := c.operate("queue", "hold", id.String()); err != nil {
		return err
	}
	// Whoever asks now gets nothing.
	ctx, cancel := context.WithTimeout(c.ctx, between(o.r, 100*time.Millisecond, tally.Pick[time.Duration](300, 3000)*time.Millisecond))
	desk.receiveOne(ctx)
	cancel()
	if desk.saved(id) {
		c.wrong("envelope %s was given out though it is held", id)
	}
	if err := c.operate("queue", "release", id.String()); err != nil {
		return err
	}
	hit.From()
	ctx, cancel = context.WithTimeout(c.ctx, patience)
	defer cancel()
	for !desk.saved(id) && ctx.Err() == nil {
		desk.receiveOne(ctx)
	}
	if !desk.saved(id) {
		return fmt.Errorf("envelope %s was released and not given out within %s\n%s", id, patience, c.trace(id))
	}
	hit.Survived()
	c.logf("envelope %s held and released", id)
	return nil
}

// receiveOne takes one arrival, if one comes.
func (d *desk) receiveOne(ctx context.Context) {
	client := d.newClient(nil)
	defer client.Close()
	for arrival, err := range client.Receive(ctx, agency.ReceiveOptions{}) {
		if err == nil {
			d.take(ctx, arrival, false)
		}
		return
	}
}

// removeIndex has a relay build the index of its journal anew.
func (o *operations) removeIndex() error {
	id := others(o.r, 1)[0]
	hit := o.index.Inject()
	o.c.m.KillRelay(id)
	if err := os.RemoveAll(filepath.Join(o.c.m.Data(id, "spool"), "index")); err != nil {
		return err
	}
	o.c.m.StartRelay(id)
	hit.From()
	began := time.Now()
	if err := o.c.probe(o.r, id, id, others(o.r, 1, id)[0]); err != nil {
		return err
	}
	hit.Survived()
	o.c.logf("index of %s removed; it carried a document after %s", id, time.Since(began).Round(time.Millisecond))
	return nil
}

// drain takes a relay out of service and back.
func (o *operations) drain() error {
	id := others(o.r, 1)[0]
	hit := o.drained.Inject()
	began := time.Now()
	if err := o.c.operate("relay", "drain", id, "--timeout", "60s"); err != nil {
		return err
	}
	drained := time.Since(began)
	if err := o.takeBack(id); err != nil {
		return err
	}
	hit.Survived()
	o.c.logf("%s drained in %s, active and carrying documents after %s", id, drained.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	return nil
}

// takeBack makes a relay active and brings its agencies home.
func (o *operations) takeBack(id string) error {
	if err := o.c.operate("relay", "activate", id); err != nil {
		return err
	}
	codes := []string{prober(id), witness(id)}
	for i, code := range o.c.codes {
		if relays[i%len(relays)] == id && o.r.IntN(2) == 0 {
			codes = append(codes, code)
		}
	}
	for _, code := range codes {
		if err := o.c.operate("agency", "move", code, id); err != nil {
			return err
		}
	}
	return o.c.probe(o.r, id, id, others(o.r, 1, id)[0])
}

// lose takes a relay and its documents away. In most cases other relays did not
// hear it for a while before: what it accepted then is nowhere else, and its
// senders' outboxes have to hand it in again.
func (o *operations) lose() error {
	c, id := o.c, others(o.r, 1)[0]
	if o.losses++; o.losses > 1 {
		c.harmless()
	}
	var cut faults.Links
	if o.losses == 1 || o.r.IntN(3) > 0 {
		for _, other := range others(o.r, len(relays), id) {
			cut = append(cut, c.m.Between(id, other)...)
		}
		cut.Cut()
		o.handInAt(id)
		c.rest(between(o.r, 0, tally.Pick[time.Duration](1000, 5000)*time.Millisecond))
	}
	hit := o.lost.Inject()
	c.m.KillRelay(id)
	cut.Heal()
	c.m.WipeSpool(id)
	if err := c.operate("relay", "retire", id, "--lost", "--yes"); err != nil {
		return err
	}
	hit.From()
	began := time.Now()
	if err := o.deliver(witness(id)); err != nil {
		return err
	}
	hit.Survived()
	c.logf("%s lost, %d links cut before; its agency took a document %s after it was given up", id, len(cut), time.Since(began).Round(time.Millisecond))
	c.rest(between(o.r, 0, tally.Pick[time.Duration](500, 10_000)*time.Millisecond))
	hit = o.back.Inject()
	c.m.StartRelay(id)
	began = time.Now()
	c.rest(between(o.r, 0, tally.Pick[time.Duration](300, 3000)*time.Millisecond))
	if err := o.takeBack(id); err != nil {
		return err
	}
	hit.Survived()
	c.logf("%s is back, empty; it carried a document after %s", id, time.Since(began).Round(time.Millisecond))
	return nil
}

// handInAt hands in at a relay, by the outboxes of agencies at home there.
func (o *operations) handInAt(id string) {
	c := o.c
	var handing sync.WaitGroup
	for i, code := range c.codes {
		if d := c.desks[code]; relays[i%len(relays)] == id && d.outbox != nil {
			p := c.write(code, mesh.Files{"a.bin": content(o.r, 2000)}, c.recipients(o.r, code)...)
			handing.Go(func() {
				client := d.only(id, 5*time.Second)
				defer client.Close()
				outbox, err := agency.OpenOutbox(agency.OutboxConfig{Dir: d.outboxDir(), Client: client})
				if err != nil {
					c.wrong("outbox of %s: %v", code, err)
					return
				}
				if receipt, _ := p.hand(client, outbox, 10*time.Second); receipt != nil && receipt.Relay == id {
					c.note("accepted by a relay that is lost soon after")
				}
			})
		}
	}
	handing.Wait()
}

// reviewed is how long relays need at most to find out what a lost one held.
const reviewed = 25 * time.Second

// harmless waits until another loss is none: nobody hands anything in, and every
// envelope is at two relays.
func (c *campaign) harmless() {
	c.gate.Lock()
	defer c.gate.Unlock()
	c.rest(reviewed)
	for _, id := range relays {
		c.m.Await("others have what "+id+" remembers", func(ctx context.Context) error {
			health, err := c.m.Operator(id).Custody.Health(ctx, &adminv1.HealthRequest{})
			if err == nil && health.GetSoleCopies() > 0 {
				err = errors.New(fmt.Sprint(health.GetSoleCopies(), " envelopes are nowhere else"))
			}
			return err
		})
	}
}
