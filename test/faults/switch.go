package faults

import "time"

// Cut resets every connection and every new one.
func (p *Proxy) Cut() {
	p.stopFlapping()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutLocked()
}

// cutLocked requires mu.
func (p *Proxy) cutLocked() {
	p.changeLocked(func(c *condition) { c.arrival = reset })
	p.resetLocked()
}

// Refuse resets new connections; those that live go on.
func (p *Proxy) Refuse() {
	p.change(func(c *condition) { c.arrival = reset })
}

// HalfOpen lets every connection look open while nothing arrives at either end,
// as after a loss of power or a rule in a firewall: bytes are lost, new
// connections are taken and never answered. What has lost bytes is reset when
// the link heals.
func (p *Proxy) HalfOpen() { p.Lose(Both) }

// Lose is HalfOpen in one direction: the other one goes on. New connections
// reach the target only while the way up is not lost.
func (p *Proxy) Lose(w Way) {
	p.stopFlapping()
	p.change(func(c *condition) {
		for _, i := range w.indexes() {
			c.ways[i].lost = true
		}
		if w&Up != 0 {
			c.arrival = swallowed
		}
	})
}

// Hold keeps bytes back without losing any: they go on when the link heals, as
// after an outage that is shorter than the patience of TCP.
func (p *Proxy) Hold(w Way) {
	p.change(func(c *condition) {
		for _, i := range w.indexes() {
			c.ways[i].held = true
		}
	})
}

// Delay makes bytes of both ways late by delay and up to jitter more. The order
// stays.
func (p *Proxy) Delay(delay, jitter time.Duration) {
	p.change(func(c *condition) {
		for i := range c.ways {
			c.ways[i].delay, c.ways[i].jitter = delay, jitter
		}
	})
}

// Throttle bounds each way to so many bytes a second, over all connections.
func (p *Proxy) Throttle(bytesPerSecond int64) {
	p.change(func(c *condition) {
		for i := range c.ways {
			c.ways[i].rate = bytesPerSecond
		}
	})
}

// ResetAfter resets the connection that carries the byte after the next n, in
// whatever way, and then leaves the link as it is.
func (p *Proxy) ResetAfter(n int64) { p.ResetEvery(n, 1) }

// ResetEvery does what ResetAfter does, a number of times.
func (p *Proxy) ResetEvery(n int64, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.every, p.left, p.times = n, n, times
}

// Flap cuts the link and lets it be again, for half to one and a half times as
// long as down and up, until it is healed or switched otherwise.
func (p *Proxy) Flap(up, down time.Duration) {
	p.stopFlapping()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	stop := make(chan struct{})
	p.flapping = stop
	p.running.Go(func() {
		connect := func() { p.changeLocked(func(c *condition) { c.arrival = forwarded }) }
		for p.flap(stop, p.cutLocked, down) && p.flap(stop, connect, up) {
		}
	})
}

// flap does one switch and then waits about so long; false: flapping is over.
func (p *Proxy) flap(stop chan struct{}, do func(), about time.Duration) bool {
	p.mu.Lock()
	if p.flapping != stop {
		p.mu.Unlock()
		return false
	}
	do()
	wait := about/2 + time.Duration(p.random.Int64N(int64(about)+1))
	p.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-stop:
		return false
	}
}

func (p *Proxy) stopFlapping() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flapping != nil {
		close(p.flapping)
		p.flapping = nil
	}
}

// Heal ends every fault.
func (p *Proxy) Heal() {
	p.stopFlapping()
	p.mu.Lock()
	p.every = 0
	p.mu.Unlock()
	p.change(func(c *condition) { *c = condition{} })
}

// Links are several proxies that are switched together.
type Links []*Proxy

// Cut cuts all of them.
func (l Links) Cut() { l.each((*Proxy).Cut) }

// HalfOpen makes all of them half open.
func (l Links) HalfOpen() { l.each((*Proxy).HalfOpen) }

// Flap has each of them flap by itself.
func (l Links) Flap(up, down time.Duration) { l.each(func(p *Proxy) { p.Flap(up, down) }) }

// Delay makes all of them late.
func (l Links) Delay(delay, jitter time.Duration) { l.each(func(p *Proxy) { p.Delay(delay, jitter) }) }

// Throttle makes each of them slow.
func (l Links) Throttle(bytesPerSecond int64) { l.each(func(p *Proxy) { p.Throttle(bytesPerSecond) }) }

// Heal heals all of them.
func (l Links) Heal() { l.each((*Proxy).Heal) }

func (l Links) each(do func(*Proxy)) {
	for _, p := range l {
		do(p)
	}
}
