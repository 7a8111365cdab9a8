package forward

import (
	"sync"

	"github.com/truclienthong/truc/routing"
)

// feeders are those that run, by destination.
type feeders struct {
	mu  sync.Mutex
	all map[routing.RelayID][]*feeder // guarded by mu
}

func (f *feeders) add(fd *feeder) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = make(map[routing.RelayID][]*feeder)
	}
	f.all[fd.d.relay] = append(f.all[fd.d.relay], fd)
}

func (f *feeders) of(relay routing.RelayID) []*feeder {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all[relay]
}

// Again has the queue for a relay read from its beginning at once, and ends the
// pause after a failure: an operator released an entry, or wants it tried now.
func (f *Forwarder) Again(relay routing.RelayID) {
	for _, fd := range f.feeders.of(relay) {
		fd.d.breaker.cutShort(f.Clock())
		// As if an offer of an entry before our place had failed.
		fd.end(ended{})
	}
}
