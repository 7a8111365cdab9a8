package envelope_test

import (
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// numberedCustody is a document of an agency, as a spool has it.
func numberedCustody(t *testing.T, sender routing.AgencyCode, h *exchangev1.Header, accepted time.Time) *envelope.Custody {
	t.Helper()
	b, err := envelope.Canonical(h)
	if err != nil {
		t.Fatal(err)
	}
	return &envelope.Custody{Header: b, Sender: sender, AcceptedAt: accepted}
}

func numberedHeader(number, notation string, issued *exchangev1.Date) *exchangev1.Header {
	return &exchangev1.Header{
		Kind: exchangev1.Kind_KIND_DOCUMENT, Sender: &exchangev1.Organization{Code: "H26"}, DocumentId: "vb",
		Recipients: []*exchangev1.Recipient{{To: &exchangev1.Recipient_Group{Group: "provinces"}}},
		Document:   &exchangev1.Document{Code: &exchangev1.Code{Number: number, Notation: notation}, IssuedOn: issued},
		Parts:      []*exchangev1.Part{{Name: "a.pdf"}},
	}
}

func TestOneNumberInManySpellings(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	of := func(number, notation string) (envelope.Number, bool) {
		return envelope.NumberOf(numberedCustody(t, "H26", numberedHeader(number, notation, nil), now))
	}
	five, ok := of("5", "QĐ-UBND")
	if !ok {
		t.Fatal("5/QĐ-UBND is no number")
	}
	for _, c := range []struct {
		number, notation string
		counts, same     bool
	}{
		{"05", "QĐ-UBND", true, true},
		{"005", "QĐ-UBND", true, true},
		{" 5 ", "QĐ - UBND\n", true, true},
		{"5", "qđ-ubnd", true, true},
		{"5", "QĐ\u00a0-\u200bUBND", true, true},
		{"5", "QĐ–UBND", true, true},
		{"05/QĐ-UBND", "", true, true},
		{"", "5/QĐ-UBND", true, true},
		{"5", "05/QĐ-UBND", true, true},
		{"05/QĐ-UBND", "QĐ-UBND", true, true},
		{"5/QĐ-UBND", "5/QĐ-UBND", true, true},
		{"50", "QĐ-UBND", true, false},
		{"5a", "QĐ-UBND", true, false},
		{"5", "QyĐ-UBND", true, false},
		{"5", "QD-UBND", true, false},
		{"5", "QĐ-UBND-VP", true, false},
		{"74fass22", "VPCP-TTĐT", true, false},
		{"20251020104803", "VPCP-TTĐT", true, false},
		{"5", "", false, false},
		{"", "QĐ-UBND", false, false},
		{"", "", false, false},
		{"  ", "QĐ-UBND", false, false},
		{"0", "QĐ-UBND", false, false},
		{"...", "QĐ-UBND", false, false},
		{"/", "/", false, false},
	} {
		n, ok := of(c.number, c.notation)
		if ok != c.counts || (n == five) != c.same {
			t.Errorf("%q %q: a number %t, that of 5/QĐ-UBND %t; want %t, %t", c.number, c.notation, ok, n == five, c.counts, c.same)
		}
	}
	// Letters put together and taken apart are the same (Unicode NFC).
	composed, _ := of("7", "UBND-V\u1ebd")
	if apart, _ := of("7", "UBND-Ve\u0303"); apart != composed {
		t.Error("a notation in NFD is another one")
	}
	// Where one field ends and the next begins counts.
	if a, _ := of("1", "1-A"); a == five {
		t.Error("two numbers are one")
	}
}

func TestANumberIsThatOfItsYearAndIssuer(t *testing.T) {
	at := func(s string) time.Time {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	date := func(year, month, day int32) *exchangev1.Date {
		return &exchangev1.Date{Year: year, Month: month, Day: day}
	}
	of := func(sender routing.AgencyCode, issued *exchangev1.Date, accepted string) envelope.Number {
		n, ok := envelope.NumberOf(numberedCustody(t, sender, numberedHeader("5", "QĐ-UBND", issued), at(accepted)))
		if !ok {
			t.Fatalf("%s %v: no number", sender, issued)
		}
		return n
	}
	of2026 := of("H26", date(2026, 6, 1), "2026-06-02T00:00:00Z")
	for name, c := range map[string]struct {
		sender   routing.AgencyCode
		issued   *exchangev1.Date
		accepted string
		same     bool
	}{
		"another day of the year":                  {"H26", date(2026, 1, 1), "2026-06-02T00:00:00Z", true},
		"accepted in the next":                     {"H26", date(2026, 12, 31), "2027-01-02T00:00:00Z", true},
		"issued in the year before":                {"H26", date(2025, 12, 31), "2026-01-01T00:00:00Z", false},
		"issued in the next":                       {"H26", date(2027, 1, 2), "2026-12-31T00:00:00Z", false},
		"without date":                             {"H26", nil, "2026-06-02T00:00:00Z", true},
		"without date, New Year in Vietnam":        {"H26", nil, "2025-12-31T17:00:00Z", true},
		"without date, New Year's Eve in Vietnam":  {"H26", nil, "2025-12-31T16:59:59Z", false},
		"without date, next New Year in Vietnam":   {"H26", nil, "2026-12-31T17:00:00Z", false},
		"a text that is no date":                   {"H26", &exchangev1.Date{Raw: "hôm nay"}, "2026-06-02T00:00:00Z", true},
		"a day that does not exist":                {"H26", date(2014, 2, 30), "2026-06-02T00:00:00Z", true},
		"a month that does not exist":              {"H26", date(2014, 13, 1), "2026-06-02T00:00:00Z", true},
		"day 0":                                    {"H26", date(2014, 1, 0), "2026-06-02T00:00:00Z", true},
		"a year before there was any":              {"H26", date(206, 6, 1), "2026-06-02T00:00:00Z", true},
		"a year far ahead":                         {"H26", date(2062, 6, 1), "2026-06-02T00:00:00Z", true},
		"another issuer":                           {"H27", date(2026, 6, 1), "2026-06-02T00:00:00Z", false},
		"an issuer whose code begins like another": {"H2", date(2026, 6, 1), "2026-06-02T00:00:00Z", false},
	} {
		if got := of(c.sender, c.issued, c.accepted); (got == of2026) != c.same {
			t.Errorf("%s: the number of H26 in 2026 %t, want %t", name, got == of2026, c.same)
		}
	}
}

func TestWhatHasNoNumberOfItsOwn(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		change func(*exchangev1.Header, *envelope.Custody)
		counts bool
	}{
		"new":         {func(*exchangev1.Header, *envelope.Custody) {}, true},
		"update":      {func(h *exchangev1.Header, _ *envelope.Custody) { h.Business = &exchangev1.Business{Type: 2} }, true},
		"replacement": {func(h *exchangev1.Header, _ *envelope.Custody) { h.Business = &exchangev1.Business{Type: 3} }, true},
		"revocation":  {func(h *exchangev1.Header, _ *envelope.Custody) { h.Business = &exchangev1.Business{Type: 1} }, false},
		"status":      {func(h *exchangev1.Header, _ *envelope.Custody) { h.Kind = exchangev1.Kind_KIND_STATUS }, false},
		"report":      {func(_ *exchangev1.Header, c *envelope.Custody) { c.Report = true }, false},
		"no document": {func(h *exchangev1.Header, _ *envelope.Custody) { h.Document = nil }, false},
	} {
		h := numberedHeader("5", "QĐ-UBND", nil)
		custody := new(envelope.Custody)
		c.change(h, custody)
		full := numberedCustody(t, "H26", h, now)
		full.Report = custody.Report
		if _, ok := envelope.NumberOf(full); ok != c.counts {
			t.Errorf("%s: has a number: %t, want %t", name, ok, c.counts)
		}
	}
	for _, garbage := range []string{"", "header 1", "\x08\x01\x2a\xff", "\x08\x01\x2a\x02\xff\xff", "\x08\x01\x32\x01\xff"} {
		if n, ok := envelope.NumberOf(&envelope.Custody{Header: []byte(garbage), Sender: "H26", AcceptedAt: now}); ok {
			t.Errorf("%q has the number %x", garbage, n)
		}
	}
}

func TestSketch(t *testing.T) {
	h := numberedHeader("5", "QĐ-UBND", nil)
	h.Business = &exchangev1.Business{Type: 2, TargetDocumentId: "trước"}
	b, err := envelope.Canonical(h)
	if err != nil {
		t.Fatal(err)
	}
	got, err := envelope.Sketch(b)
	if err != nil || got.GetKind() != h.GetKind() || got.GetDocumentId() != "vb" || got.GetDocument().GetCode().GetNumber() != "5" ||
		got.GetBusiness().GetTargetDocumentId() != "trước" || got.GetSender() != nil || got.GetRecipients() != nil || got.GetParts() != nil {
		t.Errorf("sketch: %v, %v", got, err)
	}
	for n := range b {
		if h, err := envelope.Sketch(b[:n]); err != nil && h != nil {
			t.Errorf("cut at %d: %v with %v", n, h, err)
		}
	}
}

func BenchmarkNumberOf(b *testing.B) {
	h := numberedHeader("5", "QĐ-UBND", nil)
	for range 1000 {
		h.Recipients = append(h.Recipients, h.Recipients[0])
	}
	canonical, err := envelope.Canonical(h)
	if err != nil {
		b.Fatal(err)
	}
	c := &envelope.Custody{Header: canonical, Sender: "H26", AcceptedAt: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)}
	for b.Loop() {
		envelope.NumberOf(c)
	}
}
