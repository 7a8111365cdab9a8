// Package campaign breaks a mesh of real relayd processes while many senders
// hand documents in and many recipients take them.
//
// What is done to it, at moments and places that a seed chooses: relays are
// killed (SIGKILL), one, two at once, again while they start; stopped in their
// tracks (SIGSTOP) and let go on; every link between relays and to agencies is
// cut, lost one way or both, delayed, throttled, reset, refused, flapping;
// operators move agencies, drain a relay, give one up whose disk is gone and
// take it back empty, hold and release documents, and remove an index. Senders
// and recipients misbehave too: connectors are killed, confirmations forgotten,
// files change while they are sent, documents are handed in again elsewhere.
//
// What is checked: everything that senders were told and recipients wrote down
// is a history without violation (test/history); a recipient takes a folder away
// once it has confirmed it, so that nothing but the mesh keeps a second one from
// coming; repeats get the same receipt; no relay ends by itself; at the end
// nothing waits in any outbox, no relay has anything left in custody, relayctl
// audit balances and every disk passes relayd fsck.
//
// After each fault a probe has to pass before it counts as survived: a document
// that is accepted by the relay that was hit, for recipients there and elsewhere.
// The time until they have confirmed it is the recovery.
//
// What it does not do: SIGKILL leaves what was written in the hands of the
// system, so nothing here shows a missing sync, and no disk is damaged but by
// taking it away.
//
//	TORTURE_SEED=7 go test -run TestKills ./test/campaign
//	TORTURE=long go test -timeout 60m -v ./test/campaign
package campaign

import (
	"flag"
	"os"
	"testing"

	"github.com/truclienthong/truc/test/mesh"
)

// The short forms mostly wait; they do so beside one another.
const besideOneAnother = "2"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", besideOneAnother); err != nil {
		panic(err)
	}
	code := m.Run()
	mesh.RemoveBinaries()
	os.Exit(code)
}
