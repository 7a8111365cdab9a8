package scenario

import (
	"testing"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/test/mesh"
)

// Promise 9: one relay of three starts alone, without a leader anywhere. It
// accepts and delivers on the directory it knew, and what is for the others
// reaches them when they are back.
func TestWithoutQuorum(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{})
	change(t, m.Operator("nam"), &directoryv1.Command{Change: &directoryv1.Command_MoveAgency{
		MoveAgency: &directoryv1.MoveAgency{AgencyCode: "G22", HomeRelayId: "nam"}}})
	for _, id := range []string{"bac", "trung", "nam"} {
		m.StopRelay(id)
	}
	m.StartRelay("nam")
	m.AwaitServing()
	m.Agency("G22").Receive()
	sent := m.Agency("H13").Send(mesh.Files{"cv.pdf": sample.PDF("alone", 100_000)}, "G22", "H17")
	m.Agency("G22").AwaitArrival(sent.ID())

	m.Agency("H17").Receive()
	m.StartRelay("bac")
	m.StartRelay("trung")
}
