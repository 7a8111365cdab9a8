package routing

import (
	"iter"
	"slices"
	"strings"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// tierGroups are the built-in groups: each alone, and with "-of/CODE" for
// those below the agency CODE.
var tierGroups = map[string]Tier{
	"centrals": TierCentral, "provinces": TierProvince, "districts": TierDistrict, "communes": TierCommune,
}

const belowMark = "-of/"

// builtInGroup reads the name of a built-in group; under is CODE or empty.
func builtInGroup(name string) (tier Tier, under string, ok bool) {
	plural, under, below := strings.Cut(name, belowMark)
	tier, ok = tierGroups[plural]
	if !ok || below && under == "" {
		return 0, "", false
	}
	return tier, under, true
}

// matches reports whether every condition of the selector holds.
func (s *state) matches(sel *directoryv1.Selector, e *entry) bool {
	return s.matchesAlone(sel, e) && (sel.GetGroup() == "" || s.isMember(sel.GetGroup(), e))
}

// matchesAlone asks the conditions that need no group.
func (s *state) matchesAlone(sel *directoryv1.Selector, e *entry) bool {
	return (sel.GetCode() == "" || sel.GetCode() == e.GetCode()) &&
		(sel.GetTier() == 0 || sel.GetTier() == e.GetTier()) &&
		(sel.GetUnder() == "" || s.isUnder(e, sel.GetUnder()))
}

// isMember reports whether the agency is in the group. Which selectors hold is
// a matter of the agency alone, so membership is a search through the groups
// that the holding selectors name; each is visited once, circles or not.
func (s *state) isMember(group string, e *entry) bool {
	var room [8]string
	waiting := append(room[:0], group)
	for next := 0; next < len(waiting); next++ {
		name := waiting[next]
		if g := s.groups[name]; g != nil {
			if _, found := slices.BinarySearch(g.GetAgencyCodes(), e.GetCode()); found {
				return true
			}
			for _, sel := range g.GetSelectors() {
				if !s.matchesAlone(sel, e) {
					continue
				}
				if sel.GetGroup() == "" {
					return true
				}
				if !slices.Contains(waiting, sel.GetGroup()) {
					waiting = append(waiting, sel.GetGroup())
				}
			}
		} else if s.isBuiltInMember(name, e) {
			return true
		}
	}
	return false
}

func (s *state) isBuiltInMember(name string, e *entry) bool {
	tier, under, ok := builtInGroup(name)
	if !ok || Tier(e.GetTier()) != tier {
		return false
	}
	if under == "" {
		return true
	}
	above := s.lookup(under)
	return above != nil && above != e && s.isUnder(e, above.GetCode())
}

// hasGroup reports whether the group is stored, or built in and about an
// agency that exists.
func (s *state) hasGroup(name string) bool {
	if s.groups[name] != nil {
		return true
	}
	_, under, ok := builtInGroup(name)
	return ok && (under == "" || s.lookup(under) != nil)
}

// members returns the agencies of a group, each once, in no order.
func (s *state) members(group string) []*entry {
	if s.groups[group] == nil {
		return slices.Collect(s.builtInMembers(group))
	}
	var found []*entry
	seen := map[*entry]bool{}
	candidates := func(from iter.Seq[*entry]) {
		for e := range from {
			if !seen[e] {
				seen[e] = true
				if s.isMember(group, e) {
					found = append(found, e)
				}
			}
		}
	}
	// Collect from every group that could add members, then ask of each
	// candidate whether the conditions on the way hold.
	waiting := []string{group}
	for next := 0; next < len(waiting); next++ {
		name := waiting[next]
		g := s.groups[name]
		if g == nil {
			candidates(s.builtInMembers(name))
			continue
		}
		candidates(func(yield func(*entry) bool) {
			for _, code := range g.GetAgencyCodes() {
				if e := s.lookup(code); e != nil && !yield(e) {
					return
				}
			}
		})
		for _, sel := range g.GetSelectors() {
			if sel.GetGroup() == "" {
				candidates(s.selected(sel))
			} else if !slices.Contains(waiting, sel.GetGroup()) {
				waiting = append(waiting, sel.GetGroup())
			}
		}
	}
	return found
}

func (s *state) builtInMembers(name string) iter.Seq[*entry] {
	tier, under, ok := builtInGroup(name)
	if !ok {
		return func(func(*entry) bool) {}
	}
	if under == "" {
		return where(s.rows, byTier, tierKey(tier))
	}
	above := s.lookup(under)
	return func(yield func(*entry) bool) {
		for e := range s.subtree(above) {
			if e != above && Tier(e.GetTier()) == tier && !yield(e) {
				return
			}
		}
	}
}

// selected yields at least the agencies that the selector chooses, by the
// index that narrows most.
func (s *state) selected(sel *directoryv1.Selector) iter.Seq[*entry] {
	switch {
	case sel.GetCode() != "":
		return func(yield func(*entry) bool) {
			if e := s.lookup(sel.GetCode()); e != nil {
				yield(e)
			}
		}
	case sel.GetUnder() != "":
		return s.subtree(s.lookup(sel.GetUnder()))
	case sel.GetTier() != 0:
		return where(s.rows, byTier, tierKey(Tier(sel.GetTier())))
	default:
		return all[*entry](s.rows, agencyTable)
	}
}

// subtree yields the agency and all below it, superiors first.
func (s *state) subtree(top *entry) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		if top == nil {
			return
		}
		waiting := []*entry{top}
		for next := 0; next < len(waiting); next++ {
			if !yield(waiting[next]) {
				return
			}
			waiting = slices.AppendSeq(waiting, where(s.rows, byParent, waiting[next].GetCode()))
		}
	}
}
