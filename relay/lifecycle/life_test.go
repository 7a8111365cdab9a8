package lifecycle_test

import (
	"testing"

	"pgregory.net/rapid"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	. "github.com/truclienthong/truc/relay/lifecycle"
)

func heard(what string, n int) Heard {
	return Heard{Statement: say(what, n), Source: [16]byte{byte(n), byte(n >> 8), 1}}
}

// An answer that travelled faster than its question counts behind it.
func TestTheOrderOfHearingIsNotThatOfCounting(t *testing.T) {
	t.Parallel()
	var l Life
	l.Hear(heard("03", 1))
	l.Hear(heard("15", 3))
	if s := l.State(); s.Phase != Accepted || l.Said[1].Outcome != Refused {
		t.Errorf("an answer to nothing: %+v, %s", s, l.Said[1].Outcome)
	}
	l.Hear(heard("13", 2))
	if s := l.State(); s.Phase != Recalled || s.Asked != Nothing {
		t.Errorf("the question came behind its answer: %+v", s)
	}
	if o, ok := l.OutcomeOf(heard("15", 3).Source); !ok || o != Moved {
		t.Errorf("the answer is %s, %t", o, ok)
	}
}

// What one envelope says counts once, also where it would be a new question.
func TestHeardOnce(t *testing.T) {
	t.Parallel()
	var l Life
	for _, h := range []Heard{heard("03", 1), heard("update", 2), heard("16", 3)} {
		if !l.Hear(h) {
			t.Fatalf("%+v was not heard", h)
		}
	}
	if l.Hear(heard("update", 2)) || l.State().Asked != Nothing || len(l.Said) != 3 {
		t.Errorf("heard again: %+v", l)
	}
}

// Whatever order a life is told in, and however often, it comes to the fold of
// all that was said, also where not all of it is kept.
func TestALifeIsTheFoldOfWhatWasSaid(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var all []Heard
		var said []Statement
		for i, what := range rapid.SliceOfN(rapid.SampledFrom(everything), 0, 130).Draw(t, "said") {
			all = append(all, heard(what, i))
			said = append(said, say(what, i))
		}
		order := all
		if len(all) <= 100 {
			order = rapid.Permutation(all).Draw(t, "heard")
		}
		var l Life
		for _, h := range order {
			l.Hear(h)
			if l.Hear(h) {
				t.Fatalf("%+v was heard twice", h)
			}
		}
		if got, want := l.State(), Fold(said); got != want {
			t.Fatalf("%+v, want %+v", got, want)
		}
		if len(l.Said) > 100 || len(l.Said)+int(l.Dropped) != len(all) {
			t.Fatalf("%d of %d kept, %d dropped", len(l.Said), len(all), l.Dropped)
		}
	})
}

// What headers say.
func TestRead(t *testing.T) {
	t.Parallel()
	org := func(code string) *exchangev1.Organization { return &exchangev1.Organization{Code: code} }
	to := func(code string) []*exchangev1.Recipient {
		return []*exchangev1.Recipient{{To: &exchangev1.Recipient_Agency{Agency: org(code)}}}
	}
	status := func(from, to_, code, owner string) *exchangev1.Header {
		return &exchangev1.Header{Kind: exchangev1.Kind_KIND_STATUS, Sender: org(from), Recipients: to(to_), Status: &exchangev1.Status{
			Code: code, Description: "lý do", ResponseFor: &exchangev1.ResponseFor{AgencyCode: owner, DocumentId: "d"},
		}}
	}
	document := func(b *exchangev1.Business) *exchangev1.Header {
		return &exchangev1.Header{Kind: exchangev1.Kind_KIND_DOCUMENT, Sender: org("S"), Recipients: to("R"), DocumentId: "e", Business: b}
	}
	for name, c := range map[string]struct {
		h    *exchangev1.Header
		want []Saying
	}{
		"a recipient accepts": {status("R", "S", "03", "S"), []Saying{{Owner: "S", Document: "d", Statement: Statement{Act: SaysAccepted, Code: "03", By: Recipient}}}},
		"a sender recalls, and names the recipient as the example messages do": {status("S", "R", "13", "R"),
			[]Saying{{Owner: "S", Document: "d", Statement: Statement{Act: AsksRecall, Code: "13", By: Sender}}}},
		"a recipient says what is not in the standard": {status("R", "S", "09", "S"),
			[]Saying{{Owner: "S", Document: "d", Statement: Statement{Act: Other, Code: "09", By: Recipient}}}},
		"a sender says what is not in the standard": {status("S", "R", "09", "S"),
			[]Saying{{Owner: "S", Document: "d", Statement: Statement{Act: Other, Code: "09", By: Sender}}}},
		"no owner is named": {status("R", "S", "01", ""), []Saying{{Owner: "S", Document: "d", Statement: Statement{Act: SaysArrived, Code: "01"}}}},
		"revoke": {document(&exchangev1.Business{Type: exchangev1.BusinessType_BUSINESS_TYPE_REVOKE, TargetDocumentId: "d", Reason: "lý do"}),
			[]Saying{{Owner: "S", Document: "d", Statement: Statement{Act: AsksRecall, By: Sender}}}},
		"update of itself by the id of the header": {document(&exchangev1.Business{Type: exchangev1.BusinessType_BUSINESS_TYPE_UPDATE, Reason: "lý do",
			RecipientChanges: []*exchangev1.RecipientChange{{AgencyCode: "A", Added: true}, {AgencyCode: "B"}}}),
			[]Saying{{Owner: "S", Document: "e", Removes: []string{"B"}, Statement: Statement{Act: Updates, By: Sender}}}},
		"replace two": {document(&exchangev1.Business{Type: exchangev1.BusinessType_BUSINESS_TYPE_REPLACE, Reason: "lý do",
			Replaces: []*exchangev1.Replaced{{DocumentId: "a"}, {DocumentId: "b", AgencyCodes: []string{"R"}}}}),
			[]Saying{{Owner: "S", Document: "a", Statement: Statement{Act: Replaces, By: Sender}},
				{Owner: "S", Document: "b", At: []string{"R"}, Statement: Statement{Act: Replaces, By: Sender}}}},
		"a new document": {document(&exchangev1.Business{}), nil},
		"a relay's report": {&exchangev1.Header{Kind: exchangev1.Kind_KIND_STATUS,
			Status: &exchangev1.Status{Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_DONE}}, nil},
	} {
		got := Read(c.h, noon)
		if len(got) != len(c.want) {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		for i, w := range c.want {
			g := got[i]
			if g.Owner != w.Owner || g.Document != w.Document || g.Act != w.Act || g.Code != w.Code || g.By != w.By ||
				len(g.At) != len(w.At) || len(g.Removes) != len(w.Removes) || g.Note != "lý do" && name != "a new document" || !g.Heard.Equal(noon) {
				t.Errorf("%s: %+v, want %+v", name, g, w)
			}
		}
	}
}
