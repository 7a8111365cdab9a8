package routing

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// Query finds agencies; every condition that is set must hold.
type Query struct {
	// Code is an exact code or alias; the other conditions are then not used.
	Code AgencyCode
	// Under keeps agencies at or below this code or alias.
	Under AgencyCode
	// Tier keeps agencies of one tier; 0: all.
	Tier Tier
	// Search keeps agencies in whose name every word begins some word, in any
	// order, with or without diacritics.
	Search string
	// Limit is the most agencies of a page, 1 to 1,000; 0: 100.
	Limit int
	// After is the next of the page before.
	After string
}

const (
	defaultPage = 100
	maxPage     = 1000
)

// Agencies returns one page of agencies in order of code, and what to give as
// After for the next one; empty at the end.
func (v View) Agencies(q Query) (page []*directoryv1.Agency, next string) {
	if q.Code != "" {
		if a, ok := v.Agency(q.Code); ok {
			return []*directoryv1.Agency{a}, ""
		}
		return nil, ""
	}
	c := conditions{tier: q.Tier, words: strings.Fields(fold(q.Search))}
	if q.Under != "" {
		e := v.s.lookup(string(q.Under))
		if e == nil {
			return nil, ""
		}
		c.under = e.GetCode()
	}
	if strings.TrimSpace(q.Search) != "" && len(c.words) == 0 {
		return nil, "" // nothing but signs: no name has that
	}
	limit := min(q.Limit, maxPage)
	if limit <= 0 {
		limit = defaultPage
	}
	for a := range v.s.find(c, q.After) {
		if len(page) == limit {
			return page, page[limit-1].GetCode()
		}
		page = append(page, a)
	}
	return page, ""
}

// hasWords reports whether each word begins a word of the folded name.
func hasWords(folded string, words []string) bool {
	for _, w := range words {
		if !beginsWord(folded, w) {
			return false
		}
	}
	return true
}

func beginsWord(folded, word string) bool {
	for rest := folded; ; {
		i := strings.Index(rest, word)
		if i < 0 {
			return false
		}
		if at := len(folded) - len(rest) + i; at == 0 || folded[at-1] == ' ' {
			return true
		}
		rest = rest[i+1:]
	}
}

// fold brings text into the form that names are searched in: small letters
// without diacritics, đ as d, anything but letters and digits a single space.
func fold(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	gap := false
	for _, r := range norm.NFD.String(s) {
		switch {
		case unicode.Is(unicode.Mn, r):
			continue
		case r == 'đ' || r == 'Đ':
			r = 'd'
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			r = unicode.ToLower(r)
		default:
			gap = b.Len() > 0
			continue
		}
		if gap {
			b.WriteByte(' ')
			gap = false
		}
		b.WriteRune(r)
	}
	return b.String()
}
