package node

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/truclienthong/truc/relay"
)

func TestTargetsAndHolidays(t *testing.T) {
	c, err := load(t, "targets: {thuong: 48h, khan: 10m, hoa_toc: 30s, hoa_toc_hen_gio: 2m}\nholidays: [2026-09-02, 2027-01-01]\n")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Targets.relay(), (relay.Targets{48 * time.Hour, 10 * time.Minute, 0, 30 * time.Second, 2 * time.Minute}); got != want {
		t.Errorf("targets: got %v, want %v", got, want)
	}
	if diff := cmp.Diff([]string{"2026-09-02", "2027-01-01"}, c.Holidays); diff != "" {
		t.Errorf("holidays (-want +got):\n%s", diff)
	}
	again := filepath.Join(t.TempDir(), "relay.yaml")
	if err := c.Write(again); err != nil {
		t.Fatal(err)
	}
	if back, err := Load(again); err != nil || cmp.Diff(c, back) != "" {
		t.Errorf("written and read again: %v, %s", err, cmp.Diff(c, back))
	}
	for _, bad := range []struct{ yaml, want string }{
		{"targets: {khan: -1m}", "priority 1 is negative"},
		{"targets: {khan: soon}", "soon"},
		{"targets: {khanh: 1m}", "khanh"},
		{"holidays: [2026-02-30]", "2026-02-30"},
		{"holidays: [Tết]", "Tết"},
	} {
		if _, err := load(t, bad.yaml); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: got %v, want it refused with %q", bad.yaml, err, bad.want)
		}
	}
}
