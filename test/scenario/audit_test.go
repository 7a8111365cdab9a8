package scenario

import (
	"context"
	"errors"
	"fmt"
	"testing"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/test/mesh"
)

// An audit balances at any moment while documents flow, agencies move and a
// relay is away; one that is silent is named.
func TestAuditWhileDocumentsFlow(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{})
	stop := flow(t, m, "G22", "H17", "H13")
	var pending uint64
	for i := range 6 {
		relay := []string{"bac", "trung", "nam"}[i%3]
		audit, err := m.Operator(relay).Custody.Audit(t.Context(), &adminv1.AuditRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Unbalanced(audit); err != nil {
			t.Errorf("audit %d at %s: %v", i, relay, err)
		}
		for _, row := range audit.GetRows() {
			pending += row.GetPending()
		}
	}
	t.Logf("%d deliveries were pending in six audits", pending)
	if pending == 0 {
		t.Error("nothing was ever pending: the audits proved nothing")
	}
	m.StopRelay("nam")
	audit, err := m.Operator("bac").Custody.Audit(t.Context(), &adminv1.AuditRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if silent := audit.GetSilentRelayIds(); len(silent) != 1 || silent[0] != "nam" {
		t.Errorf("silent relays %v, want nam", silent)
	}
	m.StartRelay("nam")
	if stop() == 0 {
		t.Error("no document was accepted meanwhile")
	}
}

// What a disk loses behind the mesh's back is found by the audit, by id.
func TestAuditFindsWhatIsGone(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{})
	sent := send(m, 3, "H17", "G22") // accepted at trung, in an inbox at bac
	for _, s := range sent {
		m.Await("it has arrived", func(ctx context.Context) error { return arrived(ctx, m, "nam", s.ID(), "bac") })
	}
	// The ingress forgets that it ever accepted them.
	m.StopRelay("trung")
	m.WipeSpool("trung")
	m.StartRelay("trung")
	m.AwaitServing()
	m.Await("the audit names what trung does not remember", func(ctx context.Context) error {
		audit, err := m.Operator("nam").Custody.Audit(ctx, &adminv1.AuditRequest{})
		if err != nil {
			return err
		}
		if m.Unbalanced(audit) == nil {
			return errors.New("it balances")
		}
		found := map[string]bool{}
		for _, f := range audit.GetFindings() {
			found[string(f.GetEnvelopeId())] = true
		}
		for _, s := range sent {
			if !found[string(idBytes(s.ID()))] {
				return fmt.Errorf("envelope %s is not named in %v", s.ID(), audit.GetFindings())
			}
		}
		return nil
	})
	// They are delivered all the same; what trung had promised its sender to
	// remember is gone with its disk.
	m.Agency("G22").Receive()
	for _, s := range sent {
		m.Agency("G22").AwaitArrival(s.ID())
	}
}

// A home relay comes back with an empty disk: until the relays that accepted for
// it have found that out by themselves, the audit names what is missing; then
// they send again, and everything arrives.
func TestHomeDiskWiped(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{})
	sent := append(send(m, 4, "H17", "G22", "G12"), send(m, 4, "H13", "G22", "H41")...)
	for _, s := range sent {
		m.Await("it has arrived", func(ctx context.Context) error { return arrived(ctx, m, "nam", s.ID(), "bac") })
	}
	m.StopRelay("bac")
	m.WipeSpool("bac")
	m.StartRelay("bac")
	m.AwaitServing()
	audit, err := m.Operator("nam").Custody.Audit(t.Context(), &adminv1.AuditRequest{})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, s := range sent {
		known[string(idBytes(s.ID()))] = true
	}
	for _, id := range audit.GetMissingEnvelopeIds() {
		if !known[string(id)] {
			t.Errorf("%x is said to be missing, and was never sent", id)
		}
	}
	// The relays may have been quicker; they look every ten seconds.
	t.Logf("first audit after the loss: %d of %d missing, %d findings", len(audit.GetMissingEnvelopeIds()), len(sent), len(audit.GetFindings()))
	m.Agency("G22").Receive()
	for _, s := range sent {
		m.Agency("G22").AwaitArrival(s.ID())
	}
	m.Agency("G12").Receive()
	m.Agency("H41").Receive()
}
