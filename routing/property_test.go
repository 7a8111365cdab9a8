package routing_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/routing"
)

// world is a directory with random groups and rules, and what is in it.
type world struct {
	d        *routing.Directory
	agencies map[string]*directoryv1.Agency
	groups   map[string]*directoryv1.Group
	rules    []*directoryv1.Rule
}

func (w *world) under(a *directoryv1.Agency, code string) bool {
	for ; a != nil; a = w.agencies[a.GetParentCode()] {
		if a.GetCode() == code {
			return true
		}
	}
	return false
}

// memberships works out all groups at once: start with nobody and add who
// belongs until nothing changes.
func (w *world) memberships() map[string]map[string]bool {
	in := map[string]map[string]bool{}
	for tier, plural := range []string{1: "centrals", 2: "provinces", 3: "districts", 4: "communes"} {
		if plural == "" {
			continue
		}
		in[plural] = map[string]bool{}
		for code, a := range w.agencies {
			in[plural+"-of/"+code] = map[string]bool{}
			for other, b := range w.agencies {
				if b.GetTier() == uint32(tier) {
					in[plural][other] = true
					if other != code && w.under(b, a.GetCode()) {
						in[plural+"-of/"+code][other] = true
					}
				}
			}
		}
	}
	for name, g := range w.groups {
		in[name] = map[string]bool{}
		for _, code := range g.GetAgencyCodes() {
			in[name][code] = true
		}
	}
	for grew := true; grew; {
		grew = false
		for name, g := range w.groups {
			for _, s := range g.GetSelectors() {
				for code := range w.agencies {
					if !in[name][code] && w.selects(in, s, code) {
						in[name][code], grew = true, true
					}
				}
			}
		}
	}
	return in
}

func (w *world) selects(in map[string]map[string]bool, s *directoryv1.Selector, code string) bool {
	a := w.agencies[code]
	return (s.GetCode() == "" || s.GetCode() == code) && (s.GetTier() == 0 || s.GetTier() == a.GetTier()) &&
		(s.GetUnder() == "" || w.under(a, s.GetUnder())) && (s.GetGroup() == "" || in[s.GetGroup()][code])
}

var someWorld = rapid.Custom(func(t *rapid.T) *world {
	w := &world{d: routing.NewDirectory(), agencies: map[string]*directoryv1.Agency{}, groups: map[string]*directoryv1.Group{}}
	must(t, w.d, relay("bac"), &directoryv1.RemoveRule{Id: routing.AdministrationRule})
	known := []string{}
	for i := range rapid.IntRange(1, 12).Draw(t, "agencies") {
		parent := ""
		if len(known) > 0 {
			parent = orNone(rapid.SampledFrom(known)).Draw(t, "parent")
		}
		a := row(fmt.Sprintf("A%d", i), routing.Tier(rapid.IntRange(1, 4).Draw(t, "tier")), parent)
		known, w.agencies[a.Code] = append(known, a.Code), a
		must(t, w.d, put(proto.CloneOf(a)))
	}
	code := rapid.SampledFrom(known)
	stored := []string{"g1", "g2", "g3", "g4"}
	group := rapid.OneOf(rapid.SampledFrom(stored), rapid.SampledFrom([]string{"provinces", "communes"}),
		rapid.Map(code, func(c string) string { return "districts-of/" + c }), rapid.Map(code, func(c string) string { return "communes-of/" + c }))
	selector := rapid.Custom(func(t *rapid.T) *directoryv1.Selector {
		return &directoryv1.Selector{Code: sometimes(code).Draw(t, "code"), Under: orNone(code).Draw(t, "under"),
			Tier: uint32(rapid.IntRange(0, 4).Draw(t, "tier")), Group: orNone(group).Draw(t, "group")}
	})
	for _, name := range stored { // so that they may name one another
		must(t, w.d, &directoryv1.SetGroup{Group: &directoryv1.Group{Name: name}})
	}
	for _, name := range stored {
		g := &directoryv1.Group{Name: name,
			AgencyCodes: rapid.SliceOfNDistinct(code, 0, min(2, len(known)), rapid.ID).Draw(t, "members"),
			Selectors:   rapid.SliceOfN(selector, 0, 3).Draw(t, "selectors")}
		w.groups[name] = g
		must(t, w.d, &directoryv1.SetGroup{Group: proto.CloneOf(g)})
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "rules") {
		r := &directoryv1.Rule{Id: fmt.Sprintf("r%d", i), From: selector.Draw(t, "from"), To: selector.Draw(t, "to"),
			Effect: rapid.SampledFrom([]directoryv1.Effect{1, 1, 2}).Draw(t, "effect"),
			Kinds:  rapid.SampledFrom([][]exchangev1.Kind{nil, {document}, {status}}).Draw(t, "kinds")}
		w.rules = append(w.rules, r)
		must(t, w.d, &directoryv1.PutRule{Rule: proto.CloneOf(r)})
	}
	return w
})

func sometimes(g *rapid.Generator[string]) *rapid.Generator[string] {
	return rapid.OneOf(rapid.Just(""), rapid.Just(""), rapid.Just(""), g)
}

func TestGroupsAndRulesAgainstBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := someWorld.Draw(t, "world")
		v, in := w.d.View(), w.memberships()
		for name, members := range in {
			got, faults := v.Resolve(recipients(toGroup(name)))
			want := slices.Sorted(maps.Keys(members))
			if len(got) != len(want) || (len(faults) == 0) != (len(want) > 0) {
				t.Fatalf("group %s: %v with faults %v, want %v", name, got, faults, want)
			}
			for i := range want {
				if string(got[i]) != want[i] {
					t.Fatalf("group %s: %v, want %v", name, got, want)
				}
			}
		}
		for from := range w.agencies {
			for to := range w.agencies {
				for _, kind := range []exchangev1.Kind{document, status} {
					want := false
					for _, r := range w.rules {
						if (len(r.GetKinds()) == 0 || slices.Contains(r.GetKinds(), kind)) && w.selects(in, r.GetFrom(), from) && w.selects(in, r.GetTo(), to) {
							want = r.GetEffect() == directoryv1.Effect_EFFECT_ALLOW
							if !want {
								break
							}
						}
					}
					if got := v.Allowed(routing.AgencyCode(from), routing.AgencyCode(to), kind); got != want {
						t.Fatalf("Allowed(%s, %s, %v) = %v, want %v by %v", from, to, kind, got, want, w.rules)
					}
				}
			}
		}
	})
}

func TestNextHop(t *testing.T) {
	link := func(from, to routing.RelayID, ms int, up bool) routing.Link {
		return routing.Link{From: from, To: to, RoundTrip: time.Duration(ms) * time.Millisecond, Up: up}
	}
	for _, c := range []struct {
		name  string
		links []routing.Link
		avoid map[routing.RelayID]bool
		want  routing.RelayID
	}{
		{"direct", []routing.Link{link("a", "z", 10, true)}, nil, "z"},
		{"direct though longer", []routing.Link{link("a", "z", 90, true), link("a", "b", 1, true), link("b", "z", 1, true)}, nil, "z"},
		{"direct link down", []routing.Link{link("a", "z", 1, false), link("a", "b", 9, true), link("b", "z", 9, true)}, nil, "b"},
		{"shortest of two", []routing.Link{link("a", "b", 9, true), link("b", "z", 9, true), link("a", "c", 1, true), link("c", "z", 16, true)}, nil, "c"},
		{"longer way, shorter time", []routing.Link{link("a", "b", 50, true), link("b", "z", 50, true), link("a", "c", 10, true), link("c", "d", 10, true), link("d", "z", 10, true)}, nil, "c"},
		{"equal time: fewer hops", []routing.Link{link("a", "y", 10, true), link("y", "z", 20, true), link("a", "b", 10, true), link("b", "c", 10, true), link("c", "z", 10, true)}, nil, "y"},
		{"equal: by id", []routing.Link{link("a", "c", 5, true), link("c", "z", 5, true), link("a", "b", 5, true), link("b", "z", 5, true)}, nil, "b"},
		{"equal: by id of the first", []routing.Link{link("a", "y", 1, true), link("y", "p", 1, true), link("p", "z", 1, true), link("a", "b", 1, true), link("b", "q", 1, true), link("q", "z", 1, true)}, nil, "b"},
		{"avoided", []routing.Link{link("a", "b", 1, true), link("b", "z", 1, true), link("a", "c", 9, true), link("c", "z", 9, true)}, map[routing.RelayID]bool{"b": true}, "c"},
		{"destination avoided", []routing.Link{link("a", "z", 1, true)}, map[routing.RelayID]bool{"z": true}, ""},
		{"only the other way", []routing.Link{link("z", "a", 1, true)}, nil, ""},
		{"not back through self", []routing.Link{link("a", "b", 1, true), link("b", "a", 1, true)}, nil, ""},
		{"no links", nil, nil, ""},
		{"several measurements", []routing.Link{link("a", "b", 50, true), link("a", "b", 1, true), link("b", "z", 1, true), link("a", "c", 5, true), link("c", "z", 5, true)}, nil, "b"},
		{"beyond what a duration holds", []routing.Link{
			{From: "a", To: "c", RoundTrip: math.MaxInt64 - 1, Up: true}, {From: "c", To: "z", RoundTrip: math.MaxInt64, Up: true},
			{From: "a", To: "b", RoundTrip: math.MaxInt64, Up: true}, link("b", "z", 0, true),
		}, nil, "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 {
				if got, ok := routing.NextHop("a", "z", c.links, c.avoid); got != c.want || ok != (c.want != "") {
					t.Errorf("NextHop = %q, %v; want %q", got, ok, c.want)
				}
				slices.Reverse(c.links) // the order of links must not matter
			}
		})
	}
	if got, ok := routing.NextHop("a", "a", nil, nil); ok {
		t.Errorf("NextHop to self = %s", got)
	}
}

func TestNextHopAgainstBruteForce(t *testing.T) {
	relays := []routing.RelayID{"a", "b", "c", "d", "e", "f"}
	some := rapid.SampledFrom(relays)
	rapid.Check(t, func(t *rapid.T) {
		links := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) routing.Link {
			return routing.Link{From: some.Draw(t, "from"), To: some.Draw(t, "to"),
				RoundTrip: time.Duration(rapid.IntRange(0, 5).Draw(t, "round trip")), Up: rapid.Bool().Draw(t, "up")}
		}), 0, 24).Draw(t, "links")
		self, to := some.Draw(t, "self"), some.Draw(t, "to")
		avoid := map[routing.RelayID]bool{}
		for _, id := range rapid.SliceOfN(some, 0, 2).Draw(t, "avoid") {
			avoid[id] = true
		}
		shortest, hop := bruteForce(self, to, links, avoid)
		got, ok := routing.NextHop(self, to, links, avoid)
		if ok != (shortest >= 0 && self != to) || got != hop {
			t.Fatalf("NextHop = %q, %v; brute force finds %q of %v", got, ok, hop, shortest)
		}
		// Handing on and on, each relay avoiding those visited, arrives.
		visited := maps.Clone(avoid)
		for here, hops := self, 0; ok && here != to; hops++ {
			if hops > len(relays) || here != self && visited[here] {
				t.Fatalf("a circle at %s", here)
			}
			visited[here] = true
			next, ok := routing.NextHop(here, to, links, visited)
			if !ok {
				t.Fatalf("%s knows no way on", here)
			}
			here = next
		}
	})
}

// bruteForce walks every path without circles.
func bruteForce(self, to routing.RelayID, links []routing.Link, avoid map[routing.RelayID]bool) (best time.Duration, hop routing.RelayID) {
	best, bestHops := -1, 0
	if self == to || avoid[to] {
		return best, hop
	}
	var walk func(here, first routing.RelayID, cost time.Duration, hops int, visited map[routing.RelayID]bool)
	walk = func(here, first routing.RelayID, cost time.Duration, hops int, visited map[routing.RelayID]bool) {
		if here == to {
			better := best < 0 || cost < best || cost == best && (hops < bestHops || hops == bestHops && first < hop)
			if better {
				best, bestHops, hop = cost, hops, first
			}
			return
		}
		for _, l := range links {
			if l.Up && l.From == here && !visited[l.To] && !avoid[l.To] {
				seen := maps.Clone(visited)
				seen[l.To] = true
				next := first
				if here == self {
					next = l.To
				}
				walk(l.To, next, cost+l.RoundTrip, hops+1, seen)
			}
		}
	}
	walk(self, "", 0, 0, map[routing.RelayID]bool{self: true})
	for _, l := range links {
		if l.Up && l.From == self && l.To == to {
			return best, to
		}
	}
	return best, hop
}
