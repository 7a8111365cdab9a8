package spool

import (
	"hash/maphash"
	"sync"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// stripes bounds how many channels wait for changes: a channel belongs to a
// stripe of names, not to a name, so a waiter that went away leaves nothing
// behind, and agencies without number cost nothing. The price is that a channel
// is now and then closed for a namesake.
const stripes = 1 << 14

// notifier tells waiters that something was added.
type notifier struct {
	relays, agencies, copies striped
	destinations, sole       signal
}

// signal is a channel that is closed at the next change.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

type striped struct {
	seed  maphash.Seed
	lanes []signal
}

func newStriped() striped {
	return striped{seed: maphash.MakeSeed(), lanes: make([]signal, stripes)}
}

func (s *striped) of(name string) *signal {
	return &s.lanes[maphash.String(s.seed, name)%stripes]
}

// announce wakes those who wait for what was applied since the last call. Only
// the goroutine that applies calls it.
func (s *Spool) announce() {
	w := &s.machine.woken
	for _, relay := range w.relays {
		s.notify.relays.of(string(relay)).wake()
	}
	for _, agency := range w.agencies {
		s.notify.agencies.of(string(agency)).wake()
	}
	for _, id := range w.copies {
		s.notify.copies.of(string(id[:])).wake()
	}
	if w.newRelay {
		s.notify.destinations.wake()
	}
	if w.sole {
		s.notify.sole.wake()
	}
	if w.due {
		select {
		case s.due <- struct{}{}:
		default:
		}
	}
	*w = woken{relays: w.relays[:0], agencies: w.agencies[:0], copies: w.copies[:0]}
}

// QueueChanged returns a channel that is closed when something is added to the
// queue of a relay, now and then also for nothing. Take it before reading.
func (s *Spool) QueueChanged(relay routing.RelayID) <-chan struct{} {
	return s.notify.relays.of(string(relay)).wait()
}

// InboxChanged is QueueChanged for an inbox.
func (s *Spool) InboxChanged(agency routing.AgencyCode) <-chan struct{} {
	return s.notify.agencies.of(string(agency)).wait()
}

// DestinationsChanged returns a channel that is closed when something is queued
// for a relay that nothing was queued for.
func (s *Spool) DestinationsChanged() <-chan struct{} { return s.notify.destinations.wait() }

// CopiesChanged returns a channel that is closed when another relay is known to
// have an envelope, or none needs to any more; now and then also for nothing.
// Take it before Record.
func (s *Spool) CopiesChanged(id envelope.ID) <-chan struct{} {
	return s.notify.copies.of(string(id[:])).wait()
}

// SoleChanged returns a channel that is closed when something is added to Sole.
func (s *Spool) SoleChanged() <-chan struct{} { return s.notify.sole.wait() }
