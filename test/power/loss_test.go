package power

import (
	"fmt"
	"testing"
	"time"

	"github.com/truclienthong/truc/test/faults/disk"
	"github.com/truclienthong/truc/test/torture/tally"
)

// The power goes under load, for one relay, two or all, and comes back.
func TestPowerLoss(t *testing.T) {
	seed := tally.Seed(t)
	rows := kinds(t, "power back to a receipt",
		"power cut, 1 of 3 relays", "power cut, 2 of 3 relays", "power cut, 3 of 3 relays",
		"power cut with torn writes, 1 of 3 relays", "power cut with torn writes, 2 of 3 relays", "power cut with torn writes, 3 of 3 relays")
	row := func(relays int, torn bool) *tally.Faults {
		with := ""
		if torn {
			with = " with torn writes"
		}
		return rows[fmt.Sprintf("power cut%s, %d of 3 relays", with, relays)]
	}
	for i := range tally.Pick(1, 4) {
		// The seed decides on the kind of the first disks, the others follow.
		kind := int(seed+uint64(i)) % 4
		// Badger leaves the names of its tables to the file system.
		config := disk.Config{Journaled: kind%2 == 1, OwnNames: "data/spool/index/", Drift: kind/2 == 1}
		t.Run(fmt.Sprintf("journaled %t, drift %t", config.Journaled, config.Drift), func(t *testing.T) {
			s := open(t, seed+uint64(i)<<32, config)
			s.powerLoss(tally.Pick(2, 32), row)
			t.Log(s.figures())
		})
	}
}

func (s *stand) powerLoss(cuts int, row func(relays int, torn bool) *tally.Faults) {
	// Cuts that are not survived yet: the next may come before a relay serves.
	var hits []*tally.Hit
	for i := range cuts {
		// The first is always of all, the short form has no more than two.
		relays, torn := 3, i == 0 || s.random.IntN(3) > 0
		if i > 0 {
			relays = 1 + s.random.IntN(3)
		}
		ids := s.some(relays)
		if s.random.IntN(2) == 0 {
			// So that the cut comes in the middle of a sync, with others behind it.
			slow := disk.Fault{Kind: disk.Slow, Under: places[s.random.IntN(len(places))], Min: 5 * time.Millisecond, Max: 200 * time.Millisecond}
			for _, id := range ids {
				s.disks[id].Fail(slow)
			}
		}
		if len(hits) == 0 {
			s.wait(100*time.Millisecond, 2*time.Second)
		} else {
			s.wait(0, 800*time.Millisecond) // while they start
		}
		hits = append(hits, row(relays, torn).Inject())
		s.cut(ids, torn)
		if s.random.IntN(5) == 0 {
			s.fsck(ids[0])
		}
		begun := time.Now()
		if relays == 3 && s.random.IntN(3) == 0 {
			// One comes back alone: without a leader it takes what the directory of
			// before allows (promise 9).
			s.m.StartRelay(ids[0])
			s.serving(ids[:1])
			ids = ids[1:]
		}
		for _, id := range ids {
			s.m.StartRelay(id)
		}
		if i < cuts-1 && s.random.IntN(5) == 0 {
			continue // the next cut comes before they serve
		}
		s.serving(s.relays)
		took := time.Since(begun)
		s.t.Logf("cut %d of %v, torn %t: a receipt after %s", i, ids, torn, took.Round(time.Millisecond))
		if i%4 == 3 || i == cuts-1 {
			s.quiet()
			s.t.Logf("quiet after %s", (time.Since(begun) - took).Round(time.Millisecond))
		}
		for _, h := range hits {
			h.SurvivedIn(took)
		}
		hits = nil
	}
}
