package ledger_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ledger"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// asked returns a ledger of the relay that takes every caller for this one.
func (m *mesh) asked(relay, caller routing.RelayID) *ledger.Ledger {
	m.t.Helper()
	l, err := ledger.New(ledger.Config{Self: relay, Spool: m.spools[relay], Directory: m.directory, Peers: m, Report: m.spools[relay].report,
		Caller: func(context.Context) (tls.Identity, bool) {
			return tls.Identity{TrustDomain: "truc.test", Kind: tls.KindRelay, Name: string(caller)}, true
		}})
	if err != nil {
		m.t.Fatal(err)
	}
	return l
}

// An answer has one standing per recipient asked about, in their order, and
// counts every relay in service that has the envelope but the caller.
func TestReconcile(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	here := m.spools["bac"].records[id]
	here.Holders = []routing.RelayID{"trung", "nam", "hue"}
	for i, place := range []envelope.Place{envelope.InQueue, envelope.Elsewhere, envelope.Settled} {
		here.Deliveries[i].Place = place
	}
	here.Deliveries[2].Transport, here.Deliveries[2].Note = done, "đã vào sổ"
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
		Relay: &directoryv1.Relay{Id: "hue", Region: "x", Address: "hue:7400"}}}})
	m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: "hue", Lost: true}}})

	response, err := m.asked("bac", "nam").Reconcile(t.Context(), &relayv1.ReconcileRequest{Items: []*relayv1.ReconcileItem{
		{EnvelopeId: id[:], AgencyCodes: []string{"H43", "K01", "H26"}},
		{EnvelopeId: make([]byte, 16), AgencyCodes: []string{"H26"}},
		{EnvelopeId: id[:]},
	}})
	if err != nil || len(response.GetAnswers()) != 3 {
		t.Fatalf("got %v, %v, want three answers", response, err)
	}
	first, second, third := response.GetAnswers()[0], response.GetAnswers()[1], response.GetAnswers()[2]
	if !first.GetKnown() || !first.GetHoldsContent() || !first.GetIngress() || first.GetCopies() != 2 {
		t.Errorf("got %v, want known, with content, ingress, and 2 copies: bac and trung, not the caller, not the lost one", first)
	}
	if got := standings(first); got != "H43:SETTLED:DONE K01:UNSPECIFIED:- H26:QUEUE:INITIAL" {
		t.Errorf("asked about three: got %s", got)
	}
	if note := first.GetStandings()[0].GetDelivery().GetNote(); note != "đã vào sổ" {
		t.Errorf("note: got %q", note)
	}
	if second.GetKnown() || standings(second) != "H26:UNSPECIFIED:-" {
		t.Errorf("unknown: got %v", second)
	}
	if got := standings(third); got != "H26:QUEUE:INITIAL H29:ELSEWHERE:INITIAL H43:SETTLED:DONE" {
		t.Errorf("asked about all: got %s", got)
	}

	// What is kept without content is no copy.
	here.ContentReleased = true
	response, err = m.asked("bac", "trung").Reconcile(t.Context(), &relayv1.ReconcileRequest{Items: []*relayv1.ReconcileItem{{EnvelopeId: id[:]}}})
	if err != nil || response.GetAnswers()[0].GetHoldsContent() || response.GetAnswers()[0].GetCopies() != 1 {
		t.Errorf("released: got %v, %v, want no content and one copy, nam's", response, err)
	}
}

func TestReconcileIsBounded(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	here := m.spools["bac"].records[id]
	for len(here.Deliveries) < 20_000 {
		here.Deliveries = append(here.Deliveries, envelope.Delivery{Agency: "X01", Home: "nam", Place: envelope.Settled,
			Transport: fail, Note: strings.Repeat("x", 500)})
	}
	items := func(n int, codes ...string) *relayv1.ReconcileRequest {
		req := new(relayv1.ReconcileRequest)
		for range n {
			req.Items = append(req.Items, &relayv1.ReconcileItem{EnvelopeId: id[:], AgencyCodes: codes})
		}
		return req
	}
	for name, test := range map[string]struct {
		req    *relayv1.ReconcileRequest
		refuse bool
	}{
		"nothing":                  {items(0), true},
		"as many as may be":        {items(1_000, "H26"), false},
		"one more":                 {items(1_001, "H26"), true},
		"no id":                    {&relayv1.ReconcileRequest{Items: []*relayv1.ReconcileItem{{EnvelopeId: []byte{1}}}}, true},
		"a large circular":         {items(1), false},
		"too many recipients":      {items(1, make([]string, 20_001)...), true},
		"too many large circulars": {items(3), true},
	} {
		response, err := m.asked("bac", "nam").Reconcile(t.Context(), test.req)
		if r, ok := envelope.AsRefusal(err); ok != test.refuse || ok && r.Reason != exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD || !ok && err != nil {
			t.Errorf("%s: got %v, want refused %v", name, err, test.refuse)
			continue
		}
		if size := proto.Size(response); size > 6<<20 {
			t.Errorf("%s: the answer has %d bytes", name, size)
		}
	}
}

func standings(a *relayv1.ReconcileAnswer) string {
	var all []string
	for _, s := range a.GetStandings() {
		transport := "-"
		if s.GetDelivery() != nil {
			transport = strings.TrimPrefix(s.GetDelivery().GetTransport().String(), "TRANSPORT_STATUS_")
		}
		all = append(all, s.GetAgencyCode()+":"+strings.TrimPrefix(s.GetPlace().String(), "PLACE_")+":"+transport)
	}
	return strings.Join(all, " ")
}
