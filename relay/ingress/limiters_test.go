package ingress

import (
	"fmt"
	"testing"
	"time"

	"github.com/truclienthong/truc/routing"
)

// Agencies that rest leave nothing behind; those that do not keep their count.
func TestLimitersAreForgotten(t *testing.T) {
	l := newLimiters(1, 2)
	now := time.Date(2025, 10, 20, 5, 0, 0, 0, time.UTC)
	for second := range 200 {
		l.take("busy", now)
		l.take("busy", now)
		for i := range 100 {
			l.take(routing.AgencyCode(fmt.Sprintf("H%d.%d", second, i)), now)
		}
		if after := l.take("busy", now); after == 0 {
			t.Fatalf("second %d: a busy agency was forgotten", second)
		}
		now = now.Add(time.Second)
	}
	if n := len(l.of); n > 2*minSweep {
		t.Errorf("%d limiters are kept of 20,001 agencies, 100 active at a time", n)
	}
}
