package spool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// The path of a record:
//
//  1. Its caller takes the order, decides with the index, and appends to the
//     journal; so records enter the journal in the order of their sequences.
//  2. Still in the order, it hands its ticket to the goroutine that applies.
//  3. That goroutine waits for the ticket, and so for the sync, applies, wakes
//     readers, and tells the caller.
//
// Between 1 and 3 the index does not know the record yet. pending tells which
// envelopes have such records, and a decision about one of them waits.

// group is what one append put into the journal.
type group struct {
	ticket  *journal.Ticket
	records []record
	sizes   []int64
	// change is a change of the index that is no record; there is no ticket then.
	change func(*step) error
	// claimed are dropped when the records are applied.
	claimed [][]byte
	done    chan struct{}
	err     error
}

// pending counts the records of each envelope that are not applied yet.
type pending struct {
	mu    sync.Mutex
	count map[envelope.ID]int
	// applied is closed when one of them is; nil if nobody waits.
	applied chan struct{}
}

func (p *pending) add(records []record, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count == nil {
		p.count = make(map[envelope.ID]int)
	}
	for _, r := range records {
		for _, id := range r.about() {
			if p.count[id] += n; p.count[id] == 0 {
				delete(p.count, id)
			}
		}
	}
	if n < 0 && p.applied != nil {
		close(p.applied)
		p.applied = nil
	}
}

// wait returns what to wait for before deciding about id; nil: decide now.
func (p *pending) wait(id envelope.ID) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count[id] == 0 {
		return nil
	}
	if p.applied == nil {
		p.applied = make(chan struct{})
	}
	return p.applied
}

// claims keeps two records that are under way from claiming the same thing: a
// sender's document id for two envelopes, or the end of one delivery twice.
type claims struct {
	mu   sync.Mutex
	held map[string]envelope.ID
	// dropped is closed when a claim is; nil if nobody waits.
	dropped chan struct{}
}

// claim returns the holder if somebody else has it.
func (c *claims) claim(key []byte, id envelope.ID) (holder envelope.ID, free bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if holder, taken := c.held[string(key)]; taken {
		return holder, false
	}
	if c.held == nil {
		c.held = make(map[string]envelope.ID)
	}
	c.held[string(key)] = id
	return id, true
}

func (c *claims) drop(keys [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		delete(c.held, string(key))
	}
	if c.dropped != nil {
		close(c.dropped)
		c.dropped = nil
	}
}

// wait returns when nobody holds a key.
func (c *claims) wait(ctx context.Context, key []byte, ended <-chan struct{}) error {
	for {
		c.mu.Lock()
		if _, taken := c.held[string(key)]; !taken {
			c.mu.Unlock()
			return nil
		}
		if c.dropped == nil {
			c.dropped = make(chan struct{})
		}
		dropped := c.dropped
		c.mu.Unlock()
		select {
		case <-dropped:
		case <-ended:
			return errEnded
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

var errEnded = fmt.Errorf("%w: %w", ErrClosed,
	envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING, "relay is shutting down"))

// take takes the order.
func (s *Spool) take(ctx context.Context) error {
	select {
	case s.order <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.refusalInOrder()
}

func (s *Spool) refusalInOrder() error {
	err := s.refusal()
	if err == nil && s.ending {
		err = errEnded
	}
	if err != nil {
		s.give()
	}
	return err
}

func (s *Spool) give() { <-s.order }

// takeFor takes the order when no record about id is under way.
func (s *Spool) takeFor(ctx context.Context, id envelope.ID) error {
	for {
		if err := s.take(ctx); err != nil {
			return err
		}
		applied := s.pending.wait(id)
		if applied == nil {
			return nil
		}
		s.give()
		select {
		case <-applied:
		case <-s.ended:
			return errEnded
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// nextSequence gives out a sequence; the caller has the order.
func (s *Spool) nextSequence() uint64 {
	s.sequence++
	return s.sequence - 1
}

// append hands records to the journal; the caller has the order, and what it
// claimed is dropped at the end. It fails only if nothing was appended.
func (s *Spool) append(ctx context.Context, sync bool, claimed [][]byte, records ...record) (*group, error) {
	g := &group{records: records, claimed: claimed, done: make(chan struct{})}
	entries := make([]journal.Entry, 0, len(records))
	for _, r := range records {
		e := entryOf(r)
		entries = append(entries, e)
		g.sizes = append(g.sizes, sizeOf(e))
	}
	var err error
	if g.ticket, err = s.journal.Append(ctx, sync, entries...); err != nil {
		s.claims.drop(claimed)
		if refusal := s.refusal(); refusal != nil {
			return nil, refusal
		}
		if errors.Is(err, journal.ErrPoisoned) {
			return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STORAGE_FAILED, "storage failed: %v", err)
		}
		return nil, err
	}
	s.pending.add(records, 1)
	s.groups <- g
	return g, nil
}

// change has the index changed by something that is no record.
func (s *Spool) change(ctx context.Context, fn func(*step) error) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	g := &group{change: fn, done: make(chan struct{})}
	s.groups <- g
	s.give()
	return s.wait(g)
}

// wait returns when the records of g are applied, and durable if they were
// appended so. It does not end before: what was appended may be in the journal,
// and the journal still reads it from the caller's memory.
func (s *Spool) wait(g *group) error {
	select {
	case <-g.done:
	case <-s.ended:
		// Only if Run never ran is there a group that nobody took.
		select {
		case <-g.done:
		default:
			return errEnded
		}
	}
	switch {
	case g.err == nil:
		return nil
	case s.refusal() != nil:
		return s.refusal()
	}
	return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STORAGE_FAILED, "storage failed: %v", g.err)
}

// refuseAppends lets nothing more into the journal.
func (s *Spool) refuseAppends() {
	s.order <- struct{}{}
	defer s.give()
	if !s.ending {
		s.ending = true
		close(s.groups)
	}
}

// applyAll applies what was appended, in order, until there is no more. After a
// failure it tells every caller, and applies nothing.
func (s *Spool) applyAll(ctx context.Context) error {
	tick := time.NewTicker(index.FlushEvery)
	defer tick.Stop()
	var failure error
	for {
		select {
		case g, ok := <-s.groups:
			if !ok {
				return failure
			}
			if failure == nil {
				if failure = s.applyGroup(ctx, g); failure != nil {
					s.fail(failure)
				}
			}
			g.err = failure
			s.claims.drop(g.claimed)
			s.pending.add(g.records, -1)
			close(g.done)
		case <-tick.C:
			if failure == nil && s.store.Idle() {
				if failure = s.store.Freeze(ctx); failure != nil {
					s.fail(failure)
				}
			}
		}
	}
}

func (s *Spool) applyGroup(ctx context.Context, g *group) error {
	if g.change != nil {
		if err := s.machine.change(&step{}, g.change); err != nil {
			return fmt.Errorf("change index: %w", err)
		}
		return s.flushIfFull(ctx)
	}
	// The journal ends every ticket, also when it fails.
	positions, err := g.ticket.Wait(context.Background())
	if err != nil {
		return err
	}
	for i, r := range g.records {
		if err := s.machine.apply(r, positions[i], g.sizes[i]); err != nil {
			return err
		}
		if err := s.flushIfFull(ctx); err != nil {
			return err
		}
	}
	s.announce()
	return nil
}

func (s *Spool) flushIfFull(ctx context.Context) error {
	if !s.store.Full() {
		return nil
	}
	return s.store.Freeze(ctx)
}
