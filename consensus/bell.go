package consensus

import "sync"

// bell wakes everyone who listens. Listen first, then look at what is waited
// for: a ring in between is not missed.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

// listen returns a channel that the next ring closes.
func (b *bell) listen() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
