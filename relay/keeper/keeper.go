// Package keeper looks after what was accepted until it has ended: it has
// second copies made, finds out what became of deliveries that others have
// custody of, sends again what was lost with a machine or a disk, and ends what
// has expired.
//
// What it promises:
//
//   - An envelope accepted here that no other relay has gets a second copy as
//     soon as a relay can be reached that keeps one.
//   - A delivery whose custody went to another relay is asked after until it is
//     known how it ended. Where that relay lost it, or was given up as lost, it
//     is sent again from the copy here.
//   - Where the ingress of envelopes that are here is lost, this relay takes its
//     place: copies that were kept become deliveries.
//   - What waits here past its lifetime ends with a report to its sender.
//   - A relay that does not answer costs one failed call per pass, and passes
//     get rarer; looking after much that is old is bounded to a small share of
//     the time.
//
// What it does not promise: that a delivery is sent again only when it was lost.
// Sending again is harmless, because whoever has it already drops it by its id;
// losing is not, so doubt that lasts ends with sending again.
//
// Invariants:
//
//   - This package keeps no state that a crash could lose: what is to be looked
//     after stands in the lists of the spool, and everything it decides is a
//     fact there.
//   - A relay is forgotten as a holder only after every delivery that it was
//     believed to have has been settled, found elsewhere, or made a duty again.
//   - That a recipient has confirmed is believed only from a relay that is or
//     was the recipient's home, and from the ingress about its own envelopes.
//   - One goroutine for each other relay does everything that concerns it, so a
//     silent relay holds up nothing but itself.
//
// neighbour.go says when a relay is asked, review.go what is asked of a holder,
// verdict.go what follows from the answer; origin.go is the same for the
// envelopes of others, gone.go for relays that are lost. sole.go has copies
// made, expiry.go ends what is over, remaining.go counts for who drains.
package keeper

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
)

// Keeper looks after the envelopes of one relay.
type Keeper struct {
	Config
	telemetry *telemetry
	jitter    *jitter
	wanted    signal // told when a review is wanted soon
}

// New checks the configuration and fills in defaults; it starts nothing.
func New(c Config) (*Keeper, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	k := &Keeper{Config: c, jitter: &jitter{random: rand.New(c.Random)}, wanted: newSignal()}
	var err error
	if k.telemetry, err = newTelemetry(c.Meter); err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	return k, nil
}

// Run looks after what the spool holds until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	defer loops.Wait()
	loops.Go(func() { k.makeCopies(ctx) })
	loops.Go(func() { k.endExpired(ctx) })
	k.meet(ctx, &loops)
	return nil
}

// Review asks for a look at every other relay soon, not at the next interval.
// It costs nothing to call it often.
func (k *Keeper) Review() { k.wanted.tell() }

// signal tells many that something happened.
type signal struct {
	mu   *sync.Mutex
	told chan struct{}
}

func newSignal() signal { return signal{mu: new(sync.Mutex), told: make(chan struct{})} }

func (s *signal) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.told)
	s.told = make(chan struct{})
}

// wait is closed the next time; it is taken before looking.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told
}
