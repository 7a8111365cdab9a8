package faults

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// dialWithin bounds how long the target may take to answer.
const dialWithin = 10 * time.Second

// Config says where a proxy stands.
type Config struct {
	// Listen is host:port; empty: a free port of the loopback.
	Listen string
	// Target is host:port of what it stands in front of. Nobody needs to listen
	// there yet.
	Target string
	// Seed of jitter and flapping.
	Seed uint64
}

// Proxy is one link. Its methods may be called at any time from any goroutine.
type Proxy struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup
	carried  [2]atomic.Int64
	resets   atomic.Int64

	mu        sync.Mutex // owns what follows
	condition condition
	changed   chan struct{} // closed and made anew at each change of condition
	random    *rand.Rand
	conns     map[*connection]struct{}
	accepted  int
	free      [2]time.Time // when a throttled way has sent what it took on
	every     int64        // bytes from reset to reset; 0: none
	left      int64        // bytes until the next
	times     int          // resets to come
	flapping  chan struct{}
	closed    bool
}

// Listen opens a proxy in front of a target. It forwards until Close.
func Listen(config Config) (*Proxy, error) {
	if config.Listen == "" {
		config.Listen = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("proxy to %s: %w", config.Target, err)
	}
	p := &Proxy{
		target: config.Target, listener: listener, changed: make(chan struct{}),
		random: rand.New(rand.NewPCG(config.Seed, 1)), conns: map[*connection]struct{}{},
	}
	p.running.Go(p.accept)
	return p, nil
}

// Address is host:port of the proxy.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Carried returns how many bytes were forwarded each way so far.
func (p *Proxy) Carried() (up, down int64) {
	return p.carried[Up.index()].Load(), p.carried[Down.index()].Load()
}

// Resets returns how many connections ResetEvery has ended so far.
func (p *Proxy) Resets() int64 { return p.resets.Load() }

// Live returns how many connections there are.
func (p *Proxy) Live() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Accepted returns how many connections were made so far, those that were reset
// at once included.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Close ends every connection and waits for all goroutines.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stopFlapping()
	p.listener.Close()
	p.ResetLive()
	p.running.Wait()
}

func (p *Proxy) accept() {
	for {
		taken, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.mu.Lock()
		p.accepted++
		if p.closed || p.condition.arrival == reset {
			p.mu.Unlock()
			reject(taken.(*net.TCPConn))
			continue
		}
		c := &connection{proxy: p, near: taken.(*net.TCPConn), over: make(chan struct{}),
			deaf: p.condition.arrival == swallowed}
		p.conns[c] = struct{}{}
		p.running.Go(c.run)
		p.mu.Unlock()
	}
}

// now returns the condition of the link and what is closed when it changes.
func (p *Proxy) now() (condition, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.condition, p.changed
}

// change changes the condition of the link. Where it loses nothing any more,
// connections that have lost something are reset.
func (p *Proxy) change(to func(*condition)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changeLocked(to)
}

// changeLocked requires mu.
func (p *Proxy) changeLocked(to func(*condition)) {
	to(&p.condition)
	p.free = [2]time.Time{}
	close(p.changed)
	p.changed = make(chan struct{})
	if p.condition.loses() {
		return
	}
	for c := range p.conns {
		if c.deaf {
			c.abort()
		}
	}
}

// book takes n bytes off what may pass until the next reset, and reports whether
// they are the ones that do not pass any more. When they pass at the rate of
// their way is told by the second result.
func (p *Proxy) book(way int, n int) (cut bool, passes time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.every > 0 {
		if p.left -= int64(n); p.left < 0 {
			if p.left, p.times = p.every, p.times-1; p.times == 0 {
				p.every = 0
			}
			p.resets.Add(1)
			return true, time.Time{}
		}
	}
	rate := p.condition.ways[way].rate
	if rate == 0 {
		return false, time.Time{}
	}
	now := time.Now()
	if p.free[way].Before(now) {
		p.free[way] = now
	}
	p.free[way] = p.free[way].Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	return false, p.free[way]
}

// late draws how late bytes of a way are.
func (p *Proxy) late(way int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.condition.ways[way]
	if w.jitter <= 0 {
		return w.delay
	}
	return w.delay + time.Duration(p.random.Int64N(int64(w.jitter)))
}

// ResetLive resets every connection; new ones are not concerned.
func (p *Proxy) ResetLive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resetLocked()
}

// resetLocked requires mu.
func (p *Proxy) resetLocked() {
	for c := range p.conns {
		c.abort()
	}
}

func (p *Proxy) drop(c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}
