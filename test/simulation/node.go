package simulation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// node is one relay with its machine: a disk that outlives it, and a clock.
type node struct {
	w    *world
	id   string
	disk *disk

	mu sync.Mutex // owns what follows
	// offset is how far the relay's clock is from true time.
	offset time.Duration
	// lag is how late it learns of changes of the directory, known how many it
	// had applied when it last stopped.
	lag   time.Duration
	known int
	life  *life
	// gone: it was given up, and does not come back.
	gone bool
	// held: its copy of the directory stands still.
	held bool
	// claimed: something is to stop it, or has.
	claimed bool

	// again prepares the disk for the next start; of the goroutine that starts it.
	again func(*disk)
}

// life is one run of a relay's process.
type life struct {
	replica *replica
	cancel  context.CancelFunc
	// ended is closed when the process has come to its end.
	ended chan struct{}
	// killed: what it does from now on nobody sees.
	killed bool
}

func (w *world) addNode(i int, id string) *node {
	n := &node{w: w, id: id, disk: newDisk(w.seed, streamDisks+uint64(i))}
	w.net.add(id, tls.Identity{TrustDomain: trustDomain, Kind: tls.KindRelay, Name: id})
	w.nodes = append(w.nodes, n)
	return n
}

// now is the relay's clock.
func (n *node) now() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Now().Add(n.offset)
}

// spoolConfig is small in everything, so that segments end, are emptied and used
// again within minutes.
func (n *node) spoolConfig(m *mounted) spool.Config {
	return spool.Config{
		Dir: "/nowhere/" + n.id, Self: routing.RelayID(n.id), SegmentSize: n.w.plan.segment,
		IndexMemory: 4 << 20, IndexOverlay: 64 << 10, Ballast: -1, FS: m, Index: m.index(),
	}
}

// start begins a new life.
func (n *node) start() error {
	n.mu.Lock()
	known, lag := n.known, n.lag
	n.mu.Unlock()
	replica, err := n.w.ledger.replica(known, lag)
	if err != nil {
		return err
	}
	m := n.disk.mount()
	if n.again != nil {
		n.again(n.disk)
		n.again = nil
	}
	listener := n.w.net.start(n.id)
	config := relay.Config{
		ID: routing.RelayID(n.id), Region: "sim", Address: addressOf(n.id),
		Directory: replica, Endpoint: endpoint{tls.Identity{TrustDomain: trustDomain, Kind: tls.KindRelay, Name: n.id}},
		Listener: listener, Dialer: n.w.net.dialer(n.id), Spool: n.spoolConfig(m),
		CopyWait: n.w.plan.copyWait, StopTimeout: 2 * time.Second, LookEvery: 10 * time.Second, Clock: n.now,
		Logger: n.w.logger("relay", n.id), Forward: forward.Config{ProbeInterval: n.w.plan.probe},
	}
	r, err := relay.New(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{replica: replica, cancel: cancel, ended: make(chan struct{})}
	n.mu.Lock()
	n.life = l
	replica.stay(n.held)
	n.mu.Unlock()
	n.w.running.Go(func() { replica.run(ctx) })
	n.w.running.Go(func() {
		err := r.Run(ctx)
		cancel()
		n.mu.Lock()
		killed := l.killed
		n.mu.Unlock()
		if err != nil && !killed {
			n.w.violate("stopped", "relay %s came to an end by itself: %v", n.id, err)
		}
		close(l.ended)
	})
	return nil
}

// kill ends the process at this instant. It may be called from within the disk.
func (n *node) kill(silent bool) {
	n.mu.Lock()
	l := n.life
	if l == nil || l.killed {
		n.mu.Unlock()
		return
	}
	l.killed = true
	n.known = l.replica.count()
	n.mu.Unlock()
	n.w.net.stop(n.id, silent)
	l.cancel()
}

// runs reports whether the process runs.
func (n *node) runs() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.life != nil && !n.life.killed && !n.gone
}

// claim is taken by what stops a relay, until it is back: a machine that is down
// is not stopped again.
func (n *node) claim() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.claimed || n.gone {
		return false
	}
	n.claimed = true
	return true
}

func (n *node) release() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.claimed = false
}

// crash stops the machine now.
func (n *node) crash(l loss, silent bool) {
	n.disk.stop()
	n.kill(silent)
	n.disk.crash(l)
}

// stopInOrder ends the process as an operator does.
func (n *node) stopInOrder() {
	n.mu.Lock()
	l := n.life
	n.mu.Unlock()
	l.cancel()
	<-l.ended
	n.mu.Lock()
	l.killed = true
	n.known = l.replica.count()
	n.mu.Unlock()
	n.w.net.stop(n.id, false)
}

// jump moves the relay's clock.
func (n *node) jump(by time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.offset += by
}

// wrong reports whether the clock is.
func (n *node) wrong() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.offset != 0
}

// setClock has the relay's clock off by so much.
func (n *node) setClock(off time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.offset = off
}

// hold stops its copy of the directory, or lets it go on.
func (n *node) hold(is bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held = is
	if n.life != nil {
		n.life.replica.stay(is)
	}
}

func (n *node) giveUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone = true
}

func (n *node) isGone() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gone
}

// check proves the spool of a relay that has stopped, as fsck does.
func (n *node) check() error {
	m := n.disk.mount()
	config := n.spoolConfig(m)
	config.Clock = n.now
	var found []error
	err := spool.Check(config, func(f spool.Finding) { found = append(found, errors.New(f.String())) })
	if err != nil {
		found = append(found, fmt.Errorf("check: %w", err))
	}
	return errors.Join(found...)
}

// logger writes into the trace.
func (w *world) logger(who, name string) *slog.Logger {
	return slog.New(&traceHandler{w: w, who: who + " " + name})
}
