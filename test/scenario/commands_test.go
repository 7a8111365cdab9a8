package scenario

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	"github.com/truclienthong/truc/test/mesh"
)

// tool runs a program of the project and returns what it printed and how it
// ended.
func tool(t *testing.T, name string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ran := mesh.Tool(t, name, args...)
	return ran.Stdout, ran.Stderr, ran.Code
}

// asked runs a program that has to succeed and reads its JSON lines.
func asked(t *testing.T, name string, args ...string) []map[string]any {
	t.Helper()
	return mesh.Objects(t, name, args...)
}

// The commands of an operator's and an agency's day, with their real programs
// against three relayd processes.
func TestCommands(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	operator := []string{"--profile", m.Layout.Profile("operator")}
	with := func(profile []string, args ...string) []string { return append(args, profile...) }

	members := asked(t, "relayctl", with(operator, "raft", "members")...)
	if len(members) != 3 || members[0]["id"] == "" || members[0]["voter"] != true {
		t.Errorf("raft members: %v", members)
	}
	again := asked(t, "relayctl", with(operator, "agency", "import", m.Layout.AgenciesFile())...)
	if again[0]["read"] != float64(14) || again[0]["changed"] != float64(0) {
		t.Errorf("importing the same agencies again: %v, want 14 read and 0 changed", again)
	}
	if wards := asked(t, "relayctl", with(operator, "agency", "list", "--under", "H26", "--tier", "4")...); len(wards) != 1 || wards[0]["code"] != "H26.12.05" {
		t.Errorf("wards of H26: %v", wards)
	}

	dir := t.TempDir()
	file := filepath.Join(dir, "báo cáo.pdf")
	content := sample.PDF("bao cao", 230_000)
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	sender := []string{"--profile", m.Layout.Profile("H17.97.08")}
	sent := asked(t, "connector", with(sender, "send", "--to", "G22", "--subject", "Báo cáo tháng", "--document-id", "H17.97.08,2026,1", file)...)
	id, _ := sent[0]["envelope_id"].(string)
	if id == "" {
		t.Fatalf("send: %v", sent)
	}
	repeat := asked(t, "connector", with(sender, "send", "--to", "G22", "--subject", "Báo cáo tháng", "--document-id", "H17.97.08,2026,1", file)...)
	if repeat[0]["envelope_id"] != id || repeat[0]["accepted_at"] != sent[0]["accepted_at"] || repeat[0]["repeat"] != true {
		t.Errorf("sent again: %v, want the receipt %v", repeat, sent)
	}
	inbox := filepath.Join(dir, "inbox")
	received := asked(t, "connector", "receive", "--out", inbox, "--max", "1", "--timeout", "30s", "--profile", m.Layout.Profile("G22"))
	if len(received) != 1 || received[0]["envelope_id"] != id || received[0]["confirmed"] != true {
		t.Fatalf("receive: %v", received)
	}
	got, err := os.ReadFile(filepath.Join(inbox, id, "báo cáo.pdf"))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("received file: %d bytes, %v; want the %d that were sent", len(got), err, len(content))
	}
	if _, err := os.Stat(filepath.Join(inbox, id, "envelope.json")); err != nil {
		t.Error(err)
	}
	if nothing := asked(t, "connector", "receive", "--out", inbox, "--profile", m.Layout.Profile("G22")); len(nothing) != 0 {
		t.Errorf("receive again: %v, want nothing", nothing)
	}

	trace := asked(t, "relayctl", with(operator, "trace", id)...)[0]
	sum := sha256.Sum256(content)
	parts, _ := trace["parts"].([]any)
	if len(parts) != 1 || parts[0].(map[string]any)["sha256"] != hex.EncodeToString(sum[:]) {
		t.Errorf("trace: parts %v, want SHA-256 %x", parts, sum)
	}
	if events, _ := trace["events"].([]any); len(events) < 5 {
		t.Errorf("trace: %v, want accepted, handed on, taken, arrived, confirmed", events)
	}
	track := asked(t, "connector", with(sender, "track", id)...)
	if len(track) == 0 {
		t.Error("track printed nothing")
	}
}

// Exit codes and reasons are what scripts rely on.
func TestRefusalsOfCommands(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	file := filepath.Join(t.TempDir(), "a.pdf")
	if err := os.WriteFile(file, sample.PDF("a", 5000), 0o644); err != nil {
		t.Fatal(err)
	}
	agency := m.Layout.Profile("H17.97.08")
	operator := m.Layout.Profile("operator")
	for name, c := range map[string]struct {
		program string
		args    []string
		code    int
		says    []string
	}{
		"unknown recipients, all of them named": {"connector",
			[]string{"send", "--profile", agency, "--to", "X99,G22,Y88", "--subject", "a", file}, 1, []string{"X99", "Y88"}},
		"no recipient":        {"connector", []string{"send", "--profile", agency, "--subject", "a", file}, 2, []string{"to"}},
		"no such file":        {"connector", []string{"send", "--profile", agency, "--to", "G22", "--subject", "a", file + "x"}, 1, []string{"a.pdfx"}},
		"unknown flag":        {"connector", []string{"send", "--no-such-flag"}, 2, []string{"no-such-flag"}},
		"no profile":          {"connector", []string{"agencies"}, 2, []string{"profile"}},
		"agency as operator":  {"relayctl", []string{"raft", "members", "--profile", agency}, 1, []string{""}},
		"no such envelope":    {"relayctl", []string{"trace", "00000000-0000-8000-8000-000000000000", "--profile", operator}, 1, []string{"00000000"}},
		"no id":               {"relayctl", []string{"trace", "nonsense", "--profile", operator}, 2, []string{"nonsense"}},
		"move to no relay":    {"relayctl", []string{"agency", "move", "G22", "nowhere", "--profile", operator}, 1, []string{"nowhere"}},
		"unknown agency":      {"relayctl", []string{"agency", "show", "X99", "--profile", operator}, 1, []string{"X99"}},
		"fsck of a live one":  {"relayd", []string{"fsck", "--config", m.Layout.RelayConfig("bac")}, 1, []string{"use"}},
		"unknown command":     {"relayctl", []string{"raft", "explode"}, 2, []string{"explode"}},
		"missing config file": {"relayd", []string{"run", "--config", "no-such.yaml"}, 1, []string{"no-such.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := tool(t, c.program, c.args...)
			if code != c.code {
				t.Errorf("exit %d, want %d; stderr %q", code, c.code, stderr)
			}
			if stdout != "" {
				t.Errorf("stdout %q, want nothing", stdout)
			}
			for _, want := range c.says {
				if !strings.Contains(stderr, want) {
					t.Errorf("stderr %q, want %q in it", stderr, want)
				}
			}
		})
	}
}
