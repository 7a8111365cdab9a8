package ledger_test

import (
	"strings"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

const (
	notFound     = exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
	invalidField = exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	wrongState   = exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE
)

// onlyID is the id of the one document at bac.
func (m *mesh) onlyID() (id envelope.ID) {
	for id = range m.spools["bac"].records {
	}
	return id
}

func organization(code string) *exchangev1.Organization {
	return &exchangev1.Organization{Code: code}
}

func to(codes ...string) (list []*exchangev1.Recipient) {
	for _, code := range codes {
		list = append(list, &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{Agency: organization(code)}})
	}
	return list
}

// status is one of an agency to the sender of the document that travel gives.
func status(from, code string, change ...func(*exchangev1.Header)) *exchangev1.Header {
	h := &exchangev1.Header{Kind: exchangev1.Kind_KIND_STATUS, Sender: organization(from), Recipients: to("G22"), DocumentId: "status " + from + code,
		Status: &exchangev1.Status{Code: code, Description: "lý do", ResponseFor: &exchangev1.ResponseFor{AgencyCode: "G22", DocumentId: "2025/1"}}}
	for _, c := range change {
		c(h)
	}
	return h
}

// about is a document of G22 about that one.
func about(b *exchangev1.Business, recipients ...string) *exchangev1.Header {
	b.Reason = "lý do"
	return &exchangev1.Header{Kind: exchangev1.Kind_KIND_DOCUMENT, Sender: organization("G22"), DocumentId: "about", Recipients: to(recipients...), Business: b}
}

func revoke(target string, recipients ...string) *exchangev1.Header {
	return about(&exchangev1.Business{Type: exchangev1.BusinessType_BUSINESS_TYPE_REVOKE, TargetDocumentId: target}, recipients...)
}

func update(changes []*exchangev1.RecipientChange, recipients ...string) *exchangev1.Header {
	return about(&exchangev1.Business{Type: exchangev1.BusinessType_BUSINESS_TYPE_UPDATE, TargetDocumentId: "2025/1", RecipientChanges: changes}, recipients...)
}

func removes(codes ...string) (list []*exchangev1.RecipientChange) {
	for _, code := range codes {
		list = append(list, &exchangev1.RecipientChange{AgencyCode: code})
	}
	return list
}

func replace(id string, recipients ...string) *exchangev1.Header {
	return about(&exchangev1.Business{Type: exchangev1.BusinessType_BUSINESS_TYPE_REPLACE, Replaces: []*exchangev1.Replaced{{DocumentId: id}}}, recipients...)
}

// hand has an envelope judged at a relay, and heard if nothing speaks against it,
// as ingress does; reports arrive at once.
func (m *mesh) hand(relay routing.RelayID, h *exchangev1.Header, minutes int) []envelope.Problem {
	m.t.Helper()
	sender := routing.AgencyCode(h.GetSender().GetCode())
	hear, problems, err := m.ledgers[relay].Judge(m.t.Context(), sender, h)
	if err != nil {
		m.t.Fatal(err)
	}
	if len(problems) > 0 {
		return problems
	}
	_, canonical, err := envelope.HeaderID(h)
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := envelope.NewCustody(h, canonical, envelope.Acceptance{Ingress: relay, AcceptedAt: noon.Add(time.Duration(minutes) * time.Minute), FromSender: true})
	if err != nil {
		m.t.Fatal(err)
	}
	for range 2 { // a repeat changes nothing
		if err := hear(m.t.Context(), &envelope.Record{Custody: *c}); err != nil {
			m.t.Fatal(err)
		}
		for _, r := range m.spools[relay].reports {
			if err := m.ledgers[r.Onward[0].Relay].Apply(m.t.Context(), r); err != nil {
				m.t.Fatalf("report: %v", err)
			}
		}
	}
	return nil
}

func (m *mesh) stateOf(id envelope.ID, agency routing.AgencyCode) lifecycle.State {
	for _, d := range m.spools["bac"].records[id].Deliveries {
		if d.Agency == agency {
			return d.State()
		}
	}
	return lifecycle.State{}
}

// Whatever relay hears it, the ingress of the document keeps it.
func TestStatementsComeToTheIngress(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	for i, step := range []struct {
		relay routing.RelayID
		h     *exchangev1.Header
		phase lifecycle.Phase
		asked lifecycle.Question
	}{
		{"nam", status("H43", "01"), lifecycle.Arrived, lifecycle.Nothing},
		{"bac", status("H43", "03"), lifecycle.Accepted, lifecycle.Nothing},
		{"trung", status("H43", "09"), lifecycle.Accepted, lifecycle.Nothing}, // kept
		{"trung", revoke("2025/1", "H43"), lifecycle.Accepted, lifecycle.Recall},
		{"nam", status("H43", "16"), lifecycle.Accepted, lifecycle.Nothing},
		{"nam", update(nil, "H43"), lifecycle.Accepted, lifecycle.Change},
		{"bac", status("H43", "15"), lifecycle.Accepted, lifecycle.Nothing},
		{"bac", replace("2025/1", "H43"), lifecycle.Accepted, lifecycle.Change},
		{"nam", status("G22", "13", func(h *exchangev1.Header) {
			h.Recipients, h.Status.ResponseFor.AgencyCode = to("H43"), "H43"
		}), lifecycle.Accepted, lifecycle.Recall},
	} {
		if problems := m.hand(step.relay, step.h, 10+i); len(problems) > 0 {
			t.Fatalf("step %d: %v", i, problems)
		}
		if s := m.stateOf(id, "H43"); s.Phase != step.phase || s.Asked != step.asked {
			t.Fatalf("step %d: %+v, want %s and %s asked", i, s, step.phase, step.asked)
		}
	}
	if s := m.stateOf(id, "H29"); s.Asked != lifecycle.Nothing || s.Phase != lifecycle.Sent {
		t.Errorf("nothing was said at H29: %+v", s)
	}
	track, err := m.ledgers["trung"].Track(t.Context(), "G22", &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_EnvelopeId{EnvelopeId: id[:]}})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range track.GetDeliveries() {
		if want := map[string]int{"H43": 9}[d.GetAgencyCode()]; len(d.GetStatements()) != want {
			t.Errorf("track shows %d statements at %s, want %d", len(d.GetStatements()), d.GetAgencyCode(), want)
		}
	}
}

// What may not be said is refused with the field and the reason.
func TestStatementsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		// before are said before, of H43.
		before []*exchangev1.Header
		h      *exchangev1.Header
		reason exchangev1.ErrorReason
		want   string // of field and description
	}{
		"status of a document that nobody knows": {nil, status("H43", "03", func(h *exchangev1.Header) { h.Status.ResponseFor.DocumentId = "2025/2" }),
			notFound, "header.status.response_for names a document that is not known"},
		"status by an envelope id that nobody knows": {nil, status("H43", "03", func(h *exchangev1.Header) { h.Status.EnvelopeId = make([]byte, 16) }),
			notFound, "header.status.envelope_id names a document that is not known"},
		"status by an agency that did not get it": {nil, func() *exchangev1.Header { h := status("H43", "03"); h.Sender = organization("G99"); return h }(),
			notFound, "not yours to speak of"},
		"status to somebody else": {nil, status("H43", "03", func(h *exchangev1.Header) { h.Recipients = to("H26") }), invalidField, "header.recipients[0] is H26"},
		"agreement to nothing":    {nil, status("H43", "15"), wrongState, "header.status.code 15 at H43 answers a question that was not asked"},
		"agreement twice": {[]*exchangev1.Header{revoke("2025/1", "H43"), status("H43", "15")}, status("H43", "15", func(h *exchangev1.Header) { h.DocumentId = "again" }),
			wrongState, "answers a question"},
		"recall of somebody else's document": {nil, func() *exchangev1.Header { h := revoke("2025/1", "H43"); h.Sender = organization("H26"); return h }(),
			notFound, "header.business.target_document_id names a document that is not known"},
		"recall at an agency that it was not sent to": {nil, revoke("2025/1", "H43", "G22"), notFound, "header.recipients[1] the document was not sent to G22"},
		"recall of what was recalled": {[]*exchangev1.Header{revoke("2025/1", "H43"), status("H43", "15")},
			func() *exchangev1.Header { h := revoke("2025/1", "H43"); h.DocumentId = "again"; return h }(), wrongState, "header.recipients[0] recall at H43 comes too late"},
		"update of what is being recalled": {[]*exchangev1.Header{revoke("2025/1", "H43")}, update(nil, "H43"), wrongState, "is being taken back"},
		"update that takes it from everybody": {nil, update(removes("H26", "H29", "H43"), "H26", "H29", "H43"), invalidField,
			"header.business.recipient_changes take the document from every recipient"},
		"replacement of itself":          {nil, replace("about", "H43"), invalidField, "header.business.replaces[0].document_id is the document itself"},
		"replacement of what is unknown": {nil, replace("2025/9", "H43"), notFound, "header.business.replaces[0].document_id names"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			id := m.travel()
			for i, h := range c.before {
				if problems := m.hand("bac", h, 10+i); len(problems) > 0 {
					t.Fatalf("before: %v", problems)
				}
			}
			was := len(m.spools["bac"].said)
			for _, relay := range []routing.RelayID{"bac", "trung"} {
				problems := m.hand(relay, c.h, 20)
				if len(problems) == 0 {
					t.Fatalf("at %s it is not refused; %+v", relay, m.stateOf(id, "H43"))
				}
				if got := problems[0].Field + " " + problems[0].Description; problems[0].Reason != c.reason || !strings.Contains(got, c.want) {
					t.Errorf("at %s: %s, %s; want %s, %q", relay, problems[0].Reason, got, c.reason, c.want)
				}
			}
			if len(m.spools["bac"].said) != was {
				t.Error("what was refused was kept")
			}
		})
	}
}

// An update that leaves the document with somebody is none of everybody.
func TestUpdateThatRemovesSome(t *testing.T) {
	m := newMesh(t)
	m.travel()
	if problems := m.hand("bac", update(removes("H43"), "H43", "H26", "H29"), 10); len(problems) > 0 {
		t.Errorf("%v", problems)
	}
}

// While those are silent who may know the document, trying again helps.
func TestStatementsWaitForThoseWhoKnow(t *testing.T) {
	m := newMesh(t)
	m.travel()
	m.silent["bac"], m.silent["nam"] = true, true
	delete(m.spools["trung"].records, m.onlyID())
	_, _, err := m.ledgers["trung"].Judge(t.Context(), "H43", status("H43", "03"))
	if err == nil || !envelope.Temporary(err) {
		t.Errorf("judged with %v, want a temporary refusal", err)
	}
}

// Reports about what somebody says are believed of registered relays only, and
// never of documents that were accepted elsewhere.
func TestStatementReportsAreHeldAgainstTheRecord(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	said := envelope.Said{ID: id, Agencies: []routing.AgencyCode{"H43"}, Statement: lifecycle.Statement{
		Act: lifecycle.SaysAccepted, Code: "03", At: noon, Heard: noon}}
	for name, c := range map[string]struct {
		at, from routing.RelayID
		owner    routing.AgencyCode
		want     exchangev1.ErrorReason
	}{
		"by a relay that is none of the mesh": {"bac", "tay", "G22", exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY},
		"of another sender's document":        {"bac", "nam", "H26", notFound},
		"at a relay that did not accept it":   {"trung", "nam", "G22", notFound},
	} {
		report, err := envelope.StatementReport(said, 0, c.owner, "2025/1", c.from, c.at)
		if err != nil {
			t.Fatal(err)
		}
		err = m.ledgers[c.at].Apply(t.Context(), report)
		if refusal, ok := envelope.AsRefusal(err); !ok || refusal.Reason != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if len(m.spools["bac"].said) > 0 {
		t.Error("something was kept")
	}
}

// A document that waits in an inbox goes no further once it is taken back, nor
// does what takes it back; who has it is asked.
func TestRecallAtTheHome(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	home := m.spools["nam"].records[id]
	home.Inboxes = []routing.AgencyCode{"H29"}
	home.Deliveries[0].Place = envelope.InInbox
	home.Deliveries[1].Place = envelope.Settled
	h := revoke("2025/1", "H29", "H43")
	recall, canonical, err := envelope.HeaderID(h)
	if err != nil {
		t.Fatal(err)
	}
	c, err := envelope.NewCustody(h, canonical, envelope.Acceptance{Ingress: "bac", AcceptedAt: noon, Inboxes: []routing.AgencyCode{"H29", "H43"}})
	if err != nil {
		t.Fatal(err)
	}
	record := &envelope.Record{Custody: *c, Deliveries: []envelope.Delivery{{Agency: "H29", Place: envelope.InInbox}, {Agency: "H43", Place: envelope.InInbox}}}
	m.spools["nam"].records[recall] = record
	if err := m.ledgers["nam"].Heard(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	ended := map[string]bool{}
	for _, s := range m.spools["nam"].settled {
		if s.Reason != exchangev1.ErrorReason_ERROR_REASON_RECALLED || s.Report == nil {
			t.Errorf("%+v, want recalled, with a report to the ingress", s)
		}
		ended[s.ID.String()+" "+string(s.Agency)] = true
	}
	if len(ended) != 2 || !ended[id.String()+" H29"] || !ended[recall.String()+" H29"] {
		t.Errorf("ended: %v, want the document and its recall at H29", ended)
	}
}

// A recall that overtook its document waits for it, at the home of the recipient
// and at its ingress alike; not where the document has come, ended, or nobody
// answers.
func TestARecallDoesNotOvertakeItsDocument(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	h := revoke("2025/1", "H29")
	_, canonical, err := envelope.HeaderID(h)
	if err != nil {
		t.Fatal(err)
	}
	c, err := envelope.NewCustody(h, canonical, envelope.Acceptance{Sender: "G22", Ingress: "bac", AcceptedAt: noon, Inboxes: []routing.AgencyCode{"H29"}})
	if err != nil {
		t.Fatal(err)
	}
	ready := func(want bool, when string) {
		t.Helper()
		err := m.ledgers["nam"].Ready(t.Context(), c)
		if refusal, ok := envelope.AsRefusal(err); err == nil != want || err != nil && (!ok || !envelope.Temporary(err) || refusal.RetryAfter == 0) {
			t.Errorf("%s: %v, want ready %t, else for a while", when, err, want)
		}
		_, problems, err := m.ledgers["nam"].Judge(t.Context(), "G22", h)
		if len(problems) > 0 || err == nil != want && !m.silent["bac"] {
			t.Errorf("%s, handed in there: %v, %v", when, problems, err)
		}
	}
	ready(true, "the document is in the inbox")
	was := m.spools["nam"].records[id]
	delete(m.spools["nam"].records, id)
	ready(false, "the document is on its way")
	for i := range m.spools["bac"].records[id].Deliveries {
		m.spools["bac"].records[id].Deliveries[i].Transport = exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL
	}
	ready(true, "the document was given up")
	for i := range m.spools["bac"].records[id].Deliveries {
		m.spools["bac"].records[id].Deliveries[i].Transport = initial
	}
	m.silent["bac"], m.silent["trung"] = true, true
	ready(true, "nobody answers")
	m.spools["nam"].records[id] = was
}
