package consensus_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/truclienthong/truc/consensus"
)

// roles renders the members as a relay sees them, voters in capitals.
func roles(m *member) string {
	var s string
	members, _ := m.Members()
	for _, p := range members {
		id := p.ID
		if p.Voter {
			id = string(id[0] - 'a' + 'A')
		}
		s += id
	}
	return s
}

func TestMembershipGrowsAndShrinks(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	asked := c.others(leader)[0] // a follower takes every change
	leader.write("append k 1")
	d := c.place("d").start()

	change := func(what string, f func() (uint64, error), want string) {
		t.Helper()
		first, err := f()
		must(t, what, err)
		again, err := f()
		must(t, what+" again", err)
		check(t, what+": roles", roles(c.leader("a", "b", "c")), want)
		if first == 0 || again != first {
			t.Errorf("%s: index %d, again %d", what, first, again)
		}
	}
	change("add non-voter", func() (uint64, error) { return asked.AddNonvoter(t.Context(), "d", d.address) }, "ABCd")
	check(t, "d copies", d.read("k"), "1")
	check(t, "d has no vote", d.Status().Voter, false)
	d.write("append k 2")
	change("promote", func() (uint64, error) { return asked.AddVoter(t.Context(), "d", d.address) }, "ABCD")
	eventually(t, "d knows of its vote", func() bool { return d.Status().Voter })
	change("demote", func() (uint64, error) { return asked.Demote(t.Context(), "d") }, "ABCd")
	_, err := asked.Remove(t.Context(), "d")
	must(t, "remove", err)
	check(t, "roles", roles(c.leader("a", "b", "c")), "ABC")

	// A removed relay keeps its copy, disturbs nobody, and may come back.
	check(t, "d keeps its copy", d.ledger.get("k"), "1,2")
	asked.write("append k 3")
	_, err = asked.AddVoter(t.Context(), "d", d.address)
	must(t, "back as a voter at once", err)
	check(t, "d again", d.read("k"), "1,2,3")
}

func TestMembershipRefusals(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, func(cfg *consensus.Config) { cfg.ProposeTimeout = 1500 * time.Millisecond })
	a := c.leader()
	b := c.place("b").start()
	_, err := a.AddNonvoter(t.Context(), "b", b.address)
	must(t, "add b", err)
	nobody := c.place("z").address
	for _, tc := range []struct {
		name   string
		do     func() error
		code   codes.Code
		reason string
	}{
		{"remove who is unknown", func() error { _, err := a.Remove(t.Context(), "x"); return err }, codes.NotFound, "NOT_FOUND"},
		{"demote who is unknown", func() error { _, err := b.Demote(t.Context(), "x"); return err }, codes.NotFound, "NOT_FOUND"},
		{"remove the last voter", func() error { _, err := a.Remove(t.Context(), "a"); return err }, codes.FailedPrecondition, "WRONG_STATE"},
		{"demote the last voter", func() error { _, err := b.Demote(t.Context(), "a"); return err }, codes.FailedPrecondition, "WRONG_STATE"},
		{"add with another's address", func() error { _, err := b.AddVoter(t.Context(), "x", a.address); return err }, codes.FailedPrecondition, "CONFLICT"},
		{"add a voter that has its vote elsewhere", func() error { _, err := b.AddVoter(t.Context(), "a", nobody); return err }, codes.FailedPrecondition, "CONFLICT"},
		{"add without an address", func() error { _, err := a.AddNonvoter(t.Context(), "x", ""); return err }, codes.InvalidArgument, "INVALID_FIELD"},
		{"add without an id", func() error { _, err := a.AddVoter(t.Context(), "", nobody); return err }, codes.InvalidArgument, "INVALID_FIELD"},
		{"add a voter as non-voter", func() error { _, err := a.AddNonvoter(t.Context(), "a", a.address); return err }, codes.FailedPrecondition, "WRONG_STATE"},
		{"transfer to who is unknown", func() error { _, err := b.TransferLeader(t.Context(), "x"); return err }, codes.NotFound, "NOT_FOUND"},
		{"transfer to a non-voter", func() error { _, err := a.TransferLeader(t.Context(), "b"); return err }, codes.FailedPrecondition, "WRONG_STATE"},
		{"transfer to nobody", func() error { _, err := a.TransferLeader(t.Context(), ""); return err }, codes.FailedPrecondition, "WRONG_STATE"},
		// It would be half of the votes, and nothing could be changed again.
		{"add a voter that does not answer", func() error { _, err := a.AddVoter(t.Context(), "z", nobody); return err }, codes.FailedPrecondition, "WRONG_STATE"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.do()
			wantStatus(t, err, tc.code, tc.reason)
			if refusal := (*consensus.Refusal)(nil); !errors.As(err, &refusal) {
				t.Errorf("%v is no refusal", err)
			}
		})
	}
	check(t, "roles", roles(a), "Abz")
	a.write("set k still")
	_, err = b.Remove(t.Context(), "z")
	must(t, "remove who never answered", err)
}

// A voter changes its address only where that is asked for.
func TestVoterMoves(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	moving := c.others(leader)[0]
	old := moving.address
	must(t, "stop", moving.halt())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, "listen", err)
	moving.listener, moving.address = listener, listener.Addr().String()
	c.net.mu.Lock()
	c.net.relay[moving.address], c.net.raft[moving.address] = moving.id, true
	c.net.mu.Unlock()
	c.tune = func(cfg *consensus.Config) { cfg.Voters = nil }
	moving.start()

	_, err = leader.AddVoter(t.Context(), moving.id, moving.address)
	wantStatus(t, err, codes.FailedPrecondition, "CONFLICT")
	at := func() string {
		members, _ := leader.Members()
		return members[slices.IndexFunc(members, func(m consensus.Member) bool { return m.ID == moving.id })].Address
	}
	check(t, "address after the refusal", at(), old)
	_, err = leader.MoveVoter(t.Context(), moving.id, moving.address)
	must(t, "move", err)
	check(t, "address", at(), moving.address)
	leader.write("append k moved")
	check(t, "it follows", moving.read("k"), "moved")
}

func TestLeaderLeaves(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	for _, tc := range []struct {
		name string
		do   func(asked, leader *member) error
		want int // members that are left with a vote
	}{
		{"demoted, asked itself", func(_, leader *member) error { _, err := leader.Demote(t.Context(), leader.id); return err }, 2},
		{"removed, asked by a follower", func(asked, leader *member) error { _, err := asked.Remove(t.Context(), leader.id); return err }, 1},
	} {
		leader := c.leader()
		var voters []string
		members, _ := leader.Members()
		for _, m := range members {
			if m.Voter {
				voters = append(voters, m.ID)
			}
		}
		asked := c.members[voters[0]]
		if asked == leader {
			asked = c.members[voters[1]]
		}
		must(t, tc.name, tc.do(asked, leader))
		voters = slices.DeleteFunc(voters, func(id string) bool { return id == leader.id })
		check(t, tc.name+": voters", len(voters), tc.want)
		check(t, tc.name+": leads no more", c.leader(voters...) != leader, true)
		c.members[voters[0]].write("append k x")
	}
}

func TestLeadershipIsTransferred(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	for range 3 {
		old := c.leader()
		rest := c.others(old)
		got, err := rest[0].TransferLeader(t.Context(), rest[1].id)
		must(t, "to a named one", err)
		check(t, "leader", got, rest[1].id)
		got, err = old.TransferLeader(t.Context(), rest[1].id)
		must(t, "to who leads already", err)
		check(t, "leader", got, rest[1].id)
		got, err = c.leader().TransferLeader(t.Context(), "")
		must(t, "to any", err)
		if got == rest[1].id || got == "" {
			t.Fatalf("leader is %q", got)
		}
		c.leader().write("append k x")
	}
}

// TestHandOverAtStop: the others need not wait for the election timeout.
func TestHandOverAtStop(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *consensus.Config) {
		cfg.HeartbeatTimeout = 300 * time.Millisecond
	})
	old := c.leader()
	for _, m := range c.others(old) {
		must(t, m.id, m.halt())
		c.tune = func(cfg *consensus.Config) {
			cfg.HeartbeatTimeout, cfg.ElectionTimeout = time.Hour, time.Hour
			cfg.LeaderLeaseTimeout = time.Second
		}
		m.start()
		old.write("append k x")
		eventually(t, m.id+" follows", func() bool { return m.Status().LeaderID == old.id })
	}
	rest := c.others(old)
	must(t, "stop", old.halt())
	check(t, "leads now", slices.Contains(ids(rest), c.leader().id), true)
	rest[0].write("append k y")
}

func TestMembersShowLag(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var lines []string
	c := newCluster(t, 3, func(cfg *consensus.Config) {
		cfg.LagAlarm = 100 * time.Millisecond
		cfg.Logger = logTo(&mu, &lines)
	})
	leader := c.leader()
	away := c.others(leader)[0]
	others := slices.DeleteFunc(ids(c.others(nil)), func(id string) bool { return id == away.id })
	said := func(line string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Contains(lines, line)
		}
	}
	seen := func(of *member) consensus.Member {
		members, _ := leader.Members()
		return members[slices.IndexFunc(members, func(m consensus.Member) bool { return m.ID == of.id })]
	}
	leader.write("append k x")
	eventually(t, "an answer", func() bool { return seen(away).Known && seen(away).Lag == 0 })
	c.net.isolate([]string{away.id}, others)
	for range 5 {
		leader.write("append k x")
	}
	eventually(t, "the alarm", said("WARN a follower lags "+away.id))
	eventually(t, "lag and silence", func() bool {
		m := seen(away)
		return m.Known && m.Lag >= 5 && m.LastContact > 100*time.Millisecond
	})
	if m := seen(leader); !m.Known || m.Lag != 0 || m.LastContact != 0 {
		t.Errorf("leader: %+v", m)
	}
	c.net.heal()
	eventually(t, "the end of the alarm", said("INFO the follower is back "+away.id))
	eventually(t, "no lag", func() bool { return seen(away).Lag == 0 })
	members, _ := away.Members()
	for _, m := range members {
		check(t, "a follower knows no lag", m.Known, false)
	}
}

func TestWithoutLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *consensus.Config) { cfg.ProposeTimeout = 700 * time.Millisecond })
	m := c.leader()
	m.write("set k x")
	away := c.others(m)[0].id
	for _, o := range c.others(m) {
		must(t, "stop", o.halt())
	}
	for name, do := range map[string]func(context.Context) error{
		"propose": func(ctx context.Context) error { _, err := m.Propose(ctx, newID(), []byte("set k y")); return err },
		"barrier": func(ctx context.Context) error { return m.ReadBarrier(ctx) },
		"remove":  func(ctx context.Context) error { _, err := m.Remove(ctx, away); return err },
	} {
		t.Run(name, func(t *testing.T) {
			err := do(t.Context())
			if !errors.Is(err, consensus.ErrNoLeader) {
				t.Fatalf("got %v", err)
			}
			wantStatus(t, err, codes.Unavailable, "NO_LEADER")
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := do(ctx); !errors.Is(err, context.Canceled) {
				t.Fatalf("given up: %v", err)
			}
		})
	}
	check(t, "local reads go on", m.ledger.get("k"), "x")
}

// TestStopBesideASilentMember: what waits for a member that never answers must
// not hold up the end.
func TestStopBesideASilentMember(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil) // StreamTimeout is 5 s
	m := c.leader()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, "listen", err)
	defer silent.Close()
	c.net.mu.Lock()
	c.net.relay[silent.Addr().String()] = "s"
	c.net.mu.Unlock()
	_, err = m.AddNonvoter(t.Context(), "s", silent.Addr().String())
	must(t, "add", err)
	conn, err := silent.Accept()
	must(t, "accept", err)
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	must(t, "the leader speaks", err)
	start := time.Now()
	must(t, "stop", m.halt())
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %s to stop", took)
	}
}
