package bite

import (
	"context"
	"fmt"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/truclienthong/truc/test/torture/tally"
)

// envBite begins the runs; they take minutes.
const envBite = "BITE"

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Every mutation still finds the code that it changes, and leaves Go.
func TestMutationsApply(t *testing.T) {
	t.Parallel()
	for _, m := range Mutations {
		for _, e := range m.Edits {
			text, err := m.apply(root(t), e.File)
			if err != nil {
				t.Error(err)
				continue
			}
			if _, err := format.Source(text); err != nil {
				t.Errorf("mutation %q: %s: %v", m.Name, e.File, err)
			}
		}
		for _, r := range m.Runs {
			if _, err := regexp.Compile(r.Want); err != nil || r.Want == "" {
				t.Errorf("mutation %q: %q is not what a report can be held against: %v", m.Name, r.Want, err)
			}
		}
		if len(m.Runs) == 0 {
			t.Errorf("mutation %q: no suite has to notice", m.Name)
		}
	}
}

// Every suite reports what a mutation breaks.
func TestBite(t *testing.T) {
	if os.Getenv(envBite) == "" {
		t.Skip("takes minutes: run it with `make bite`")
	}
	noticed := tally.Kind(t, "promise taken out of the code", "start of the suite to its report, with the build")
	for _, m := range Mutations {
		for _, r := range m.Runs {
			t.Run(strings.ReplaceAll(m.Name, " ", "_")+"/"+r.Suite, func(t *testing.T) {
				hit := noticed.Inject()
				if r.bites(t, m) {
					hit.Survived()
				}
			})
		}
	}
}

// bites reports whether the suite fails, and for the right reason.
func (r Run) bites(t *testing.T, m Mutation) bool {
	t.Helper()
	overlay, err := m.Overlay(root(t), t.TempDir())
	if err != nil {
		t.Error(err)
		return false
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-timeout=18m", "-run=^"+r.Test+"$", "./test/"+r.Suite)
	cmd.Dir = root(t)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// GOFLAGS reaches the builds of relayd inside the suite too.
	cmd.Env = append(os.Environ(), append(r.Env, fmt.Sprintf("%s=%d", tally.EnvSeed, r.Seed), tally.EnvFile+"=",
		"GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))...)
	t.Logf("%s go test -count=1 -run '^%s$' ./test/%s (overlay: %s)",
		strings.Join(append(r.Env, fmt.Sprintf("%s=%d", tally.EnvSeed, r.Seed)), " "), r.Test, r.Suite, m.Name)
	out, err := cmd.CombinedOutput()
	report := regexp.MustCompile("(?m)^.*(?:" + r.Want + ").*$").Find(out)
	switch {
	case strings.Contains(string(out), "--- SKIP: "+r.Test+" "):
		t.Skipf("%s cannot run here:\n%s", r.Suite, tail(out))
	case err == nil:
		t.Errorf("without %s, %s passes:\n%s", m.Name, r.Suite, tail(out))
	case report == nil:
		t.Errorf("without %s, %s fails, but nothing it says is like %q:\n%s", m.Name, r.Suite, r.Want, tail(out))
	default:
		t.Logf("reported: %s", strings.TrimSpace(string(report)))
		return true
	}
	return false
}

func tail(out []byte) string { return string(out[max(0, len(out)-4000):]) }
