package ingress_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
	"github.com/truclienthong/truc/routing"
)

// numbered is a document with number and notation.
func numbered(sender, id, number, notation string, change ...func(*exchangev1.Header)) *exchangev1.Header {
	h := document(sender, id, nil, "H26")
	h.Document.Code = &exchangev1.Code{Number: number, Notation: notation}
	for _, c := range change {
		c(h)
	}
	return h
}

func issued(year, month, day int32) func(*exchangev1.Header) {
	return func(h *exchangev1.Header) {
		h.Document.IssuedOn = &exchangev1.Date{Year: year, Month: month, Day: day}
	}
}

// updating makes a document an update of another one, or with "" of the one whose id
// it bears.
func updating(target string) func(*exchangev1.Header) {
	return func(h *exchangev1.Header) {
		h.Business = &exchangev1.Business{
			Type: exchangev1.BusinessType_BUSINESS_TYPE_UPDATE, TargetDocumentId: target, Reason: "sai số liệu", UpdatesContent: true,
		}
	}
}

func replacing(targets ...string) func(*exchangev1.Header) {
	return func(h *exchangev1.Header) {
		h.Business = &exchangev1.Business{Type: exchangev1.BusinessType_BUSINESS_TYPE_REPLACE, Reason: "sai số liệu"}
		for _, target := range targets {
			h.Business.Replaces = append(h.Business.Replaces, &exchangev1.Replaced{DocumentId: target})
		}
	}
}

func revoking(target string) func(*exchangev1.Header) {
	return func(h *exchangev1.Header) {
		h.Business = &exchangev1.Business{Type: exchangev1.BusinessType_BUSINESS_TYPE_REVOKE, TargetDocumentId: target, Reason: "sai"}
	}
}

// numberWarnings are the warnings about the number.
func numberWarnings(accepted *exchangev1.SubmitAccepted) (all []string) {
	for _, w := range accepted.GetWarnings() {
		if w.GetField() == "header.document.code.number" {
			all = append(all, w.GetDescription())
		}
	}
	return all
}

// The last document of each case is accepted, with a warning that names the document
// of the case that had its number, or without one.
func TestANumberGivenTwiceIsWarnedOf(t *testing.T) {
	at := func(when string) time.Time {
		at, err := time.Parse(time.RFC3339, when)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for name, c := range map[string]struct {
		all []*exchangev1.Header
		// before is how long after each the next one comes.
		apart time.Duration
		start string
		// named is the place of the one that is named; -1: none.
		named int
	}{
		"the same number":      {all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP")}},
		"in another spelling":  {all: []*exchangev1.Header{numbered("G22", "1", "05", "BC-VPCP"), numbered("G22", "2", " 5", "bc - vpcp")}},
		"in another code form": {all: []*exchangev1.Header{numbered("000.00.00.G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP")}},
		"the first of three": {all: []*exchangev1.Header{
			numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP"), numbered("G22", "3", "45", "BC-VPCP")}},
		"another number":          {named: -1, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "46", "BC-VPCP")}},
		"another notation":        {named: -1, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "TB-VPCP")}},
		"another issuer":          {named: -1, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G09", "2", "45", "BC-VPCP")}},
		"without notation":        {named: -1, all: []*exchangev1.Header{numbered("G22", "1", "45", ""), numbered("G22", "2", "45", "")}},
		"without number":          {named: -1, all: []*exchangev1.Header{numbered("G22", "1", "", "BC-VPCP"), numbered("G22", "2", "", "BC-VPCP")}},
		"issued in two years":     {named: -1, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP", issued(2024, 12, 31)), numbered("G22", "2", "45", "BC-VPCP", issued(2025, 1, 1))}},
		"issued in one year":      {all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP", issued(2025, 1, 1)), numbered("G22", "2", "45", "BC-VPCP", issued(2025, 10, 20))}},
		"accepted in two years":   {named: -1, start: "2025-12-31T16:59:00Z", apart: time.Minute, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP")}},
		"accepted in one year":    {start: "2025-12-31T17:00:00Z", apart: time.Minute, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP")}},
		"an update":               {named: -1, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP", updating("1"))}},
		"an update of an update":  {named: -1, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP", updating("1")), numbered("G22", "3", "45", "BC-VPCP", updating("2"))}},
		"two updates":             {named: -1, all: []*exchangev1.Header{numbered("G22", "2", "45", "BC-VPCP", updating("1")), numbered("G22", "3", "45", "BC-VPCP", updating("1"))}},
		"an update came first":    {named: -1, all: []*exchangev1.Header{numbered("G22", "2", "45", "BC-VPCP", updating("1")), numbered("G22", "1", "45", "BC-VPCP")}},
		"an update of another":    {all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "46", "BC-VPCP"), numbered("G22", "3", "45", "BC-VPCP", updating("2"))}},
		"a new one, then updated": {named: 0, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP", updating("1")), numbered("G22", "3", "45", "BC-VPCP")}},
		"a replacement":           {named: -1, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP", replacing("0", "1"))}},
		"a replacement of others": {all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP", replacing("0", "9"))}},
		"a revocation":            {named: -1, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP", revoking("1"))}},
		"after a revocation":      {named: 0, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP", revoking("1")), numbered("G22", "3", "45", "BC-VPCP")}},
		"a repeat":                {named: -1, all: []*exchangev1.Header{numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "1", "45", "BC-VPCP")}},
		"a repeat of the second": {named: -1, all: []*exchangev1.Header{
			numbered("G22", "1", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP"), numbered("G22", "2", "45", "BC-VPCP")}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, ingress.Limits{})
			if c.start != "" {
				m.clock.advance(at(c.start).Sub(noon))
			}
			var answers []*exchangev1.SubmitAccepted
			var accepted []time.Time
			for _, h := range c.all {
				accepted = append(accepted, m.clock.Now())
				answers = append(answers, m.mustSend("bac", "agency/"+h.GetSender().GetCode(), h))
				m.clock.advance(c.apart)
			}
			got := numberWarnings(answers[len(answers)-1])
			if c.named < 0 {
				if len(got) > 0 {
					t.Errorf("warned: %q", got)
				}
				return
			}
			if len(got) != 1 {
				t.Fatalf("warnings %q, want one", got)
			}
			for _, want := range []string{
				envelope.ID(answers[c.named].GetReceipt().GetEnvelopeId()).String(), accepted[c.named].Format(time.RFC3339), "G22",
			} {
				if !strings.Contains(got[0], want) {
					t.Errorf("warning %q does not say %s", got[0], want)
				}
			}
		})
	}
}

// A relay compares with what it accepted itself.
func TestANumberGivenElsewhereIsNotCompared(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	m.mustSend("bac", "agency/G22", numbered("G22", "1", "45", "BC-VPCP"))
	if got := numberWarnings(m.mustSend("nam", "agency/G22", numbered("G22", "2", "45", "BC-VPCP"))); len(got) > 0 {
		t.Errorf("warned: %q", got)
	}
}

// What cannot be compared is accepted without a word to its sender.
func TestANumberThatCannotBeCompared(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	spool := m.relays["bac"].spool
	first := m.mustSend("bac", "agency/G22", numbered("G22", "1", "45", "BC-VPCP"))
	id := envelope.ID(first.GetReceipt().GetEnvelopeId())
	spool.lost = map[envelope.ID]bool{id: true}
	if got := numberWarnings(m.mustSend("bac", "agency/G22", numbered("G22", "2", "45", "BC-VPCP"))); len(got) > 0 {
		t.Errorf("the first cannot be read: warned %q", got)
	}
	spool.mu.Lock()
	delete(spool.lost, id)
	delete(spool.records, id)
	spool.mu.Unlock()
	if got := numberWarnings(m.mustSend("bac", "agency/G22", numbered("G22", "3", "45", "BC-VPCP"))); len(got) > 0 {
		t.Errorf("the first is forgotten: warned %q", got)
	}
	spool.failNumbers = errors.New("the index is damaged")
	m.mustSend("bac", "agency/G22", numbered("G22", "4", "45", "BC-VPCP"))
}

// An update at the end of a long row of updates is followed only so far.
func TestARowOfUpdatesIsBounded(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	send := func(id, target string) int {
		return len(numberWarnings(m.mustSend("bac", "agency/G22", numbered("G22", id, "45", "BC-VPCP", updating(target)))))
	}
	m.mustSend("bac", "agency/G22", numbered("G22", "a", "45", "BC-VPCP"))
	for i := range 8 {
		if got := send(string(rune('b'+i)), string(rune('a'+i))); got != 0 {
			t.Errorf("update %d: %d warnings", i, got)
		}
	}
	// Two that act on each other end too.
	m.mustSend("bac", "agency/G22", numbered("G22", "x", "46", "BC-VPCP", updating("y")))
	m.mustSend("bac", "agency/G22", numbered("G22", "y", "46", "BC-VPCP", updating("x")))
	if got := send("z", "y"); got != 1 {
		t.Errorf("an update of what has another number: %d warnings, want 1", got)
	}
}

func TestNumbersAreCounted(t *testing.T) {
	m := newDirectory(t)
	reader := metric.NewManualReader()
	m.adjust = func(c *ingress.Config) {
		c.Meter = metric.NewMeterProvider(metric.WithReader(reader)).Meter("test")
	}
	m.start(routing.RelayID("bac"), ingress.Limits{})
	for _, id := range []string{"1", "2", "3", "3"} {
		m.mustSend("bac", "agency/G22", numbered("G22", id, "45", "BC-VPCP"))
	}
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, metric := range scope.Metrics {
			if metric.Name != "truc.ingress.number.repeated" {
				continue
			}
			if got := metric.Data.(metricdata.Sum[int64]).DataPoints[0].Value; got != 2 {
				t.Errorf("counted %d, want 2", got)
			}
			return
		}
	}
	t.Error("not counted")
}
