package routing_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/truclienthong/truc/routing"
)

func TestParseAgencyCode(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		ok             bool
	}{
		{"central", "G22", "G22", true},
		{"three levels", "H26.12.05", "H26.12.05", true},
		{"older form", "000.00.00.G22", "000.00.00.G22", true},
		{"test centre", "vxp.saas.02", "vxp.saas.02", true},
		{"statistics office", "00001", "00001", true},
		{"one character", "A", "A", true},
		{"trimmed", " G22\n", "G22", true},
		{"longest", strings.Repeat("a", 64), strings.Repeat("a", 64), true},
		{"empty", "", "", false},
		{"blank", "  ", "", false},
		{"too long", strings.Repeat("a", 65), "", false},
		{"two dots", "H26..12", "", false},
		{"leading dot", ".G22", "", false},
		{"trailing dash", "G22-", "", false},
		{"slash", "H26/12", "", false},
		{"space inside", "H26 12", "", false},
		{"zero byte", "H26\x00", "", false},
		{"not ASCII", "HÀ26", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := routing.ParseAgencyCode(c.in)
			if string(got) != c.want || (err == nil) != c.ok {
				t.Errorf("ParseAgencyCode(%q) = %q, %v; want %q, ok %v", c.in, got, err, c.want, c.ok)
			}
		})
	}
}

func TestParseRelayID(t *testing.T) {
	for in, ok := range map[string]bool{
		"bac": true, "hn-1": true, "a": true, strings.Repeat("a", 63): true,
		"": false, "1a": false, "Bac": false, "a.b": false, "a\n": false, strings.Repeat("a", 64): false,
	} {
		if _, err := routing.ParseRelayID(in); (err == nil) != ok {
			t.Errorf("ParseRelayID(%q): error %v, want ok %v", in, err, ok)
		}
	}
}

func TestOldForm(t *testing.T) {
	for _, c := range []struct{ code, old routing.AgencyCode }{
		{"G22", "000.00.00.G22"},
		{"H51.15", "000.00.15.H51"},
		{"H28.12.01", "000.01.12.H28"},
		{"H26.12.05", "000.05.12.H26"},
		{"H26.12.05.008", "008.05.12.H26"},
	} {
		if got, ok := routing.OldForm(c.code); got != c.old || !ok {
			t.Errorf("OldForm(%s) = %q, %v; want %s", c.code, got, ok, c.old)
		}
		if got, ok := routing.FromOldForm(c.old); got != c.code || !ok {
			t.Errorf("FromOldForm(%s) = %q, %v; want %s", c.old, got, ok, c.code)
		}
	}
	for _, code := range []routing.AgencyCode{
		"", "VN", "g22", "G2", "G222", "H26.1", "H26.123", "H26.00", "H26.12.05.08", "H26.12.05.000",
		"H26.12.05.008.01", "00001", "vxp.saas.02", "H37.DN.001", "000.00.00.G22", "H26.1a", "H26.",
	} {
		if got, ok := routing.OldForm(code); ok {
			t.Errorf("OldForm(%s) = %s, want none", code, got)
		}
	}
	for _, old := range []routing.AgencyCode{
		"", "G22", "28.22.H17", "00.00.008.K99", "001.00.20.TT2", "000.05.00.H26", "008.00.12.H26",
		"000.00.00.h26", "0000.00.00.H26", "000.0a.00.H26", "000.00.00.H26.01",
	} {
		if got, ok := routing.FromOldForm(old); ok {
			t.Errorf("FromOldForm(%s) = %s, want none", old, got)
		}
	}
}

func TestOldFormIsInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := routing.AgencyCode(rapid.StringMatching(`[A-Z][0-9]{2}(\.[0-9]{2}){0,2}(\.[0-9]{3})?`).Draw(t, "code"))
		if old, ok := routing.OldForm(code); ok {
			if back, ok := routing.FromOldForm(old); back != code || !ok || len(old) != 13 {
				t.Fatalf("%s -> %s -> %s, %v", code, old, back, ok)
			}
		}
		old := routing.AgencyCode(rapid.StringMatching(`[0-9]{3}(\.[0-9]{2}){2}\.[A-Z][0-9]{2}`).Draw(t, "old"))
		if code, ok := routing.FromOldForm(old); ok {
			if back, ok := routing.OldForm(code); back != old || !ok {
				t.Fatalf("%s -> %s -> %s, %v", old, code, back, ok)
			}
		}
	})
}

func FuzzParseAgencyCode(f *testing.F) {
	for _, s := range []string{"G22", "000.00.00.G22", " vxp.saas.02 ", "H26..1", "", "\u00a0G22", "a_b-c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		code, err := routing.ParseAgencyCode(s)
		if err != nil {
			if code != "" {
				t.Fatalf("ParseAgencyCode(%q) = %q with error %v", s, code, err)
			}
			return
		}
		if again, err := routing.ParseAgencyCode(string(code)); again != code || err != nil {
			t.Fatalf("ParseAgencyCode(%q) = %q, again %q, %v", s, code, again, err)
		}
		if len(code) > routing.MaxCodeLength || strings.ContainsAny(string(code), "/\\ \x00") || strings.Contains(string(code), "..") {
			t.Fatalf("ParseAgencyCode(%q) = %q is no sane key", s, code)
		}
		if old, ok := routing.OldForm(code); ok {
			if back, _ := routing.FromOldForm(old); back != code {
				t.Fatalf("%s -> %s -> %s", code, old, back)
			}
		}
	})
}
