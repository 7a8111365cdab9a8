package relay

import (
	"fmt"
	"slices"
	"sync"

	"github.com/truclienthong/truc/routing"
)

// hearsay is what peers say of this relay in their answers to probes. A relay
// that was given up as lost, and removed from Raft, comes back with an old copy
// of the directory in which all is well: it would take envelopes for agencies
// whose home is elsewhere now, and nobody would come for them. So it believes
// peers whose directory is newer; two of them, where there are two, because one
// relay that lies must not be able to stop another.
type hearsay struct {
	mu sync.Mutex
	// out is the version of the directory in which a peer sees this relay taken
	// out.
	out map[routing.RelayID]uint64
}

// hear takes in one peer's answer, and reports whether it says anything new.
func (h *hearsay) hear(peer routing.RelayID, out bool, version uint64) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, before := h.out[peer]
	if !out {
		delete(h.out, peer)
		return before
	}
	if h.out == nil {
		h.out = make(map[routing.RelayID]uint64)
	}
	h.out[peer] = version
	return !before
}

// takenOut says who knows better than this relay's copy of the directory that
// it was taken out of the mesh; empty: it was not.
func (h *hearsay) takenOut(self routing.RelayID, view routing.View) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.out) == 0 {
		return ""
	}
	peers := 0
	var say []routing.RelayID
	for _, r := range view.Relays() {
		id := routing.RelayID(r.GetId())
		if id == self || gone(r) {
			continue
		}
		peers++
		if h.out[id] > view.Version() {
			say = append(say, id)
		}
	}
	if len(say) < max(1, min(peers, 2)) {
		return ""
	}
	slices.Sort(say)
	return fmt.Sprintf("taken out of the mesh, as %s say with a newer directory than this relay has; bring it into Raft again (relayctl raft add-nonvoter) to have it hand over what it holds", say)
}

// heard is called with each answer to a probe.
func (r *Relay) heard(peer routing.RelayID, out bool, version uint64) {
	if r.hearsay.hear(peer, out, version) {
		r.state.announce()
	}
}
