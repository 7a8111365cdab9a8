package consensus

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Status is how this relay sees its Raft.
type Status struct {
	// ID is this relay's.
	ID string
	// State is "leader", "follower", "candidate" or "shutdown".
	State string
	Term  uint64
	// LeaderID and LeaderAddress are empty where no leader is known.
	LeaderID, LeaderAddress string
	// LastIndex is the end of the log on disk, CommitIndex what is known to be
	// on a majority, AppliedIndex what was handed to the state machine.
	LastIndex, CommitIndex, AppliedIndex uint64
	// SnapshotIndex is that of the newest snapshot; 0: none.
	SnapshotIndex uint64
	// LastContact is how long ago the leader was heard of; 0 on the leader, and
	// where none was heard of since the start.
	LastContact time.Duration
	// Voter: this relay has a vote in the configuration it knows.
	Voter bool
}

// Status returns how this relay sees its Raft. It never waits.
func (n *Node) Status() Status {
	s := Status{ID: n.cfg.ID, State: "shutdown"}
	l := n.running()
	if l == nil {
		return s
	}
	state := l.raft.State()
	s.State = strings.ToLower(state.String())
	s.Term = l.raft.CurrentTerm()
	s.LeaderID, s.LeaderAddress = n.leader()
	s.AppliedIndex = l.raft.AppliedIndex() // in this order, so that applied <= committed <= last
	s.CommitIndex = l.raft.CommitIndex()
	s.LastIndex = l.raft.LastIndex()
	s.SnapshotIndex, _ = strconv.ParseUint(l.raft.Stats()["last_snapshot_index"], 10, 64)
	if last := l.raft.LastContact(); state != raft.Leader && !last.IsZero() {
		s.LastContact = time.Since(last)
	}
	for _, m := range l.raft.GetConfiguration().Configuration().Servers {
		if string(m.ID) == n.cfg.ID {
			s.Voter = m.Suffrage == raft.Voter
		}
	}
	return s
}

// Member is one member of the configuration.
type Member struct {
	ID, Address string
	Voter       bool
	// Leader as far as this relay knows.
	Leader bool
	// Known: Lag and LastContact are known, which is so on the leader only, of
	// members that have answered since it leads.
	Known bool
	// Lag is the number of entries it has not confirmed.
	Lag uint64
	// LastContact is how long ago it answered; 0 for the leader itself.
	LastContact time.Duration
}

// Members returns the configuration this relay knows, by id, and the index of
// the last one that was committed. It never waits.
func (n *Node) Members() (members []Member, index uint64) {
	l := n.running()
	if l == nil {
		return nil, 0
	}
	leader, _ := n.leader()
	leads, term, last := l.raft.State() == raft.Leader, l.raft.CurrentTerm(), l.raft.LastIndex()
	for _, s := range l.raft.GetConfiguration().Configuration().Servers {
		m := Member{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter, Leader: string(s.ID) == leader}
		if leads && m.ID == n.cfg.ID {
			m.Known = true
		} else if f, ok := l.progress.of(m.ID, term); leads && ok {
			m.Known, m.Lag, m.LastContact = true, last-min(last, f.matched), time.Since(f.contact)
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return members, n.configurationIndex(l)
}
