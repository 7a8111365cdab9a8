package agency

import (
	"sync"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
)

// Where an envelope stands in the books.
const (
	takenNow = iota
	takenBefore
	confirmedBefore
)

// remembered is how many confirmed ids are kept: more than a relay can have on
// its way to us.
const remembered = 20_000

// books know which envelopes were given out in this process.
type books struct {
	mu sync.Mutex
	// taken are the ids given out; true: it arrived again since.
	taken map[envelope.ID]bool
	// done are the ids confirmed last, order their order of age, next the
	// oldest.
	done  map[envelope.ID]bool
	order []envelope.ID
	next  int
	// released are those given back, to be given out again; changed is closed when
	// one more is.
	released map[envelope.ID]released
	changed  chan struct{}
	// backoff is the pause after so many times.
	backoff func(int) time.Duration
}

type released struct {
	arrival *Arrival
	due     time.Time
}

func newBooks(backoff func(int) time.Duration) *books {
	return &books{
		taken: map[envelope.ID]bool{}, done: map[envelope.ID]bool{},
		released: map[envelope.ID]released{}, changed: make(chan struct{}), backoff: backoff,
	}
}

func (b *books) take(id envelope.ID) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done[id] {
		return confirmedBefore
	}
	if _, ok := b.taken[id]; ok {
		b.taken[id] = true
		return takenBefore
	}
	b.taken[id] = false
	delete(b.released, id)
	return takenNow
}

// release takes back an arrival that was given out.
func (b *books) release(a *Arrival) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.taken[a.ID]; !ok {
		return
	}
	delete(b.taken, a.ID)
	fresh := &Arrival{
		ID: a.ID, Envelope: a.Envelope, Agency: a.Agency, ArrivedAt: a.ArrivedAt,
		client: a.client, content: a.content, releases: a.releases + 1,
	}
	b.released[a.ID] = released{fresh, time.Now().Add(b.backoff(fresh.releases))}
	close(b.changed)
	b.changed = make(chan struct{})
}

// again gives out an arrival that was given back and is due. Where none is, it
// returns nil, how long it is to the next, 0 where there is none, and what is closed
// when another is given back.
func (b *books) again(now time.Time) (*Arrival, time.Duration, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var first released
	for _, r := range b.released {
		if first.arrival == nil || r.due.Before(first.due) {
			first = r
		}
	}
	if first.arrival == nil {
		return nil, 0, b.changed
	}
	if wait := first.due.Sub(now); wait > 0 {
		return nil, wait, b.changed
	}
	b.taken[first.arrival.ID] = false
	delete(b.released, first.arrival.ID)
	return first.arrival, 0, nil
}

// confirming begins a confirmation: what arrived before it is meant by it.
func (b *books) confirming(ids []envelope.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if _, ok := b.taken[id]; ok {
			b.taken[id] = false
		}
	}
}

// confirmed ends it, and returns what arrived again meanwhile.
func (b *books) confirmed(ids []envelope.ID) (again []envelope.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if b.taken[id] {
			again = append(again, id)
		}
		delete(b.taken, id)
		delete(b.released, id)
		if b.done[id] {
			continue
		}
		b.done[id] = true
		if len(b.order) < remembered {
			b.order = append(b.order, id)
			continue
		}
		delete(b.done, b.order[b.next])
		b.order[b.next] = id
		b.next = (b.next + 1) % remembered
	}
	return again
}
