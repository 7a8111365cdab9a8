package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// ledger is what consensus comes to: one order of commands, which every relay
// applies later, by a lag of its own. While it has no leader nothing is added,
// and whoever asks is told so.
type ledger struct {
	mu sync.Mutex
	// commands in order, with the answer to each and the request it came by.
	commands   [][]byte
	answers    []*directoryv1.CommandResult
	requests   map[[16]byte]int
	first      *routing.Directory // that of the leader
	leaderless bool
	added      chan struct{} // closed at the next command
	chance     *rand.Rand
}

func newLedger(seed uint64) *ledger {
	return &ledger{
		requests: map[[16]byte]int{}, first: routing.NewDirectory(), added: make(chan struct{}),
		chance: rand.New(rand.NewPCG(seed, streamDirectory)),
	}
}

// leader says whether there is one.
func (l *ledger) leader(is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaderless = !is
}

// add puts a command at the end of the order.
func (l *ledger) add(id [16]byte, command *directoryv1.Command) (index int, answer *directoryv1.CommandResult, repeat bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaderless {
		return 0, nil, false, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_LEADER, "there is no leader")
	}
	if at, ok := l.requests[id]; ok {
		return at, l.answers[at], true, nil
	}
	encoded, err := proto.Marshal(command)
	if err != nil {
		return 0, nil, false, err
	}
	raw, err := l.first.Apply(encoded)
	if err != nil {
		return 0, nil, false, err
	}
	answer = new(directoryv1.CommandResult)
	if err := proto.Unmarshal(raw, answer); err != nil {
		return 0, nil, false, err
	}
	l.requests[id] = len(l.commands)
	l.commands, l.answers = append(l.commands, encoded), append(l.answers, answer)
	close(l.added)
	l.added = make(chan struct{})
	return len(l.commands) - 1, answer, false, nil
}

// change is what an operator does.
func (l *ledger) change(c *directoryv1.Command) error {
	c.Version, c.Actor, c.At = routing.CommandVersion, "spiffe://"+trustDomain+"/operator/an", timestamppb.Now()
	l.mu.Lock()
	var id [16]byte
	for i := range id {
		id[i] = byte(l.chance.Uint32())
	}
	l.mu.Unlock()
	_, answer, _, err := l.add(id, c)
	if err != nil {
		return err
	}
	if answer.GetReason() != exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return fmt.Errorf("%s: %s", answer.GetReason(), answer.GetMessage())
	}
	return nil
}

// replica is one relay's copy of the directory.
type replica struct {
	*routing.Directory
	l *ledger

	mu sync.Mutex
	// applied commands; lag is how long each waits, hold stops applying.
	applied int
	lag     time.Duration
	hold    bool
	changed chan struct{}
}

var _ relay.Directory = (*replica)(nil)

// replica makes a copy that has applied the first commands already.
func (l *ledger) replica(applied int, lag time.Duration) (*replica, error) {
	r := &replica{Directory: routing.NewDirectory(), l: l, lag: lag, changed: make(chan struct{})}
	return r, r.apply(applied)
}

// apply goes on up to a number of commands.
func (r *replica) apply(until int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.l.mu.Lock()
	commands := r.l.commands[:min(until, len(r.l.commands))]
	r.l.mu.Unlock()
	for r.applied < len(commands) {
		if _, err := r.Apply(commands[r.applied]); err != nil {
			return err
		}
		r.applied++
	}
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

func (r *replica) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied
}

// run applies what is added, each command after the lag, until ctx ends.
func (r *replica) run(ctx context.Context) {
	for {
		r.l.mu.Lock()
		added, total := r.l.added, len(r.l.commands)
		r.l.mu.Unlock()
		r.mu.Lock()
		behind, lag, hold, changed := r.applied < total, r.lag, r.hold, r.changed
		r.mu.Unlock()
		switch {
		case !behind:
			select {
			case <-added:
			case <-ctx.Done():
				return
			}
			continue
		case hold:
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			continue
		}
		select {
		case <-time.After(lag):
		case <-ctx.Done():
			return
		}
		if err := r.apply(total); err != nil {
			panic(err) // the leader has applied it
		}
	}
}

// stay stops applying, or goes on.
func (r *replica) stay(is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = is
	close(r.changed)
	r.changed = make(chan struct{})
}

// await returns when a number of commands are applied.
func (r *replica) await(ctx context.Context, count int) error {
	for {
		r.mu.Lock()
		done, changed := r.applied >= count, r.changed
		r.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Propose answers once this relay has applied the command.
func (r *replica) Propose(ctx context.Context, id [16]byte, c *directoryv1.Command) (relay.Proposed, error) {
	index, answer, repeat, err := r.l.add(id, c)
	if err != nil {
		return relay.Proposed{}, err
	}
	if err := r.await(ctx, index+1); err != nil {
		return relay.Proposed{}, err
	}
	return relay.Proposed{Index: uint64(index + 1), Result: answer, Repeat: repeat}, nil
}

func (r *replica) ReadBarrier(ctx context.Context) error {
	r.l.mu.Lock()
	leaderless, count := r.l.leaderless, len(r.l.commands)
	r.l.mu.Unlock()
	if leaderless {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_LEADER, "there is no leader")
	}
	return r.await(ctx, count)
}
