package simulation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/truclienthong/truc/test/torture/tally"
)

const (
	// envSeeds is how many seeds to run.
	envSeeds = "TORTURE_SEEDS"
	// envPlace is the one place of the sweep to run.
	envPlace = "TORTURE_PLACE"
)

// TestSeeds runs the plans of many seeds. With TORTURE_SEED it is that one, and
// tells what happened (-v); with TORTURE_SEEDS, so many from there on.
func TestSeeds(t *testing.T) {
	w := work{Count: uint64(tally.Pick(short, 10_000)), Step: 1, Level: slog.LevelWarn}
	count, many := number(t, envSeeds)
	switch {
	case many:
		w.Count = count
	case os.Getenv(tally.EnvSeed) != "":
		w.Count, w.Level = 1, slog.LevelInfo
	case !tally.Long():
		t.Setenv(tally.EnvSeed, "1") // the short form is the same for everybody
	}
	w.First = tally.Seed(t)
	r := newRunner(t, "TestSeeds", tally.EnvSeed)
	r.run(w)
	t.Logf("%d seeds, %s on their own clocks", r.done, r.took.Round(time.Second))
}

// TestEveryCommitPoint stops each relay of a small mesh before and after each
// call that changes something on its disk, and takes of what was not synced
// nothing, everything, some of it, or the end. With TORTURE_PLACE it is that one
// place, told in full.
func TestEveryCommitPoint(t *testing.T) {
	w := work{Sweep: true, Step: 1, Count: 1 << 20, Level: slog.LevelWarn}
	if place, one := number(t, envPlace); one {
		w.First, w.Count, w.Level = place, 1, slog.LevelInfo
	} else if !tally.Long() {
		// Every place, but one way each: 31 has no factor in common with the ways.
		w.Step, w.Count = 31, 120
	}
	r := newRunner(t, "TestEveryCommitPoint", envPlace)
	r.run(w)
	t.Logf("%d places, %s on their own clocks", r.done, r.took.Round(time.Second))
}

// number reads one from the environment, if it is there.
func number(t *testing.T, name string) (n uint64, given bool) {
	text := os.Getenv(name)
	if text == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n, true
}

// runner has workers run plans, and gathers what they say.
type runner struct {
	t *testing.T
	// name of the test, and of the variable that has it run one number alone.
	name, alone string

	mu       sync.Mutex // owns what follows
	done     int
	failed   int
	took     time.Duration
	kinds    map[string]*Kind
	stopping bool
	running  map[*exec.Cmd]bool
}

func newRunner(t *testing.T, name, alone string) *runner {
	return &runner{t: t, name: name, alone: alone, kinds: map[string]*Kind{}, running: map[*exec.Cmd]bool{}}
}

// mostFailures is how many are told in full before the rest is given up.
const mostFailures = 5

// run shares the work among one process for each processor. A bubble is one
// thread's work, and in one thread the order of its goroutines depends less on
// the machine.
func (r *runner) run(w work) {
	dir, err := os.MkdirTemp(memory(), "simulation-")
	if err != nil {
		r.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	workers := min(uint64(runtime.GOMAXPROCS(0)), w.Count)
	var all sync.WaitGroup
	for i := range workers {
		share := w
		share.First, share.Step = w.First+i*w.Step, w.Step*workers
		share.Count = (w.Count - i + workers - 1) / workers
		all.Go(func() { r.worker(share, dir) })
	}
	all.Wait()
	if r.done == 0 && r.failed == 0 {
		r.t.Error("not one plan was run")
	}
	for name, k := range r.kinds {
		faults := tally.Kind(r.t, name, "its end to everything delivered that was accepted before; on the clock of the simulation")
		for i := range k.Injected {
			if hit := faults.Inject(); i < k.Survived {
				hit.SurvivedIn(k.Longest)
			}
		}
	}
}

func (r *runner) worker(w work, dir string) {
	given, err := json.Marshal(w)
	if err != nil {
		r.t.Error(err)
		return
	}
	results, theirs, err := os.Pipe()
	if err != nil {
		r.t.Error(err)
		return
	}
	defer results.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestWorker$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), envWork+"="+string(given), "TMPDIR="+dir, "GOMAXPROCS=1", "GOGC=800",
		"GODEBUG="+strings.TrimPrefix(os.Getenv("GODEBUG")+",adaptivestackstart=1", ","))
	cmd.ExtraFiles = []*os.File{theirs}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := r.start(cmd); err != nil {
		theirs.Close()
		r.t.Error(err)
		return
	}
	theirs.Close()
	begun, at := uint64(0), "none"
	for in := json.NewDecoder(results); ; {
		var got result
		if err := in.Decode(&got); err != nil {
			if !errors.Is(err, io.EOF) && !r.stops() {
				r.t.Errorf("results of a worker: %v", err)
			}
			break
		}
		if got.Begun != nil {
			begun, at = *got.Begun, "its beginning"
			continue
		}
		at = "its end"
		r.take(begun, got)
	}
	if err := cmd.Wait(); err != nil && !r.stops() {
		text := output.String()
		r.t.Errorf("a worker ended behind %s of number %d: %v; again: %s\n%s", at, begun, err, r.again(begun), text[:min(len(text), 64<<10)])
	}
}

func (r *runner) start(cmd *exec.Cmd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return errors.New("given up")
	}
	r.running[cmd] = true
	return cmd.Start()
}

func (r *runner) stops() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopping
}

func (r *runner) again(number uint64) string {
	return fmt.Sprintf("%s=%d go test -count=20 -failfast -run '^%s$' ./test/simulation", r.alone, number, r.name)
}

// take counts one outcome, and tells of violations.
func (r *runner) take(number uint64, got result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := got.Outcome
	if o == nil || got.Missed {
		return
	}
	r.done++
	r.took += o.Took
	for name, k := range o.Kinds {
		sum := r.kinds[name]
		if sum == nil {
			sum = new(Kind)
			r.kinds[name] = sum
		}
		sum.Injected += k.Injected
		sum.Survived += k.Survived
		sum.Longest = max(sum.Longest, k.Longest)
	}
	if len(o.Violations) == 0 {
		if o.Plan != "" {
			r.t.Logf("seed %d\n%s\n%s", number, o.Plan, strings.Join(o.Trace, "\n"))
		}
		return
	}
	var text strings.Builder
	for _, v := range o.Violations {
		fmt.Fprintf(&text, "\n  %s", v)
	}
	trace := o.Trace[max(0, len(o.Trace)-300):]
	r.t.Errorf("seed %d:%s\nagain, as the order of goroutines is not the seed's, perhaps more than once: %s\n%s\nthe end of the trace:\n%s",
		number, text.String(), r.again(number), o.Plan, strings.Join(trace, "\n"))
	if r.failed++; r.failed == mostFailures {
		r.t.Errorf("%d seeds failed, the others are left out", r.failed)
		r.stopping = true
		for cmd := range r.running {
			_ = cmd.Process.Kill()
		}
	}
}

// memory is where files cost nothing, where there is such a place; else the
// usual one for what is temporary. Outboxes are torn apart by power cuts in the
// tests of relay/agency; here they only have to be there.
func memory() string {
	const shared = "/dev/shm"
	f, err := os.CreateTemp(shared, "simulation-")
	if err != nil {
		return ""
	}
	f.Close()
	os.Remove(f.Name())
	return shared
}
