// Package rot lets the disk of one relay of three change what it was given: a
// bit, a sector of zeros or of garbage, a file that ends too early. It does so
// to the journal of the spool and to its index, to the log and the snapshots of
// Raft and to the small files beside them, at places that a seed chooses
// (TestBitRot) and at those where it does the most harm (TestWorstPlaces), mostly
// while the relay is stopped or killed, sometimes while it runs. The relay has
// documents in every state meanwhile: in an inbox, queued for a relay that
// cannot be reached, as the second copy of another relay's, confirmed, and half
// transferred.
//
// After each damage the relay is started, or goes on, and does one of two things:
// it serves, or it ends with a word about which file is damaged and what to do.
// That is then done as docs/operating.md says. It never ends with a stack of Go,
// takes long to decide, or takes a damaged length for so much memory.
//
// A group of damages ends with everything healed. Then every document of which
// its sender was told that two relays have it has come to each of its recipients
// once, with its bytes (test/history); nothing is in quarantine; the audit
// balances; fsck of the relay finds no envelope that is not whole; and all
// relays have one and the same directory, with every change that was answered.
//
// The short form has a few of all of it, the long one some six hundred damages in
// about nine minutes. go test -v tells what is done while it is done, and
// -artifacts keeps the logs of the relays of a test that failed.
//
// What it does not do: cut files short that a running process has mapped into
// its memory (no disk does that, and the system ends the process); damage two
// relays at once, which two copies are no promise for; damage keys and
// certificates, for which there is nothing to mend them from.
package rot

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
