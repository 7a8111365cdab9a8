package routing_test

import (
	"testing"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/routing"
)

func TestCopyHolder(t *testing.T) {
	d := routing.NewDirectory()
	must(t, d, relay("bac"), relay("nam"), relay("trung"), relay("hue"))
	must(t, d, changed(row("A", routing.TierProvince, ""), func(a *directoryv1.Agency) {
		a.HomeRelayId, a.StandbyRelayId = "bac", "trung"
	}))
	must(t, d, &directoryv1.SetRelayState{RelayId: "hue", State: draining})
	all := map[routing.RelayID]time.Duration{"hue": 1, "nam": 2, "trung": 3, "bac": 4}
	usable := func(relays map[routing.RelayID]time.Duration) func(routing.RelayID) (time.Duration, bool) {
		return func(r routing.RelayID) (time.Duration, bool) { trip, ok := relays[r]; return trip, ok }
	}
	for _, c := range []struct {
		name   string
		not    map[routing.RelayID]bool
		usable map[routing.RelayID]time.Duration
		want   routing.RelayID
	}{
		{"the standby, though another is nearer", nil, all, "trung"},
		{"standby not usable: the nearest that is active", nil, map[routing.RelayID]time.Duration{"hue": 1, "nam": 2}, "nam"},
		{"standby excluded", map[routing.RelayID]bool{"trung": true}, all, "nam"},
		{"none", nil, map[routing.RelayID]time.Duration{"bac": 4, "hue": 1}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := d.View().CopyHolder("bac", []routing.AgencyCode{"A", "unknown"}, c.not, usable(c.usable))
			if got != c.want || ok != (c.want != "") {
				t.Errorf("got %q, %t; want %q", got, ok, c.want)
			}
		})
	}
}
