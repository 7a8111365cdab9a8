package campaign

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/test/history"
	"github.com/truclienthong/truc/test/torture/tally"
)

// finish ends the load and checks everything. All relays run and all links are
// whole; the mesh itself checks the disks afterwards.
func (c *campaign) finish() {
	c.ended()
	close(c.enough)
	c.sending.Wait()
	c.behave()
	began := time.Now()
	c.emptyOutboxes()
	c.logf("outboxes are empty %s after the load ended", time.Since(began).Round(time.Millisecond))
	c.awaitPromised()
	c.logf("everything promised was taken %s after the load ended", time.Since(began).Round(time.Millisecond))
	if tally.Long() { // these wait for reviews
		c.checkTracks()
		c.logf("senders know of it after %s", time.Since(began).Round(time.Millisecond))
		c.awaitReleased()
		c.logf("no relay has anything left after %s", time.Since(began).Round(time.Millisecond))
	}
	c.stop()
	c.running.Wait()
	for _, d := range c.desks {
		d.enterRest()
	}
	for _, v := range c.history.Violations() {
		c.wrong("%s", v)
	}
	if err := c.audit(); err != nil {
		c.wrong("%v", err)
	}
	c.ended()
	handedIn, promised, taken := c.history.Counts()
	c.logf("%d documents handed in, %d promised, %d taken; checked in %s", handedIn, promised, taken, time.Since(began).Round(time.Millisecond))
	for _, what := range slices.Sorted(maps.Keys(c.notes)) {
		c.t.Logf("  %6d  %s", c.notes[what], what)
	}
}

// patience is shorter once something is wrong anyway.
func (c *campaign) patience() time.Duration {
	if c.t.Failed() {
		return patience / 10
	}
	return patience
}

// emptyOutboxes waits until nobody has to keep anything any more.
func (c *campaign) emptyOutboxes() {
	for code, d := range c.desks {
		if d.outbox == nil {
			continue
		}
		c.m.Await("the outbox of "+code+" is empty", func(ctx context.Context) error {
			failed := d.outbox.Tend(ctx)
			waiting, err := d.outbox.List()
			if err != nil || len(waiting) == 0 {
				return err
			}
			return fmt.Errorf("%d documents wait, the first %s, with %d copies: %s; %w",
				len(waiting), waiting[0].ID, waiting[0].Copies, waiting[0].LastError, failed)
		})
		aside, err := d.outbox.SetAside()
		if err != nil {
			c.wrong("outbox of %s: %v", code, err)
		}
		for _, s := range aside {
			c.wrong("%s: document %s (%s) was set aside: %s %s", code, s.DocumentID, s.EnvelopeID, s.Reason, s.Message)
		}
	}
}

// late is when a delivery that waits is worth a line.
const late = 10 * time.Second

// awaitPromised waits until every document is where it was promised to be. Its
// patience is that without progress: recipients may have much to save.
func (c *campaign) awaitPromised() {
	deadline, late := time.Now().Add(c.patience()), time.Now().Add(late)
	for said, fewest := false, 0; ; {
		lacks, _ := c.history.Missing()
		lacks = slices.DeleteFunc(lacks, func(l history.Lack) bool { return c.desks[l.Recipient].saved(l.ID) })
		if len(lacks) == 0 {
			return
		}
		if fewest == 0 || len(lacks) < fewest {
			fewest, deadline = len(lacks), time.Now().Add(c.patience())
		}
		if !said && time.Now().After(late) {
			c.logf("late, of %d: %s does not have envelope %s yet\n%s", len(lacks), lacks[0].Recipient, lacks[0].ID, c.trace(lacks[0].ID))
			said = true
		}
		if time.Now().After(deadline) {
			for _, l := range lacks[:min(len(lacks), 5)] {
				c.t.Logf("%s does not have envelope %s:\n%s", l.Recipient, l.ID, c.trace(l.ID))
			}
			return // the history says so at the end
		}
		c.rest(20 * time.Millisecond)
	}
}

// tracksChecked is how many senders ask what became of a document.
const tracksChecked = 60

// checkTracks has senders ask; after the loss of a disk, nobody may know.
func (c *campaign) checkTracks() {
	c.mu.Lock()
	promised := slices.Clone(c.promised)
	c.mu.Unlock()
	if c.disksLost {
		return
	}
	r := c.random(streamFaults)
	for range min(tracksChecked, len(promised)) {
		p := promised[r.IntN(len(promised))]
		c.m.Await(fmt.Sprintf("track of %s says done", p.id), func(ctx context.Context) error {
			track, err := p.from.client.Track(ctx, p.id)
			if err != nil {
				return err
			}
			if n := len(track.GetDeliveries()); n != p.to {
				return fmt.Errorf("%d deliveries, want %d", n, p.to)
			}
			for _, d := range track.GetDeliveries() {
				if d.GetTransport() != exchangev1.TransportStatus_TRANSPORT_STATUS_DONE {
					return fmt.Errorf("delivery to %s is %s", d.GetAgencyCode(), d.GetTransport())
				}
			}
			return nil
		})
	}
}

// awaitReleased waits until no relay has anything in custody.
func (c *campaign) awaitReleased() {
	for _, id := range relays {
		c.m.Await("relay "+id+" has nothing left in custody", func(ctx context.Context) error {
			health, err := c.m.Operator(id).Custody.Health(ctx, &adminv1.HealthRequest{})
			if err != nil {
				return err
			}
			if n := health.GetInCustody(); n > 0 {
				return fmt.Errorf("%d envelopes", n)
			}
			if health.GetDamaged() > 0 || health.GetQuarantined() > 0 {
				return fmt.Errorf("%d damaged, %d quarantined", health.GetDamaged(), health.GetQuarantined())
			}
			return nil
		})
	}
}

// audit is what an operator runs.
func (c *campaign) audit() error {
	deadline := time.Now().Add(c.patience())
	for {
		ran := c.m.TryRelayctl("audit", "-o", "json")
		if ran.Code == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("relayctl audit: " + ran.Stdout + ran.Stderr)
		}
		time.Sleep(time.Second)
	}
}
