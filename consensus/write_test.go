package consensus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/truclienthong/truc/consensus"
)

func TestEveryRelayTakesWrites(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	for _, id := range []string{"a", "b", "c"} {
		r := c.members[id].write("append k " + id)
		if !strings.HasSuffix(string(r.Value), id) || r.Repeat || r.Index == 0 {
			t.Fatalf("%s: result %+v", id, r)
		}
		// Whoever wrote reads it there without a barrier.
		if got := c.members[id].ledger.get("k"); !strings.HasSuffix(got, id) {
			t.Fatalf("%s does not see its own write: %q", id, got)
		}
	}
	for id, m := range c.members {
		check(t, id+" after a barrier", m.read("k"), "a,b,c")
	}
	leader := c.leader()
	for id, m := range c.members {
		s := m.Status()
		check(t, id+" knows the leader", s.LeaderID, leader.id)
		check(t, id+" knows its address", s.LeaderAddress, leader.address)
		check(t, id+" has a vote", s.Voter, true)
		check(t, id+" state", s.State, map[bool]string{true: "leader", false: "follower"}[m == leader])
		members, index := m.Members()
		check(t, id+" members", len(members), 3)
		check(t, id+" configuration", index, 1)
		for _, member := range members {
			check(t, id+" names the leader", member.Leader, member.ID == leader.id)
		}
	}
}

func TestRequestIsAppliedOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	id := newID()
	first, err := c.members["a"].Propose(t.Context(), id, []byte("append k x"))
	must(t, "first", err)
	c.members["a"].write("append k y")
	again := func(where string) {
		t.Helper()
		r, err := c.members[where].Propose(t.Context(), id, []byte("append k x"))
		must(t, "again", err)
		if !r.Repeat || r.Index != first.Index || string(r.Value) != "x" {
			t.Fatalf("again at %s: %+v, first %+v", where, r, first)
		}
	}
	for _, where := range []string{"a", "b", "c"} {
		again(where)
	}
	old := c.leader()
	must(t, "stop the leader", old.halt())
	for _, m := range c.others(old) {
		again(m.id)
		check(t, "state", m.read("k"), "x,y")
	}
	old.start()
	again(old.id)
}

func TestRequestIsForgottenByTheTimesInTheLog(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	move := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	c := newCluster(t, 1, func(cfg *consensus.Config) {
		cfg.Clock = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}
	})
	m, one, two := c.members["a"], newID(), newID()
	propose := func(id [16]byte, want bool) {
		t.Helper()
		r, err := m.Propose(t.Context(), id, []byte("append k x"))
		must(t, "propose", err)
		check(t, "repeat", r.Repeat, want)
	}
	propose(one, false)
	move(23 * time.Hour)
	propose(one, true)
	move(-22 * time.Hour) // a clock that is behind: time in the log stands still
	propose(two, false)
	propose(one, true)
	move(25 * time.Hour)
	propose(two, true) // three hours old by the log, 25 by that clock
	propose(one, false)
	check(t, "state", m.ledger.get("k"), "x,x,x")
}

func TestWritesThatCannotBe(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	for name, tc := range map[string]struct {
		command []byte
		code    codes.Code
		reason  string
	}{
		"empty":     {nil, codes.InvalidArgument, "INVALID_FIELD"},
		"too large": {make([]byte, consensus.MaxCommand+1), codes.InvalidArgument, "TOO_LARGE"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.members["a"].Propose(t.Context(), newID(), tc.command)
			wantStatus(t, err, tc.code, tc.reason)
		})
	}
	largest := []byte("set k " + strings.Repeat("x", consensus.MaxCommand-len("set k ")))
	_, err := c.members["a"].Propose(t.Context(), newID(), largest)
	must(t, "the largest", err)
}

func wantStatus(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	st, _ := status.FromError(err)
	if st.Code() != code {
		t.Fatalf("got %v, want code %s", err, code)
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "truc" && info.GetReason() == reason {
			return
		}
	}
	t.Fatalf("got %v with %v, want reason %s", err, st.Details(), reason)
}

// TestLeaderStopsUnderWrites: writers on every relay; a write that ended with an
// unknown outcome is handed in again elsewhere with the same request id.
func TestLeaderStopsUnderWrites(t *testing.T) {
	t.Parallel()
	const writers, each = 6, 25
	c := newCluster(t, 5, nil)
	c.leader()
	var wg sync.WaitGroup
	var mu sync.Mutex
	half := make(chan struct{})
	done := 0
	list := ids(c.others(nil))
	members := map[string]*member{}
	for _, id := range list {
		members[id] = c.members[id]
	}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				id, command := newID(), fmt.Appendf(nil, "append k %d.%d", w, i)
				for try := 0; ; try++ {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
					_, err := members[list[(w+try)%len(list)]].Propose(ctx, id, command)
					cancel()
					if err == nil {
						break
					}
					if try > 20 {
						t.Errorf("write %d.%d: %v", w, i, err)
						return
					}
				}
				mu.Lock()
				if done++; done == writers*each/3 {
					close(half)
				}
				mu.Unlock()
			}
		})
	}
	<-half
	old := c.leader()
	must(t, "stop the leader", old.halt())
	wg.Wait()
	check(t, "start it again", old.start() != nil, true)
	var want []string
	for w := range writers {
		for i := range each {
			want = append(want, fmt.Sprintf("%d.%d", w, i))
		}
	}
	slices.Sort(want)
	order := ""
	for id, m := range c.members {
		value := m.read("k")
		if order == "" {
			order = value
		}
		check(t, id+" has the order of the others", value, order)
		got := strings.Split(value, ",")
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%s: %d writes are there, want %d, each once", id, len(got), len(want))
		}
	}
}

func TestLeaderIsCutOff(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	old := c.leader()
	old.write("append k before")
	rest := c.others(old)
	c.net.isolate([]string{old.id}, ids(rest))

	lost := newID()
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := old.Propose(ctx, lost, []byte("append k lost"))
		failed <- err
	}()
	start := time.Now()
	for _, m := range rest {
		m.write("append k " + m.id)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("fail-over took %s", took)
	}
	err := <-failed
	if !errors.Is(err, consensus.ErrNoLeader) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("write at the leader that is cut off: %v", err)
	}
	wantStatus(t, err, codes.Unavailable, "NO_LEADER")
	check(t, "local reads go on", old.ledger.get("k"), "before")

	c.net.heal()
	// The same request again, everywhere: it happens once.
	for _, m := range c.members {
		_, err := m.Propose(t.Context(), lost, []byte("append k lost"))
		must(t, "again", err)
	}
	for _, m := range c.members {
		check(t, m.id, m.read("k"), "before,"+rest[0].id+","+rest[1].id+",lost")
	}
}

// TestNonvotersAreNoMajority: a leader that only non-voters still follow must
// not call its state current. Raft's own VerifyLeader would.
func TestNonvotersAreNoMajority(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.leader()
	old := c.members["a"]
	must(t, "stop", old.halt())
	// A long lease, and followers that do not wait for its end.
	c.tune = func(cfg *consensus.Config) {
		cfg.HeartbeatTimeout, cfg.LeaderLeaseTimeout = 2*time.Second, 2*time.Second
	}
	old.start()
	c.tune = nil
	_, err := old.TransferLeader(t.Context(), "a")
	must(t, "lead", err)
	old.write("set k old")
	var observers []string
	for _, id := range []string{"x", "y"} {
		m := c.place(id).start()
		_, err := old.AddNonvoter(t.Context(), id, m.address)
		must(t, "add "+id, err)
		check(t, id, m.read("k"), "old")
		observers = append(observers, id)
	}
	_, err = old.TransferLeader(t.Context(), "a") // where it has lost it on the way
	must(t, "lead", err)
	voters := []string{"b", "c"}
	c.net.isolate(append(observers, old.id), voters)
	c.members[voters[0]].write("set k new")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := old.ReadBarrier(ctx); err == nil {
		t.Fatalf("the old leader calls %q current", old.ledger.get("k"))
	}
	c.net.heal()
	check(t, "after the cut", old.read("k"), "new")
}

// TestBarrierWaitsForTheLocalCopy: it is no use to know the index and not to
// wait for it.
func TestBarrierWaitsForTheLocalCopy(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	leader.write("set k old")
	behind := c.others(leader)[0]
	check(t, "before", behind.read("k"), "old")
	c.net.silence(behind.id)
	leader.write("set k new")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := behind.ReadBarrier(ctx); err == nil {
		t.Fatalf("%q is called current", behind.ledger.get("k"))
	}
	c.net.heal()
	check(t, "after", behind.read("k"), "new")
}

// TestLeaderHangs: a leader that takes a request and never answers is not
// waited for once there is another.
func TestLeaderHangs(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	old := c.leader()
	asked := c.others(old)[0]
	c.net.mu.Lock()
	c.net.hang[old.id] = true
	c.net.mu.Unlock()
	written := make(chan error, 1)
	go func() {
		_, err := asked.Propose(t.Context(), newID(), []byte("append k x"))
		written <- err
	}()
	start := time.Now()
	must(t, "stop", old.halt())
	must(t, "write", <-written)
	if took := time.Since(start); took > 5*time.Second { // ProposeTimeout is 10 s
		t.Errorf("the write waited for %s", took)
	}
	check(t, "state", asked.read("k"), "x")
}

// TestStopAnswersWhatRaftHolds: Raft forgets, when it is shut down, entries that
// are committed and wait to be applied; whoever proposed them would wait for
// ever.
func TestStopAnswersWhatRaftHolds(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.leader()
	m.write("append k 0")
	release := make(chan struct{})
	m.ledger.hold = release
	const writers = 20
	before := m.Status().CommitIndex
	answers := make(chan error, writers+1)
	propose := func(command string) {
		_, err := m.Propose(context.Background(), newID(), []byte(command))
		answers <- err
	}
	go propose("hold k 1")
	for i := range writers {
		eventually(t, "commit", func() bool { return m.Status().CommitIndex >= before+1+uint64(i) })
		go propose("append k x")
	}
	eventually(t, "commit", func() bool { return m.Status().CommitIndex >= before+1+writers })
	m.cancel()
	eventually(t, "no more writes are taken", func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := m.Propose(ctx, newID(), []byte("append k late"))
		return status.Code(err) == codes.Unavailable && !errors.Is(err, consensus.ErrNoLeader)
	})
	close(release)
	for range writers + 1 {
		select {
		case err := <-answers:
			must(t, "a committed write", err)
		case <-time.After(3 * time.Second):
			t.Fatal("a committed write is not answered")
		}
	}
	must(t, "stop", m.halt())
}
