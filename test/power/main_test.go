// Package power takes the power from relays under load, and breaks their disks.
//
// Each relay of a mesh of three is a relayd process whose data is on a disk that
// forgets (test/faults/disk). Meanwhile agencies hand documents in, with and
// without an outbox, and take what comes; operators change the directory.
//
// What it does to the mesh:
//
//   - TestPowerLoss: at random moments the power of one, two or all three relays
//     goes at the same instant, also while they start after the cut before. What
//     was not synced is forgotten, or any selection of sectors and names is kept
//     (torn), as is what the kernel wrote by itself meanwhile. Some meshes have
//     disks that make names durable by a sync of their folder only (but for the
//     index, where badger counts on what all file systems do: a file that is
//     synced keeps its name), some those that do it with every sync, as ext4.
//   - TestDiskErrors: the disk of one relay fails writes, syncs or reads, takes
//     part of a write, has no room, or is slow. A relay may end itself then; it
//     is started again, sometimes after what the failed sync lost is gone for
//     good, sometimes after a cut.
//
// What it checks: the rules of test/history, where every receipt counts as a
// promise, whatever number of copies it names: a disk comes back after a cut with
// all that was synced, so one copy has to be enough. Recipients forget an envelope
// once they were told that it is confirmed: it must not come again. What was
// answered to operators is in the directory, of every relay, with the version
// that was answered. `relayd fsck` finds nothing after a cut, before the relay has
// started; the audit of the mesh balances; every relay comes back by itself.
//
// What it does not: lose a disk, or bits on it. The journal alone is cut at every
// one of its writes and syncs in relay/spool; that needs neither root nor FUSE.
package power

import (
	"os"
	"testing"

	"github.com/truclienthong/truc/test/faults/disk"
	"github.com/truclienthong/truc/test/mesh"
)

func TestMain(m *testing.M) {
	disk.Serve()
	code := m.Run()
	mesh.RemoveBinaries()
	os.Exit(code)
}
