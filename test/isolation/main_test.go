// Package isolation puts every relay, and the agencies near it, into a network
// namespace of its own and drops their packets.
//
// Three sites, each a relay process and its agencies, are joined by a bridge with
// addresses that are real (10.77.0.0/16). A packet filter on the ports of the
// bridge takes packets away: nothing is closed and nothing is reset, so relays
// and agencies learn of a fault by silence alone. One site is isolated, then the
// others too; one direction, one port, some of the packets, all connections that
// exist; a link goes down. Meanwhile agencies of every site send to all others.
//
// It checks what was sent against what was taken (test/history), and that
//
//   - an isolated site goes on by itself: documents among its agencies are accepted,
//     with one copy, and delivered;
//   - the other sites go on as if nothing were, with two copies;
//   - the directory is written where there is a majority, and refused elsewhere;
//   - what isolated sites accept on both sides is one envelope after all, and a
//     home takes it once;
//   - in the end everything has arrived once, the audit balances, and each disk is
//     whole.
//
// Everything it makes lives in namespaces without names, which only its own
// process holds: they are gone with it, whatever becomes of it, and the network
// of the machine is never touched. It needs root, ip, nft and nsenter, and is
// skipped without. What it leaves to chance within the kernel, which packets are
// lost, has no seed.
package isolation

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
