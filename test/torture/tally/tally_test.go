package tally_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/truclienthong/truc/test/torture/tally"
)

// What tests count is what the table says, a fault that was not survived marked.
func TestTable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tally")
	t.Setenv(tally.EnvFile, file)
	t.Setenv(tally.EnvSeed, "77")
	run := func(name string, longest time.Duration, all bool) {
		t.Run(name, func(t *testing.T) {
			if seed := tally.Seed(t); seed != 77 {
				t.Errorf("seed %d", seed)
			}
			kills := tally.Kind(t, "killed", "start to serving")
			kills.Inject().SurvivedIn(longest)
			hit := kills.Inject()
			if all {
				hit.SurvivedIn(time.Second)
				hit.SurvivedIn(time.Hour) // counted already
			}
			tally.Kind(t, "paused", "resumed to serving").Inject().SurvivedIn(0)
		})
	}
	run("first", 2*time.Second, true)
	run("second", 3*time.Second, false)
	rows, err := tally.Read(file)
	if err != nil || len(rows) != 4 || rows[0].Seed != 77 {
		t.Fatalf("%v, %v", rows, err)
	}
	var table strings.Builder
	if err := tally.Print(&table, rows); err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for line := range strings.Lines(table.String()) {
		got = append(got, strings.Fields(line))
	}
	if len(got) != 3 {
		t.Fatalf("\n%s", &table)
	}
	for i, want := range []string{"", "paused 2 2 0s resumed to serving", "killed 4 3 3s start to serving <--"} {
		if i > 0 && strings.Join(got[i], " ") != want {
			t.Errorf("row %q, want %q", strings.Join(got[i], " "), want)
		}
	}
}
