package consensus_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/truclienthong/truc/consensus"
)

// aged returns a cluster in which a member was stopped that has snapshots, a
// log behind them, and votes of several terms, and that member.
func aged(t *testing.T) (*cluster, *member) {
	t.Helper()
	c := newCluster(t, 3, func(cfg *consensus.Config) { cfg.TrailingLogs = 15 })
	m := c.others(c.leader())[0]
	for round := range 3 {
		for i := range 20 {
			c.leader().write(fmt.Sprintf("append k%d %d-%s", i%5, round, strings.Repeat("x", 150*i)))
		}
		m.read("k1")
		if _, _, err := m.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, _ = c.leader().TransferLeader(t.Context(), "") // refused or not: another term in the end
		c.leader()
	}
	for i := range 30 {
		c.leader().write(fmt.Sprintf("append k%d late", i%5))
	}
	m.read("k1")
	must(t, "stop", m.halt())
	return c, m
}

// damage changes bits of one file below a folder as a seed says, and returns
// what it did.
func damage(t *testing.T, dir string, seed uint64) string {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	var files []string
	must(t, "walk", filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	}))
	path := files[random.IntN(len(files))]
	if random.IntN(2) == 0 {
		path = filepath.Join(dir, "raft.db")
	}
	b, err := os.ReadFile(path)
	must(t, "read", err)
	at := random.IntN(len(b))
	what := "a bit flipped"
	switch random.IntN(4) {
	default:
		b[at] ^= 1 << random.IntN(8)
	case 0:
		what = "a sector zeroed"
		at &^= 511
		clear(b[at:min(at+512, len(b))])
	}
	must(t, "write", os.WriteFile(path, b, 0o600))
	rel, _ := filepath.Rel(dir, path)
	return fmt.Sprintf("seed %d: %s at %d of %s (%d bytes)", seed, what, at, rel, len(b))
}

// Whatever bit of a member's files is wrong: it has what it had, or it says that
// it is damaged. It never has something else.
func TestDamageNeverPassesForState(t *testing.T) {
	t.Parallel()
	_, m := aged(t)
	want, err := consensus.Contents(m.dir, newLedger())
	must(t, "undamaged", err)
	refused, same := 0, 0
	for seed := range uint64(150) {
		dir := filepath.Join(t.TempDir(), "raft")
		must(t, "copy", os.CopyFS(dir, os.DirFS(m.dir)))
		what := damage(t, dir, seed)
		got, err := consensus.Contents(dir, newLedger())
		switch {
		case err != nil && strings.Contains(err.Error(), "damaged"):
			refused++
		case err != nil:
			t.Errorf("%s: %v; want it to say that it is damaged", what, err)
		case got != want:
			t.Errorf("%s: it passes for another state\n%s", what, firstDifference(got, want))
		default:
			same++
		}
		os.RemoveAll(dir)
	}
	t.Logf("%d refused, %d as before", refused, same)
	if refused < 20 || same < 20 {
		t.Errorf("%d were refused and %d had what they had: the damage misses the point", refused, same)
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\ngot  %.200s\nwant %.200s", i, g[i], w[i])
		}
	}
	return fmt.Sprintf("got %d lines, want %d", len(g), len(w))
}

// The same with whole nodes: one of three starts damaged, and either catches up
// to the state of the others, or stops with a reason and a way back.
func TestDamagedMemberStopsOrCatchesUp(t *testing.T) {
	t.Parallel()
	c, m := aged(t)
	whole := filepath.Join(t.TempDir(), "whole")
	must(t, "copy", os.CopyFS(whole, os.DirFS(m.dir)))
	refused := 0
	for seed := range uint64(10) {
		must(t, "clear", os.RemoveAll(m.dir))
		must(t, "copy", os.CopyFS(m.dir, os.DirFS(whole)))
		what := damage(t, m.dir, 1000+seed)
		c.leader(ids(c.others(m))...).write("append k1 meanwhile")
		m.start()
		select {
		case <-m.Ready():
			if got, want := m.read("k1"), c.leader().read("k1"); got != want {
				t.Errorf("%s: it has %.100s, the others %.100s", what, got, want)
			}
			must(t, "stop", m.halt())
		case err := <-m.ended:
			m.ended <- err
			m.halt()
			refused++
			if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "relayctl raft remove") {
				t.Errorf("%s: it ends with %v; want that it is damaged and what to do", what, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: it neither starts nor ends", what)
		}
	}
	t.Logf("%d of 10 refused", refused)
}

// What chance would seldom hit.
func TestDamageWhereItCounts(t *testing.T) {
	t.Parallel()
	c, m := aged(t)
	for _, o := range c.others(m) {
		must(t, "stop", o.halt())
	}
	page := os.Getpagesize()
	in := func(file string, change func(*testing.T, []byte)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			found, err := filepath.Glob(filepath.Join(dir, file))
			must(t, "find", err)
			path := found[len(found)-1] // of snapshots, the newest
			b, err := os.ReadFile(path)
			must(t, "read", err)
			change(t, b)
			must(t, "write", os.WriteFile(path, b, 0o600))
		}
	}
	// behind changes the byte so far behind every place where a word stands.
	behind := func(word string, n int) func(*testing.T, []byte) {
		return func(t *testing.T, b []byte) {
			hits := 0
			for at := 0; ; hits++ {
				next := bytes.Index(b[at:], []byte(word))
				if next < 0 {
					break
				}
				at += next + len(word)
				b[at+n] ^= 1
			}
			if hits == 0 {
				t.Fatalf("no %q is there", word)
			}
		}
	}
	const note = "snapshots/*/meta.json"
	for name, change := range map[string]func(*testing.T, string){
		"one head":                        in("raft.db", func(_ *testing.T, b []byte) { b[64] ^= 1 }),
		"the other head":                  in("raft.db", func(_ *testing.T, b []byte) { b[page+64] ^= 1 }),
		"the term":                        in("raft.db", behind("CurrentTerm", 7)),
		"the term of the vote":            in("raft.db", behind("LastVoteTerm", 7)),
		"the vote":                        in("raft.db", behind("LastVoteCand", 0)),
		"the name of the term":            in("raft.db", behind("CurrentTer", 0)),
		"where check sums begin":          in("raft.db", behind("truc.summed-from", 7)),
		"the name of that":                in("raft.db", behind("truc.summed-fro", 0)),
		"the name of the log":             in("raft.db", behind("log", 0)),
		"index of a snapshot":             in(note, behind(`"Index":`, 1)),
		"term of a snapshot":              in(note, behind(`"Term":`, 0)),
		"configuration of a snapshot":     in(note, behind(`"Address":"127.0.0.`, 0)),
		"index of that":                   in(note, behind(`"ConfigurationIndex":`, 0)),
		"vote in a snapshot":              in(note, behind(`"Suffrage":`, 0)),
		"word in the note of a snapshot":  in(note, behind(`"Inde`, 0)),
		"brace of the note of a snapshot": in(note, func(_ *testing.T, b []byte) { b[0] ^= 1 }),
		"a snapshot is gone": func(t *testing.T, dir string) {
			must(t, "remove", os.RemoveAll(filepath.Join(dir, "snapshots")))
		},
		"entries at the end are gone": func(t *testing.T, dir string) {
			must(t, "cut", consensus.CutLog(dir, 3))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "raft")
			must(t, "copy", os.CopyFS(dir, os.DirFS(m.dir)))
			change(t, dir)
			if _, err := consensus.Contents(dir, newLedger()); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("got %v, want that it is damaged", err)
			}
		})
	}
}
