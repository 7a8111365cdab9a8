package isolation

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/truclienthong/truc/cmd/relayd/node"
	"github.com/truclienthong/truc/test/mesh"
	"github.com/truclienthong/truc/test/torture/tally"
)

// codes are the agencies of each site, whose homes are there.
var codes = [][]string{{"G22", "H26"}, {"H17", "H17.97.08"}, {"H13", "H13.16"}}

// away are agencies of each site that take nothing until the end.
var away = []string{"G12", "H41", "H13.16.03"}

// Sites lose the packets of one another, in every way a network has, and lose no
// document.
func TestIsolation(t *testing.T) {
	seed := tally.Seed(t)
	f := newFabric(t, len(codes))
	sites := map[string]int{"bac": 0, "trung": 1, "nam": 2}
	m := mesh.Start(t, mesh.Config{Processes: true, Profiles: slices.Concat(codes[0], codes[1], codes[2], away),
		Within: func(id string) []string { return f.relays[sites[id]].enter() },
		Adjust: func(id string, config *node.Config) {
			f.door(config.Listen, sites[id])
			config.Listen = f.relay(sites[id])
			config.Advertise = config.Listen
			for i, v := range config.Voters {
				config.Voters[i].Address = f.relay(sites[v.ID])
			}
			config.CopyWait = node.Duration(2 * time.Second)
			config.Limits.Rate, config.Limits.Burst = -1, -1
		}})
	a := &attack{office: newOffice(t, m, f, codes, away), f: f, ids: []string{"bac", "trung", "nam"},
		random: rand.New(rand.NewPCG(seed, 1)), kinds: map[string]*tally.Faults{}}
	end := a.load(seed)
	t.Cleanup(end)
	t.Cleanup(f.heal) // before it, where the test ends early

	a.together()
	begun, faults := time.Now(), 0
	if tally.Long() {
		for order := []int(nil); time.Since(begun) < 2*time.Minute+45*time.Second; faults++ {
			if len(order) == 0 { // each once before any again
				order = a.random.Perm(len(plan))
			}
			a.inject(plan[order[0]])
			order = order[1:]
		}
	} else {
		a.inject(plan[0])
		faults++
	}
	end()
	a.comeBack()
	a.must(a.await(time.Now()))
	for _, v := range a.history.Violations() {
		t.Error(v)
	}
	handed, promised, taken := a.history.Counts()
	t.Logf("%d faults in %s; %d documents handed in, %d promised, %d deliveries taken",
		faults, time.Since(begun).Round(time.Second), handed, promised, taken)
	a.audit()
}

// audit runs relayctl where operators are.
func (a *attack) audit() {
	a.t.Helper()
	raw, err := os.ReadFile(a.m.Layout.Profile("operator"))
	a.must(err)
	profile := map[string]any{}
	a.must(yaml.Unmarshal(raw, &profile))
	profile["relays"] = []string{a.f.relay(0), a.f.relay(1), a.f.relay(2)}
	raw, err = yaml.Marshal(profile)
	a.must(err)
	file := filepath.Join(filepath.Dir(a.m.Layout.Profile("operator")), "operator-inside.yaml")
	a.must(os.WriteFile(file, raw, 0o600))
	a.m.Balance() // reports of confirmations may be on their way until then
	line := append(a.f.operator.enter(), mesh.Binary(a.t, "relayctl"), "audit", "--profile", file)
	if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
		a.t.Errorf("relayctl audit: %v\n%s", err, strings.TrimSpace(string(out)))
	}
}
