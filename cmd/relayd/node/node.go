// Package node joins the parts of a relay into one process: identity and
// channels (tls), the directory and its replication (routing, consensus), the
// relay itself, and telemetry. It is what `relayd run` runs, and what tests of
// the whole mesh run several of.
//
// It promises that one failing part ends them all: a relay never serves with
// half of itself. It holds no logic about documents.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/truclienthong/truc/consensus"
	"github.com/truclienthong/truc/consensus/admin"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// Options are what a process gives besides the configuration.
type Options struct {
	// Logger may be nil.
	Logger *slog.Logger
	// Version of the program.
	Version string
	// Adjust changes the relay's configuration before it is made; for tests.
	Adjust func(*relay.Config)
	// Timing of Raft; zero: its defaults.
	Heartbeat time.Duration
}

// Node is one relay as a process.
type Node struct {
	config    Config
	options   Options
	logger    *slog.Logger
	telemetry *telemetry
	endpoint  *tls.Endpoint
	state     *routing.Directory
}

// New checks the configuration and loads the certificates; it opens no port and
// no store.
func New(ctx context.Context, config Config, options Options) (*Node, error) {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	n := &Node{config: config, options: options, logger: options.Logger.With("relay", config.ID), state: routing.NewDirectory()}
	var err error
	if n.telemetry, err = newTelemetry(ctx, config, options.Version); err != nil {
		return nil, err
	}
	if n.endpoint, err = tls.New(tls.Config{
		CertificateFile: config.Certificate, KeyFile: config.Key, TrustFile: config.Trust,
		Trust: relay.NewTrust(n.state.View), Logger: n.logger, Meter: n.telemetry.meters.Meter("tls"),
	}); err != nil {
		return nil, err
	}
	return n, nil
}

// Run serves until ctx ends or a part fails; only then it returns.
//
// Start: ports, channels, Raft, and once Raft has loaded the directory that this
// relay knew, the relay; it does not wait for a leader. Stop, in the reverse order: the relay
// stops taking calls, waits for those under way and closes the spool; then
// Raft; then channels and ports; telemetry last, so that it tells of the stop.
func (n *Node) Run(ctx context.Context) (err error) {
	defer func() {
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if failed := n.telemetry.shutdown(flush); failed != nil {
			n.logger.Warn("telemetry was not flushed", "error", failed)
		}
	}()
	if err := makeData(n.config.Data); err != nil {
		return fmt.Errorf("relay %s: %w", n.config.ID, err)
	}
	listener, err := net.Listen("tcp", n.config.Listen)
	if err != nil {
		return fmt.Errorf("relay %s: %w", n.config.ID, err)
	}
	defer listener.Close()
	var httpListener net.Listener
	if n.config.HTTP != "" {
		if httpListener, err = net.Listen("tcp", n.config.HTTP); err != nil {
			return fmt.Errorf("relay %s: http: %w", n.config.ID, err)
		}
		defer httpListener.Close()
	}
	mux := n.endpoint.Mux(listener)
	peers := newPeers(n.endpoint, n.config.reached)
	defer peers.close()
	raft, err := n.newRaft(mux, peers)
	if err != nil {
		return err
	}
	joined := &directory{Directory: n.state, raft: raft}
	node, err := n.newRelay(mux, httpListener, joined)
	if err != nil {
		return err
	}

	// Each part runs in a context of its own, so that they stop in order; the
	// first that returns begins the stop.
	first := make(chan struct{})
	var group errgroup.Group
	part := func(name string, after <-chan struct{}, run func(context.Context) error) <-chan struct{} {
		partCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		ended := make(chan struct{})
		group.Go(func() error {
			defer close(ended)
			defer cancel()
			err := run(partCtx)
			select {
			case first <- struct{}{}:
			case <-partCtx.Done():
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
		group.Go(func() error {
			select {
			case <-after:
				cancel()
			case <-ended:
			}
			return nil
		})
		return ended
	}
	stop := make(chan struct{})
	relayEnded := part("relay", stop, func(ctx context.Context) error {
		// What this relay knew of the directory when it stopped comes first:
		// with less it would refuse documents that it can deliver.
		select {
		case <-raft.Ready():
			return node.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	raftEnded := part("raft", relayEnded, raft.Run)
	part("port", raftEnded, mux.Run)
	part("certificates", raftEnded, n.endpoint.Run)
	n.logger.Info("relay runs", "address", n.config.Advertise, "http", n.config.HTTP, "version", n.options.Version)
	select {
	case <-ctx.Done():
	case <-first:
	}
	close(stop)
	return group.Wait()
}

func (n *Node) newRaft(mux *tls.Mux, peers *peers) (*consensus.Node, error) {
	config := n.config.raft(n.state)
	config.Stream = stream{Listener: mux.Raft(), endpoint: n.endpoint, reached: n.config.reached}
	config.DialPeer = peers.dial
	config.HeartbeatTimeout = n.options.Heartbeat
	config.Logger = n.options.Logger // it names the relay itself
	config.Meter = n.telemetry.meters.Meter("consensus")
	return consensus.New(config)
}

// raft is the part of the configuration that running and recovering share.
func (c Config) raft(state *routing.Directory) consensus.Config {
	config := consensus.Config{
		ID: c.ID, Address: c.Advertise, Dir: filepath.Join(c.Data, "raft"),
		StateMachine: state, Check: routing.CheckCommand, Verify: verifySnapshot,
	}
	for _, v := range c.Voters {
		config.Voters = append(config.Voters, consensus.Peer{ID: v.ID, Address: v.Address})
	}
	return config
}

func (n *Node) newRelay(mux *tls.Mux, httpListener net.Listener, directory *directory) (*relay.Relay, error) {
	raft := admin.New(directory.raft, func() (uint64, uint64) {
		view := n.state.View()
		return view.Version(), view.AgencyCount()
	})
	calendar, err := lifecycle.NewCalendar(n.config.Holidays)
	if err != nil {
		return nil, err
	}
	config := relay.Config{
		ID: routing.RelayID(n.config.ID), Region: n.config.Region, Address: n.config.Advertise, Dial: n.config.Dial, Version: n.options.Version,
		Directory: directory, Endpoint: n.endpoint, Listener: mux.GRPC(), HTTPListener: httpListener,
		Metrics: n.telemetry.handler,
		Services: []func(grpc.ServiceRegistrar){
			directory.raft.Register,
			func(r grpc.ServiceRegistrar) { adminv1.RegisterRaftServiceServer(r, raft) },
		},
		Spool:    n.config.spool(),
		Limits:   n.config.Limits.header(),
		Ingress:  n.config.Limits.ingress(),
		CopyWait: time.Duration(n.config.CopyWait),
		Lifetime: time.Duration(n.config.Lifetime),
		Targets:  n.config.Targets.relay(),
		Calendar: calendar,
		Logger:   n.logger,
		Meters:   n.telemetry.meters,
		Tracers:  n.telemetry.tracers,
	}
	if n.options.Adjust != nil {
		n.options.Adjust(&config)
	}
	return relay.New(config)
}

// spool is the part of the configuration that running and checking share.
func (c Config) spool() spool.Config {
	return spool.Config{Dir: filepath.Join(c.Data, "spool"), Self: routing.RelayID(c.ID),
		Retention: c.retention(), Reserve: uint64(c.Limits.DiskReserve)}
}
