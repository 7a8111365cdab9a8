package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/truclienthong/truc/relay/ingress"
	"github.com/truclienthong/truc/relay/spool"
)

const minimal = `
id: bac
region: Bắc
listen: 127.0.0.1:7400
data: data
certificate: relay.crt
key: relay.key
trust: root.crt
`

func load(t *testing.T, yaml string) (Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "relay.yaml")
	if err := os.WriteFile(file, []byte(minimal+yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	return Load(file)
}

func TestLimitsAndRetentionReachTheRelay(t *testing.T) {
	c, err := load(t, `
copy_wait: 2s
retention: 24h
retention_dead: 480h
retention_record: 1000h
limits: {part_size: 500MB, rate: 12.5, burst: 40, byte_rate: 1.5MiB, quota: 8GiB, quota_envelopes: -1, queue: 7, inbox: 9, disk_reserve: 4096}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := ingress.Limits{Rate: 12.5, Burst: 40, ByteRate: 3 << 19, Quota: 8 << 30, QuotaEnvelopes: -1, Queue: 7, Inbox: 9}
	if diff := cmp.Diff(want, c.Limits.ingress()); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	store := c.spool()
	keep := spool.Retention{Ingress: 24 * time.Hour, Transit: 24 * time.Hour, Dead: 480 * time.Hour, Record: 1000 * time.Hour}
	if store.Retention != keep || store.Reserve != 4096 || c.Limits.header().MaxPartSize != 500e6 || time.Duration(c.CopyWait) != 2*time.Second {
		t.Errorf("got %+v, %d in reserve, parts of %d, %s", store.Retention, store.Reserve, c.Limits.header().MaxPartSize, time.Duration(c.CopyWait))
	}

	again := filepath.Join(t.TempDir(), "relay.yaml")
	if err := c.Write(again); err != nil {
		t.Fatal(err)
	}
	if back, err := Load(again); err != nil || cmp.Diff(c, back) != "" {
		t.Errorf("written and read again: %v\n%s", err, cmp.Diff(c, back))
	}
}

func TestLimitsThatMakeNoSense(t *testing.T) {
	for name, test := range map[string]struct{ yaml, want string }{
		"no unit":                     {"limits: {quota: 8 gigabytes}", "8GiB"},
		"negative size":               {"limits: {disk_reserve: -1}", "no size"},
		"size without number":         {"limits: {quota: GiB}", "no size"},
		"endless size":                {"limits: {quota: inf}", "no size"},
		"more than there is":          {"limits: {quota: 9999999TiB}", "no size"},
		"negative rate":               {"limits: {rate: -2}", "limits.rate"},
		"unknown limit":               {"limits: {rates: 1}", "rates"},
		"negative wait":               {"copy_wait: -1s", "copy_wait"},
		"record before dead letters":  {"retention_record: 24h\nretention_dead: 48h", "retention_record"},
		"record before the default":   {"retention_record: 24h", "retention_dead, 720h"},
		"negative retention of these": {"retention_dead: -1h", "retention_dead"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load(t, test.yaml); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error that says %q", err, test.want)
			}
		})
	}
}
