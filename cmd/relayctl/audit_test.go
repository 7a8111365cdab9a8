package main

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/truclienthong/truc/cmd/internal/cli"
)

// Documents that flow while an audit looks are not called missing, and what is
// counted adds up at every moment.
func TestAuditWhileDocumentsFlow(t *testing.T) {
	t.Parallel()
	o := newConsole(t)
	for _, code := range []string{"G22", "H13", "H41"} {
		o.Agency(code).Receive()
	}
	var sending sync.WaitGroup
	stop := make(chan struct{})
	for _, code := range []string{"H17.97.08", "H26.12.05", "H13.16.03"} {
		sender := o.Agency(code)
		sending.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					sender.Send(files(fmt.Sprint(code, i)), "G22", "H13", "H41")
				}
			}
		})
	}
	var accepted float64
	for range 6 {
		audit := o.do("audit")[0]
		totals := audit["totals"].(map[string]any)
		if audit["balanced"] != true || len(audit["rows"].([]any)) != 3 || totals["accepted"].(float64) < accepted {
			t.Errorf("audit: %v", audit)
		}
		accepted = totals["accepted"].(float64)
	}
	close(stop)
	sending.Wait()
	if accepted == 0 {
		t.Error("nothing was accepted while the audits looked")
	}
	o.Settle()
	audit := o.until("all is delivered", func(rows []map[string]any) bool {
		totals := rows[0]["totals"].(map[string]any)
		return totals["pending"] == 0.0 && totals["delivered"] == totals["accepted"]
	}, "audit")[0]
	if later := o.do("audit", "--since", "0s")[0]["totals"].(map[string]any); later["accepted"] != 0.0 {
		t.Errorf("since now: %v, of %v", later, audit)
	}
	if hour := o.do("audit", "--since", "1h")[0]["totals"].(map[string]any); hour["accepted"] != audit["totals"].(map[string]any)["accepted"] {
		t.Errorf("since an hour ago: %v, of %v", hour, audit)
	}
	if r := o.run(t.Context(), "audit", "--since", "yesterday"); r.code != 2 {
		t.Errorf("since yesterday: %+v, want wrong usage", r)
	}
}

func TestSince(t *testing.T) {
	now := time.Date(2026, 10, 20, 12, 0, 0, 0, cli.Vietnam)
	for text, want := range map[string]time.Time{
		"24h":                       now.Add(-24 * time.Hour),
		"2026-10-01":                time.Date(2026, 10, 1, 0, 0, 0, 0, cli.Vietnam),
		"2026-10-01T08:30":          time.Date(2026, 10, 1, 8, 30, 0, 0, cli.Vietnam),
		"2026-10-01T08:30:00+00:00": time.Date(2026, 10, 1, 15, 30, 0, 0, cli.Vietnam),
	} {
		if got, err := parseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
		}
	}
	if _, err := parseSince("-1h", now); err == nil {
		t.Error("in an hour: taken")
	}
}
