package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/faults"
	"github.com/truclienthong/truc/test/mesh"
)

const expired = exchangev1.ErrorReason_ERROR_REASON_EXPIRED

// An operator holds, releases, gives up and revives what waits, in queues and in
// inboxes, with the real commands.
func TestSteering(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Links: true})
	recipient := m.Agency("G22")
	steer := func(what string, sent *mesh.Sent) {
		t.Helper()
		if done := m.Relayctl("queue", what, sent.ID().String(), "--reason", "a test"); done[0]["done"] == "" {
			t.Errorf("queue %s: %v", what, done)
		}
	}
	refused := func(what string, sent *mesh.Sent) {
		t.Helper()
		if ran := m.TryRelayctl("queue", what, sent.ID().String()); ran.Code != 1 || ran.Stderr == "" {
			t.Errorf("queue %s: exit %d, %q, want 1 and why", what, ran.Code, ran.Stderr)
		}
	}
	inInbox := func(sent *mesh.Sent) {
		t.Helper()
		m.Await("it is in the inbox", func(ctx context.Context) error { return arrived(ctx, m, "nam", sent.ID(), "bac") })
	}

	m.Agency("G17").Receive()
	delivered := send(m, 1, "H13", "G17")[0]
	m.Settle()

	held := send(m, 1, "H13", "G22")[0]
	inInbox(held)
	steer("hold", held)
	given := send(m, 1, "H13.16", "G22")[0]
	inInbox(given)
	steer("expire", given)
	refused("expire", given)
	refused("release", given)

	// The same for what waits for a relay that is out of reach.
	bac := m.Isolate("bac")
	waiting := send(m, 1, "H17", "G22")[0]
	heldOnTheWay := send(m, 1, "H17.97", "G22")[0]
	steer2 := func(what string, sent *mesh.Sent) { // bac does not hear it, which is said
		t.Helper()
		ran := m.TryRelayctl("queue", what, sent.ID().String())
		if ran.Code != 1 || !strings.Contains(ran.Stderr, "bac") {
			t.Errorf("queue %s with bac silent: exit %d, %q, want 1 and bac named", what, ran.Code, ran.Stderr)
		}
	}
	steer2("expire", waiting)
	steer2("hold", heldOnTheWay)
	bac.Heal()

	recipient.Receive()
	free := send(m, 1, "H13", "G22")[0]
	recipient.AwaitArrival(free.ID())
	m.GivenUp(given, expired, "G22")
	m.GivenUp(waiting, expired, "G22")
	for _, s := range []*mesh.Sent{given, waiting} {
		m.Await("its sender sees that it was given up", func(ctx context.Context) error { return tracked(ctx, s, "G22", expired) })
	}
	for _, s := range []*mesh.Sent{held, heldOnTheWay} {
		if recipient.Has(s.ID()) {
			t.Errorf("envelope %s was delivered though it is held", s.ID())
		}
		steer("release", s)
		recipient.AwaitArrival(s.ID())
	}
	// Dead letters are sent again, once, and what was delivered is not.
	for _, s := range []*mesh.Sent{given, waiting} {
		m.Revived(s)
		steer("retry", s)
		recipient.AwaitArrival(s.ID())
	}
	// A relay that keeps the second copy of it hears by and by that it was delivered.
	for _, what := range []string{"hold", "release", "retry", "expire"} {
		m.Await("queue "+what+" of what was delivered is refused", func(context.Context) error {
			if ran := m.TryRelayctl("queue", what, delivered.ID().String()); ran.Code != 1 || ran.Stderr == "" {
				return fmt.Errorf("exit %d, %q, want 1 and why", ran.Code, ran.Stderr)
			}
			return nil
		})
	}

	// What is held expires like everything else, and can be revived.
	document := m.Agency("H13").Document(mesh.Files{"a.pdf": sample.PDF("short", 3000)}, "G12")
	document.Header.ExpiresAt = timestamppb.New(time.Now().Add(8 * time.Second))
	short, err := m.Agency("H13").TrySend(t.Context(), document, nil, "G12")
	if err != nil {
		t.Fatal(err)
	}
	inInbox(short)
	steer("hold", short)
	m.GivenUp(short, expired, "G12")
	m.Await("its sender sees that it expired", func(ctx context.Context) error { return tracked(ctx, short, "G12", expired) })
	m.Revived(short)
	m.Agency("G12").Receive()
	m.TryRelayctl("queue", "release", short.ID().String())
	steer("retry", short)
	m.Agency("G12").AwaitArrival(short.ID())
}

// tracked says whether a sender sees that a delivery failed for a reason.
func tracked(ctx context.Context, sent *mesh.Sent, code string, reason exchangev1.ErrorReason) error {
	track, err := sent.Sender.Client.Track(ctx, sent.ID())
	if err != nil {
		return err
	}
	for _, d := range track.GetDeliveries() {
		if d.GetAgencyCode() == code && d.GetTransport() == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL && d.GetReason() == reason {
			return nil
		}
	}
	return fmt.Errorf("deliveries %v", track.GetDeliveries())
}

// The same document id with other content, handed over at two relays that do not
// hear each other: one of them is delivered, the other fails with the reason.
func TestSameDocumentIDAtTwoRelays(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Links: true})
	m.Between("trung", "nam").Cut()
	sender := m.Agency("H17")
	one, other := sender.Document(nil, "G22"), sender.Document(nil, "G22")
	other.Header.DocumentId = one.Header.GetDocumentId()
	var sent []*mesh.Sent
	for i, relay := range []string{"trung", "nam"} {
		elsewhere := map[string]string{"trung": "nam", "nam": "trung"}[relay]
		m.AgencyLink(elsewhere).Cut()
		m.AgencyLink("bac").Cut()
		receipt, err := onlyBy(t, m, "H17", relay).Submit(t.Context(), []agency.Document{one, other}[i])
		m.AgencyLink(elsewhere).Heal()
		m.AgencyLink("bac").Heal()
		if r, ok := envelope.AsRefusal(err); ok && i == 1 && r.Has(exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED) {
			break // the relay has heard of it
		}
		if err != nil {
			t.Fatal(err)
		}
		s := &mesh.Sent{Receipt: receipt, Sender: sender, To: []string{"G22"}}
		m.Note(s)
		sent = append(sent, s)
	}
	if len(sent) == 2 {
		m.GivenUp(sent[1], exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED, "G22")
	}
	m.Agency("G22").Receive()
	m.Agency("G22").AwaitArrival(sent[0].ID())
	m.Between("trung", "nam").Heal()
	t.Logf("%d of them were accepted", len(sent))
}

// An agency moves while a large document is on its way to its old home.
func TestAgencyMovesInTheMiddle(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Links: true})
	m.Agency("G22").Receive()
	const size = 100 << 20
	link := m.Link("trung", "bac")
	link.Throttle(20 << 20)
	half := make(chan struct{})
	go func() {
		defer close(half)
		crossing(t.Context(), link, faults.Up, size/2)
	}()
	sent := m.Agency("H17").Send(mesh.Files{"a.pdf": sample.PDF("large", size)}, "G22", "H13")
	<-half
	change(t, m.Operator("nam"), &directoryv1.Command{Change: &directoryv1.Command_MoveAgency{
		MoveAgency: &directoryv1.MoveAgency{AgencyCode: "G22", HomeRelayId: "nam"}}})
	if err := arrived(t.Context(), m, "trung", sent.ID(), "bac"); err == nil {
		t.Error("it had arrived before the agency moved: the test tests nothing")
	}
	link.Heal()
	m.Agency("G22").AwaitArrival(sent.ID())
	m.Agency("H13").Receive()
}

// Many dead letters are counted, sent again by one command, and delivered. It has
// been run with ten thousand, which takes two minutes.
func TestManyDeadLetters(t *testing.T) {
	t.Parallel()
	const n = 400
	m := mesh.Start(t, mesh.Config{Adjust: unlimited})
	sender := m.Agency("H17") // at trung; G22 is at bac
	began := time.Now()
	at := timestamppb.New(time.Now().Add(12 * time.Second)) // all are accepted within it, on a slow machine too
	ids := inParallel(t, n, 64, func(i int) (envelope.ID, error) {
		document := sender.Document(mesh.Files{"a.txt": fmt.Appendf(nil, "document %d", i)}, "G22")
		document.Header.ExpiresAt = at
		receipt, err := sender.Client.Submit(t.Context(), document)
		if err != nil {
			return envelope.ID{}, err
		}
		return receipt.ID, nil
	})
	t.Logf("%d accepted in %s", n, time.Since(began).Round(time.Millisecond))
	m.Await("all have expired", func(ctx context.Context) error {
		dead := uint64(0)
		for _, relay := range []string{"bac", "trung", "nam"} {
			health, err := m.Operator(relay).Custody.Health(ctx, &adminv1.HealthRequest{})
			if err != nil {
				return err
			}
			dead += health.GetDeadLetters()
		}
		if dead != uint64(n) {
			return fmt.Errorf("%d dead letters, want %d", dead, n)
		}
		return nil
	})
	t.Logf("all expired after %s", time.Since(began).Round(time.Millisecond))
	var all strings.Builder
	for _, id := range ids {
		fmt.Fprintln(&all, id)
	}
	began = time.Now()
	retried := m.RelayctlWith(all.String(), "queue", "retry", "-")
	if len(retried) != n {
		t.Fatalf("%d were retried, want %d", len(retried), n)
	}
	t.Logf("all sent again after %s", time.Since(began).Round(time.Millisecond))
	receiveOnce(t, m.Agency("G22").Client, ids)
	t.Logf("all received after %s", time.Since(began).Round(time.Millisecond))
}
