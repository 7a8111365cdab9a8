package routing_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/routing"
)

// spoken are words of names as they are written, and as they are typed by who
// has no diacritics at hand.
var spoken = [][2]string{
	{"Ủy", "uy"}, {"ban", "ban"}, {"nhân", "nhan"}, {"dân", "dan"}, {"phường", "phuong"}, {"xã", "xa"}, {"Đắk", "dak"},
	{"Lắk", "lak"}, {"Đà", "da"}, {"Nẵng", "nang"}, {"Trúc", "truc"}, {"Bạch", "bach"}, {"số", "so"}, {"7", "7"}, {"70", "70"},
}

// A search says what looking at every agency says, whatever was changed since
// the index was made, and whatever the size of the page.
func TestSearchIsThatOfAllAgencies(t *testing.T) {
	const seed = 20251020
	random := rand.New(rand.NewPCG(seed, 0))
	d := fresh3(t)
	var known []*directoryv1.Agency
	agencyAt := func(code string) *directoryv1.Agency {
		a := row(code, routing.Tier(1+random.IntN(4)), "")
		var name []string
		for range 1 + random.IntN(4) {
			name = append(name, spoken[random.IntN(len(spoken))][0])
		}
		a.Name = strings.Join(name, " ")
		if len(known) > 0 && random.IntN(5) > 0 {
			a.ParentCode = known[random.IntN(len(known))].GetCode()
		}
		known = append(known, a)
		return a
	}
	var first []*directoryv1.Agency
	for i := range 2000 { // an index of its own
		first = append(first, agencyAt(fmt.Sprintf("A%04d", i)))
	}
	must(t, d, &directoryv1.ImportAgencies{Agencies: first})
	for round := range 40 {
		for range 20 { // added, renamed, put below another, removed; most of them are beside the index
			code := known[random.IntN(len(known))].GetCode()
			switch random.IntN(4) {
			case 0:
				must(t, d, put(agencyAt(fmt.Sprintf("A%04d.%d", random.IntN(2000), round))))
			case 1:
				try(t, d, &directoryv1.RemoveAgency{AgencyCode: code})
			default:
				try(t, d, put(agencyAt(code))) // a circle of superiors is refused
			}
		}
		known = everyAgency(t, d)
		searched(t, random, d, known, seed)
	}
}

func everyAgency(t fataler, d *routing.Directory) (all []*directoryv1.Agency) {
	for _, r := range records(snapshotOf(t, d)) {
		if a := r.GetAgency(); a != nil {
			all = append(all, a)
		}
	}
	return all
}

// searched compares a few queries with what they should find.
func searched(t *testing.T, random *rand.Rand, d *routing.Directory, all []*directoryv1.Agency, seed int) {
	t.Helper()
	byCode := map[string]*directoryv1.Agency{}
	for _, a := range all {
		byCode[a.GetCode()] = a
	}
	for range 8 {
		q := routing.Query{Limit: 1 + random.IntN(40), Tier: routing.Tier(random.IntN(5))}
		if random.IntN(2) == 0 {
			q.Under = routing.AgencyCode(all[random.IntN(len(all))].GetCode())
		}
		var typed, plain []string
		for range random.IntN(4) {
			w := spoken[random.IntN(len(spoken))]
			begun := w[1][:1+random.IntN(len(w[1]))]
			typed, plain = append(typed, []string{w[0], begun, strings.ToUpper(begun)}[random.IntN(3)]), append(plain, begun)
			if typed[len(typed)-1] == w[0] {
				plain[len(plain)-1] = w[1]
			}
		}
		q.Search = strings.Join(typed, " ")
		var want []string
		for _, a := range all {
			if (q.Tier == 0 || uint32(q.Tier) == a.GetTier()) && isBelow(byCode, a, string(q.Under)) && speaks(a.GetName(), plain) {
				want = append(want, a.GetCode())
			}
		}
		var got []string
		for {
			page, next := d.View().Agencies(q)
			for _, a := range page {
				got = append(got, a.GetCode())
			}
			if len(page) > q.Limit || next != "" && len(page) < q.Limit {
				t.Errorf("a page of %d, want %d", len(page), q.Limit)
			}
			if q.After = next; next == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d, version %d, %+v: got %d %v\nwant %d %v", seed, d.View().Version(), q, len(got), got, len(want), want)
		}
	}
}

func isBelow(byCode map[string]*directoryv1.Agency, a *directoryv1.Agency, under string) bool {
	for under != "" && a.GetCode() != under {
		if a = byCode[a.GetParentCode()]; a == nil {
			return false
		}
	}
	return true
}

// speaks reports whether each of the beginnings begins a word of the name.
func speaks(name string, beginnings []string) bool {
	for _, begun := range beginnings {
		if !slices.ContainsFunc(strings.Fields(name), func(word string) bool {
			return slices.ContainsFunc(spoken, func(w [2]string) bool { return w[0] == word && strings.HasPrefix(w[1], begun) })
		}) {
			return false
		}
	}
	return true
}
