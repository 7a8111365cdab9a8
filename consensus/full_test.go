package consensus_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/truclienthong/truc/test/faults"
)

// A member whose disk is full stops with the reason, and the others go on; with
// space again it has all that they have.
func TestFullDiskStopsTheMember(t *testing.T) {
	c := newCluster(t, 1, nil)
	leader := c.leader()
	d := c.place("d")
	disk := faults.SmallDisk(t, 1<<20)
	d.dir = filepath.Join(disk, "raft")
	d.start()
	_, err := leader.AddNonvoter(t.Context(), "d", d.address)
	must(t, "add", err)
	leader.write("append k 1")
	check(t, "it follows", d.read("k"), "1")

	fill, err := faults.Fill(disk, 64<<10)
	must(t, "fill", err)
	large := "append k " + strings.Repeat("x", 100<<10)
	ended := false
	for deadline := time.Now().Add(20 * time.Second); !ended && time.Now().Before(deadline); {
		leader.write(large)
		select {
		case err = <-d.ended:
			ended = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	if !ended {
		t.Fatal("it goes on without a place to write")
	}
	d.ended <- err
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "write the log") {
		t.Errorf("Run returned %v, want that the log could not be written for lack of space", err)
	}
	d.halt()

	must(t, "space again", os.Remove(fill))
	// Nothing of what it had is lost, but it needs room for what it missed.
	leader.write("set k small")
	_, _, err = leader.Snapshot(t.Context())
	must(t, "snapshot", err)
	d.start()
	check(t, "caught up", d.read("k"), "small")
}
