package scenario

import (
	"testing"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	"github.com/truclienthong/truc/test/mesh"
)

// A relay stops in its tracks, with every connection open, as under a hung disk
// or a paused virtual machine: documents for others go on, and are safe on two
// relays; what is for its agencies arrives once it goes on.
func TestRelayHangs(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	for _, code := range []string{"G22", "H17", "H13"} { // at bac, trung, nam
		m.Agency(code).Receive()
	}
	send(m, 2, "H17", "G22", "H13")
	m.Settle()
	m.PauseRelay("bac")
	for i, sent := range append(send(m, 2, "H17", "G22", "H13"), send(m, 2, "H13", "H17", "G22")...) {
		if sent.Receipt.Copies < 2 {
			t.Errorf("document %d was accepted with %d copies, want 2", i, sent.Receipt.Copies)
		}
		for _, code := range sent.To {
			if code != "G22" {
				m.Agency(code).AwaitArrival(sent.ID())
			}
		}
	}
	// Its own agency finds another relay to hand over at.
	m.Agency("G22").Send(mesh.Files{"a.pdf": sample.PDF("from the agency of a relay that hangs", 10_000)}, "H17")
	m.ResumeRelay("bac")
}
