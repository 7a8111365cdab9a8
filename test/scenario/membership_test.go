package scenario

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/truclienthong/truc/cmd/relayd/dev"
	"github.com/truclienthong/truc/cmd/relayd/sample"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/test/mesh"
)

// flow sends documents from each agency to all of them until it is stopped, and
// returns how many were accepted.
func flow(t *testing.T, m *mesh.Mesh, codes ...string) (stop func() int) {
	t.Helper()
	for _, code := range codes {
		m.Agency(code).Receive()
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var mu sync.Mutex
	accepted := 0
	for _, from := range codes {
		sender := m.Agency(from)
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				files := mesh.Files{"cv.pdf": sample.PDF(fmt.Sprint(from, i), 1000*(1+i%100))}
				if _, err := sender.TrySend(t.Context(), sender.Document(files, codes...), files, codes...); err != nil {
					t.Errorf("%s sends: %v", from, err)
					return
				}
				mu.Lock()
				accepted++
				mu.Unlock()
			}
		})
	}
	return func() int {
		cancel()
		group.Wait()
		return accepted
	}
}

// A fourth relay is added, gets a vote, becomes home of an agency, loses its
// vote and leaves, while documents flow.
func TestRelayJoinsAndLeaves(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{})
	stop := flow(t, m, "G22", "H17", "H13")
	operator := m.Operator("bac")
	ctx := t.Context()

	m.AddRelay(dev.Relay{ID: "tay", Region: "Tây"})
	if _, err := operator.Raft.AddNonvoter(ctx, &adminv1.AddNonvoterRequest{RelayId: "tay", Address: m.Layout.Address("tay")}); err != nil {
		t.Fatal(err)
	}
	m.AwaitServing()
	if _, err := operator.Raft.AddVoter(ctx, &adminv1.AddVoterRequest{RelayId: "tay", Address: m.Layout.Address("tay")}); err != nil {
		t.Fatal(err)
	}
	if got := voters(t, operator); got != 4 {
		t.Errorf("%d voters after add-voter, want 4", got)
	}
	change(t, operator, &directoryv1.Command{Change: &directoryv1.Command_MoveAgency{
		MoveAgency: &directoryv1.MoveAgency{AgencyCode: "H13", HomeRelayId: "tay"}}})
	m.Agency("G22").Send(mesh.Files{"cv.pdf": sample.PDF("to the new relay", 50_000)}, "H13")
	change(t, operator, &directoryv1.Command{Change: &directoryv1.Command_MoveAgency{
		MoveAgency: &directoryv1.MoveAgency{AgencyCode: "H13", HomeRelayId: "nam"}}})

	if _, err := operator.Raft.Demote(ctx, &adminv1.DemoteRequest{RelayId: "tay"}); err != nil {
		t.Fatal(err)
	}
	if got := voters(t, operator); got != 3 {
		t.Errorf("%d voters after demote, want 3", got)
	}
	if n := stop(); n == 0 {
		t.Error("no document was accepted meanwhile")
	}
	m.Settle()
	if _, err := operator.Raft.Remove(ctx, &adminv1.RemoveRequest{RelayId: "tay"}); err != nil {
		t.Fatal(err)
	}
	members, err := operator.Raft.Members(ctx, &adminv1.MembersRequest{Consistency: adminv1.Consistency_CONSISTENCY_LINEARIZABLE})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(members.GetMembers()); got != 3 {
		t.Errorf("%d members after remove, want 3", got)
	}
}

// An agency moves from home to home while documents flow to it.
func TestAgencyMoves(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{})
	stop := flow(t, m, "G22", "H17", "H13")
	operator := m.Operator("trung")
	for range 3 {
		for _, home := range []string{"trung", "nam", "bac"} {
			change(t, operator, &directoryv1.Command{Change: &directoryv1.Command_MoveAgency{
				MoveAgency: &directoryv1.MoveAgency{AgencyCode: "G22", HomeRelayId: home}}})
			m.Agency("H17").Send(mesh.Files{"cv.pdf": sample.PDF("to "+home, 20_000)}, "G22")
		}
	}
	if n := stop(); n == 0 {
		t.Error("no document was accepted meanwhile")
	}
}

func change(t *testing.T, operator *mesh.Operator, command *directoryv1.Command) {
	t.Helper()
	if _, err := operator.Change(t.Context(), command); err != nil {
		t.Fatal(err)
	}
}

func voters(t *testing.T, operator *mesh.Operator) (n int) {
	t.Helper()
	members, err := operator.Raft.Members(t.Context(), &adminv1.MembersRequest{Consistency: adminv1.Consistency_CONSISTENCY_LINEARIZABLE})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members.GetMembers() {
		if m.GetVoter() {
			n++
		}
	}
	return n
}
