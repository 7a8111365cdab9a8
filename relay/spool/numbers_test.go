package spool_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
)

// numberedParcel is a document that was handed in here.
func numberedParcel(seed uint64, number, notation string, issued *exchangev1.Date) *parcel {
	p := newParcel(seed, 100).fromSender().inbox("A")
	b, err := envelope.Canonical(&exchangev1.Header{
		Kind: exchangev1.Kind_KIND_DOCUMENT, DocumentId: p.DocumentID,
		Document: &exchangev1.Document{Code: &exchangev1.Code{Number: number, Notation: notation}, IssuedOn: issued},
	})
	if err != nil {
		panic(err)
	}
	p.Header, p.AcceptedAt = b, time.Date(2026, 6, 1, 8, 0, 0, 0, time.UTC)
	p.ID = envelope.ComputeID(string(p.Sender), p.DocumentID, p.Header)
	return p
}

func (p *parcel) numberOf() envelope.Number {
	n, _ := envelope.NumberOf(&p.Custody)
	return n
}

// wantNumber wants the number of p to lead to an envelope, or, with nil, to none.
func (n *node) wantNumber(p, to *parcel) {
	n.t.Helper()
	id, found, err := n.ByNumber(p.numberOf())
	if err != nil || found != (to != nil) || found && id != to.ID {
		want := envelope.ID{}
		if to != nil {
			want = to.ID
		}
		n.t.Errorf("number of %s: %v, %v, %v, want %v", p.DocumentID, id, found, err, want)
	}
}

func date(year, month, day int32) *exchangev1.Date {
	return &exchangev1.Date{Year: year, Month: month, Day: day}
}

func TestANumberLeadsToTheFirst(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	n := start(t, cfg)
	day := date(2026, 3, 1)
	first := numberedParcel(1, "05", "BC-UBND", day)
	second := numberedParcel(2, "5", "bc - ubnd", date(2026, 4, 1))
	last := numberedParcel(3, "5", "BC-UBND", date(2025, 3, 1))
	other := numberedParcel(4, "5", "BC-UBND", day)
	other.Sender = "H27"
	bare := numberedParcel(5, "5", "", day)
	passing := numberedParcel(6, "6", "BC-UBND", day)
	passing.FromSender = false
	report := numberedParcel(7, "7", "BC-UBND", day)
	report.Report, report.FromSender = true, false
	n.wantNumber(first, nil)
	for _, p := range []*parcel{first, second, last, other, bare, passing, report, first} {
		n.mustPut(p)
	}
	reopened(t, cfg, n, func(n *node) {
		n.wantNumber(first, first)
		n.wantNumber(second, first)
		n.wantNumber(last, last)
		n.wantNumber(other, other)
		n.wantNumber(bare, nil)
		n.wantNumber(passing, nil)
		n.wantNumber(report, nil)
	})
}

// Whose record is forgotten is not named any more, and the number is given anew.
func TestANumberIsForgotten(t *testing.T) {
	t.Parallel()
	cfg, now := config(t), newClock()
	cfg.Clock = now.Now
	cfg.Retention = spool.Retention{Record: time.Hour}
	n := start(t, cfg)
	put := func(seed uint64) *parcel {
		p := numberedParcel(seed, "5", "BC-UBND", nil)
		n.mustPut(p)
		n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
		eventually(t, "the release", func() bool { return n.record(p).ContentReleased })
		return p
	}
	forgotten := func(p *parcel) {
		t.Helper()
		eventually(t, "the end of the record", func() bool {
			_, err := n.Record(p.ID)
			return errors.Is(err, spool.ErrNotFound)
		})
	}
	verified := func(p, to *parcel) {
		t.Helper()
		n.wantNumber(p, to)
		n.end()
		check(t, cfg)
		n = start(t, cfg)
		n.wantNumber(p, to)
	}
	first := put(1)
	now.Advance(40 * time.Minute)
	second := put(2)
	verified(second, first)
	now.Advance(30 * time.Minute)
	forgotten(first)
	verified(second, nil)
	third := put(3)
	verified(third, third)
	now.Advance(2 * time.Hour)
	forgotten(second)
	forgotten(third)
	verified(third, nil)
	fourth := put(4)
	verified(fourth, fourth)
}

// However many are accepted at once, all but one find another there.
func TestRivalsForANumber(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	n := start(t, cfg)
	for round := range uint64(20) {
		var mu sync.Mutex
		var all sync.WaitGroup
		alone := 0
		for i := range uint64(8) {
			p := numberedParcel(10*round+i, fmt.Sprint(1+round), "BC-UBND", nil)
			all.Go(func() {
				if _, err := n.put(p); err != nil {
					t.Error(err)
				}
				id, found, err := n.ByNumber(p.numberOf())
				if !found || err != nil {
					t.Errorf("round %d: %v, %v after the commit", round, found, err)
				}
				if id == p.ID {
					mu.Lock()
					alone++
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if alone != 1 {
			t.Errorf("round %d: %d find nobody but themselves, want 1", round, alone)
		}
	}
	n.end()
	check(t, cfg)
	withoutIndex(t, cfg)
	check(t, cfg)
}

// A document that came from another relay is counted when its sender hands it in here
// too, under the year in which it was first accepted.
func TestANumberOfWhatWasHereBefore(t *testing.T) {
	t.Parallel()
	cfg, now := config(t), newClock()
	cfg.Clock = now.Now
	cfg.Retention = spool.Retention{Record: time.Hour}
	n := start(t, cfg)
	p := numberedParcel(1, "5", "BC-UBND", nil)
	p.AcceptedAt = time.Date(2025, 12, 31, 8, 0, 0, 0, time.UTC)
	came := p.with().inbox("A")
	n.mustPut(came)
	n.wantNumber(came, nil)
	again := p.with().fromSender().inbox("A")
	again.AcceptedAt = now.Now()
	n.mustPut(again)
	n = reopened(t, cfg, n, func(n *node) {
		n.wantNumber(came, came)
		n.wantNumber(again, nil)
	})
	n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
	eventually(t, "the release", func() bool { return n.record(p).ContentReleased })
	n = reopened(t, cfg, n, func(n *node) { n.wantNumber(came, came) })
	now.Advance(2 * time.Hour)
	eventually(t, "the end of the record", func() bool {
		_, err := n.Record(p.ID)
		return errors.Is(err, spool.ErrNotFound)
	})
	n.wantNumber(came, nil)
	n.end()
	check(t, cfg)
}

// What was released long ago keeps its number when the index is lost.
func TestANumberOutlivesTheIndex(t *testing.T) {
	t.Parallel()
	cfg := spool.Hurried(config(t))
	n, all := ended(t, cfg, 6)
	later := newParcel(106, 100).fromSender().inbox("A") // has the number of the first and the fourth
	n.mustPut(later)
	n.wantNumber(later, all[0])
	n.end()
	withoutIndex(t, cfg)
	check(t, cfg)
	n = start(t, cfg)
	if id, found, err := n.ByNumber(later.numberOf()); !found || err != nil || id != all[0].ID && id != later.ID {
		t.Errorf("number: %v, %v, %v, want one of those that have it", id, found, err)
	}
	n.wantNumber(all[2], all[2])
}

// An index of the release before numbers were counted goes on without what it has.
func TestAnIndexWithoutNumbersGoesOn(t *testing.T) {
	t.Parallel()
	cfg, now := config(t), newClock()
	cfg.Clock = now.Now
	cfg.Retention = spool.Retention{Record: time.Hour}
	n := start(t, cfg)
	before := numberedParcel(1, "5", "BC-UBND", nil)
	n.mustPut(before)
	n.end()
	must(t, spool.Unnumber(cfg))
	check(t, cfg)
	n = start(t, cfg)
	n.wantNumber(before, nil)
	after := numberedParcel(2, "5", "BC-UBND", nil)
	n.mustPut(after)
	n.wantNumber(before, after)
	n.mustPut(before)
	n.wantNumber(before, after)
	n.settle(1, envelope.Settlement{ID: before.ID, Agency: "A", Transport: done})
	eventually(t, "the release", func() bool { return n.record(before).ContentReleased })
	now.Advance(2 * time.Hour)
	eventually(t, "the end of the record", func() bool {
		_, err := n.Record(before.ID)
		return errors.Is(err, spool.ErrNotFound)
	})
	n.wantNumber(before, after)
	n.end()
	check(t, cfg)
}

func TestCheckFindsNumbers(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	n := start(t, cfg)
	p, q := numberedParcel(1, "5", "BC-UBND", nil), numberedParcel(2, "5", "BC-UBND", nil)
	r, passing := numberedParcel(3, "6", "BC-UBND", nil), numberedParcel(4, "7", "BC-UBND", nil)
	passing.FromSender = false
	for _, p := range []*parcel{p, q, r, passing} {
		n.mustPut(p)
	}
	n.end()
	five, six, seven := p.numberOf(), r.numberOf(), passing.numberOf()
	for _, c := range []struct {
		name  string
		n     envelope.Number
		count uint64
		first envelope.ID
		want  string
	}{
		{"nothing wrong", five, 2, q.ID, ""},
		{"first forgotten", five, 2, envelope.ID{}, ""},
		{"too few", five, 1, p.ID, "are counted under numbers"},
		{"too many", five, 3, p.ID, "are counted under numbers"},
		{"none", five, 0, p.ID, "is not counted under its number"},
		{"one that does not exist", five, 2, envelope.ID{9}, "is named by a number, and does not exist"},
		{"one that was not accepted here", five, 2, passing.ID, "is named by a number, and does not exist or is not counted"},
		{"one with another number", five, 2, r.ID, "is named by a number that is not its own"},
		{"a number that nobody has", seven, 1, envelope.ID{}, "are counted under numbers"},
	} {
		must(t, spool.Renumber(cfg, c.n, c.count, c.first))
		var all []string
		must(t, spool.Check(cfg, func(f spool.Finding) { all = append(all, f.String()) }))
		if found := strings.Contains(strings.Join(all, "\n"), c.want); !found || (c.want == "") != (len(all) == 0) {
			t.Errorf("%s: %q, want %q", c.name, all, c.want)
		}
		must(t, spool.Renumber(cfg, five, 2, p.ID))
	}
	// One too many here and one too few there do not make up for each other.
	must(t, spool.Renumber(cfg, seven, 0, envelope.ID{}))
	must(t, spool.Renumber(cfg, five, 1, p.ID))
	must(t, spool.Renumber(cfg, six, 2, r.ID))
	var all []string
	must(t, spool.Check(cfg, func(f spool.Finding) { all = append(all, f.String()) }))
	if !strings.Contains(strings.Join(all, "\n"), "3 documents are counted under numbers") {
		t.Errorf("counted for one another: %q", all)
	}
}

// A number is read while documents with it come.
func BenchmarkByNumber(b *testing.B) {
	n := start(b, config(b))
	p := numberedParcel(1, "5", "BC-UBND", nil)
	if _, err := n.put(p); err != nil {
		b.Fatal(err)
	}
	absent := numberedParcel(2, "6", "BC-UBND", nil).numberOf()
	for b.Loop() {
		if _, found, err := n.ByNumber(absent); found || err != nil {
			b.Fatal(found, err)
		}
	}
}
