package scenario

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/truclienthong/truc/cmd/relayd/node"
	"github.com/truclienthong/truc/test/mesh"
)

// One bit of a relay's copy of the directory turns while it is stopped. It does
// not start on it and says what to do; what it says brings it back, with the
// documents it had, while the others go on.
func TestDamagedDirectory(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{})
	waiting := send(m, 2, "H17", "H13", "G22") // into inboxes at nam and bac
	m.StopRelay("nam")
	log := filepath.Join(m.Data("nam", "raft"), "raft.db")
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	raw[64] ^= 1 // in a head, which has a check sum
	if err := os.WriteFile(log, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	m.StartRelay("nam")
	says := func(want ...string) {
		t.Helper()
		err := m.AwaitEnd("nam")
		for _, word := range want {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("nam ends with %v, want %q in it", err, word)
			}
		}
	}
	says("raft.db is damaged", "relayctl raft remove", "relayctl raft add-voter", "raft.member")
	m.Agency("G22").Receive()
	send(m, 2, "H17", "G22", "H13")

	// An operator who only takes the folder away is stopped too: the relay may
	// have voted.
	m.WipeRaft("nam")
	m.StartRelay("nam")
	says("has been a member of Raft", "raft.member")

	m.Relayctl("raft", "remove", "nam")
	if err := os.Remove(m.Data("nam", "raft.member")); err != nil {
		t.Fatal(err)
	}
	m.Reconfigure("nam", func(c *node.Config) { c.Voters = nil })
	m.StartRelay("nam")
	m.Relayctl("raft", "add-voter", "nam", m.Address("nam"))
	m.AwaitServing()
	m.Agency("H13").Receive()
	for _, s := range waiting {
		m.Agency("H13").AwaitArrival(s.ID())
	}
}
