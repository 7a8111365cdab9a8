package forward

import (
	"context"
	"sync"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/routing"
)

// probeAll keeps one prober for each relay of the directory until ctx ends.
func (f *Forwarder) probeAll(ctx context.Context) {
	var probers sync.WaitGroup
	defer probers.Wait()
	running := make(map[routing.RelayID]context.CancelFunc)
	for {
		changed := f.Directory.Changed()
		wanted := make(map[routing.RelayID]bool)
		for _, r := range f.Directory.View().Relays() {
			if relay := routing.RelayID(r.GetId()); relay != f.Self && serves(r) {
				wanted[relay] = true
			}
		}
		for relay, stop := range running {
			if !wanted[relay] {
				stop()
				delete(running, relay)
			}
		}
		for relay := range wanted {
			if running[relay] == nil {
				proberCtx, stop := context.WithCancel(ctx)
				running[relay] = stop
				probers.Go(func() {
					defer stop()
					f.probe(proberCtx, relay)
				})
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// serves reports whether a relay still takes part: envelopes are handed to it,
// or by it.
func serves(r *directoryv1.Relay) bool {
	switch r.GetState() {
	case directoryv1.RelayState_RELAY_STATE_RETIRED, directoryv1.RelayState_RELAY_STATE_LOST:
		return false
	}
	return true
}

// probe measures the link to one relay until ctx ends.
func (f *Forwarder) probe(ctx context.Context, relay routing.RelayID) {
	defer f.cutOutlets(relay, errLinkDown) // after forget, so that no offer finds the way again
	defer f.links.forget(relay)
	for {
		settled, interval := true, f.ProbeInterval
		answer, roundTrip, err := f.probeOnce(ctx, relay)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if f.links.missed(relay) {
				f.Logger.WarnContext(ctx, "link is down", "peer", relay, "error", err)
				f.cutOutlets(relay, errLinkDown)
			}
		default:
			f.OnProbe(relay, answer.GetTakenOut(), answer.GetDirectoryIndex())
			was := f.links.up(relay)
			f.links.hear(relay, answer.GetLinks())
			settled = f.links.answered(relay, roundTrip, answer.GetAccepting())
			if !answer.GetAccepting() {
				// It starts, or makes room: much may wait for the moment that it is done.
				interval /= 4
			}
			if !was && f.links.up(relay) {
				f.Logger.InfoContext(ctx, "link is up", "peer", relay, "round_trip", roundTrip)
			}
		}
		if !settled {
			continue // the first answers measure the link, without a pause
		}
		pause := time.NewTimer(f.jitter.around(interval))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

func (f *Forwarder) probeOnce(ctx context.Context, relay routing.RelayID) (*relayv1.ProbeResponse, time.Duration, error) {
	conn, err := f.Peers.Conn(relay, true)
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.ProbeTimeout)
	defer cancel()
	start := time.Now() // monotonic, for a difference only
	answer, err := relayv1.NewPeerServiceClient(conn).Probe(ctx, &relayv1.ProbeRequest{Links: f.links.tell()})
	return answer, time.Since(start), err
}

// Probe answers a relay that measures its link to this one.
func (f *Forwarder) Probe(ctx context.Context, req *relayv1.ProbeRequest) (*relayv1.ProbeResponse, error) {
	caller, err := f.caller(ctx)
	if err != nil {
		return nil, err
	}
	f.links.hear(caller, req.GetLinks())
	view := f.Directory.View()
	entry, known := view.Relay(caller)
	return &relayv1.ProbeResponse{
		Links:          f.links.tell(),
		Accepting:      f.accepting(nil) == nil,
		DirectoryIndex: view.Version(),
		TakenOut:       known && !serves(entry),
	}, nil
}
