package scenario

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	"github.com/truclienthong/truc/test/mesh"
)

// What an operator types by mistake must not take a mesh apart, and what he
// reads must say what to do next.
func TestMistakesOfOperators(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	operator := []string{"--profile", m.Layout.Profile("operator")}
	dir := t.TempDir()
	rows := filepath.Join(dir, "rows.csv")
	if err := os.WriteFile(rows, []byte("code,name,tier,parent_code\nA1,a,9,\nA2,,1,\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		program string
		args    []string
		code    int
		says    []string
	}{
		"a voter sent to where nobody is":      {"relayctl", []string{"raft", "add-voter", "bac", "127.0.0.1:1"}, 1, []string{"bac is a member at", "--unchecked"}},
		"a voter sent to where another one is": {"relayctl", []string{"raft", "add-voter", "bac", m.Layout.Address("nam")}, 1, []string{"wrong identity", "--unchecked"}},
		"a member that cannot be a relay":      {"relayctl", []string{"raft", "add-nonvoter", "Bad ID", "127.0.0.1:1"}, 2, []string{"Bad ID"}},
		"a member without a port":              {"relayctl", []string{"raft", "add-nonvoter", "tay", "127.0.0.1"}, 2, []string{"host:port"}},
		"rows at fault, each on its line":      {"relayctl", []string{"agency", "import", rows}, 1, []string{"\n  line 2: tier 9", "\n  line 3: name is missing"}},
		"no authority here":                    {"relayctl", []string{"ca", "list", "--dir", dir}, 1, []string{"--dir", "relayctl ca init"}},
		"an envelope nobody knows":             {"relayctl", []string{"trace", "00000000-0000-8000-8000-000000000000"}, 1, []string{"00000000-0000-8000-8000-000000000000: no envelope"}},
		"a relay that nobody can dial":         {"relayd", []string{"init", "--dir", dir, "--id", "tay", "--region", "Tây", "--listen", "0.0.0.0:7400"}, 2, []string{"--advertise"}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.program == "relayctl" {
				c.args = append(c.args, operator...)
			}
			stdout, stderr, code := tool(t, c.program, c.args...)
			if code != c.code || stdout != "" {
				t.Errorf("exit %d, stdout %q; want exit %d and nothing", code, stdout, c.code)
			}
			for _, want := range c.says {
				if !strings.Contains(stderr, want) {
					t.Errorf("stderr %q, want %q in it", stderr, want)
				}
			}
			if strings.Contains(stderr, "rpc error") {
				t.Errorf("stderr %q speaks of the transport", stderr)
			}
		})
	}
	for _, member := range asked(t, "relayctl", append([]string{"raft", "members"}, operator...)...) {
		if want := m.Layout.Address(member["id"].(string)); member["address"] != want {
			t.Errorf("%s is at %s after all this, want %s", member["id"], member["address"], want)
		}
	}
}

// An export is an import that changes nothing, also through a pipe.
func TestExportIsImport(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	operator := []string{"--profile", m.Layout.Profile("operator"), "-o", "json"}
	exported, stderr, code := tool(t, "relayctl", "agency", "export", "--profile", m.Layout.Profile("operator"))
	if code != 0 {
		t.Fatal(stderr)
	}
	cmd := exec.CommandContext(t.Context(), mesh.Binary(t, "relayctl"), append([]string{"agency", "import", "-"}, operator...)...)
	cmd.Stdin = strings.NewReader(exported)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), `"read":14,"changed":0`) {
		t.Errorf("importing an export: %v, %q", err, out.String())
	}
}

// Both ids of a document lead to the same story, with the events of every relay
// on the way.
func TestTrackByEitherID(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	file := filepath.Join(t.TempDir(), "a.pdf")
	if err := os.WriteFile(file, sample.PDF("a", 5000), 0o644); err != nil {
		t.Fatal(err)
	}
	sender := []string{"--profile", m.Layout.Profile("H17.97.08")}
	sent := asked(t, "connector", append([]string{"send", "--to", "G22", "--subject", "a", "--document-id", "doc-1", file}, sender...)...)
	received := asked(t, "connector", "receive", "--out", t.TempDir(), "--max", "1", "--timeout", "30s", "--profile", m.Layout.Profile("G22"))
	if len(received) != 1 || !strings.HasSuffix(received[0]["arrived_at"].(string), "+07:00") {
		t.Errorf("received %v, want one that arrived at a Vietnam time", received)
	}
	for _, id := range []string{"doc-1", sent[0]["envelope_id"].(string)} {
		tracked := asked(t, "connector", append([]string{"track", id}, sender...)...)[0]
		var relays []string
		for _, event := range tracked["events"].([]any) {
			relays = append(relays, event.(map[string]any)["relay"].(string))
		}
		if !slices.Contains(relays, "trung") || !slices.Contains(relays, "bac") {
			t.Errorf("track %s tells of relays %v, want those of ingress and home", id, relays)
		}
	}
}
