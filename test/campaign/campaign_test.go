package campaign

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/truclienthong/truc/cmd/relayd/dev"
	"github.com/truclienthong/truc/cmd/relayd/node"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/history"
	"github.com/truclienthong/truc/test/mesh"
	"github.com/truclienthong/truc/test/torture/tally"
)

// patience bounds every wait; nothing waits for it when all is well.
const patience = 100 * time.Second

// relays of the mesh; the first three are voters.
var relays = []string{"bac", "trung", "nam", "dong", "tay"}

const voters = 3

// agencies under load; each has the relay after its home's as its standby.
const agencies = 20

// Streams of chance, so that one more sender does not change the faults.
const (
	streamFaults = iota + 1
	streamProbes
	streamSenders    = 1000
	streamRecipients = 2000
)

// campaign is a mesh under load.
type campaign struct {
	t       *testing.T
	m       *mesh.Mesh
	seed    uint64
	history history.History
	desks   map[string]*desk
	// codes are the agencies under load.
	codes []string
	// disksLost: documents with one copy may go with it, and so may the memory
	// of who has confirmed.
	disksLost bool
	begun     time.Time

	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup // recipients and outboxes
	sending sync.WaitGroup
	gate    sync.RWMutex  // senders hold it to read, so that they can be stopped for a while
	enough  chan struct{} // closed when senders are to end
	number  atomic.Int64  // of documents
	// wild ends, by behave, when recipients are to behave.
	wild   context.Context
	behave context.CancelFunc

	mu       sync.Mutex // owns what follows
	notes    map[string]int
	promised []promise
}

// promise is what a sender was told.
type promise struct {
	from *desk
	id   envelope.ID
	to   int
}

// load is what goes on while faults happen.
type load struct {
	senders int
	// pause is the longest between two documents of a sender.
	pause time.Duration
	// disksLost says that the faults take disks.
	disksLost bool
}

// start starts a mesh with recipients, and senders where load has some.
func start(t *testing.T, l load) *campaign {
	if !tally.Long() {
		t.Parallel() // they mostly wait
	}
	seed := tally.Seed(t)
	c := &campaign{t: t, seed: seed, desks: map[string]*desk{}, disksLost: l.disksLost, notes: map[string]int{}, enough: make(chan struct{})}
	var list []dev.Relay
	csv := strings.Builder{}
	csv.WriteString("code,name,tier,parent_code,home,standby\n")
	for i, id := range relays {
		list = append(list, dev.Relay{ID: id, Region: strings.ToUpper(id)})
		fmt.Fprintf(&csv, "%s,Nơi gửi %d,1,,%s,%s\n%s,Nơi nhận %d,1,,%s,%s\n", prober(id), i, id, next(id), witness(id), i, id, next(id))
	}
	fmt.Fprintf(&csv, "%s,Nơi vắng,1,,%s,%s\n", idle, relays[0], next(relays[0]))
	for i := range agencies {
		code := fmt.Sprintf("H%02d", i+1)
		c.codes = append(c.codes, code)
		fmt.Fprintf(&csv, "%s,Tỉnh %d,2,,%s,%s\n", code, i+1, relays[i%len(relays)], next(relays[i%len(relays)]))
	}
	c.m = mesh.Start(t, mesh.Config{
		Relays: list, Agencies: []byte(csv.String()), Processes: true, Links: true, Seed: seed, Nonvoters: relays[voters:],
		Adjust: func(_ string, config *node.Config) {
			config.Limits.Rate, config.Limits.Burst = -1, -1
			config.CopyWait = node.Duration(2 * time.Second)
		}})
	c.begun = time.Now()
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.wild, c.behave = context.WithCancel(c.ctx)
	t.Cleanup(func() { // before the mesh ends
		c.stop()
		c.sending.Wait()
		c.running.Wait()
		for _, d := range c.desks {
			d.client.Close()
		}
	})
	for _, id := range relays {
		c.open(prober(id), false)
		d := c.open(witness(id), false)
		c.running.Go(func() { d.receive(nil, false) })
	}
	c.open(idle, false)
	for i, code := range c.codes {
		d, r := c.open(code, i%4 != 3), c.random(streamRecipients+1+uint64(i))
		switch {
		case i%10 == 7:
			c.running.Go(func() { d.receiveByProcess(r) })
		default:
			c.running.Go(func() { d.receive(r, i%3 > 0) })
		}
	}
	for i := range l.senders {
		r := c.random(streamSenders + uint64(i))
		c.sending.Go(func() { c.send(r, l.pause) })
	}
	c.logf("the mesh serves, %d senders", l.senders)
	return c
}

// prober is the agency that hands probes in at a relay, witness one that takes
// them there. Their home is never moved.
func prober(relay string) string  { return fmt.Sprintf("G%02d", slices.Index(relays, relay)+1) }
func witness(relay string) string { return fmt.Sprintf("G%02d", slices.Index(relays, relay)+11) }

// idle is an agency that receives only when it is told to.
const idle = "G31"

// next is the relay after one.
func next(relay string) string { return relays[(slices.Index(relays, relay)+1)%len(relays)] }

func (c *campaign) random(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(c.seed, stream)) }

func (c *campaign) logf(format string, args ...any) {
	c.t.Logf("%7.2fs %s", time.Since(c.begun).Seconds(), fmt.Sprintf(format, args...))
}

// note counts something that is worth a line at the end.
func (c *campaign) note(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes[what]++
}

// wrong reports a violation that the history does not know of.
func (c *campaign) wrong(format string, args ...any) {
	c.t.Errorf("seed %d: %s", c.seed, fmt.Sprintf(format, args...))
}

// rest waits for a time that chance has chosen; false: the campaign is over.
func (c *campaign) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// between draws a duration.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)+1))
}

// others returns n relays in an order of chance, without those named.
func others(r *rand.Rand, n int, without ...string) (list []string) {
	for _, i := range r.Perm(len(relays)) {
		if len(list) < n && !slices.Contains(without, relays[i]) {
			list = append(list, relays[i])
		}
	}
	return list
}

// leader is the relay that leads, as any says; "" where none is known.
func (c *campaign) leader() string {
	ctx, cancel := context.WithTimeout(c.ctx, time.Second)
	defer cancel()
	status, err := c.m.Operator("").Raft.Status(ctx, &adminv1.StatusRequest{})
	if err != nil {
		return ""
	}
	return status.GetLeaderId()
}

// operate runs relayctl until it succeeds.
func (c *campaign) operate(args ...string) error {
	deadline := time.Now().Add(patience)
	for {
		ran := c.m.TryRelayctl(append(args, "-o", "json")...)
		if ran.Code == 0 {
			return nil
		}
		if time.Now().After(deadline) || !c.rest(200*time.Millisecond) {
			return fmt.Errorf("relayctl %s: exit %d, %s", strings.Join(args, " "), ran.Code, strings.TrimSpace(ran.Stderr))
		}
		c.note("relayctl " + args[0] + " " + args[1] + " had to be run again")
	}
}

// trace is what the relays say of an envelope.
func (c *campaign) trace(id envelope.ID) string {
	ran := c.m.TryRelayctl("trace", id.String())
	return ran.Stdout + ran.Stderr
}
