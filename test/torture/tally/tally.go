// Package tally counts what a suite of the torture does to a mesh and what
// became of it, so that a run of all suites ends with one table.
//
// A suite is an ordinary test. Its short form runs with `go test ./...`, its
// long form where TORTURE=long. What it leaves to chance comes from Seed, which
// it prints: the same seed makes the same plan of faults. What processes and
// goroutines do in between is theirs, so a finding may need several runs of its
// seed.
//
//	seed := tally.Seed(t)
//	kills := tally.Kind(t, "relay killed (SIGKILL)", "restart to serving")
//	hit := kills.Inject()
//	... kill, start, wait until it serves ...
//	hit.Survived()
package tally

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Variables of the environment by which a run is told what to do.
const (
	// EnvForm is "long" for the long form of the suites.
	EnvForm = "TORTURE"
	// EnvSeed is the seed, a decimal number; one is drawn where it is not set.
	EnvSeed = "TORTURE_SEED"
	// EnvFile names a file to which the rows are appended, a JSON object a line.
	EnvFile = "TORTURE_TALLY"
)

// Row is what one kind of fault came to in one test.
type Row struct {
	// Suite is the name of the test, Seed what it was given.
	Suite string `json:"suite"`
	Seed  uint64 `json:"seed"`
	// Kind of the fault, for people.
	Kind     string `json:"kind"`
	Injected int    `json:"injected"`
	// Survived are those after which service went on and every promise held.
	Survived int `json:"survived"`
	// Longest recovery; Measured says from where to where.
	Longest  time.Duration `json:"longest_ns"`
	Measured string        `json:"measured"`
	// Failed says that the test did.
	Failed bool `json:"failed"`
}

// Long reports whether the long form is wanted.
func Long() bool { return os.Getenv(EnvForm) == "long" }

// Pick returns short or long, as is wanted.
func Pick[T any](short, long T) T {
	if Long() {
		return long
	}
	return short
}

// Seed returns the seed of a test and prints how to repeat it.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64N(1 << 32)
	if given := os.Getenv(EnvSeed); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("%s: %v", EnvSeed, err)
		}
	}
	seeds.Store(t.Name(), seed)
	form := ""
	if Long() {
		form = EnvForm + "=long "
	}
	t.Logf("seed %d; again: %s%s=%d go test -count=1 -run '^%s$'", seed, form, EnvSeed, seed, t.Name())
	return seed
}

// seeds are those given out, by test.
var seeds sync.Map

// Faults are those of one kind in one test.
type Faults struct {
	mu  sync.Mutex
	row Row
}

// Kind opens the count of one kind of fault; measured says what a recovery is,
// as "restart to serving". The row is written when the test ends.
func Kind(t testing.TB, kind, measured string) *Faults {
	t.Helper()
	f := &Faults{row: Row{Suite: t.Name(), Kind: kind, Measured: measured}}
	if seed, ok := seeds.Load(t.Name()); ok {
		f.row.Seed = seed.(uint64)
	}
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.row.Failed = t.Failed()
		t.Logf("%s: %d injected, %d survived, longest recovery %s (%s)",
			f.row.Kind, f.row.Injected, f.row.Survived, f.row.Longest.Round(time.Millisecond), f.row.Measured)
		if err := f.row.write(); err != nil {
			t.Errorf("tally: %v", err)
		}
	})
	return f
}

func (r Row) write() error {
	file := os.Getenv(EnvFile)
	if file == "" {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// One write of a line: several test processes append to the same file.
	out, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%s\n", line); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// Hit is one fault.
type Hit struct {
	faults *Faults
	begun  time.Time
	once   sync.Once
}

// Inject counts a fault, made now. Its recovery is measured from here, or from
// the last Hit.From.
func (f *Faults) Inject() *Hit {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.row.Injected++
	return &Hit{faults: f, begun: time.Now()}
}

// From begins the recovery now: the relay is started again, the link is whole.
func (h *Hit) From() { h.begun = time.Now() }

// Survived says that service goes on; the time since Inject or From was its
// recovery. Only the first call counts.
func (h *Hit) Survived() { h.SurvivedIn(time.Since(h.begun)) }

// SurvivedIn says that service went on after d, for suites whose clock is not
// the machine's.
func (h *Hit) SurvivedIn(d time.Duration) {
	h.once.Do(func() {
		h.faults.mu.Lock()
		defer h.faults.mu.Unlock()
		h.faults.row.Survived++
		h.faults.row.Longest = max(h.faults.row.Longest, d)
	})
}
