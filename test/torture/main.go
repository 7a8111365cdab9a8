// Command torture runs every suite that breaks the mesh in its long form, one
// after the other, and ends with one table: kind of fault, injected, survived,
// longest recovery. It exits with 1 where a suite failed or a fault was not
// survived.
//
//	go run ./test/torture                     # about three quarters of an hour
//	go run ./test/torture --seed 7 --only campaign,power
//	go run ./test/torture --short             # what `go test ./...` runs of it
//
// Suites that need root or FUSE are skipped where these are absent, and the end
// says so. What the suites do and check is in docs/reliability.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/truclienthong/truc/test/torture/tally"
)

const module = "github.com/truclienthong/truc/test/"

// suites are the packages below test/ that break things, quick to find out first.
var suites = []string{"simulation", "directory", "rot", "power", "isolation", "campaign"}

// worldsShort and worldsLong are how many seeds the simulation runs from the given one
// on: a seed alone would be one world.
const worldsShort, worldsLong = 400, 5_000

type options struct {
	seed  uint64
	only  string
	short bool
	json  bool
	limit time.Duration
	logs  string
}

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 0, "seed of all suites; 0: one is drawn and printed")
	flag.StringVar(&o.only, "only", "", "suites to run, with commas between: "+strings.Join(suites, ","))
	flag.BoolVar(&o.short, "short", false, "run the short forms")
	flag.BoolVar(&o.json, "json", false, "print the rows as JSON, one a line, rather than a table")
	flag.DurationVar(&o.limit, "limit", 40*time.Minute, "longest time that one suite may take")
	flag.StringVar(&o.logs, "logs", "", "directory for the output of the suites; empty: a new one below "+os.TempDir())
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Runs every suite that breaks the mesh and prints what became of it.\n\n  go run ./test/torture [flags]\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, o, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1)
	}
}

// run runs the suites and reports whether all is well.
func run(ctx context.Context, o options, out, progress io.Writer) (bool, error) {
	chosen, err := choose(o.only)
	if err != nil {
		return false, err
	}
	if o.seed == 0 {
		o.seed = 1 + rand.Uint64N(1<<32)
	}
	if o.logs == "" {
		if o.logs, err = os.MkdirTemp("", "torture-"); err != nil {
			return false, err
		}
	} else if err := os.MkdirAll(o.logs, 0o755); err != nil {
		return false, err
	}
	// Disks of relays and what a suite that dies leaves behind.
	scratch, err := os.MkdirTemp("", "torture-disks-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(scratch)
	file := filepath.Join(o.logs, "tally.json")
	if err := os.RemoveAll(file); err != nil {
		return false, err
	}
	fmt.Fprintf(progress, "seed %d; output of the suites in %s\n", o.seed, o.logs)
	begun, ok := time.Now(), true
	for _, name := range chosen {
		s := suite{name: name, options: o, tally: file, scratch: scratch}
		passed, err := s.run(ctx, progress)
		if err != nil {
			return false, err
		}
		ok = ok && passed
		if ctx.Err() != nil {
			fmt.Fprintln(progress, "interrupted; so far:")
			ok = false
			break
		}
	}
	rows, err := tally.Read(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	fmt.Fprintf(progress, "%s in all, seed %d\n\n", time.Since(begun).Round(time.Second), o.seed)
	for _, r := range rows {
		ok = ok && !r.Failed && r.Survived == r.Injected
	}
	if o.json {
		encoder := json.NewEncoder(out)
		for _, r := range tally.Sum(rows) {
			if err := encoder.Encode(r); err != nil {
				return false, err
			}
		}
		return ok, nil
	}
	return ok, tally.Print(out, rows)
}

func choose(only string) ([]string, error) {
	if only == "" {
		return suites, nil
	}
	chosen := strings.Split(only, ",")
	for _, name := range chosen {
		if !slices.Contains(suites, name) {
			return nil, fmt.Errorf("no suite %q; there are %s", name, strings.Join(suites, ", "))
		}
	}
	return chosen, nil
}

// suite is one package of tests.
type suite struct {
	name string
	options
	tally, scratch string
}

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action, Test, Output string
	Elapsed              float64
}

// run reports whether the tests of the suite passed; an error says that they
// could not be run.
func (s suite) run(ctx context.Context, progress io.Writer) (bool, error) {
	log, err := os.Create(filepath.Join(s.logs, s.name+".log"))
	if err != nil {
		return false, err
	}
	defer log.Close()
	form, worlds := "long", worldsLong
	if s.short {
		form, worlds = "short", worldsShort
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout", s.limit.String(), module+s.name)
	cmd.Env = append(os.Environ(), tally.EnvForm+"="+form, fmt.Sprintf("%s=%d", tally.EnvSeed, s.seed),
		tally.EnvFile+"="+s.tally, fmt.Sprintf("TORTURE_SEEDS=%d", worlds), "TMPDIR="+s.scratch)
	cmd.Stderr = log
	// Tests clean up behind themselves when they are interrupted, then they end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	begun := time.Now()
	fmt.Fprintf(progress, "%s ...\n", s.name)
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("suite %s: %w", s.name, err)
	}
	follow(stdout, log, progress)
	err = cmd.Wait()
	word := "ok"
	if err != nil {
		word = "FAILED, see " + log.Name()
	}
	fmt.Fprintf(progress, "%s: %s, %s\n", s.name, word, time.Since(begun).Round(time.Second))
	return err == nil, nil
}

// follow writes the output of tests to log, and to progress how each test of the
// top level ended and why those were skipped that were.
func follow(events io.Reader, log, progress io.Writer) {
	last := map[string]string{}
	decoder := json.NewDecoder(events)
	for {
		var e event
		if err := decoder.Decode(&e); err != nil {
			_, _ = io.Copy(log, io.MultiReader(decoder.Buffered(), events)) // no events: a build that failed
			return
		}
		fmt.Fprint(log, e.Output)
		if line := strings.TrimSpace(e.Output); line != "" && !strings.HasPrefix(line, "---") {
			last[e.Test] = line
		}
		if e.Test == "" || strings.Contains(e.Test, "/") {
			continue
		}
		switch e.Action {
		case "skip":
			fmt.Fprintf(progress, "  skipped %s: %s\n", e.Test, last[e.Test])
		case "pass", "fail":
			fmt.Fprintf(progress, "  %s %s, %.0f s\n", e.Action, e.Test, e.Elapsed)
		}
	}
}
