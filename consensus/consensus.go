// Package consensus replicates a state machine with Raft. It knows no agency
// and no document: a command is bytes, its result is bytes.
//
// What it promises:
//
//   - A write that Propose answered is on the disks of a majority of the
//     voters, and every member applies the same writes in the same order.
//   - A write carries a request id. However often it is handed in, on whatever
//     relay, through whatever change of leader, it is applied once and always
//     answered with the first result, for a day and the last 16,384 writes.
//   - After ReadBarrier the local state includes every write that was finished
//     before the call. Reads without it are local, immediate and maybe old.
//   - A member that cannot apply an entry (unknown version, state machine
//     error) or whose log cannot be written stops: Run returns the error. It
//     never guesses and never goes on beside the others.
//   - A member whose files are not what was written does not start, whatever
//     byte of log, votes or snapshots it is, and says how to come back. Neither
//     does one that was a member and has lost its log: it would vote again
//     without knowing what it voted for.
//   - Without a leader nothing that is local stops: the state stays readable,
//     and a relay that starts alone has the state it had applied, not only
//     that of its last snapshot.
//
// What it does not promise:
//
//   - Writes, barriers and membership changes wait while there is no majority,
//     and end with ErrNoLeader. The outcome of a write that ended so is
//     unknown; ask again with the same request id.
//   - A voter that has lost its whole disk, with the mark that it was a member
//     (member.go), must be removed and added again by its operator. Started as
//     one that is new it has forgotten what it voted for, and Raft tolerates no
//     such member.
//   - Damage that comes while the node runs is found when it starts again, or
//     when the entry is read, which ends the process.
//   - Requests are not authorised here; interceptors do that.
//
// Invariants: the log on disk never lags behind what was applied; an index is
// applied at most once per process (machine.go); what is remembered of request
// ids is a function of the log alone, never of a local clock; every goroutine
// ends before Run returns (node.go has the order).
package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
)

// MaxCommand is the largest command in bytes. Larger writes come in several.
const MaxCommand = 1 << 20

// StateMachine is what gets replicated. Apply, Snapshot and Restore never run
// at the same time as one another; what Snapshot returned is written while
// Apply goes on.
type StateMachine interface {
	// Apply must give the same result on every member: no clock, no chance, no
	// I/O. An error means that the command cannot be understood, and stops the
	// node; a refusal is a result.
	Apply(command []byte) (result []byte, err error)
	// Snapshot returns quickly a view that later changes do not touch.
	Snapshot() (io.WriterTo, error)
	// Restore reads to the end of r and then replaces the whole state; on an
	// error the state is as before.
	Restore(r io.Reader) error
}

// StreamLayer carries Raft between members, each end already verified. Close
// ends Accept; Run closes it.
type StreamLayer interface {
	net.Listener
	// Dial connects to the Raft port of a member.
	Dial(address string, timeout time.Duration) (net.Conn, error)
}

// Peer is one member in an initial or a recovered configuration.
type Peer struct {
	// ID is the relay id.
	ID string
	// Address is host:port as the other members reach it.
	Address string
	// Nonvoter has a full copy and no vote.
	Nonvoter bool
}

// Config is everything a Node needs. Zero durations and numbers take the
// default that stands beside them.
type Config struct {
	// ID is this relay's id.
	ID string
	// Address is host:port at which the other members reach this one. It may
	// differ from the address that Stream listens on.
	Address string
	// Dir holds log, votes and snapshots. Nobody else writes there. Beside it
	// stands Dir + ".member" once the relay has been a member.
	Dir string
	// Voters is the initial configuration, the same on each of them. A relay
	// that is among them and has no state starts with it; one that is not
	// waits until it is added.
	Voters []Peer

	// StateMachine is the state to replicate, empty before Run.
	StateMachine StateMachine
	// Check refuses a command that StateMachine would not understand. It is asked
	// of every write before it enters the log, also of those that other members
	// forward: in the log, such a command stops every member. Nil: none is
	// refused.
	Check func(command []byte) error
	// Verify reads the state in a backup to its end without taking it over, so
	// that one this release cannot read is refused instead of stopping the
	// leader. Nil: check sums only.
	Verify func(state io.Reader) error

	// Stream carries Raft.
	Stream StreamLayer
	// DialPeer returns a connection to another member's gRPC services. It is
	// called for each forwarded request and keeps its connections.
	DialPeer func(ctx context.Context, id, address string) (grpc.ClientConnInterface, error)

	// HeartbeatTimeout without the leader makes a follower ask for votes; it
	// waits between one and two of them. 600 ms.
	HeartbeatTimeout time.Duration
	// ElectionTimeout without a result starts the election again; at least
	// HeartbeatTimeout, which is also its default.
	ElectionTimeout time.Duration
	// LeaderLeaseTimeout without a majority makes a leader step down; at most
	// HeartbeatTimeout. Two thirds of it.
	LeaderLeaseTimeout time.Duration
	// CommitTimeout is how late a quiet follower may learn what is committed.
	// 50 ms.
	CommitTimeout time.Duration
	// StreamTimeout bounds one exchange between members. 10 s.
	StreamTimeout time.Duration
	// ProposeTimeout bounds writes, barriers and membership changes whose
	// context has no earlier deadline. 10 s.
	ProposeTimeout time.Duration

	// SnapshotInterval is how often the need for a snapshot is looked at. 60 s.
	SnapshotInterval time.Duration
	// SnapshotThreshold is the number of entries after which one is made. 8,192.
	SnapshotThreshold uint64
	// TrailingLogs stay behind it, so that a member that was away a short while
	// needs no snapshot. 10,240.
	TrailingLogs uint64

	// LagAlarm is how long a follower may be silent, or behind without getting
	// on, before the leader warns. 5 s.
	LagAlarm time.Duration

	// Clock stamps log entries on the leader. Nil: time.Now.
	Clock func() time.Time
	// Logger may be nil.
	Logger *slog.Logger
	// Meter may be nil.
	Meter metric.Meter
}

// Timings that hold where Config names none.
const (
	defaultHeartbeat         = 600 * time.Millisecond
	defaultCommit            = 50 * time.Millisecond
	defaultStreamTimeout     = 10 * time.Second
	defaultProposeTimeout    = 10 * time.Second
	defaultSnapshotInterval  = time.Minute
	defaultSnapshotThreshold = 8192
	defaultTrailingLogs      = 10240
	defaultLagAlarm          = 5 * time.Second
)

func (c Config) withDefaults() Config {
	fill := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	fill(&c.HeartbeatTimeout, defaultHeartbeat)
	fill(&c.ElectionTimeout, c.HeartbeatTimeout)
	fill(&c.LeaderLeaseTimeout, c.HeartbeatTimeout*2/3)
	fill(&c.CommitTimeout, defaultCommit)
	fill(&c.StreamTimeout, defaultStreamTimeout)
	fill(&c.ProposeTimeout, defaultProposeTimeout)
	fill(&c.SnapshotInterval, defaultSnapshotInterval)
	fill(&c.LagAlarm, defaultLagAlarm)
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = defaultSnapshotThreshold
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = defaultTrailingLogs
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Meter == nil {
		c.Meter = metricnoop.Meter{}
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.ID == "" {
		fault("ID is missing")
	}
	if err := checkAddress(c.Address); err != nil {
		fault("Address: %w", err)
	}
	if c.Dir == "" {
		fault("Dir is missing")
	}
	if c.StateMachine == nil {
		fault("StateMachine is missing")
	}
	if c.Stream == nil {
		fault("Stream is missing")
	}
	if c.DialPeer == nil {
		fault("DialPeer is missing")
	}
	if len(c.Voters) > 0 {
		if err := checkPeers(c.Voters); err != nil {
			fault("Voters: %w", err)
		}
	}
	for _, p := range c.Voters {
		if p.Nonvoter {
			fault("Voters: %s is a non-voter; it is added once the others run", p.ID)
		}
		if p.ID == c.ID && p.Address != c.Address {
			fault("Voters: %s has address %s there and %s here", p.ID, p.Address, c.Address)
		}
	}
	if c.LeaderLeaseTimeout > c.HeartbeatTimeout {
		fault("LeaderLeaseTimeout %s is longer than HeartbeatTimeout %s: two leaders could believe in themselves",
			c.LeaderLeaseTimeout, c.HeartbeatTimeout)
	}
	if c.ElectionTimeout < c.HeartbeatTimeout {
		fault("ElectionTimeout %s is shorter than HeartbeatTimeout %s", c.ElectionTimeout, c.HeartbeatTimeout)
	}
	if len(faults) > 0 {
		return fmt.Errorf("consensus: %w", errors.Join(faults...))
	}
	return nil
}

// checkPeers finds what makes a list of members unusable as a configuration.
func checkPeers(peers []Peer) error {
	ids, addresses, voters := map[string]bool{}, map[string]bool{}, 0
	for _, p := range peers {
		if p.ID == "" {
			return errors.New("a member has no id")
		}
		if err := checkAddress(p.Address); err != nil {
			return fmt.Errorf("member %s: %w", p.ID, err)
		}
		if ids[p.ID] {
			return fmt.Errorf("member %s is there twice", p.ID)
		}
		if addresses[p.Address] {
			return fmt.Errorf("address %s is there twice", p.Address)
		}
		ids[p.ID], addresses[p.Address] = true, true
		if !p.Nonvoter {
			voters++
		}
	}
	if voters == 0 {
		return errors.New("no member has a vote")
	}
	return nil
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port", address)
	}
	if ip := net.ParseIP(host); host == "" || port == "" || port == "0" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("%q is not an address that others can reach", address)
	}
	return nil
}
