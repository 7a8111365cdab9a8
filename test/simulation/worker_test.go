package simulation

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"testing"
	"time"
)

// envWork tells a process that it is a worker, and what to do.
const envWork = "SIMULATION_WORK"

// work is what a worker does: Count plans, of every Step-th number from First.
type work struct {
	// Sweep: numbers are places of the sweep, else seeds.
	Sweep              bool
	First, Count, Step uint64
	Level              slog.Level
}

// result is what a worker says: that it begins with a number, and what came of
// it.
type result struct {
	Begun   *uint64  `json:",omitempty"`
	Outcome *Outcome `json:",omitempty"`
	// Missed: the place of the sweep does not exist.
	Missed bool `json:",omitempty"`
}

// stuckAfter is when a worker counts as stuck, by the clock of the machine. A
// plan takes a fraction of a second of it; a bubble in which somebody waits for
// what is no channel of its own takes for ever.
const stuckAfter = 5 * time.Minute

// TestWorker is not a test by itself: it runs in the processes that the others
// start.
func TestWorker(t *testing.T) {
	given := os.Getenv(envWork)
	if given == "" {
		t.Skip("only for processes that the other tests start")
	}
	var w work
	if err := json.Unmarshal([]byte(given), &w); err != nil {
		t.Fatal(err)
	}
	out := json.NewEncoder(os.NewFile(3, "results"))
	say := func(r result) {
		if err := out.Encode(r); err != nil {
			t.Fatal(err) // whoever asked is gone
		}
	}
	stuck := time.AfterFunc(stuckAfter, func() {
		stacks := make([]byte, 4<<20)
		fmt.Fprintf(os.Stderr, "stuck for %s\n%s", stuckAfter, stacks[:runtime.Stack(stacks, true)])
		os.Exit(3)
	})
	defer stuck.Stop()
	missed := 0
	for i := range w.Count {
		n := w.First + i*w.Step
		stuck.Reset(stuckAfter)
		say(result{Begun: &n})
		p := newPlan
		if w.Sweep {
			p = newSweepPlan
		}
		o := run(t, p(n), w.Level)
		if len(o.Violations) == 0 && w.Level > slog.LevelInfo {
			o.Plan, o.Trace = "", nil
		}
		r := result{Outcome: &o}
		if w.Sweep && o.Kinds[kindCall] == nil {
			r.Missed = true
			missed++
		} else {
			missed = 0
		}
		say(r)
		if missed == sweepWays {
			return // no relay makes so many calls
		}
	}
}
