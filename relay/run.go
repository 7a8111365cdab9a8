package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/relay/ingress"
	"github.com/truclienthong/truc/relay/keeper"
	"github.com/truclienthong/truc/relay/ledger"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// parts is the relay once its spool is open.
type parts struct {
	spool   *spool.Spool
	peers   *peers
	ledger  *ledger.Ledger
	forward *forward.Forwarder
	ingress *ingress.Service
	keeper  *keeper.Keeper
	health  *health.Server
}

// Run serves until ctx ends (nil) or the relay cannot go on: then it returns
// why. It is called once.
//
// Start, in this order:
//  1. HTTP, which says "starting" while the spool is replayed.
//  2. The spool: opened, replayed, its writer running.
//  3. The parts over it; forward begins to hand on, keeper to look after.
//  4. gRPC, on connections that were waiting at the listener.
//  5. The directory: own entry, then everything that follows its changes.
//
// Stop, in this order, each step bounded:
//  1. Not ready, not serving: connectors and peers go elsewhere; new envelopes
//     are refused. Calls without an end are ended.
//  2. Following the directory, looking after, and handing on.
//  3. gRPC: calls under way may finish for StopTimeout, then they are cut; once
//     none is left, callers have a moment to read. After a failure of the spool
//     nothing is waited for.
//  4. Connections to peers.
//  5. The spool, then HTTP.
func (r *Relay) Run(ctx context.Context) error {
	// Each stage has a context of its own, which the stages after it outlive.
	background := context.WithoutCancel(ctx)
	httpCtx, stopHTTP := context.WithCancel(background)
	spoolCtx, stopSpool := context.WithCancel(background)
	partsCtx, stopParts := context.WithCancel(background)
	defer stopHTTP()
	defer stopSpool()
	defer stopParts()

	var http, store, working errgroup.Group
	ended := make(chan error, 16) // the first to end by itself says why
	start := func(group *errgroup.Group, name string, run func() error) {
		group.Go(func() error {
			err := run()
			switch {
			case errors.Is(err, context.Canceled):
				err = nil // asked to end
			case err != nil:
				err = fmt.Errorf("%s: %w", name, err)
			}
			ended <- err
			return err
		})
	}

	start(&http, "http", func() error { return r.serveHTTP(httpCtx) })
	defer r.config.Listener.Close()
	parts, err := r.open()
	if err != nil {
		r.state.enter(failed, err)
		stopHTTP()
		return errors.Join(err, http.Wait())
	}
	server := r.server(parts)
	start(&store, "spool", func() error { return parts.spool.Run(spoolCtx) })
	start(&working, "forward", func() error { return parts.forward.Run(partsCtx) })
	start(&working, "keeper", func() error { return parts.keeper.Run(partsCtx) })
	start(&working, "grpc", func() error {
		err := server.Serve(r.config.Listener)
		if ctx.Err() != nil {
			// Who owns the listener may close it at the same time.
			return nil
		}
		return err
	})
	r.state.enter(serving, nil)
	start(&working, "directory", func() error { r.follow(partsCtx, parts); return nil })
	start(&working, "space", func() error { r.watchSpace(partsCtx, parts.spool); return nil })
	start(&working, "late", func() error { return r.watchLate(partsCtx, parts.spool) })
	start(&working, "register", func() error { r.register(partsCtx); return nil })
	r.config.Logger.Info("relay serves", "address", r.config.Address, "region", r.config.Region)

	var failure error
	select {
	case <-ctx.Done():
	case failure = <-ended:
		if failure == nil && ctx.Err() == nil {
			failure = errors.New("a part ended by itself")
		}
	}
	if failure == nil {
		r.config.Logger.Info("relay stops")
		r.state.enter(stopping, nil)
	} else {
		r.config.Logger.Error("relay fails", "error", failure)
		r.state.enter(failed, failure)
	}
	parts.health.Shutdown()
	stopParts()
	r.stopServer(server, failure != nil)
	errWorking := working.Wait()
	errPeers := parts.peers.close()
	stopSpool()
	errStore := store.Wait()
	errClose := parts.spool.Close()
	stopHTTP()
	errHTTP := http.Wait()
	if failure != nil {
		// What else ended badly did so because of it.
		return failure
	}
	return errors.Join(errWorking, errPeers, errStore, errClose, errHTTP)
}

// open replays the spool and joins the parts over it.
func (r *Relay) open() (_ *parts, err error) {
	c := &r.config
	meter, tracer := c.Meters.Meter("truc/relay"), c.Tracers.Tracer("truc/relay")
	options := c.Spool
	options.Self, options.Clock, options.Logger, options.Meter = c.ID, c.Clock, c.Logger, meter
	p := &parts{peers: newPeers(c), health: newHealth()}
	options.Mend = (&mending{relay: r, peers: p.peers}).fetch
	if p.spool, err = spool.Open(options); err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.spool.Close())
		}
	}()
	_ = r.look(p.spool) // before the first envelope; watchSpace looks again, and tells of errors
	store := store{Spool: p.spool, levels: &r.levels}

	if p.ledger, err = ledger.New(ledger.Config{
		Self: c.ID, Spool: store, Directory: c.Directory, Peers: p.peers, Report: store.report, Clock: c.Clock,
		Calendar: c.Calendar, Remembers: p.spool.Remembers(), Logger: c.Logger, Meter: meter, Tracer: tracer,
	}); err != nil {
		return nil, err
	}
	f := c.Forward
	f.Self, f.Directory, f.Peers, f.Reports = c.ID, c.Directory, p.peers, p.ledger
	f.Queues, f.Inboxes, f.Holdings, f.Facts, f.Begin = store, store, store, store, store.beginForward
	f.Room = func(agency routing.AgencyCode) error { return p.ingress.InboxRoom([]routing.AgencyCode{agency}) }
	f.Accepting, f.Clock, f.Logger, f.Meter, f.Tracer = r.accepting, c.Clock, c.Logger, meter, tracer
	f.OnRepeat = func() { p.keeper.Review() }
	f.OnProbe = r.heard
	if p.forward, err = forward.New(f); err != nil {
		return nil, err
	}
	k := c.Keeper
	k.Self, k.Spool, k.Directory, k.Peers, k.Usable = c.ID, store, c.Directory, p.peers, p.forward.Usable
	k.Clock, k.Logger, k.Meter = c.Clock, c.Logger, meter
	if p.keeper, err = keeper.New(k); err != nil {
		return nil, err
	}
	limits := c.Ingress
	limits.Header, limits.Lifetime, limits.StreamsPerAgency = c.Limits, c.Lifetime, c.StreamsPerAgency
	if p.ingress, err = ingress.New(ingress.Config{
		Self: c.ID, Region: c.Region, Address: c.Address, TrustDomain: c.Endpoint.Identity().TrustDomain,
		Spool: store, Inboxes: store, Copies: store, Usage: store, Directory: c.Directory, Ledger: p.ledger,
		Peers: struct {
			*peers
			reach
		}{p.peers, p.forward},
		Accepting: r.accepting, Usable: p.forward.Usable, CopyWait: c.CopyWait, Queued: r.levels.queued,
		Ending: r.state.ending.Done(), Limits: limits, Calendar: c.Calendar,
		Clock: c.Clock, Logger: c.Logger, Meter: meter, Tracer: tracer,
	}); err != nil {
		return nil, err
	}
	return p, nil
}

// ending returns a context that ends, with a refusal as its cause, when the
// relay stops serving.
func (r *Relay) ending(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(r.state.ending, func() {
		cancel(envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING,
			"relay %s stops; use another relay", r.config.ID))
	})
	return ctx, func() { stop(); cancel(context.Canceled) }
}

// farewell is how long the last answers may take to reach their callers once
// every call but those without an end has finished.
const farewell = time.Second

// stopServer lets calls finish for a while, unless the store has failed: then
// no answer may be given any more. A caller that does not read what was sent to
// it, as a recipient with a full disk, is not waited for.
func (r *Relay) stopServer(server *grpc.Server, now bool) {
	if now {
		server.Stop()
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.GracefulStop()
	}()
	limit := time.NewTimer(r.config.StopTimeout)
	defer limit.Stop()
	finished := r.finite.finished()
	var last <-chan time.Time
	for waiting := true; waiting; {
		select {
		case <-ended:
			return
		case <-limit.C:
			waiting = false
		case <-last:
			waiting = false
		case <-finished:
			finished, last = nil, time.After(farewell)
		}
	}
	server.Stop()
	<-ended
}
