package simulation

import (
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/truclienthong/truc/test/history"
)

// Outcome of one plan.
type Outcome struct {
	Seed uint64
	// Violations of a promise, Trace what happened on the way.
	Violations []history.Violation
	Plan       string
	Trace      []string
	// Kinds counts what was injected.
	Kinds map[string]*Kind
	// Took is how long it was on the clock of the bubble.
	Took time.Duration
}

// Kind counts the faults of one kind.
type Kind struct {
	Injected, Survived int
	// Longest time, on the clock of the bubble, from the end of the fault until
	// everything was delivered that had been accepted before.
	Longest time.Duration
}

// run does what a plan says, in a bubble of its own.
func run(t *testing.T, p *plan, level slog.Level) (o Outcome) {
	dir, err := os.MkdirTemp("", "outboxes-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(p, dir, level)
		if err := w.build(); err != nil {
			t.Fatal(err)
		}
		for _, d := range w.desks {
			w.running.Go(d.run)
		}
		w.sendAll()
		w.do()
		w.running.Go(w.watchRecovery)
		w.sleep(p.heal)
		w.mend()
		w.finish()
		w.end()
		o = w.outcome()
	})
	return o
}

// outcome is what there is to say, once everything has ended.
func (w *world) outcome() Outcome {
	w.recovered() // what was counted behind the last look
	o := Outcome{
		Seed: w.seed, Violations: append(w.found, w.history.Violations()...), Plan: w.plan.String(), Trace: w.trace,
		Kinds: map[string]*Kind{}, Took: w.since(),
	}
	for _, h := range w.hits {
		k := o.Kinds[h.kind]
		if k == nil {
			k = new(Kind)
			o.Kinds[h.kind] = k
		}
		k.Injected++
		if h.done && len(o.Violations) == 0 {
			k.Survived++
			k.Longest = max(k.Longest, h.recovery)
		}
	}
	return o
}
