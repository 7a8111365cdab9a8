package scenario

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/truclienthong/truc/cmd/relayd/dev"
	"github.com/truclienthong/truc/cmd/relayd/sample"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/test/faults"
	"github.com/truclienthong/truc/test/mesh"
)

// lose takes a relay away with its disk: first nobody reaches it, so that it
// hands nothing on as it stops.
func lose(m *mesh.Mesh, id string) {
	m.Isolate(id)
	m.StopRelay(id)
	m.WipeSpool(id)
	m.WipeRaft(id)
}

// giveUp is what an operator does about a lost relay: the real commands.
func giveUp(t *testing.T, m *mesh.Mesh, id string) {
	t.Helper()
	done := m.Relayctl("relay", "retire", id, "--lost", "--yes")
	if done[0]["done"] != "lost" || done[0]["raft_member"] != true {
		t.Errorf("relay retire %s --lost: %v", id, done)
	}
}

func outOfRaft(m *mesh.Mesh, id string) { m.Relayctl("raft", "remove", id) }

func send(m *mesh.Mesh, n int, from string, to ...string) (sent []*mesh.Sent) {
	for i := range n {
		sent = append(sent, m.Agency(from).Send(mesh.Files{"cv.pdf": sample.PDF(fmt.Sprint(from, to, i), 5_000*(1+i))}, to...))
	}
	return sent
}

// The home relay burns down with documents in its inboxes, from elsewhere and
// from its own agencies. It is given up, and its agencies receive everything at
// their standby.
func TestHomeLost(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Links: true})
	var sent []*mesh.Sent
	sent = append(sent, send(m, 5, "H13", "G22", "H26.12.05", "H17")...) // from nam
	sent = append(sent, send(m, 5, "H17.97.08", "G22", "G12")...)        // from trung
	sent = append(sent, send(m, 5, "H26", "G22", "H26.12")...)           // its own
	for _, s := range sent {
		if s.Receipt.Copies < 2 {
			t.Errorf("envelope %s was accepted with %d copies, want 2", s.ID(), s.Receipt.Copies)
		}
	}
	m.Await("they are at bac", func(ctx context.Context) error { return arrived(ctx, m, "nam", sent[9].ID(), "bac") })
	for _, code := range []string{"G22", "G12", "H13", "H26.12", "H26.12.05", "H17", "H17.97"} {
		if code != "G22" {
			m.Agency(code) // its client exists; it comes to fetch later
		}
	}
	lose(m, "bac")
	m.Agency("G22").Receive()
	m.Agency("G12").Receive()
	mesh.Binary(t, "relayctl") // building it is not measured
	began := time.Now()
	giveUp(t, m, "bac")
	for _, s := range sent {
		m.Agency("G22").AwaitArrival(s.ID())
	}
	t.Logf("after %s the agency of the lost relay had all %d documents", time.Since(began).Round(time.Millisecond), len(sent))
	outOfRaft(m, "bac")
	for _, code := range []string{"H13", "H26.12", "H26.12.05", "H17", "H17.97"} {
		m.Agency(code).Receive()
	}
	send(m, 3, "H26", "G22", "H17")
	send(m, 3, "H13", "G22", "H26.12.05")
}

// The ingress burns down with the only copy of a document, before a second was
// made: the sender's own relay fails over with what it kept. What had its second
// copy arrives without the sender.
func TestIngressLost(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Links: true})
	sender := m.Agency("H13") // at nam
	sender.KeepCopies()
	away, near := []string{"G22", "H17"}, "H13.16" // at bac and trung, at nam
	second := append(send(m, 5, "H13", append(away, near)...), send(m, 5, "H13", near)...)
	for _, s := range second {
		if s.Receipt.Copies < 2 {
			t.Errorf("envelope %s was accepted with %d copies, want 2", s.ID(), s.Receipt.Copies)
		}
	}
	for _, other := range []string{"bac", "trung"} {
		m.Between("nam", other).Cut()
	}
	began := time.Now()
	only := append(send(m, 1, "H13", away...), send(m, 1, "H13", near)...)
	t.Logf("accepted with one copy after %s each", (time.Since(began) / 2).Round(time.Millisecond))
	for _, s := range only {
		if s.Receipt.Copies != 1 {
			t.Errorf("envelope %s was accepted with %d copies where no relay was reached, want 1", s.ID(), s.Receipt.Copies)
		}
	}
	lose(m, "nam")
	began = time.Now()
	// Meanwhile the sender goes on at other relays.
	send(m, 1, "H13", away...)
	send(m, 1, "H13", near)
	t.Logf("the sender had two documents accepted elsewhere %s after the loss", time.Since(began).Round(time.Millisecond))
	giveUp(t, m, "nam")
	outOfRaft(m, "nam")
	for _, code := range append(away, near) {
		m.Agency(code).Receive()
	}
}

// One recipient is at home at the ingress, the other elsewhere. Two relays have
// the document, the ingress burns down, and it reaches both.
func TestIngressLostWithItsOwnRecipient(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Links: true})
	for _, s := range send(m, 1, "H13", "G22") {
		m.Await("nam hands on to bac", func(ctx context.Context) error { return arrived(ctx, m, "nam", s.ID(), "bac") })
	}
	sent := send(m, 3, "H13", "G22", "H13.16") // at bac, at nam
	for _, s := range sent {
		if s.Receipt.Copies < 2 {
			t.Errorf("envelope %s was accepted with %d copies, want 2", s.ID(), s.Receipt.Copies)
		}
		m.Await("it has arrived at bac", func(ctx context.Context) error { return arrived(ctx, m, "nam", s.ID(), "bac") })
	}
	lose(m, "nam")
	giveUp(t, m, "nam")
	outOfRaft(m, "nam")
	for _, code := range []string{"G22", "H13.16"} {
		m.Agency(code).Receive()
		for _, s := range sent {
			m.Agency(code).AwaitArrival(s.ID())
		}
	}
}

// First the ingress is lost, then the home, then both are given up; another copy
// delivers. And the other way round.
func TestIngressAndHomeLost(t *testing.T) {
	t.Parallel()
	relays := []dev.Relay{{ID: "bac", Region: "Bắc"}, {ID: "trung", Region: "Trung"}, {ID: "nam", Region: "Nam"},
		{ID: "dong", Region: "Đông"}, {ID: "tay", Region: "Tây"}}
	m := mesh.Start(t, mesh.Config{Links: true, Relays: relays})
	m.Agency("H13").KeepCopies() // at nam
	m.Agency("G22").KeepCopies() // at bac
	toBac := send(m, 4, "H13", "G22", "H17")
	toNam := send(m, 4, "G22", "H13.16", "H17")
	send(m, 4, "G22", "G12")
	lose(m, "nam")
	giveUp(t, m, "nam")
	outOfRaft(m, "nam")
	// As soon as each is safe again, the home goes too.
	for code, list := range map[string][]*mesh.Sent{"G22": toBac, "H13.16": toNam} {
		for _, s := range list {
			m.Await("two relays know of its delivery to "+code, func(ctx context.Context) error {
				return knownAt(ctx, m, s, code, "bac", "trung", "dong", "tay")
			})
		}
	}
	for _, relay := range []string{"bac", "trung", "dong", "tay"} {
		m.Await("others have what "+relay+" remembers", func(ctx context.Context) error { return nothingSole(ctx, m, relay) })
	}
	lose(m, "bac")
	giveUp(t, m, "bac")
	outOfRaft(m, "bac")
	for _, code := range []string{"G22", "H17", "H13.16", "G12"} {
		m.Agency(code).Receive()
	}
	send(m, 2, "H13", "G22", "H17")
}

// knownAt says whether two of the relays know of a delivery, so that one of them
// may be lost.
func knownAt(ctx context.Context, m *mesh.Mesh, sent *mesh.Sent, code string, relays ...string) error {
	var know []string
	for _, relay := range relays {
		trace, err := m.Operator(relay).Custody.Trace(ctx, &adminv1.TraceRequest{EnvelopeId: idBytes(sent.ID()), Local: true})
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return err
		}
		for _, d := range trace.GetDeliveries() {
			if d.GetAgencyCode() == code {
				know = append(know, relay)
			}
		}
	}
	if len(know) < 2 {
		return fmt.Errorf("known at %v", know)
	}
	return nil
}

// nothingSole says whether other relays have everything that a relay remembers.
func nothingSole(ctx context.Context, m *mesh.Mesh, relay string) error {
	health, err := m.Operator(relay).Custody.Health(ctx, &adminv1.HealthRequest{})
	if err == nil && health.GetSoleCopies() > 0 {
		err = fmt.Errorf("%d envelopes are nowhere else", health.GetSoleCopies())
	}
	return err
}

// A relay that was given up comes back with its disk: what only it had accepted,
// while nobody else heard it, is delivered after all.
func TestLostRelayComesBack(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Links: true})
	before := send(m, 2, "H26", "G22", "H17") // at bac, with copies elsewhere
	for _, other := range []string{"trung", "nam"} {
		m.Between("bac", other).Cut()
	}
	elsewhere := faults.Links{m.AgencyLink("trung"), m.AgencyLink("nam")}
	elsewhere.Cut()
	only := append(send(m, 1, "H26", "G12"), send(m, 1, "G22", "H13", "G12")...)
	elsewhere.Heal()
	for _, s := range only {
		if s.Receipt.Copies != 1 {
			t.Errorf("envelope %s was accepted with %d copies where no relay was reached, want 1", s.ID(), s.Receipt.Copies)
		}
	}
	around := m.Isolate("bac")
	m.StopRelay("bac")
	giveUp(t, m, "bac")
	for _, code := range []string{"G22", "G12", "H17", "H13"} {
		m.Agency(code).Receive()
	}
	for _, s := range before {
		m.Agency("H17").AwaitArrival(s.ID())
	}
	around.Heal()
	m.StartRelay("bac")
	began := time.Now()
	for _, s := range only {
		for _, code := range s.To {
			m.Agency(code).AwaitArrival(s.ID())
		}
	}
	t.Logf("what only the lost relay had arrived %s after it came back", time.Since(began).Round(time.Millisecond))
}
