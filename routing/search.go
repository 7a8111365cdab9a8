package routing

import (
	"iter"
	"maps"
	"math/bits"
	"slices"
	"strings"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// searchIndex answers queries without reading every agency: which of them have a
// word in the name, a tier, a superior at any height. It is made for one version
// and then serves later ones too, which keep beside it the codes of the agencies
// that are other than it says (state.stale). Immutable.
type searchIndex struct {
	codes  []string           // in order; a row is a place in it
	words  []string           // of folded names, in order
	byWord [][]int32          // rows by place in words
	byTier map[uint32][]int32 // rows
	under  map[string][]int32 // rows at or below that code
}

// newSearchIndex reads a whole state: some hundred milliseconds for a country.
func newSearchIndex(s *state) *searchIndex {
	x := &searchIndex{byTier: map[uint32][]int32{}, under: map[string][]int32{}}
	words := map[string][]int32{}
	for e := range all[*entry](s.rows, agencyTable) {
		row := int32(len(x.codes))
		x.codes = append(x.codes, e.GetCode())
		for word := range strings.SplitSeq(e.words, " ") {
			if rows := words[word]; word != "" && (len(rows) == 0 || rows[len(rows)-1] != row) {
				words[word] = append(rows, row)
			}
		}
		x.byTier[e.GetTier()] = append(x.byTier[e.GetTier()], row)
		for above := e; above != nil; above = s.lookup(above.GetParentCode()) {
			x.under[above.GetCode()] = append(x.under[above.GetCode()], row)
		}
	}
	x.words = slices.Sorted(maps.Keys(words))
	for _, word := range x.words {
		x.byWord = append(x.byWord, words[word])
	}
	return x
}

// rowSet is a set of rows, a bit each; nil stands for all.
type rowSet []uint64

// and keeps the rows that also stand in one of the lists.
func (r rowSet) and(rows int, lists ...[]int32) rowSet {
	set := make(rowSet, (rows+63)/64)
	for _, list := range lists {
		for _, row := range list {
			set[row/64] |= 1 << (row % 64)
		}
	}
	for i := range r {
		set[i] &= r[i]
	}
	return set
}

// from yields the rows of the set from that one on.
func (r rowSet) from(row, rows int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for row < rows {
			if r != nil {
				rest := r[row/64] >> (row % 64)
				if rest == 0 {
					row += 64 - row%64
					continue
				}
				row += bits.TrailingZeros64(rest)
			}
			if !yield(row) {
				return
			}
			row++
		}
	}
}

// find yields the codes after that one, in order, of the agencies that were
// found by the index.
func (x *searchIndex) find(c conditions, after string) iter.Seq[string] {
	var set rowSet
	for _, word := range c.words {
		begin, _ := slices.BinarySearch(x.words, word)
		end := begin
		for end < len(x.words) && strings.HasPrefix(x.words[end], word) {
			end++
		}
		set = set.and(len(x.codes), x.byWord[begin:end]...)
	}
	if c.tier != 0 {
		set = set.and(len(x.codes), x.byTier[uint32(c.tier)])
	}
	if c.under != "" {
		set = set.and(len(x.codes), x.under[c.under])
	}
	start, found := slices.BinarySearch(x.codes, after)
	if found {
		start++
	}
	return func(yield func(string) bool) {
		for row := range set.from(start, len(x.codes)) {
			if !yield(x.codes[row]) {
				return
			}
		}
	}
}

// conditions are those of a query, resolved; "", 0 and none mean any.
type conditions struct {
	under string
	tier  Tier
	words []string
}

// met reports whether an agency meets them, by what it is now.
func (c conditions) met(s *state, e *entry) bool {
	return (c.tier == 0 || Tier(e.GetTier()) == c.tier) && hasWords(e.words, c.words) &&
		(c.under == "" || s.isUnder(e, c.under))
}

// find yields the agencies that meet the conditions, by code, after that one.
func (s *state) find(c conditions, after string) iter.Seq[*directoryv1.Agency] {
	var stale []*entry // those that have to be looked at themselves
	for code := range s.stale {
		if e := s.lookup(code); code > after && e != nil && e.GetCode() == code && c.met(s, e) {
			stale = append(stale, e)
		}
	}
	slices.SortFunc(stale, func(a, b *entry) int { return strings.Compare(a.GetCode(), b.GetCode()) })
	return func(yield func(*directoryv1.Agency) bool) {
		for code := range s.search.find(c, after) {
			if s.stale[code] {
				continue
			}
			for len(stale) > 0 && stale[0].GetCode() < code {
				if !yield(stale[0].Agency) {
					return
				}
				stale = stale[1:]
			}
			if !yield(s.lookup(code).Agency) {
				return
			}
		}
		for _, e := range stale {
			if !yield(e.Agency) {
				return
			}
		}
	}
}

// outdated notes that the index tells something else of the agency than what it
// is after this transaction.
func (t *tx) outdated(before *entry, a *directoryv1.Agency) {
	if before != nil && before.GetName() == a.GetName() && before.GetTier() == a.GetTier() && before.GetParentCode() == a.GetParentCode() {
		return
	}
	t.stale[a.GetCode()] = true
	if before != nil && before.GetParentCode() != a.GetParentCode() {
		t.outdatedBelow(a.GetCode())
	}
}

// outdatedBelow is outdated for all below an agency that gets another superior.
func (t *tx) outdatedBelow(code string) {
	for below := range where(t.rows, byParent, code) {
		if len(t.stale) > recentLimit {
			return // the index is made anew anyway
		}
		t.stale[below.GetCode()] = true
		t.outdatedBelow(below.GetCode())
	}
}

// searchAfter gives the next state an index and what is to be known beside it.
func (t *tx) searchAfter(next *state) {
	switch {
	case len(t.stale) == 0:
	case len(t.base.stale)+len(t.stale) > recentLimit:
		next.search, next.stale = newSearchIndex(next), nil
	default:
		next.stale = make(map[string]bool, len(t.base.stale)+len(t.stale))
		maps.Copy(next.stale, t.base.stale)
		maps.Copy(next.stale, t.stale)
	}
}
