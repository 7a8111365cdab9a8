package consensus_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/truclienthong/truc/consensus"
)

// A member that has lost its votes does not begin again by itself, neither as
// one of the first voters nor as one that was added; without its mark it is a
// new relay.
func TestLostVotesAreMissed(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*testing.T, *member){
		"the log":    func(t *testing.T, m *member) { must(t, "lose", os.Remove(filepath.Join(m.dir, "raft.db"))) },
		"the folder": func(t *testing.T, m *member) { must(t, "lose", os.RemoveAll(m.dir)) },
		"what is in the log": func(t *testing.T, m *member) {
			must(t, "lose", os.Truncate(filepath.Join(m.dir, "raft.db"), 0))
		},
		"the log, and the mark was never made": func(t *testing.T, m *member) {
			must(t, "lose", os.Remove(filepath.Join(m.dir, "raft.db")))
			must(t, "lose", os.Remove(m.dir+".member"))
		},
	} {
		for _, first := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				c := newCluster(t, 3, nil)
				leader := c.leader()
				leader.write("append k 1")
				m := c.others(leader)[0]
				m.read("k")
				if !first {
					m = c.place("d").start()
					_, err := leader.AddVoter(t.Context(), "d", m.address)
					must(t, "add", err)
					m.read("k")
				}
				must(t, "stop", m.halt())
				lose(t, m)
				m.start()
				err := <-m.ended
				m.ended <- err
				m.halt()
				for _, want := range []string{"raft.db", "has been a member of Raft", "relayctl raft remove", "relayctl raft add-voter"} {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Fatalf("Run returned %v, want %q in it", err, want)
					}
				}

				// What the words say to do.
				_, err = leader.Remove(t.Context(), m.id)
				must(t, "remove", err)
				must(t, "move away", os.RemoveAll(m.dir))
				if err := os.Remove(m.dir + ".member"); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				c.tune = func(cfg *consensus.Config) { cfg.Voters = nil }
				m.start()
				_, err = leader.AddVoter(t.Context(), m.id, m.address)
				must(t, "add again", err)
				check(t, "state", m.read("k"), "1")
			})
		}
	}
}

// A relay that waits to be added, and one that was stopped before it had
// anything, have never been members.
func TestWhoWasNeverMemberStarts(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	c.leader()
	d := c.place("d").start()
	<-d.Ready()
	must(t, "stop", d.halt())
	must(t, "lose", os.RemoveAll(d.dir))
	d.start()
	<-d.Ready()
	if _, err := os.Stat(d.dir + ".member"); !os.IsNotExist(err) {
		t.Errorf("a mark of a relay that is no member: %v", err)
	}
}

// A log that an earlier release wrote, without check sums, is taken over.
func TestLogOfAnEarlierRelease(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	m := c.others(c.leader())[0]
	m.write("append k 1")
	m.write("append k 2")
	must(t, "stop", m.halt())
	path := filepath.Join(m.dir, "raft.db")
	strip(t, path)
	must(t, "no mark yet", os.Remove(m.dir+".member"))
	c.leader(ids(c.others(m))...).write("append k 3")
	m.start()
	check(t, "state", m.read("k"), "1,2,3")
	must(t, "stop", m.halt())
	m.start()
	check(t, "state after another start", m.read("k"), "1,2,3")

	// What it writes from then on is protected.
	must(t, "stop", m.halt())
	logs, err := raftboltdb.NewBoltStore(path)
	must(t, "open", err)
	last, err := logs.LastIndex()
	must(t, "last", err)
	var l raft.Log
	must(t, "read", logs.GetLog(last, &l))
	l.Extensions = nil
	must(t, "write", logs.StoreLog(&l))
	must(t, "close", logs.Close())
	m.start()
	err = <-m.ended
	m.ended <- err
	if err == nil || !strings.Contains(err.Error(), "lost its check sum") {
		t.Errorf("an entry without a check sum: %v", err)
	}
}

// strip takes off what an earlier release did not write.
func strip(t *testing.T, path string) {
	t.Helper()
	logs, err := raftboltdb.NewBoltStore(path)
	must(t, "open", err)
	first, err := logs.FirstIndex()
	must(t, "first", err)
	last, err := logs.LastIndex()
	must(t, "last", err)
	fresh := path + ".new"
	old, err := raftboltdb.NewBoltStore(fresh)
	must(t, "new", err)
	for index := first; index <= last; index++ {
		var l raft.Log
		must(t, "read", logs.GetLog(index, &l))
		l.Extensions = nil
		must(t, "write", old.StoreLog(&l))
	}
	for _, key := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"} {
		value, err := logs.Get([]byte(key))
		if err != nil {
			continue
		}
		must(t, "write", old.Set([]byte(key), value[:len(value)-4]))
	}
	term, err := old.GetUint64([]byte("CurrentTerm"))
	if raw, _ := old.Get([]byte("CurrentTerm")); err != nil || binary.BigEndian.Uint64(raw) != term {
		t.Fatalf("term %d, %v", term, err)
	}
	must(t, "close", logs.Close())
	must(t, "close", old.Close())
	must(t, "rename", os.Rename(fresh, path))
}
