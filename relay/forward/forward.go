// Package forward hands envelopes on from relay to relay: one copy for each
// destination relay, whatever the number of recipients there.
//
// What it promises:
//
//   - Custody moves only after the next hop has said that it made the envelope
//     durable; until then the duty stays in the spool of this relay. No receipt
//     is sent before the durable commit of the spool.
//   - An urgent envelope never waits for an ordinary one: every peer has two
//     sessions on two connections, and an envelope that travels in chunks never
//     holds up one that fits into its offer.
//   - A destination that does not answer costs its probe and nothing else, and
//     an envelope that is refused stops itself and no other.
//   - No lane starves: of a feeder's offers, one in each turnShare and one goes
//     to the lanes below, whatever waits above (turns.go).
//   - A link that comes and goes costs a few sessions, not one each time: it
//     carries custody again only after a run of answered probes, the longer the
//     more often it failed lately (links.go).
//   - A second copy goes to the relay that shall keep it and to no other; where
//     that one is not reached directly, the duty waits.
//   - Memory is bounded by the windows in Config, not by the length of queues
//     or the size of files.
//
// What it does not promise: order between envelopes, and delivery exactly once
// on the wire. A cut at the wrong moment makes the sender offer again; the
// receiver answers a repeat with its original receipt.
//
// Invariants:
//
//   - A duty leaves the queue only by a fact in the spool: handed on, settled
//     or rerouted. This package keeps no state that a crash could lose.
//   - At most one offer of one duty is under way at a time.
//   - Each feeder goroutine alone owns its place in the queue; each session has
//     one reader, and its writes take turns.
//   - Whoever answers Resume reads on: the reader of a session never waits for
//     something that only a later message of the same session can bring.
//
// The path of an envelope through the files: destination.go and feeder.go pick
// it from the queue, hop.go chooses the next hop, offer.go and session.go hand
// it over, outcome.go records what became of it; on the other side pass.go is
// the session, examine.go the checks, and take.go the taking of one offer.
// links.go and probe.go measure.
package forward

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/routing"
)

// InlineLimit is the most content in bytes that rides inside an offer
// (peer.proto, Offer.content).
const InlineLimit = 256 << 10

// maxChunk is the largest chunk in bytes that is taken (peer.proto,
// OfferChunk.data).
const maxChunk = 1 << 20

// contractVersion is the version of the contract between relays that this
// program speaks.
const contractVersion = 1

// Forwarder is the relay as other relays see it, and the part of it that hands
// on. Pass, Read and Probe serve peers; they may be called before Run, and
// answer NOT_SERVING once it has ended.
type Forwarder struct {
	Config
	links     *links
	detours   detours
	feeders   feeders
	telemetry *telemetry
	jitter    *jitter

	// Places for what is taken from peers; see Config.MaxOffers.
	offers    chan struct{}
	transfers chan struct{}
	inline    *semaphore.Weighted
	damage    *damageCount

	stopping chan struct{} // closed when Run ends
	mu       sync.Mutex
	stopped  bool
	outlets  map[outletKey]*outlet
	sessions sync.WaitGroup // goroutines of sessions of both sides; Run waits
}

// New checks the configuration and fills in defaults; it starts nothing.
func New(c Config) (*Forwarder, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	f := &Forwarder{
		Config:    c,
		jitter:    &jitter{base: c.BackoffBase, cap: c.BackoffCap, random: rand.New(c.Random)},
		offers:    make(chan struct{}, c.MaxOffers),
		transfers: make(chan struct{}, c.MaxTransfers),
		inline:    semaphore.NewWeighted(c.MaxInline),
		damage:    newDamageCount(),
		stopping:  make(chan struct{}),
		outlets:   make(map[outletKey]*outlet),
	}
	f.links = newLinks(&f.Config)
	var err error
	if f.telemetry, err = newTelemetry(f); err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	return f, nil
}

// Run measures links and hands on until ctx ends. It returns after everything
// it started, and every session of a peer, has ended.
func (f *Forwarder) Run(ctx context.Context) error {
	unregister, err := f.telemetry.observe()
	if err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	defer unregister()

	var parts sync.WaitGroup
	parts.Go(func() { f.probeAll(ctx) })
	parts.Go(func() { f.feedAll(ctx) })
	parts.Go(func() { f.moveInboxes(ctx) })
	<-ctx.Done()

	f.mu.Lock()
	f.stopped = true
	f.mu.Unlock()
	close(f.stopping)
	parts.Wait()
	f.sessions.Wait()
	return nil
}

// session counts goroutines of a session, for which Run waits until each calls
// f.sessions.Done; false when Run has ended.
func (f *Forwarder) session(goroutines int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return false
	}
	f.sessions.Add(goroutines)
	return true
}

// Links returns what is known of the links of the mesh: measured here, and
// told by others not long ago.
func (f *Forwarder) Links() []routing.Link { return f.links.snapshot() }

// Usable reports whether the relay is reached directly just now and takes
// envelopes, and how long the way there and back is.
func (f *Forwarder) Usable(relay routing.RelayID) (roundTrip time.Duration, ok bool) {
	return f.links.trip(relay)
}

// Reachable reports whether the relay can be reached just now, directly or by
// way of others.
func (f *Forwarder) Reachable(relay routing.RelayID) bool {
	if relay == f.Self || f.links.up(relay) {
		return true
	}
	_, ok := routing.NextHop(f.Self, relay, f.links.snapshot(), nil)
	return ok
}

// server is the part of relayv1.PeerServiceServer that this package serves.
type server interface {
	Pass(relayv1.PeerService_PassServer) error
	Read(*relayv1.ReadRequest, relayv1.PeerService_ReadServer) error
	Probe(context.Context, *relayv1.ProbeRequest) (*relayv1.ProbeResponse, error)
}

var _ server = (*Forwarder)(nil)

// sooner returns the earlier of two instants; the zero time is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
