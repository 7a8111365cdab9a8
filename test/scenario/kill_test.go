package scenario

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/mesh"
)

// The home relay of the recipient is killed before a document is sent, while
// its bytes are on their way, and after it has arrived but before it was
// fetched.
func TestHomeRelayKilled(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	sender, recipient := m.Agency("H17.97.08"), m.Agency("G22")

	m.KillRelay("bac")
	sender.Send(mesh.Files{"before.pdf": sample.PDF("before", 100_000)}, "G22")
	m.StartRelay("bac")

	// The bytes are on their way from ingress to home when it dies.
	files := mesh.Files{"during.pdf": sample.PDF("during", 40_000_000)}
	sent := sender.Send(files, "G22")
	m.KillRelay("bac")
	m.StartRelay("bac")
	m.AwaitServing()

	after := sender.Send(mesh.Files{"after.pdf": sample.PDF("after", 200_000)}, "G22")
	m.Await("it has arrived", func(ctx context.Context) error { return arrived(ctx, m, "nam", after.ID(), "bac") })
	m.KillRelay("bac")
	m.StartRelay("bac")

	recipient.Receive()
	recipient.AwaitArrival(sent.ID())
}

// The ingress relay is killed right after it gave its receipts.
func TestIngressRelayKilled(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	m.Agency("G22").Receive()
	m.Agency("H41").Receive()
	sender := m.Agency("H13")
	for round := range 5 {
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				sender.Send(mesh.Files{"cv.pdf": sample.PDF(fmt.Sprint(round, i), 20_000*(1+i))}, "G22", "H41")
			})
		}
		group.Wait()
		m.KillRelay("nam")
		m.StartRelay("nam")
	}
}

// Every relay in turn is killed while documents flow between all of them.
func TestKillsUnderLoad(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	codes := []string{"G22", "H17", "H13"}
	for _, code := range codes {
		m.Agency(code).Receive()
	}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, from := range codes {
		sender := m.Agency(from)
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				files := mesh.Files{"cv.pdf": sample.PDF(fmt.Sprint(from, i), 1000*(1+i%300))}
				if _, err := sender.TrySend(t.Context(), sender.Document(files, codes...), files, codes...); err != nil {
					t.Errorf("%s sends: %v", from, err)
					return
				}
			}
		})
	}
	for range 2 {
		for _, relay := range []string{"trung", "nam", "bac"} {
			m.KillRelay(relay)
			m.StartRelay(relay)
			m.AwaitServing()
		}
	}
	stop()
	group.Wait()
}

func leaderOf(t *testing.T, m *mesh.Mesh) (leader string) {
	t.Helper()
	m.Await("there is a leader", func(ctx context.Context) error {
		status, err := m.Operator("").Raft.Status(ctx, &adminv1.StatusRequest{})
		if err != nil {
			return err
		}
		if leader = status.GetLeaderId(); leader == "" {
			return errors.New("no leader")
		}
		return nil
	})
	return leader
}

// arrived says whether the envelope is in an inbox at the home relay.
func arrived(ctx context.Context, m *mesh.Mesh, ask string, id envelope.ID, home string) error {
	trace, err := m.Operator(ask).Custody.Trace(ctx, &adminv1.TraceRequest{EnvelopeId: id[:]})
	if err != nil {
		return err
	}
	if count(trace.GetEvents(), step{home, exchangev1.TraceAction_TRACE_ACTION_ARRIVED, ""}) == 0 {
		return errors.New("it has not")
	}
	return nil
}
