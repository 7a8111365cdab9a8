package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Ran is what a program printed and how it ended.
type Ran struct {
	Stdout, Stderr string
	Code           int
}

// Tool runs a program of the project to its end, with no profile but the one
// that args name.
func Tool(t testing.TB, program string, args ...string) Ran {
	t.Helper()
	return toolWith(t, "", program, args...)
}

func toolWith(t testing.TB, stdin, program string, args ...string) Ran {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), Binary(t, program), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	cmd.Env = append(os.Environ(), "TRUC_PROFILE=")
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return Ran{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Objects runs a program that has to succeed and reads its JSON lines.
func Objects(t testing.TB, program string, args ...string) (objects []map[string]any) {
	t.Helper()
	return objectsOf(t, Tool(t, program, append(args, "-o", "json")...), program, args...)
}

func objectsOf(t testing.TB, ran Ran, program string, args ...string) (objects []map[string]any) {
	t.Helper()
	if ran.Code != 0 {
		t.Fatalf("%s %s: exit %d, %s", program, strings.Join(args, " "), ran.Code, ran.Stderr)
	}
	for line := range strings.Lines(ran.Stdout) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Fatalf("%s %s: %v in %q", program, strings.Join(args, " "), err, line)
		}
		objects = append(objects, object)
	}
	return objects
}

// Relayctl runs relayctl as the operator; it has to succeed.
func (m *Mesh) Relayctl(args ...string) []map[string]any {
	m.t.Helper()
	return Objects(m.t, "relayctl", append(args, "--profile", m.Layout.Profile("operator"))...)
}

// RelayctlWith runs relayctl as the operator with something on standard input; it
// has to succeed.
func (m *Mesh) RelayctlWith(stdin string, args ...string) []map[string]any {
	m.t.Helper()
	return objectsOf(m.t, toolWith(m.t, stdin, "relayctl", append(args, "-o", "json", "--profile", m.Layout.Profile("operator"))...), "relayctl", args...)
}

// TryRelayctl runs relayctl as the operator, whatever comes of it.
func (m *Mesh) TryRelayctl(args ...string) Ran {
	m.t.Helper()
	return Tool(m.t, "relayctl", append(args, "--profile", m.Layout.Profile("operator"))...)
}

// Connector runs connector as an agency; it has to succeed.
func (m *Mesh) Connector(code string, args ...string) []map[string]any {
	m.t.Helper()
	return Objects(m.t, "connector", append(args, "--profile", m.Layout.Profile(code))...)
}
