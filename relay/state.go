package relay

import (
	"context"
	"fmt"
	"sync"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// phase is how far a relay is in its life; it only goes forwards.
type phase uint8

const (
	starting phase = iota
	serving
	stopping
	failed
)

// state is the relay's own part of the answer to whether it serves; the other
// part is what the directory says of it.
type state struct {
	mu    sync.Mutex
	phase phase
	// failure is why the relay stops by itself.
	failure error
	// changed is closed at the next change.
	changed chan struct{}
	// ending is done as soon as the relay stops or fails.
	ending context.Context
	end    context.CancelFunc
}

func newState() *state {
	s := &state{changed: make(chan struct{})}
	s.ending, s.end = context.WithCancel(context.Background())
	return s
}

// enter moves on to a later phase.
func (s *state) enter(p phase, failure error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p <= s.phase {
		return
	}
	s.phase, s.failure = p, failure
	if p >= stopping {
		s.end()
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// announce wakes those who watch: something else that they ask about has changed.
func (s *state) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// watch returns a channel that is closed at the next change.
func (s *state) watch() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *state) get() (phase, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase, s.failure
}

// unready lists why no envelope is accepted here just now; empty: they are.
func (r *Relay) unready(view routing.View) []string {
	reasons := r.outOfService(view)
	if why := r.levels.diskLow(); why != "" {
		reasons = append(reasons, why)
	}
	return reasons
}

// outOfService lists why this relay takes no envelopes that other relays could
// take instead. In each of these states it hands on what it has, and answers
// Track.
func (r *Relay) outOfService(view routing.View) []string {
	var reasons []string
	switch phase, failure := r.state.get(); phase {
	case starting:
		reasons = append(reasons, "starting: the spool is being replayed")
	case stopping:
		reasons = append(reasons, "stopping")
	case failed:
		reasons = append(reasons, fmt.Sprintf("failed: %v", failure))
	}
	own, ok := view.Relay(r.config.ID)
	switch {
	case !ok:
		reasons = append(reasons, "the directory does not have this relay yet")
	case own.GetState() == directoryv1.RelayState_RELAY_STATE_DRAINING:
		reasons = append(reasons, "draining")
	case own.GetState() == directoryv1.RelayState_RELAY_STATE_RETIRED:
		reasons = append(reasons, "retired")
	case own.GetState() == directoryv1.RelayState_RELAY_STATE_LOST:
		reasons = append(reasons, "given up as lost by an operator")
	default:
		if why := r.hearsay.takenOut(r.config.ID, view); why != "" {
			reasons = append(reasons, why)
		}
	}
	return reasons
}

// accepting refuses new envelopes, from agencies and from relays, while this
// relay is not ready.
func (r *Relay) accepting() error {
	if reasons := r.outOfService(r.config.Directory.View()); len(reasons) > 0 {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING,
			"relay %s takes no envelopes (%s); use another relay", r.config.ID, reasons[0])
	}
	if why := r.levels.diskLow(); why != "" {
		return diskFull("relay %s takes no envelopes (%s); use another relay, or try again later", r.config.ID, why)
	}
	return nil
}
