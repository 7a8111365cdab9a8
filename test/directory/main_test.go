// Package directory breaks a mesh while operators change its directory, and
// checks what they were told against a model.
//
// Three relays run as processes, with a proxy in every link between them.
// Clients at every relay register, change, move, suspend and remove agencies,
// set groups, rules and relays, and read them, through the admin API alone. They
// retry with the same request id, at other relays and at two at once, and
// sometimes give up, which leaves the outcome unknown. Meanwhile leaders are
// killed, paused and cut off, majorities are lost, members leave and come back.
//
// It checks:
//
//   - what was answered with a read barrier, and every write, is linearizable
//     (porcupine; a register with a version for each key);
//   - across all keys: versions and log indexes are unique, and a write that
//     began after another had ended has a higher one;
//   - a request id has one outcome, however often and wherever it is handed in;
//   - reads without a barrier show a prefix of the history, and at one relay never
//     an earlier one than before, through its restarts too;
//   - in the end all relays have the same directory.
//
// It does not look at documents, at certificates, or into the relays.
package directory

import (
	"os"
	"testing"

	"github.com/truclienthong/truc/test/mesh"
)

func TestMain(m *testing.M) {
	code := m.Run()
	mesh.RemoveBinaries()
	os.Exit(code)
}
