package scenario

import (
	"testing"

	"github.com/truclienthong/truc/test/mesh"
)

// A document for recipients at two homes is accepted with two copies: one home
// has it, the other is out of reach. Then the ingress burns down. The receipt said
// two copies, so the sender's outbox let go: the recipient at the other home has to
// get it from the home that has the copy, whether that one has delivered to its own
// recipient before the ingress was given up or not.
func TestIngressLostBeforeAnotherHomeHasIt(t *testing.T) {
	for name, early := range map[string]bool{"the first home still has it": false, "the first home has delivered": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := mesh.Start(t, mesh.Config{Links: true})
			m.Agency("H13").KeepCopies() // at nam
			m.Agency("G22")              // at bac
			m.Agency("H17")              // at trung
			trung := m.Isolate("trung")
			sent := send(m, 1, "H13", "G22", "H17")
			if sent[0].Receipt.Copies < 2 {
				t.Fatalf("accepted with %d copies, want 2", sent[0].Receipt.Copies)
			}
			lose(m, "nam")
			if early {
				m.Agency("G22").Receive()
				m.Agency("G22").AwaitArrival(sent[0].ID())
			}
			trung.Heal()
			giveUp(t, m, "nam")
			outOfRaft(m, "nam")
			m.Agency("H17").Receive()
			m.Agency("H17").AwaitArrival(sent[0].ID())
			if !early {
				m.Agency("G22").Receive()
			}
		})
	}
}
