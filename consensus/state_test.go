package consensus_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/truclienthong/truc/consensus"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

func TestCatchUpBySnapshot(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(cfg *consensus.Config) { cfg.TrailingLogs = 1 })
	leader := c.leader()
	id := newID()
	_, err := leader.Propose(t.Context(), id, []byte("append k first"))
	must(t, "first", err)
	away := c.others(leader)[0]
	must(t, "stop", away.halt())
	want := "first"
	for i := range 20 {
		leader.write(fmt.Sprintf("append k %d", i))
		want += fmt.Sprintf(",%d", i)
	}
	for _, m := range c.others(nil) {
		m.read("k")
		index, size, err := m.Snapshot(t.Context())
		must(t, "snapshot", err)
		if index < 20 || size == 0 || m.Status().SnapshotIndex != index {
			t.Fatalf("snapshot at %d of %d bytes, status says %d", index, size, m.Status().SnapshotIndex)
		}
	}
	away.start()
	check(t, "caught up", away.read("k"), want)
	if away.Status().SnapshotIndex == 0 {
		t.Error("it caught up without a snapshot: the test tests nothing")
	}
	// What is remembered of request ids came with it.
	for _, m := range c.others(away) {
		must(t, "stop "+m.id, m.halt())
		m.start()
	}
	r, err := away.Propose(t.Context(), id, []byte("append k first"))
	must(t, "again", err)
	if !r.Repeat || string(r.Value) != "first" {
		t.Fatalf("again: %+v", r)
	}
	_, members := away.Members()
	check(t, "configuration", members, 1)
}

func TestSnapshotByItself(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, func(cfg *consensus.Config) {
		cfg.SnapshotInterval, cfg.SnapshotThreshold, cfg.TrailingLogs = 10*time.Millisecond, 10, 2
	})
	m := c.leader()
	var want []string
	for i := range 40 {
		m.write(fmt.Sprintf("append k %d", i))
		want = append(want, fmt.Sprint(i))
	}
	eventually(t, "a snapshot", func() bool { return m.Status().SnapshotIndex >= 10 })
	must(t, "stop", m.halt())
	m.start()
	check(t, "state", m.read("k"), strings.Join(want, ","))
}

// TestStartAlone: Raft itself would show the last snapshot until a leader says
// what is committed; a relay whose neighbours are all down needs what it had.
func TestStartAlone(t *testing.T) {
	t.Parallel()
	for _, snapshot := range []bool{false, true} {
		t.Run(fmt.Sprintf("snapshot=%v", snapshot), func(t *testing.T) {
			c := newCluster(t, 3, nil)
			m := c.others(c.leader())[0]
			id := newID()
			_, err := m.Propose(t.Context(), id, []byte("append k 1"))
			must(t, "write", err)
			m.write("append k 2")
			if snapshot {
				_, _, err := m.Snapshot(t.Context())
				must(t, "snapshot", err)
			}
			m.write("append k 3")
			for _, o := range c.members {
				must(t, "stop", o.halt())
			}
			m.start()
			<-m.Ready()
			check(t, "state without a leader", m.ledger.get("k"), "1,2,3")
			for _, o := range c.members {
				if o != m {
					o.start()
				}
			}
			m.write("append k 4")
			r, err := m.Propose(t.Context(), id, []byte("append k 1"))
			must(t, "again", err)
			check(t, "repeat", r.Repeat, true)
			for _, o := range c.members {
				check(t, o.id, o.read("k"), "1,2,3,4")
			}
		})
	}
}

// TestNothingIsAppliedTwice: after a start Raft hands in again what was loaded
// from disk, and request ids do not tell what they no longer remember.
func TestNothingIsAppliedTwice(t *testing.T) {
	t.Parallel()
	var days atomic.Int64
	c := newCluster(t, 1, func(cfg *consensus.Config) {
		cfg.Clock = func() time.Time { return time.Unix(0, 0).AddDate(0, 0, int(days.Add(2))) }
	})
	m := c.leader()
	for i := range 3 {
		m.write(fmt.Sprintf("append k %d", i))
	}
	must(t, "stop", m.halt())
	m.start()
	<-m.Ready()
	check(t, "loaded", m.ledger.get("k"), "0,1,2")
	m.write("append k 3")
	check(t, "after a write", m.ledger.get("k"), "0,1,2,3")
}

func TestQuorumLossAndRecover(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	left := c.others(c.leader())[0]
	id := newID()
	_, err := left.Propose(t.Context(), id, []byte("append k 1"))
	must(t, "write", err)
	for _, m := range c.others(left) {
		must(t, "lose "+m.id, m.halt())
	}
	peers := filepath.Join(t.TempDir(), "peers.yaml")
	must(t, "peers", os.WriteFile(peers, fmt.Appendf(nil, "- {id: %s, address: %q}\n", left.id, left.address), 0o600))
	list, err := consensus.ReadPeers(peers)
	must(t, "read peers", err)

	err = consensus.Recover(left.dir, left.id, list, newLedger())
	if err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Fatalf("on a running relay: %v", err)
	}
	must(t, "stop", left.halt())
	for name, try := range map[string]func() error{
		"no state":       func() error { return consensus.Recover(t.TempDir(), left.id, list, newLedger()) },
		"not a peer":     func() error { return consensus.Recover(left.dir, "x", list, newLedger()) },
		"no peers":       func() error { return consensus.Recover(left.dir, left.id, nil, newLedger()) },
		"no voter":       func() error { return consensus.Recover(left.dir, left.id, nonvoters(list), newLedger()) },
		"not understood": func() error { return consensus.Recover(left.dir, left.id, list, alien{}) },
	} {
		if try() == nil {
			t.Errorf("%s: recovered", name)
		}
	}
	must(t, "recover", consensus.Recover(left.dir, left.id, list, newLedger()))
	left.start()
	check(t, "state", left.read("k"), "1")
	r, err := left.Propose(t.Context(), id, []byte("append k 1"))
	must(t, "again", err)
	check(t, "repeat", r.Repeat, true)
	left.write("append k 2")
	check(t, "roles", len(roles(left)), 1)
	c.voters = nil
	fresh := c.place("f").start()
	_, err = left.AddVoter(t.Context(), "f", fresh.address)
	must(t, "grow again", err)
	check(t, "the new one", fresh.read("k"), "1,2")
}

// alien understands nothing.
type alien struct{}

func (alien) Apply([]byte) ([]byte, error)   { return nil, errors.New("not understood") }
func (alien) Snapshot() (io.WriterTo, error) { return image("alien"), nil }
func (alien) Restore(io.Reader) error        { return errors.New("not understood") }

func nonvoters(peers []consensus.Peer) []consensus.Peer {
	list := slices.Clone(peers)
	for i := range list {
		list[i].Nonvoter = true
	}
	return list
}

func TestReadPeers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text string
		want []consensus.Peer
	}{
		"yaml": {"- id: a\n  address: h:1\n- id: b\n  address: h:2\n  voter: false\n",
			[]consensus.Peer{{ID: "a", Address: "h:1"}, {ID: "b", Address: "h:2", Nonvoter: true}}},
		"json":          {`[{"id":"a","address":"h:1","voter":true}]`, []consensus.Peer{{ID: "a", Address: "h:1"}}},
		"empty":         {"", nil},
		"unknown field": {"- {id: a, address: 'h:1', voted: true}", nil},
		"no port":       {"- {id: a, address: h}", nil},
		"twice":         {"- {id: a, address: 'h:1'}\n- {id: a, address: 'h:2'}", nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "peers")
			must(t, "write", os.WriteFile(path, []byte(tc.text), 0o600))
			got, err := consensus.ReadPeers(path)
			if !slices.Equal(got, tc.want) || (err == nil) != (tc.want != nil) {
				t.Fatalf("got %v, %v; want %v", got, err, tc.want)
			}
		})
	}
}

// TestWhatCannotBeAppliedStopsTheNode writes an entry as another release would.
func TestWhatCannotBeAppliedStopsTheNode(t *testing.T) {
	t.Parallel()
	id := newID()
	entry := func(e *directoryv1.LogEntry) []byte {
		b, err := proto.Marshal(e)
		must(t, "encode", err)
		return b
	}
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"newer version":  {entry(&directoryv1.LogEntry{Version: 2, RequestId: id[:], Command: []byte("set k new")}), "version 2"},
		"no version":     {entry(&directoryv1.LogEntry{RequestId: id[:], Command: []byte("set k new")}), "version 0"},
		"no entry":       {[]byte{0xff}, "apply entry"},
		"no request id":  {entry(&directoryv1.LogEntry{Version: 1, Command: []byte("set k new")}), "request id of 0 bytes"},
		"alien commands": {entry(&directoryv1.LogEntry{Version: 1, RequestId: id[:], Command: []byte("dance")}), `not understood: "dance"`},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, nil)
			m := c.leader()
			m.write("set k old")
			must(t, "stop", m.halt())
			must(t, "write", consensus.AppendEntry(m.dir, tc.data))

			m.start()
			var err error
			select {
			case err = <-m.ended:
			case <-time.After(time.Minute):
				t.Fatal("it goes on")
			}
			m.ended <- err
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("Run returned %v, want %q", err, tc.want)
			}
			check(t, "state", m.ledger.get("k"), "old")
			_, err = m.Propose(t.Context(), newID(), []byte("set k on"))
			wantStatus(t, err, codes.Unavailable, "NOT_SERVING")
			if err := m.Backup(t.Context(), io.Discard); err == nil {
				t.Error("a backup is given of a state that has stopped")
			}
		})
	}
}

func TestDamagedSnapshotStopsTheStart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.leader()
	m.write("set k x")
	_, _, err := m.Snapshot(t.Context())
	must(t, "snapshot", err)
	must(t, "stop", m.halt())
	files, err := filepath.Glob(filepath.Join(m.dir, "snapshots", "*", "state.bin"))
	must(t, "find", err)
	b, err := os.ReadFile(files[0])
	must(t, "read", err)
	b[len(b)-1] ^= 1
	must(t, "damage", os.WriteFile(files[0], b, 0o600))
	m.start()
	err = <-m.ended
	m.ended <- err
	if err == nil || !strings.Contains(err.Error(), "snapshot") {
		t.Fatalf("Run returned %v", err)
	}
}
