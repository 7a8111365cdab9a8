package simulation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/truclienthong/truc/tls"
)

// network carries byte streams between hosts, in memory and on the bubble's
// clock. Within one stream bytes are neither lost, doubled nor moved: that is
// what TCP and TLS leave of a network. All else can happen to it: it is late,
// slow, held up, cut in one direction or both, reset, or its other end is gone
// without a word. Streams overtake one another, for each message of each stream
// is late by its own chance.
type network struct {
	mu sync.Mutex // owns everything below, and the state of all connections
	// chance is for delays.
	chance *rand.Rand
	hosts  map[string]*host
	ways   map[way]*condition
	conns  map[*conn]struct{}
	// made counts connections.
	made int
	// changed is closed at the next change of hosts and ways.
	changed chan struct{}
}

// way is one direction between two hosts.
type way struct{ from, to string }

// condition is what a way is like.
type condition struct {
	// cut: nothing arrives until it is whole again; then, what was sent before.
	cut bool
	// delay of each message, and what chance adds at most.
	delay, jitter time.Duration
	// rate in bytes a second; 0: as fast as it goes.
	rate int64
	// busy is until when what was sent already keeps the way busy.
	busy time.Time
}

// power is what a host is like.
type power uint8

const (
	running power = iota
	// down: the machine answers that nobody listens.
	down
	// dark: the machine answers nothing.
	dark
)

type host struct {
	identity tls.Identity
	power    power
	// refuses connections, though it is running.
	refuses bool
	// life counts starts; connections of an earlier life lead nowhere.
	life     int
	listener *listener
}

func newNetwork(seed uint64) *network {
	return &network{
		chance: rand.New(rand.NewPCG(seed, streamNetwork)), hosts: map[string]*host{},
		ways: map[way]*condition{}, conns: map[*conn]struct{}{}, changed: make(chan struct{}),
	}
}

// addressOf is where a host listens.
func addressOf(host string) string { return host + ".sim:7000" }

func hostOf(address string) string {
	name, _, _ := net.SplitHostPort(address)
	return name[:len(name)-len(".sim")]
}

// add makes a host.
func (n *network) add(name string, identity tls.Identity) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[name] = &host{identity: identity}
}

// condition returns that of one way; requires mu.
func (n *network) condition(from, to string) *condition {
	w := way{from, to}
	if n.ways[w] == nil {
		n.ways[w] = new(condition)
	}
	return n.ways[w]
}

// change has something done to the network, and wakes all who wait for it.
func (n *network) change(do func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	do()
	n.turn()
}

// inOrder lists the connections as they were made, for what is left to chance;
// requires mu.
func (n *network) inOrder() []*conn {
	return slices.SortedFunc(maps.Keys(n.conns), func(a, b *conn) int { return cmp.Compare(a.number, b.number) })
}

// turn wakes all who wait; requires mu.
func (n *network) turn() {
	close(n.changed)
	n.changed = make(chan struct{})
	for c := range n.conns {
		c.in.wake()
		c.out.room()
	}
}

// cut and its opposite, one way.
func (n *network) cut(from, to string, is bool) {
	n.change(func() {
		w := n.condition(from, to)
		if w.cut && !is {
			// What was lost is sent again, not all at the same moment.
			for _, c := range n.inOrder() {
				if c.in.way == (way{from, to}) {
					c.in.again(time.Now().Add(w.delay + time.Duration(n.chance.Int64N(int64(200*time.Millisecond)))))
				}
			}
		}
		w.cut = is
	})
}

// shape sets how late and how slow a way is.
func (n *network) shape(from, to string, delay, jitter time.Duration, rate int64) {
	n.change(func() {
		w := n.condition(from, to)
		w.delay, w.jitter, w.rate, w.busy = delay, jitter, rate, time.Time{}
	})
}

// reset breaks the connections between two hosts that chance picks.
func (n *network) reset(a, b string, part float64) (broken int) {
	n.change(func() {
		for _, c := range n.inOrder() {
			if c.local == a && c.remote == b && n.chance.Float64() < part {
				c.broken(syscall.ECONNRESET)
				c.peer.broken(syscall.ECONNRESET)
				broken++
			}
		}
	})
	return broken
}

// refuse has a host take no connections, or take them again.
func (n *network) refuse(name string, is bool) {
	n.change(func() { n.hosts[name].refuses = is })
}

// stop ends the life of a host: nothing it sends from now on leaves it. Its
// peers are told at once, where silent is not set.
func (n *network) stop(name string, silent bool) {
	n.change(func() {
		h := n.hosts[name]
		h.power = down
		if silent {
			h.power = dark
		}
		h.life++
		h.listener = nil
		for c := range n.conns {
			if c.local != name {
				continue
			}
			c.broken(syscall.ECONNRESET)
			delete(n.conns, c)
			c.peer.orphan = true
			if !silent && !n.condition(name, c.remote).cut {
				c.peer.broken(syscall.ECONNRESET)
			}
		}
	})
}

// start begins a new life of a host, which listens.
func (n *network) start(name string) *listener {
	l := &listener{n: n, host: name, incoming: make(chan net.Conn, 64), closed: make(chan struct{})}
	n.change(func() {
		h := n.hosts[name]
		h.power, h.listener = running, l
		// What others still send to the life before is answered with a reset.
		for c := range n.conns {
			if c.orphan && c.remote == name && len(c.out.queue) > 0 {
				c.broken(syscall.ECONNRESET)
			}
		}
	})
	return l
}

// heal ends what was done to ways, and to hosts but for their power.
func (n *network) heal() {
	n.mu.Lock()
	var cuts []way
	for w, c := range n.ways {
		if c.cut {
			cuts = append(cuts, w)
		}
	}
	n.mu.Unlock()
	for _, w := range cuts {
		n.cut(w.from, w.to, false)
	}
	n.change(func() {
		for _, w := range n.ways {
			w.jitter, w.rate, w.busy = min(w.jitter, 5*time.Millisecond), 0, time.Time{}
			w.delay = min(w.delay, 10*time.Millisecond)
		}
		for _, h := range n.hosts {
			h.refuses = false
		}
	})
}

// dialer returns how a host, in its life of now, reaches others.
func (n *network) dialer(from string) func(context.Context, string) (net.Conn, error) {
	n.mu.Lock()
	life := n.hosts[from].life
	n.mu.Unlock()
	return func(ctx context.Context, address string) (net.Conn, error) {
		c, err := n.dial(ctx, from, hostOf(address), life)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "sim", Err: fmt.Errorf("%s to %s: %w", from, address, err)}
		}
		return c, nil
	}
}

var errDead = errors.New("the host that asks has stopped")

func (n *network) dial(ctx context.Context, from, to string, life int) (net.Conn, error) {
	for {
		n.mu.Lock()
		a, b := n.hosts[from], n.hosts[to]
		there, back := n.condition(from, to), n.condition(to, from)
		trip := there.delay + back.delay
		changed := n.changed
		silent := b == nil || b.power == dark || there.cut || back.cut
		dead := a.life != life
		n.mu.Unlock()
		if dead {
			return nil, errDead
		}
		if silent {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		if trip > 0 {
			select {
			case <-time.After(trip):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		c, err := n.connect(from, to, life)
		if c == nil && err == nil {
			continue // it changed on the way
		}
		return c, err
	}
}

// connect makes a connection now; nil and no error where nobody answers.
func (n *network) connect(from, to string, life int) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, b := n.hosts[from], n.hosts[to]
	switch {
	case a.life != life:
		return nil, errDead
	case b.power == dark || n.condition(from, to).cut || n.condition(to, from).cut:
		return nil, nil
	case b.listener == nil || b.refuses:
		return nil, syscall.ECONNREFUSED
	}
	near, far := n.pair(from, to, a.identity, b.identity)
	select {
	case b.listener.incoming <- far:
		return near, nil
	default:
		return nil, syscall.ECONNREFUSED // its backlog is full
	}
}

// pair makes the two ends; requires mu.
func (n *network) pair(from, to string, own, peer tls.Identity) (near, far *conn) {
	there, back := newStream(way{from, to}), newStream(way{to, from})
	near = newConn(n, from, to, peer, back, there)
	far = newConn(n, to, from, own, there, back)
	near.peer, far.peer = far, near
	near.number, far.number = n.made, n.made+1
	n.made += 2
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	return near, far
}

// listener gives what was dialed.
type listener struct {
	n        *network
	host     string
	incoming chan net.Conn
	closed   chan struct{}
	closing  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.closing.Do(func() {
		close(l.closed)
		l.n.change(func() {
			if h := l.n.hosts[l.host]; h.listener == l {
				h.listener = nil
			}
		})
		for {
			select {
			case c := <-l.incoming:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.host) }

// address is a host as net.Addr.
type address string

func (address) Network() string  { return "sim" }
func (a address) String() string { return addressOf(string(a)) }
