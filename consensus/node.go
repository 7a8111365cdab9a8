package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// maxAppendEntries bounds one exchange of log entries, and one group commit,
// to as many commands of up to MaxCommand.
const maxAppendEntries = 16

// connectionPool is how many idle connections are kept to each member: one
// for heartbeats, one for entries, one to spare.
const connectionPool = 3

// Node is one member, or one relay that waits to become one.
type Node struct {
	// Set by New, not changed after.
	cfg     Config
	log     *slog.Logger
	machine *machine
	meters  *meters

	// Wake-ups.
	leaderChanged bell          // whenever this node's view of the leader changes
	ready         chan struct{} // closed when the local state is loaded
	stopping      chan struct{} // closed when Run begins to stop
	fatal         chan error    // first reason to stop; capacity 1

	// Owned by Run; read by everyone.
	started atomic.Bool
	live    atomic.Pointer[live]

	// Requests to Raft that Run waits for before it stops. Raft forgets to
	// answer what it holds when it is shut down.
	gate     sync.Mutex // guards open, and inflight.Add against inflight.Wait
	open     bool
	inflight sync.WaitGroup

	// Leader's own.
	membership chan struct{} // capacity 1: one membership change or restore at a time
	reads      readTurns
	followers  map[string]*watched // owned by Run
}

// live is what exists while Run runs.
type live struct {
	raft      *raft.Raft
	fsm       *fsm
	snapshots raft.SnapshotStore
	progress  *progress
}

// New checks the configuration. It opens and starts nothing.
func New(cfg Config) (*Node, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg:        cfg,
		log:        cfg.Logger.With("relay", cfg.ID),
		machine:    newMachine(cfg.StateMachine),
		ready:      make(chan struct{}),
		stopping:   make(chan struct{}),
		fatal:      make(chan error, 1),
		membership: make(chan struct{}, 1),
		followers:  make(map[string]*watched),
	}
	var err error
	if n.meters, err = newMeters(cfg.Meter, n.observe); err != nil {
		return nil, err
	}
	return n, nil
}

// Ready is closed when Run has loaded the local state: what this member knows
// to be committed, which may be less than what the others know.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// running returns what Run owns, or nil before and after.
func (n *Node) running() *live { return n.live.Load() }

// stop ends Run with an error; the first one counts.
func (n *Node) stop(err error) {
	select {
	case n.fatal <- err:
	default:
	}
}

// enter admits a request to Raft; leave must be called when Raft has answered.
func (n *Node) enter() (l *live, leave func(), _ error) {
	n.gate.Lock()
	defer n.gate.Unlock()
	if !n.open {
		return nil, nil, errNotRunning
	}
	n.inflight.Add(1)
	return n.live.Load(), n.inflight.Done, nil
}

// Run takes part until ctx ends (then it returns nil) or the node must stop.
// It may be called once. It closes Config.Stream.
//
// Start:
//
//  1. Open the log; its file lock keeps out a second process. Where it is
//     damaged, or gone though this relay has been a member, nothing starts.
//  2. Load what is known to be committed into the state machine.
//  3. Listen to the other members.
//  4. Bootstrap, where this is an initial voter without any state.
//  5. Start Raft; from now on committed entries are applied.
//  6. Admit requests.
//
// Stop, in this order whatever the reason:
//
//  1. Admit no more requests, and wait for those that Raft has: each is
//     committed, or fails when the leader's lease is over.
//  2. Hand leadership over, where this is the leader and others can vote.
//  3. Stop Raft, closing connections so that none of its goroutines waits for
//     a silent member.
//  4. Close the listener; wait for the handlers of accepted connections.
//  5. Close the log.
func (n *Node) Run(ctx context.Context) (err error) {
	if !n.started.CompareAndSwap(false, true) {
		return errors.New("consensus: Run was called before")
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("consensus: %w", err)
		}
	}()
	stopping := sync.OnceFunc(func() { close(n.stopping) })
	defer stopping()

	member, logs, err := n.openLog()
	if err != nil {
		n.cfg.Stream.Close()
		return err
	}
	defer func() { err = errors.Join(err, logs.Close()) }()
	mark, err := openMark(n.cfg.Dir, n.stop)
	if err != nil {
		n.cfg.Stream.Close()
		return err
	}
	defer mark.close()

	leadership := make(chan bool, 16) // buffered: Raft's main loop blocks on it
	l, stopRaft, err := n.startRaft(logs, mark, member, leadership)
	if err != nil {
		return err
	}
	n.live.Store(l)
	n.setOpen(true)
	close(n.ready)

	err = n.watch(ctx, l, leadership)

	n.setOpen(false)
	stopping()
	if answered := n.drain(); answered && err == nil {
		n.handOver(l)
	}
	stopRaft()
	n.live.Store(nil)
	n.leaderChanged.ring()
	return err
}

func (n *Node) setOpen(open bool) {
	n.gate.Lock()
	defer n.gate.Unlock()
	n.open = open
}

// drain waits for the requests that Raft has, and reports whether all were
// answered. A disk that hangs could keep one for ever; then Run goes on without.
func (n *Node) drain() (answered bool) {
	done := make(chan struct{})
	go func() {
		n.inflight.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(n.cfg.StreamTimeout):
		n.log.Error("requests are still unanswered; stopping without them")
		return false
	}
}

// handOver spares the others the wait for the election timeout.
func (n *Node) handOver(l *live) {
	if l.raft.State() != raft.Leader || !otherVoter(l.raft.GetConfiguration().Configuration(), n.cfg.ID) {
		return
	}
	if err := l.raft.LeadershipTransfer().Error(); err != nil {
		n.log.Warn("leadership was not handed over; the others will elect", "error", err)
	}
}

// openLog opens the log that this relay has, or begins one where it never had
// any.
func (n *Node) openLog() (*memberMark, *store, error) {
	member, err := openMember(n.cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	if err := checkMember(n.cfg.Dir, member); err != nil {
		return nil, nil, err
	}
	logs, err := openStore(n.cfg.Dir, n.stop)
	return member, logs, err
}

func (n *Node) startRaft(logs *store, mark *appliedMark, member *memberMark, leadership chan bool) (_ *live, stop func(), err error) {
	logger := &bridge{logger: n.log, name: "raft"}
	streams := newStream(n.cfg.Stream, n.cfg.Address)
	defer func() {
		if err != nil {
			streams.Close()
		}
	}()
	snapshots, err := openSnapshots(n.cfg.Dir, logger)
	if err != nil {
		return nil, nil, n.damaged(err)
	}
	// The names of all that was opened, before anything in it is relied on.
	if err := syncDir(n.cfg.Dir); err != nil {
		return nil, nil, err
	}
	has, err := raft.HasExistingState(logs, logs, snapshots)
	if err != nil {
		return nil, nil, fmt.Errorf("look for a state in %s: %w", n.cfg.Dir, err)
	}
	if !has && member.set {
		return nil, nil, votesLost(n.cfg.Dir, "is empty", member.path)
	}
	configuration, err := load(n.machine, logs, snapshots, mark.read())
	if err != nil {
		return nil, nil, n.damaged(err)
	}
	machine := &fsm{machine: n.machine, mark: mark, stop: n.stop, meters: n.meters,
		joined: func() error { return member.keep(n.cfg.Dir) }}
	machine.configuration.Store(configuration)

	l := &live{fsm: machine, snapshots: snapshots, progress: newProgress()}
	network := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  streams,
		Logger:  logger,
		MaxPool: connectionPool,
		// More than one in flight can stall a follower for good.
		MaxRPCsInFlight: 1,
		Timeout:         n.cfg.StreamTimeout,
	})
	trans := &transport{NetworkTransport: network, progress: l.progress}
	closeTransport := func() {
		trans.CloseStreams()
		trans.Close()
		streams.handlers.Wait()
	}
	cfg := n.raftConfig(logger, leadership)
	if has {
		err = member.keep(n.cfg.Dir)
	} else {
		err = n.bootstrap(cfg, logs, snapshots, trans, member)
	}
	if err != nil {
		closeTransport()
		return nil, nil, err
	}
	if l.raft, err = raft.NewRaft(cfg, machine, logs, logs, snapshots, trans); err != nil {
		closeTransport()
		return nil, nil, fmt.Errorf("start Raft: %w", err)
	}
	// The filter runs wherever Raft sees a change, so no change is missed; an
	// observer's channel may drop some.
	l.raft.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			n.leaderChanged.ring()
		}
		return false
	}))
	return l, func() {
		stopped := l.raft.Shutdown()
		streams.cutAll()
		if err := stopped.Error(); err != nil {
			n.log.Error("Raft did not stop cleanly", "error", err)
		}
		closeTransport()
	}, nil
}

func (n *Node) raftConfig(logger *bridge, leadership chan<- bool) *raft.Config {
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(n.cfg.ID)
	cfg.Logger = logger
	cfg.NotifyCh = leadership
	cfg.HeartbeatTimeout = n.cfg.HeartbeatTimeout
	cfg.ElectionTimeout = n.cfg.ElectionTimeout
	cfg.LeaderLeaseTimeout = n.cfg.LeaderLeaseTimeout
	cfg.CommitTimeout = n.cfg.CommitTimeout
	cfg.MaxAppendEntries = maxAppendEntries
	cfg.SnapshotInterval = n.cfg.SnapshotInterval
	cfg.SnapshotThreshold = n.cfg.SnapshotThreshold
	cfg.TrailingLogs = n.cfg.TrailingLogs
	cfg.ShutdownOnRemove = false        // a removed relay goes on with the directory it has
	cfg.NoSnapshotRestoreOnStart = true // load has done it
	cfg.NoLegacyTelemetry = true
	return cfg
}

// damaged adds to an error about damage what to do about it.
func (n *Node) damaged(err error) error {
	if errors.Is(err, errLogDamaged) || errors.Is(err, errDamaged) {
		return fmt.Errorf("load %s: %w: %s", n.cfg.Dir, err, wayBack(n.cfg.Dir))
	}
	return fmt.Errorf("load %s: %w", n.cfg.Dir, err)
}

// bootstrap writes the initial configuration, the same bytes on every initial
// voter, into a log that has never held anything.
func (n *Node) bootstrap(cfg *raft.Config, logs *store, snapshots raft.SnapshotStore, trans raft.Transport, member *memberMark) error {
	configuration, mine := initialConfiguration(n.cfg.Voters, n.cfg.ID)
	if !mine {
		return nil
	}
	if err := raft.BootstrapCluster(cfg, logs, logs, snapshots, trans, configuration); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	n.log.Info("bootstrapped with the initial voters", "voters", len(n.cfg.Voters))
	return member.keep(n.cfg.Dir)
}

// syncDir makes the names in a folder durable; bbolt syncs only its file.
func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
