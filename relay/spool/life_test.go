package spool_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// saidOf is a statement about a parcel: its recipient A has accepted it.
func saidOf(p *parcel) envelope.Said { return sayAt(p, 3, "03", "A") }

// sayAt is the number-th statement about a parcel.
func sayAt(p *parcel, number byte, code string, agencies ...routing.AgencyCode) envelope.Said {
	at := p.AcceptedAt.Add(time.Duration(number) * time.Minute)
	s := envelope.Said{ID: p.ID, Source: p.ID, Agencies: agencies, Statement: lifecycle.Statement{
		Act: lifecycle.ActOf(code), By: lifecycle.Speaker(lifecycle.ActOf(code)), Code: code, At: at, Heard: at, Note: "ghi chú " + code,
	}}
	s.Source[0] ^= number
	return s
}

func (n *node) life(p *parcel, agency routing.AgencyCode) *lifecycle.Life {
	n.t.Helper()
	for _, d := range n.record(p).Deliveries {
		if d.Agency == agency {
			return d.Life
		}
	}
	return nil
}

func (n *node) heard(p *parcel, agency routing.AgencyCode) int {
	n.t.Helper()
	l := n.life(p, agency)
	if l == nil {
		return 0
	}
	return len(l.Said)
}

// What is said of a document outlives its content, the segments in which it was
// said, and the index; each statement counts once.
func TestWhatIsSaidIsKept(t *testing.T) {
	for name, c := range map[string]struct {
		recipients int
		// before are said while the content is here, after when it was released.
		before, after []string
	}{
		"while it is here":                  {2, []string{"01", "03", "05"}, nil},
		"after its release":                 {2, nil, []string{"01", "03"}},
		"before and after":                  {2, []string{"01"}, []string{"03", "13", "15"}},
		"of one of many, before and after":  {40, []string{"01"}, []string{"03", "06"}},
		"of one of many, after its release": {40, nil, []string{"03"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := spool.Hurried(config(t))
			n := start(t, cfg)
			p := newParcel(1, 60_000).fromSender()
			var all []routing.AgencyCode
			for i := range c.recipients {
				all = append(all, routing.AgencyCode(fmt.Sprintf("R%02d", i)))
			}
			p.inbox(all...)
			n.mustPut(p)
			number := byte(0)
			want := lifecycle.Life{}
			say := func(codes []string) {
				for _, code := range codes {
					number++
					for range 2 { // a repeat adds nothing
						must(t, n.Say(t.Context(), sayAt(p, number, code, "R01", "UNKNOWN")))
					}
					s := sayAt(p, number, code)
					want.Hear(lifecycle.Heard{Statement: s.Statement, Source: s.Source})
				}
			}
			say(c.before)
			if len(c.before) > 0 { // what is alive in the segment moves
				seed := uint64(500)
				eventually(t, "its segment to be emptied", func() bool {
					seed += 100
					n.fill(seed, cfg)
					return n.FirstSegment() > 1
				})
			}
			var settle []envelope.Settlement
			for _, a := range all {
				settle = append(settle, envelope.Settlement{ID: p.ID, Agency: a, Transport: done})
			}
			n.settle(len(all), settle...)
			eventually(t, "the release", func() bool { return n.record(p).ContentReleased })
			if len(c.after) > 0 {
				recycled(t, n, []*parcel{p})
			}
			say(c.after)
			verify := func(when string) {
				t.Helper()
				got := n.life(p, "R01")
				if got == nil || got.State() != want.State() || len(got.Said) != len(want.Said) {
					t.Errorf("%s: %+v, want %+v", when, got, want)
				}
				if other := n.heard(p, "R00"); other != 0 {
					t.Errorf("%s: %d statements at a recipient who said nothing", when, other)
				}
			}
			verify("at once")
			again := func(when string, lose bool) {
				n.end()
				check(t, cfg)
				if lose {
					withoutIndex(t, cfg)
					check(t, cfg)
				}
				n = start(t, cfg)
				verify(when)
			}
			again("after a start", false)
			again("without the index, while the journal has it", true)
			recycled(t, n, []*parcel{p})
			again("after it was recycled", false)
			again("without the index, from the register", true)
		})
	}
}

// Statements about what is not here are no error, and leave nothing.
func TestNothingIsSaidOfNothing(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg)
	p := newParcel(1, 10)
	must(t, n.Say(t.Context(), saidOf(p)))
	if records, err := n.InJournal(p.ID); err != nil || records > 0 {
		t.Errorf("%d records, %v", records, err)
	}
	n.mustPut(p.inbox("B"))
	must(t, n.Say(t.Context(), saidOf(p)))
	if n.heard(p, "B") > 0 {
		t.Error("heard at a recipient at whom it was not said")
	}
	n.end()
	check(t, cfg)
}

// A thousand statements take the room of a hundred.
func TestStatementsAreBounded(t *testing.T) {
	n := start(t, config(t))
	p := newParcel(1, 10).inbox("A")
	n.mustPut(p)
	for i := range 300 {
		s := sayAt(p, 0, "04", "A")
		s.At, s.Heard = s.At.Add(time.Duration(i)*time.Second), s.Heard.Add(time.Duration(i)*time.Second)
		binary.BigEndian.PutUint64(s.Source[:], uint64(i))
		must(t, n.Say(t.Context(), s))
	}
	if l := n.life(p, "A"); len(l.Said) > 100 || l.State().Phase != lifecycle.Assigned || int(l.Dropped)+len(l.Said) != 300 {
		t.Errorf("%d kept, %d dropped, %+v", len(l.Said), l.Dropped, l.State())
	}
}
