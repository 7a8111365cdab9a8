package spool_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Opening badger dominates; -rapid.checks runs more.
	if err := flag.Set("rapid.checks", "5"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m,
		// Badger leaves these behind when it cannot open a damaged index.
		goleak.IgnoreAnyFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"),
	)
}

func TestWhatIsCommittedIsThere(t *testing.T) {
	t.Parallel()
	for name, sizes := range map[string][]int{
		"no part":     nil,
		"empty part":  {0},
		"small":       {2000, 1000},
		"medium":      {300 << 10, 5, 0, 400 << 10},
		"large":       {5<<20 + 123, 70_000},
		"exact chunk": {1 << 20, 256 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			n := start(t, cfg)
			p := newParcel(1, sizes...).inbox("H26.1").onward("nam", "G22", "G23").onward("trung", "K1")
			n.mustPut(p)
			for range 2 {
				n.wantContent(p)
				if got := n.inboxOf("H26.1"); len(got) != 1 || got[0] != p.ID {
					t.Errorf("inbox holds %v, want the envelope", got)
				}
				if got := n.queueOf("nam"); len(got) != 1 || len(got[0].Onward.Agencies) != 2 {
					t.Errorf("queue holds %+v, want one entry for two recipients", got)
				}
				n.end()
				check(t, cfg)
				n = start(t, cfg)
			}
		})
	}
}
