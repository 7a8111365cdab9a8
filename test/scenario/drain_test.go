package scenario

import (
	"strings"
	"testing"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/test/mesh"
)

// The relay that leads is taken out of service with documents in the inbox of an
// agency that is offline, and others that wait for a relay that nobody reaches:
// while that lasts the drain does not end and says why; then it hands everything
// over, signs that it did, and is retired.
func TestDrainAndRetireTheLeader(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Links: true})
	if _, err := m.Operator("bac").Raft.TransferLeader(t.Context(), &adminv1.TransferLeaderRequest{RelayId: "trung"}); err != nil {
		t.Fatal(err)
	}
	var sent []*mesh.Sent
	sent = append(sent, send(m, 3, "G22", "H41", "H17")...) // into inboxes at trung
	sent = append(sent, send(m, 3, "H17", "H41")...)        // accepted there too
	nam := m.Isolate("nam")
	sent = append(sent, send(m, 3, "H17", "H13", "G22")...) // waiting there for nam

	ran := m.TryRelayctl("relay", "drain", "trung", "--timeout", "6s")
	if ran.Code != 1 || !strings.Contains(ran.Stderr, "nam") {
		t.Errorf("drain while nam is not reached: exit %d, %q, want 1 and nam named", ran.Code, ran.Stderr)
	}
	if ran := m.TryRelayctl("relay", "retire", "trung"); ran.Code != 1 {
		t.Errorf("retire before it has drained: exit %d, %q, want 1", ran.Code, ran.Stdout)
	}
	// A relay that drains still answers those who send, by way of others.
	sent = append(sent, send(m, 2, "H17", "G22")...)
	nam.Heal()

	drained := m.Relayctl("relay", "drain", "trung", "--timeout", "60s")
	if drained[0]["statement"] != "drained" || drained[0]["remaining"] != float64(0) {
		t.Errorf("drain: %v", drained)
	}
	if retired := m.Relayctl("relay", "retire", "trung"); retired[0]["done"] != "retired" {
		t.Errorf("retire: %v", retired)
	}
	m.Relayctl("raft", "remove", "trung")
	m.StopRelay("trung")
	m.WipeSpool("trung")
	for _, code := range []string{"G22", "H41", "H17", "H13"} {
		m.Agency(code).Receive()
	}
	for _, s := range sent {
		for _, code := range s.To {
			m.Agency(code).AwaitArrival(s.ID())
		}
	}
	m.Agency("H41").Send(mesh.Files{"a.pdf": sample.PDF("from a new home", 3000)}, "H17", "G22")
}
