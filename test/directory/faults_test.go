package directory

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/faults"
	"github.com/truclienthong/truc/test/mesh"
	"github.com/truclienthong/truc/test/torture/tally"
)

// attack breaks a mesh in every way that its directory has to live with.
type attack struct {
	t      *testing.T
	m      *mesh.Mesh
	ids    []string
	random *rand.Rand
	kinds  map[string]*tally.Faults
}

// fault is one way to break it. The recovery ends with the next write that is
// answered.
type fault struct {
	name string
	do   func(*attack, func() *tally.Hit)
}

// plan are all faults. A fault calls inject just before it happens.
var plan = []fault{
	{"leader killed", func(a *attack, inject func() *tally.Hit) {
		leader := a.leader()
		hit := inject()
		a.m.KillRelay(leader)
		a.writes(hit, a.but(leader)...)
		a.m.StartRelay(leader)
	}},
	{"leader paused", func(a *attack, inject func() *tally.Hit) {
		leader := a.leader()
		hit := inject()
		a.m.PauseRelay(leader)
		a.writes(hit, a.but(leader)...)
		a.some(time.Second)
		a.m.ResumeRelay(leader)
	}},
	{"leader cut off", func(a *attack, inject func() *tally.Hit) {
		leader := a.leader()
		hit := inject()
		links := a.m.Isolate(leader)
		a.writes(hit, a.but(leader)...)
		a.some(time.Second)
		a.refuses(leader)
		links.Heal()
	}},
	{"leader hears nothing", func(a *attack, inject func() *tally.Hit) {
		leader := a.leader()
		hit := inject()
		var links faults.Links
		for _, other := range a.but(leader) {
			a.m.Link(leader, other).Lose(faults.Down)
			a.m.Link(other, leader).Lose(faults.Up)
			links = append(links, a.m.Between(leader, other)...)
		}
		a.writes(hit, a.but(leader)...)
		links.Heal()
	}},
	{"majority cut off", func(a *attack, inject func() *tally.Hit) {
		hit := inject()
		var links faults.Links
		for i, one := range a.ids {
			for _, other := range a.ids[i+1:] {
				links = append(links, a.m.Between(one, other)...)
			}
		}
		links.Cut()
		a.some(1500 * time.Millisecond)
		a.refuses(a.any(a.ids))
		links.Heal()
		hit.From()
		a.writes(hit, a.ids...)
	}},
	{"majority killed", func(a *attack, inject func() *tally.Hit) {
		rest := a.any(a.ids)
		hit := inject()
		for _, id := range a.but(rest) {
			a.m.KillRelay(id)
		}
		a.some(time.Second)
		a.refuses(rest)
		back := a.any(a.but(rest))
		a.m.StartRelay(back)
		hit.From()
		a.writes(hit, rest, back)
		for _, id := range a.but(rest) {
			if id != back {
				a.m.StartRelay(id)
			}
		}
	}},
	{"leader paused, another killed", func(a *attack, inject func() *tally.Hit) {
		leader := a.leader()
		other := a.any(a.but(leader))
		hit := inject()
		a.m.PauseRelay(leader)
		a.m.KillRelay(other)
		a.some(1500 * time.Millisecond)
		a.m.ResumeRelay(leader)
		hit.From()
		a.writes(hit, slices.DeleteFunc(slices.Clone(a.ids), func(id string) bool { return id == other })...)
		a.m.StartRelay(other)
	}},
	{"links to the leader flap", func(a *attack, inject func() *tally.Hit) {
		links := a.m.Around(a.leader())
		hit := inject()
		links.Flap(400*time.Millisecond, 400*time.Millisecond)
		a.some(2 * time.Second)
		links.Heal()
		hit.From()
		a.writes(hit, a.ids...)
	}},
	{"leadership transferred", func(a *attack, inject func() *tally.Hit) {
		hit := inject()
		ctx, cancel := context.WithTimeout(a.t.Context(), 10*time.Second)
		defer cancel()
		// It may be refused, where the other is behind: then nothing happened.
		_, _ = a.m.Operator(a.any(a.ids)).Raft.TransferLeader(ctx, &adminv1.TransferLeaderRequest{})
		a.writes(hit, a.ids...)
	}},
	{"snapshot and restart", func(a *attack, inject func() *tally.Hit) {
		id := a.any(a.ids)
		ctx, cancel := context.WithTimeout(a.t.Context(), patience)
		defer cancel()
		if _, err := a.m.Operator(id).Raft.Snapshot(ctx, &adminv1.SnapshotRequest{}); err != nil {
			a.t.Errorf("snapshot at %s: %v", id, err)
		}
		hit := inject()
		a.m.StopRelay(id)
		a.writes(hit, a.but(id)...)
		a.m.StartRelay(id)
	}},
	{"member removed and added", func(a *attack, inject func() *tally.Hit) {
		id := a.any(a.ids)
		hit := inject()
		a.asks("remove "+id, a.but(id), func(ctx context.Context, o *mesh.Operator) error {
			_, err := o.Raft.Remove(ctx, &adminv1.RemoveRequest{RelayId: id})
			if r, ok := envelope.AsRefusal(err); ok && r.Reason == exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND {
				return nil // a try before this one did it
			}
			return err
		})
		a.writes(hit, a.but(id)...)
		a.some(500 * time.Millisecond)
		a.asks("add "+id, a.but(id), func(ctx context.Context, o *mesh.Operator) error {
			_, err := o.Raft.AddVoter(ctx, &adminv1.AddVoterRequest{RelayId: id, Address: a.m.Address(id)})
			return err
		})
	}},
}

// inject does one fault, and waits until all relays serve again.
func (a *attack) inject(f fault) {
	a.t.Helper()
	kind, ok := a.kinds[f.name]
	if !ok {
		kind = tally.Kind(a.t, "directory: "+f.name, "until a write is answered")
		a.kinds[f.name] = kind
	}
	begun := time.Now()
	f.do(a, kind.Inject)
	a.m.AwaitServing()
	a.some(300 * time.Millisecond)
	a.t.Logf("%s: whole again after %s", f.name, time.Since(begun).Round(time.Millisecond))
}

func (a *attack) but(id string) []string {
	return slices.DeleteFunc(slices.Clone(a.ids), func(other string) bool { return other == id })
}

func (a *attack) any(ids []string) string { return ids[a.random.IntN(len(ids))] }

// some lets the load go on for a random while up to most.
func (a *attack) some(most time.Duration) {
	<-time.After(time.Duration(a.random.Int64N(int64(most))))
}

// leader returns who leads by its own word, in the highest term.
func (a *attack) leader() (leader string) {
	a.t.Helper()
	a.m.Await("there is a leader", func(ctx context.Context) error {
		var term uint64
		leader = ""
		for _, id := range a.ids {
			s, err := a.m.Operator(id).Raft.Status(ctx, &adminv1.StatusRequest{})
			if err == nil && s.GetState() == "leader" && s.GetTerm() > term {
				leader, term = id, s.GetTerm()
			}
		}
		if leader == "" {
			return errors.New("nobody leads")
		}
		return nil
	})
	return leader
}

// asks asks relays in turn until one does it.
func (a *attack) asks(what string, ids []string, do func(context.Context, *mesh.Operator) error) {
	a.t.Helper()
	try := a.random.IntN(len(ids))
	a.m.Await(what, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		try++
		return do(ctx, a.m.Operator(ids[try%len(ids)]))
	})
}

// writes changes the directory at one of the relays, and says that the mesh has
// survived.
func (a *attack) writes(hit *tally.Hit, ids ...string) {
	a.t.Helper()
	id := make([]byte, 16)
	for i := range id {
		id[i] = byte(a.random.Uint32())
	}
	a.asks("a write is answered", ids, func(ctx context.Context, o *mesh.Operator) error {
		got, err := o.Directory.Change(ctx, &adminv1.ChangeRequest{RequestId: id, Command: probe()})
		if err == nil && got.GetResult().GetReason() != done {
			a.t.Errorf("probe: %v", got)
		}
		return err
	})
	hit.Survived()
}

func probe() *directoryv1.Command {
	return &directoryv1.Command{Change: &directoryv1.Command_SetGroup{SetGroup: &directoryv1.SetGroup{
		Group: &directoryv1.Group{Name: "probe", AgencyCodes: members}}}}
}

// refuses asks a relay without a majority for a write and for a read with a
// barrier: neither may be answered, and both say why. It takes as long as relays
// wait for a leader, so only the long form does it.
func (a *attack) refuses(id string) {
	a.t.Helper()
	if !tally.Long() || a.random.IntN(3) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(a.t.Context(), 30*time.Second)
	defer cancel()
	o := a.m.Operator(id).Directory
	request := make([]byte, 16)
	request[0], request[1] = byte(a.random.Uint32()), byte(a.random.Uint32())
	_, wrote := o.Change(ctx, &adminv1.ChangeRequest{RequestId: request, Command: probe()})
	_, looked := o.ListGroups(ctx, &adminv1.ListGroupsRequest{Consistency: adminv1.Consistency_CONSISTENCY_LINEARIZABLE})
	for what, err := range map[string]error{"write": wrote, "read with a barrier": looked} {
		if r, ok := envelope.AsRefusal(err); !ok || r.Reason != exchangev1.ErrorReason_ERROR_REASON_NO_LEADER {
			a.t.Errorf("%s at %s without a majority: got %v, want NO_LEADER", what, id, err)
		}
	}
}
