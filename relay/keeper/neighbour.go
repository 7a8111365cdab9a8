package keeper

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

const (
	// share bounds what looking after may cost: after a pass comes a rest so
	// many times as long.
	share = 10
	// pageSize is how much of a list is read at once.
	pageSize = 500
	// young is the age below which an envelope is asked after in every pass, and
	// up to which a delivery that seems to be nowhere may be on its way.
	young = time.Minute
	// maxBackOff is how many times as long as usual a silent relay rests at most.
	maxBackOff = 6
	// rarest is how many passes an old envelope is asked after once.
	rarest = 60
)

// neighbour is another relay as long as envelopes connect it with this one. Its
// goroutine alone uses it.
type neighbour struct {
	k     *Keeper
	relay routing.RelayID

	state    state     // in the last pass
	absent   time.Time // since when the directory lacks it
	passes   uint64
	failures uint32 // passes in a row without an answer
	// usable is whether it was in reach when it last failed to answer.
	usable bool

	requested bool
	next      time.Time // pass then in any case
	rested    time.Time // and not before, but for the loss of the relay
}

// state is what the directory says of a relay.
type state uint8

const (
	unsure state = iota // the directory may be behind
	active
	draining
	gone // with what it held
)

func (s state) inService() bool { return s == active || s == draining }

func stateOf(view routing.View, relay routing.RelayID) state {
	r, ok := view.Relay(relay)
	if !ok {
		return unsure
	}
	switch r.GetState() {
	case directoryv1.RelayState_RELAY_STATE_RETIRED, directoryv1.RelayState_RELAY_STATE_LOST:
		return gone
	case directoryv1.RelayState_RELAY_STATE_DRAINING:
		return draining
	}
	return active
}

// meet gives every relay that holds something for this one, or for which this
// one holds something, its goroutine, until ctx ends.
func (k *Keeper) meet(ctx context.Context, loops *sync.WaitGroup) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	met := make(map[routing.RelayID]bool)
	for {
		wanted, changed := k.wanted.wait(), k.Directory.Changed()
		holders, err := k.Spool.Holders()
		origins, errOrigins := k.Spool.Origins()
		if err := errors.Join(err, errOrigins); err != nil {
			k.Logger.ErrorContext(ctx, "what is to be looked after cannot be read", "error", err)
		}
		for _, relays := range [][]routing.RelayID{holders, origins} {
			for _, relay := range relays {
				if relay == k.Self || met[relay] {
					continue
				}
				met[relay] = true
				loops.Go(func() { (&neighbour{k: k, relay: relay}).run(ctx) })
			}
		}
		timer.Reset(k.jitter.around(k.ReviewEvery))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-wanted:
		case <-changed:
		}
		// Changes come in swarms.
		timer.Reset(k.ReviewPause / 10)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

func (n *neighbour) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		wanted, changed := n.k.wanted.wait(), n.k.Directory.Changed()
		now := n.k.Clock()
		if state, due := n.due(now); due {
			n.pass(ctx, state)
			now = n.k.Clock()
		}
		timer.Reset(max(n.wake(now).Sub(now), time.Millisecond))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-wanted:
			n.requested = true
		case <-changed:
			// What had no home may have one now.
			n.requested = n.requested || n.state == gone
		}
	}
}

// due says whether to pass now. The loss of a relay waits for nothing: its
// recipients do.
func (n *neighbour) due(now time.Time) (state, bool) {
	s := n.look(now)
	switch {
	case s == gone && n.state != gone:
		return s, true
	case now.Before(n.rested):
		return s, false
	case !now.Before(n.next):
		return s, true
	case n.requested || s != n.state || n.failures > 0:
		return s, !n.backingOff()
	}
	return s, false
}

// backingOff reports whether the relay was silent, and there is no sign that it
// came back.
func (n *neighbour) backingOff() bool {
	if n.failures == 0 {
		return false
	}
	_, usable := n.k.Usable(n.relay)
	return n.usable || !usable
}

func (n *neighbour) wake(now time.Time) time.Time {
	at := n.next
	if n.requested && !n.backingOff() && n.rested.Before(at) {
		at = n.rested
	}
	if again := now.Add(n.k.ReviewEvery); n.failures > 0 && again.Before(at) {
		at = again // it may be in reach by then
	}
	if !n.absent.IsZero() && n.state != gone {
		if over := n.absent.Add(n.k.AbsentAfter); over.Before(at) && over.After(now) {
			at = over
		}
	}
	return at
}

// look returns the relay's state. A relay that is missing in the directory is
// gone only after a while, and only where the directory has this relay.
func (n *neighbour) look(now time.Time) state {
	view := n.k.Directory.View()
	if s := stateOf(view, n.relay); s != unsure {
		n.absent = time.Time{}
		return s
	}
	switch {
	case !stateOf(view, n.k.Self).inService():
		n.absent = time.Time{}
	case n.absent.IsZero():
		n.absent = now
	case now.Sub(n.absent) >= n.k.AbsentAfter:
		return gone
	}
	return unsure
}

// pass looks after everything that concerns the relay, once.
func (n *neighbour) pass(ctx context.Context, s state) {
	start := n.k.Clock()
	n.state, n.requested = s, false
	n.passes++
	var err error
	switch {
	case s == gone:
		err = errors.Join(n.k.leave(ctx, n.relay), n.k.takeOver(ctx, n.relay))
	case s.inService():
		r := n.k.review(n.relay, func(id envelope.ID, age time.Duration) bool { return dueIn(n.passes, id, age) })
		if err = r.holder(ctx); err == nil {
			err = r.origin(ctx)
		}
	}
	if ctx.Err() != nil {
		return
	}
	now := n.k.Clock()
	wait := n.k.jitter.around(n.k.ReviewEvery)
	switch {
	case errors.Is(err, errSilent):
		n.failures++
		_, n.usable = n.k.Usable(n.relay)
		wait = n.k.jitter.around(n.k.ReviewEvery * time.Duration(min(n.failures, maxBackOff)))
		level := n.k.Logger.WarnContext
		if n.failures > 1 {
			level = n.k.Logger.DebugContext
		}
		level(ctx, "relay is not asked after envelopes, it is silent", "relay", n.relay, "failures", n.failures, "error", err)
	case err != nil:
		n.k.Logger.ErrorContext(ctx, "envelopes cannot be looked after", "relay", n.relay, "error", err)
	default:
		n.failures = 0
	}
	n.rested = now.Add(max(n.k.ReviewPause, share*now.Sub(start)))
	if n.failures > 0 {
		// Waiting for an answer cost nothing.
		n.rested = now.Add(n.k.ReviewPause)
	}
	n.next = now.Add(wait)
	if n.next.Before(n.rested) {
		n.next = n.rested
	}
}

// ageOf is how long something is on the disk. What lies ahead was noted before
// the clock was put back: it is no reason to wait until then, and counts as old.
func ageOf(now, since time.Time) time.Duration {
	if since.After(now) {
		return young
	}
	return now.Sub(since)
}

// dueIn chooses what is asked after in a pass: the young always, the older the
// rarer, up to once in rarest passes, evenly spread by id.
func dueIn(pass uint64, id envelope.ID, age time.Duration) bool {
	n := uint64(min(max(age/young, 1), rarest))
	return (binary.BigEndian.Uint64(id[:8])+pass)%n == 0
}

// pages goes through a list of envelopes in order of id.
func pages(ctx context.Context, list func(after envelope.ID, max int) ([]envelope.ID, error), do func(envelope.ID) error) error {
	var after envelope.ID
	for ctx.Err() == nil {
		page, err := list(after, pageSize)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, id := range page {
			if err := do(id); err != nil {
				return err
			}
		}
		after = page[len(page)-1]
	}
	return ctx.Err()
}
