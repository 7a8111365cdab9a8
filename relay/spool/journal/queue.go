package journal

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Ticket is the claim to the outcome of one Append.
type Ticket struct {
	sync     bool
	entries  []Entry
	lengths  []int
	contents []uint32 // checks of the payloads, computed off the writer
	weight   int64

	done      chan struct{} // closed when what follows is set
	positions []Position
	err       error
}

// Wait returns the positions of the entries, in order. With sync they, and
// everything appended before them in any segment, are durable; without it they
// are written and can be read, and the next sync or the end of the segment
// makes them durable. An error that wraps ErrPoisoned means that they may or
// may not be found after a restart. The end of ctx ends the waiting only.
func (t *Ticket) Wait(ctx context.Context) ([]Position, error) {
	select {
	case <-t.done:
	default:
		select {
		case <-t.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the journal: %w", context.Cause(ctx))
		}
	}
	return t.positions, t.err
}

// Append hands entries to the writer; they stay together and in order. It
// waits only while the queue is full, and appends nothing if ctx ends then. The
// payloads must not be changed until the ticket is done.
func (j *Journal) Append(ctx context.Context, sync bool, entries ...Entry) (*Ticket, error) {
	t := &Ticket{
		sync:     sync,
		entries:  entries,
		lengths:  make([]int, len(entries)),
		contents: make([]uint32, len(entries)),
		done:     make(chan struct{}),
	}
	for i, e := range entries {
		if e.Type == typeMark || e.Type == typeSeal {
			return nil, fmt.Errorf("append to the journal: type %d is the journal's own", e.Type)
		}
		t.lengths[i] = totalLength(e.Payload)
		if t.lengths[i] > MaxPayload {
			return nil, fmt.Errorf("append %d bytes to the journal: %w", t.lengths[i], ErrTooLarge)
		}
		t.contents[i] = checkContent(e.Payload)
		t.weight += recordSize(t.lengths[i])
	}
	if err := j.queue.put(ctx, t); err != nil {
		return nil, fmt.Errorf("append to the journal: %w", err)
	}
	return t, nil
}

// Sync returns when everything appended before is durable.
func (j *Journal) Sync(ctx context.Context) error {
	t, err := j.Append(ctx, true)
	if err != nil {
		return err
	}
	_, err = t.Wait(ctx)
	return err
}

// queue holds what waits for the writer, bounded in bytes.
type queue struct {
	limit int64
	room  *semaphore.Weighted
	wake  chan struct{} // holds one token while something waits

	mu      sync.Mutex
	waiting []*Ticket
	ended   error // why nothing more is taken
}

func newQueue(limit int64) *queue {
	return &queue{limit: limit, room: semaphore.NewWeighted(limit), wake: make(chan struct{}, 1)}
}

func (q *queue) put(ctx context.Context, t *Ticket) error {
	// What is larger than the whole queue waits until it is empty.
	t.weight = min(t.weight, q.limit)
	if err := q.room.Acquire(ctx, t.weight); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended != nil {
		q.room.Release(t.weight)
		return q.ended
	}
	q.waiting = append(q.waiting, t)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// take gives all that waits, and waits until something does; nothing once ctx
// has ended.
func (q *queue) take(ctx context.Context) []*Ticket {
	for ctx.Err() == nil {
		q.mu.Lock()
		batch := q.waiting
		q.waiting = nil
		q.mu.Unlock()
		if len(batch) > 0 {
			return batch
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
		}
	}
	return nil
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) == 0
}

// close takes nothing more and gives what waits.
func (q *queue) close(reason error) []*Ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended == nil {
		q.ended = reason
	}
	batch := q.waiting
	q.waiting = nil
	return batch
}

// end takes nothing more and fails what waits.
func (q *queue) end(reason error) {
	for _, t := range q.close(reason) {
		q.finish(t, reason)
	}
}

// finish completes a ticket and gives its room back.
func (q *queue) finish(t *Ticket, err error) {
	if err != nil {
		t.positions, t.err = nil, err
	}
	t.entries = nil
	close(t.done)
	q.room.Release(t.weight)
}
