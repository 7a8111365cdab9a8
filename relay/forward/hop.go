package forward

import (
	"context"
	"strings"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// maxVisited is the most relays that an envelope may pass; more means that the
// link tables contradict each other.
const maxVisited = 16

// hop returns the relay to which an envelope for the destination goes next, and
// since when the link to it carries traffic: the destination itself where it is
// reached directly, else the relay on the shortest way that avoids those that
// had the envelope before. False where there is none.
//
// A destination that is reached but takes nothing is waited for: a way around
// would end at the same door. And so is the first measurement of its link, so
// that a relay that starts does not send everything through the neighbour that
// answers first.
func (f *Forwarder) hop(destination routing.RelayID, visited []routing.RelayID) (routing.RelayID, time.Time, bool) {
	if since, ok := f.links.usable(destination); ok {
		return destination, since, true
	}
	if f.links.up(destination) || !f.links.measured(destination) {
		return "", time.Time{}, false
	}
	relay, ok := f.detours.find(f, destination, visited)
	if !ok {
		return "", time.Time{}, false
	}
	since, ok := f.links.usable(relay)
	return relay, since, ok
}

// detours remembers ways around links that are down, for as long as the link
// table stands: finding one costs a walk over all links of the mesh.
type detours struct {
	mu      sync.Mutex
	version uint64
	at      time.Time
	links   []routing.Link
	found   map[string]detour
}

type detour struct {
	relay routing.RelayID
	ok    bool
}

// maxDetours bounds what is remembered.
const maxDetours = 4096

func (d *detours) find(f *Forwarder, destination routing.RelayID, visited []routing.RelayID) (routing.RelayID, bool) {
	var key strings.Builder
	key.WriteString(string(destination))
	for _, v := range visited {
		key.WriteByte(' ')
		key.WriteString(string(v))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	version, now := f.links.current(), f.Clock()
	if d.found == nil || d.version != version || now.Sub(d.at) > f.linkAge() || len(d.found) >= maxDetours {
		d.version, d.at, d.links, d.found = version, now, f.links.snapshot(), make(map[string]detour)
	}
	if known, ok := d.found[key.String()]; ok {
		return known.relay, known.ok
	}
	avoid := make(map[routing.RelayID]bool)
	for _, relay := range f.links.refusing() {
		avoid[relay] = true
	}
	for _, relay := range visited {
		avoid[relay] = true
	}
	// The destination may have had it before: its recipients may have moved
	// away and back.
	delete(avoid, destination)
	relay, ok := routing.NextHop(f.Self, destination, d.links, avoid)
	if relay == destination {
		ok = false // only by a link that is down
	}
	d.found[key.String()] = detour{relay, ok}
	return relay, ok
}

// accepting returns why no envelope is taken just now, or nil; offer is the one
// that is asked for, if it is one. A report is no new duty but the end of one: a
// relay that drains, or whose disk is full, needs it more than any other.
func (f *Forwarder) accepting(offer *relayv1.Offer) error {
	select {
	case <-f.stopping:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING, "relay %s is stopping; use another relay", f.Self)
	default:
	}
	if offer.GetPurpose() == relayv1.Purpose_PURPOSE_REPORT {
		return nil
	}
	return f.Accepting()
}

// caller returns the relay that calls.
func (f *Forwarder) caller(ctx context.Context) (routing.RelayID, error) {
	identity, ok := f.Config.Caller(ctx)
	if !ok {
		return "", envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_IDENTITY, "the caller is not known by name; relays call with a certificate of their own")
	}
	if identity.Kind != tls.KindRelay {
		return "", envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY, "%s is no relay; only relays make this call", identity)
	}
	relay := routing.RelayID(identity.Name)
	if _, ok := f.Directory.View().Relay(relay); !ok {
		// The copy of the directory here is behind, or the relay is new: that ends.
		return "", envelope.Refuse(notServing, "relay %s is not in the directory of relay %s (yet)", relay, f.Self)
	}
	return relay, nil
}
