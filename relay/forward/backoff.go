package forward

import (
	"math/rand/v2"
	"sync"
	"time"
)

// jitter gives waits that double with every failure and differ between relays,
// so that those who lost the same peer do not come back to it at once.
type jitter struct {
	base, cap time.Duration

	mu     sync.Mutex
	random *rand.Rand // guarded by mu
}

// after returns the wait after the given number of failures in a row, 1 or
// more: between half and all of base doubled for each failure but the first,
// at most cap.
func (j *jitter) after(failures uint32) time.Duration {
	d := j.cap
	if shift := max(failures, 1) - 1; shift < 32 && j.base<<shift < j.cap {
		d = j.base << shift
	}
	return j.around(d)
}

// around returns between half of d and d.
func (j *jitter) around(d time.Duration) time.Duration {
	if d < 2 {
		return d
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return d - time.Duration(j.random.Int64N(int64(d/2)+1))
}

// breaker keeps a destination that fails from costing more than one try at a
// time. Closed, it lets everything pass; after a failure nothing until the
// back-off is over, then one offer as a probe, whose outcome closes it or
// starts a longer back-off.
type breaker struct {
	jitter *jitter

	mu       sync.Mutex
	failures uint32    // in a row; 0: closed
	since    time.Time // of the last failure
	until    time.Time // nothing passes before
	probing  bool      // a probe is under way
	round    uint64    // counts failures and successes, so that many offers that fail together count once
	changed  chan struct{}
}

func newBreaker(j *jitter) *breaker {
	return &breaker{jitter: j, changed: make(chan struct{})}
}

// pass is the leave to try once; it is given back by exactly one of answered,
// failed and unused.
type pass struct {
	round uint64
	probe bool
}

// admit gives a pass, or says until when none is to be had; the zero time
// means until the state changes.
func (b *breaker) admit(now time.Time) (p pass, until time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.failures == 0:
		return pass{round: b.round}, time.Time{}, true
	case now.Before(b.until):
		return pass{}, b.until, false
	case b.probing:
		return pass{}, time.Time{}, false
	}
	b.probing = true
	return pass{round: b.round, probe: true}, time.Time{}, true
}

// answered says that the destination answered: the breaker closes.
func (b *breaker) answered(p pass) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.probe && p.round == b.round {
		b.probing = false
	}
	if b.failures > 0 && p.round == b.round {
		b.failures = 0
		b.turn()
	}
}

// failed says that the destination failed; atLeast is the wait that it asked
// for. It returns the failures in a row, and whether this one counted: many
// that fail together are one.
func (b *breaker) failed(p pass, now time.Time, atLeast time.Duration) (failures uint32, counted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.round != b.round {
		return b.failures, false
	}
	b.probing = false
	b.failures++
	b.since = now
	b.until = now.Add(max(b.jitter.after(b.failures), min(atLeast, b.jitter.cap)))
	b.turn()
	return b.failures, true
}

// unused gives a pass back that said nothing about the destination.
func (b *breaker) unused(p pass) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.probe && p.round == b.round && b.probing {
		b.probing = false
		b.tell()
	}
}

// cutShort ends the wait of a failure before the given instant: the way to the
// destination came back since.
func (b *breaker) cutShort(back time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures > 0 && !b.probing && b.since.Before(back) && b.until.After(back) {
		b.until = back
		b.tell()
	}
}

// turn begins a new round; b.mu is held.
func (b *breaker) turn() {
	b.round++
	b.tell()
}

func (b *breaker) tell() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// change is closed at the next change; it is taken before admit.
func (b *breaker) change() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}
