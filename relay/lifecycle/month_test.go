package lifecycle_test

import (
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/lifecycle"
)

func TestMonth(t *testing.T) {
	for _, c := range []struct{ text, begin, end string }{
		{"2026-10", "2026-09-30T17:00:00Z", "2026-10-31T17:00:00Z"},
		{"2026-12", "2026-11-30T17:00:00Z", "2026-12-31T17:00:00Z"},
		{"2028-02", "2028-01-31T17:00:00Z", "2028-02-29T17:00:00Z"},
	} {
		m, err := lifecycle.ParseMonth(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Begin().UTC().Format(time.RFC3339); got != c.begin {
			t.Errorf("%s begins at %s, want %s", c.text, got, c.begin)
		}
		if got := m.End().UTC().Format(time.RFC3339); got != c.end {
			t.Errorf("%s ends at %s, want %s", c.text, got, c.end)
		}
		if first, last := lifecycle.MonthOf(m.Begin()), lifecycle.MonthOf(m.End().Add(-1)); first != m || last != m || m.String() != c.text {
			t.Errorf("%s: first instant in %s, last in %s, written %s", c.text, first, last, m)
		}
		if before, behind := lifecycle.MonthOf(m.Begin().Add(-1)), lifecycle.MonthOf(m.End()); before == m || behind == m {
			t.Errorf("%s has what lies before or behind it", c.text)
		}
	}
	for _, text := range []string{"", "2026", "2026-13", "2026-00", "2026-1", "2026-10-01", "10-2026", "２０２６-10", "2026-10 "} {
		if m, err := lifecycle.ParseMonth(text); err == nil {
			t.Errorf("%q is read as %s", text, m)
		}
	}
}
