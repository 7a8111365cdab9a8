package consensus_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/truclienthong/truc/consensus"
)

func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	from := newCluster(t, 1, nil)
	id := newID()
	_, err := from.members["a"].Propose(t.Context(), id, []byte("append k kept"))
	must(t, "write", err)
	for range 12 { // so that the backup's index is above the other log's
		from.members["a"].write("set other x")
	}
	backup := from.members["a"].backup()
	must(t, "stop", from.members["a"].halt())

	c := newCluster(t, 3, func(cfg *consensus.Config) {
		cfg.Verify = func(r io.Reader) error { return newLedger().Restore(r) }
	})
	leader := c.leader()
	leader.write("append k gone")
	asked := c.others(leader)[0]
	for range 2 { // into a log that is shorter than the backup's, then longer
		index, err := asked.Restore(t.Context(), bytes.NewReader(backup))
		must(t, "restore", err)
		check(t, "asked has it", asked.ledger.get("k"), "kept")
		if index < 12 {
			t.Errorf("index %d", index)
		}
		for _, m := range c.members {
			check(t, m.id+" after a barrier", m.read("k"), "kept")
			r, err := m.Propose(t.Context(), id, []byte("append k kept"))
			must(t, "request of the other mesh again", err)
			check(t, "repeat", r.Repeat, true)
		}
		check(t, "members stay", roles(leader), "ABC")
		for range 15 {
			asked.write("append k more")
		}
	}
	for _, m := range c.members {
		must(t, "stop", m.halt())
	}
	want := "kept" + strings.Repeat(",more", 15)
	for _, m := range c.members {
		m.start()
	}
	for _, m := range c.members {
		check(t, m.id+" after a restart", m.read("k"), want)
	}
}

func TestDamagedBackupIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *consensus.Config) {
		cfg.Verify = func(r io.Reader) error {
			b, err := io.ReadAll(r)
			if err == nil && !bytes.HasPrefix(b, []byte("{")) {
				err = errors.New("not a ledger")
			}
			return err
		}
	})
	leader := c.leader()
	leader.write("set k now")
	leader.write("set l " + strings.Repeat("x", 300_000)) // more than one piece
	good := leader.backup()
	damage := map[string][]byte{
		"empty":                     nil,
		"something else":            []byte("this is a text file, and not a short one either"),
		"one byte short":            good[:len(good)-1],
		"half":                      good[:len(good)/2],
		"one byte more":             append(slices.Clone(good), 0),
		"newer format":              slices.Concat(good[:8], []byte{0, 0, 0, 2}, good[12:]),
		"two of them":               slices.Concat(good, good),
		"state is not what it must": alienBackup(t),
	}
	for _, at := range []int{0, 13, 20, 40, len(good) / 3, len(good) / 2, len(good) - 20, len(good) - 1} {
		b := slices.Clone(good)
		b[at] ^= 0x10
		damage[fmt.Sprintf("bit at %d", at)] = b
	}
	asked := c.others(leader)[0]
	for name, b := range damage {
		_, err := asked.Restore(t.Context(), bytes.NewReader(b))
		if err == nil {
			t.Fatalf("%s: taken", name)
		}
		wantStatus(t, err, codes.DataLoss, "DAMAGED")
	}
	for _, m := range c.members {
		check(t, "nothing changed at "+m.id, m.read("k"), "now")
	}
	left, err := filepath.Glob(filepath.Join(asked.dir, "restore-*"))
	check(t, "files left behind", len(left), 0)
	must(t, "glob", err)
	_, err = asked.Restore(t.Context(), bytes.NewReader(good))
	must(t, "the good one", err)
}

// alienBackup is whole, and of a state machine that is not ours.
func alienBackup(t *testing.T) []byte {
	c := newCluster(t, 1, func(cfg *consensus.Config) { cfg.StateMachine = alien{} })
	return c.leader().backup()
}

// TestRestoreThatCannotBeTakenOverStopsTheNode: where nothing verified the
// backup before. Raft would panic.
func TestRestoreThatCannotBeTakenOverStopsTheNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.leader()
	if _, err := m.Restore(t.Context(), bytes.NewReader(alienBackup(t))); err == nil {
		t.Error("Restore says it is done")
	}
	err := <-m.ended
	m.ended <- err
	if err == nil || !strings.Contains(err.Error(), "take over a snapshot") {
		t.Fatalf("Run returned %v", err)
	}
}
