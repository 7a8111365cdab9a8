package scenario

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/test/mesh"
)

// The relay that leads is taken out of service with documents in the inbox of an
// agency that is offline, and others that wait for a relay that nobody reaches:
// it hands over what others can have, and says who keeps it from the rest. Then
// it signs that nothing is left, and is retired.
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

	if ran := m.TryRelayctl("relay", "retire", "trung"); ran.Code != 1 || !strings.Contains(ran.Stderr, "drain it first") {
		t.Errorf("retire before it drains: exit %d, %q, want 1 and the command to begin with", ran.Code, ran.Stderr)
	}
	statement := filepath.Join(t.TempDir(), "drained.p7m")
	drain := []string{"relay", "drain", "trung", "--statement", statement, "--timeout"}
	if ran := m.TryRelayctl(append(drain, "8s")...); ran.Code != 0 {
		// What waits for nam is nowhere else.
		if !strings.Contains(ran.Stderr, "nam") {
			t.Errorf("drain while nam is not reached: exit %d, %q, want nam named", ran.Code, ran.Stderr)
		}
		nam.Heal()
		m.Relayctl(append(drain, "60s")...)
	}
	if signed, err := os.ReadFile(statement); err != nil || len(signed) == 0 {
		t.Errorf("statement of %d bytes, %v", len(signed), err)
	}
	// A relay that drains still hears those who send, and others accept.
	sent = append(sent, send(m, 2, "H17", "G22")...)
	if retired := m.Relayctl("relay", "retire", "trung"); retired[0]["done"] != "retired" {
		t.Errorf("retire: %v", retired)
	}
	nam.Heal() // the two that stay have to agree
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
