package agency_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/truclienthong/truc/relay/agency"
)

func TestLoadProfile(t *testing.T) {
	const rest = "certificate: a.crt\nkey: keys/a.key\ntrust: /etc/truc/trust.pem\n"
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text  string
		fault string
	}{
		"whole":             {"relays: [10.1.0.4:7400, '[::1]:7400']\nagency: H26\n" + rest, ""},
		"no relay":          {"agency: H26\n" + rest, "relays"},
		"relay no port":     {"relays: [bac]\n" + rest, `"bac" is not host:port`},
		"misspelt":          {"relay: [bac:1]\n" + rest, "field relay not found"},
		"files missing":     {"relays: [bac:1]\n", "certificate: name a file\nkey: name a file\ntrust: name a file"},
		"no YAML":           {"relays: [", "profile"},
		"empty":             {"", "profile"},
		"relays a text":     {"relays: 7\n" + rest, "profile"},
		"no agency, a tool": {"relays: [bac:1]\n" + rest, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "p.yaml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := agency.LoadProfile(path)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) || !strings.Contains(err.Error(), path) {
					t.Errorf("got %v, want %q and the path in it", err, c.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := agency.Config{Relays: got.Relays, Agency: got.Agency,
				Outbox: filepath.Join(dir, "p.outbox"), Certificate: filepath.Join(dir, "a.crt"), Key: filepath.Join(dir, "keys", "a.key"), Trust: "/etc/truc/trust.pem"}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(agency.Config{})); diff != "" {
				t.Errorf("profile (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := agency.LoadProfile(filepath.Join(dir, "none.yaml")); err == nil {
		t.Error("no file: got no error")
	}
	if _, err := agency.New(agency.Config{}); err == nil {
		t.Error("an empty configuration: got no error")
	}
	if _, err := agency.New(agency.Config{Relays: []string{"127.0.0.1:1"}, Certificate: "none.crt"}); err == nil {
		t.Error("no certificate: got no error")
	}
}
