package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestAgencies(t *testing.T) {
	o := newOffice(t)
	got := o.run(t.Context(), "G22", "agencies", "-o", "json")
	all := lines(t, got.stdout)
	if got.code != 0 || len(all) != 4 || all[0]["code"] != "G22" || fmt.Sprint(all[0]["aliases"]) != "[000.00.00.G22]" || all[2]["parent"] != "H26" || all[2]["suspended"] != true {
		t.Errorf("got %+v", got)
	}
	for args, want := range map[string]string{"--under H26": "H26 H26.12", "--tier 2": "H26 H48", "--search nẵng": "H48", "--code 000.00.00.G22": "G22"} {
		got := o.run(t.Context(), "G22", append([]string{"agencies"}, strings.Fields(args)...)...)
		var codes []string
		for line := range strings.Lines(got.stdout) {
			codes = append(codes, strings.Fields(line)[0])
		}
		if strings.Join(codes, " ") != want {
			t.Errorf("%s: got %v, want %s", args, codes, want)
		}
	}
	for args, want := range map[string]struct{ codes, more string }{
		"--limit 1":             {"G22", "there are more: --after G22\n"},
		"--limit 3 --after G22": {"H26 H26.12 H48", ""},
		"--limit 1 --tier 2":    {"H26", "there are more: --after H26\n"},
		"--limit 3":             {"G22 H26 H26.12", "there are more: --after H26.12\n"}, // more than a page of this relay
	} {
		got := o.run(t.Context(), "G22", append([]string{"agencies"}, strings.Fields(args)...)...)
		var codes []string
		for line := range strings.Lines(got.stdout) {
			codes = append(codes, strings.Fields(line)[0])
		}
		if strings.Join(codes, " ") != want.codes || got.stderr != want.more {
			t.Errorf("%s: got %v and %q, want %+v", args, codes, got.stderr, want)
		}
	}
}
