package ledger_test

import (
	"strings"
	"testing"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
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
	judged, err := m.ledgers[relay].Judge(m.t.Context(), sender, h)
	if err != nil {
		m.t.Fatal(err)
	}
	if len(judged.Problems) > 0 {
		return judged.Problems
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
		if err := judged.Hear(m.t.Context(), &envelope.Record{Custody: *c}); err != nil {
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

// Where the ingress is silent, and the others know a part of the recipients, what
// is said reaches all of them in the end.
func TestAReplacementWhileTheIngressIsSilent(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	m.silent["bac"] = true
	delete(m.spools["nam"].records, id)
	m.now = noon
	if problems := m.hand("trung", replace("2025/1", "H26", "H29", "H43", "G22"), 10); len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, agency := range []routing.AgencyCode{"H26", "H29", "H43"} {
		if s := m.stateOf(id, agency); s.Asked != lifecycle.Change {
			t.Errorf("at %s nothing is asked: %+v", agency, s)
		}
	}
}

// While those are silent who may know the document, trying again helps.
func TestStatementsWaitForThoseWhoKnow(t *testing.T) {
	m := newMesh(t)
	m.travel()
	m.silent["bac"], m.silent["nam"] = true, true
	delete(m.spools["trung"].records, m.onlyID())
	_, err := m.ledgers["trung"].Judge(t.Context(), "H43", status("H43", "03"))
	if err == nil || !envelope.Temporary(err) {
		t.Errorf("judged with %v, want a temporary refusal", err)
	}
}

// What an ingress has lost with its disk is not kept there any more, and holds up
// nobody who speaks of it.
func TestStatementsOfWhatTheIngressForgot(t *testing.T) {
	m := newMesh(t)
	m.travel()
	clear(m.spools["bac"].records)
	if problems := m.hand("bac", status("H43", "03"), 10); len(problems) > 0 {
		t.Errorf("judged with %v", problems)
	}
}

// A relay that is lost will not answer: what it alone knew is not waited for.
func TestStatementsOfWhatIsLost(t *testing.T) {
	m := newMesh(t)
	m.travel()
	for _, s := range m.spools {
		clear(s.records)
	}
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
		Relay: &directoryv1.Relay{Id: "tay", Region: "x", Address: "tay:7400"}}}})
	m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: "tay", Lost: true}}})
	problems := m.hand("trung", status("H43", "03"), 10)
	if len(problems) != 1 || problems[0].Reason != notFound || !strings.Contains(problems[0].Description, "[tay]") {
		t.Errorf("judged with %v, want it not found, and the lost relay named", problems)
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

// warned has an envelope handed in, and returns what it is warned of.
func (m *mesh) warned(relay routing.RelayID, h *exchangev1.Header, minutes int) []*exchangev1.Warning {
	m.t.Helper()
	judged, err := m.ledgers[relay].Judge(m.t.Context(), routing.AgencyCode(h.GetSender().GetCode()), h)
	if err != nil {
		m.t.Fatal(err)
	}
	if problems := m.hand(relay, h, minutes); len(problems) > 0 {
		m.t.Fatal(problems)
	}
	return judged.Warnings
}

// A recipient may answer before the ingress of the document has heard the question:
// the answer is kept, with a warning, and counts once the question is there.
func TestAnAnswerOvertakesItsQuestion(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	warnings := m.warned("nam", status("H43", "15"), 20)
	if len(warnings) != 1 || warnings[0].GetField() != "header.status.code" || !strings.Contains(warnings[0].GetDescription(), "answers a question that was not asked") {
		t.Errorf("warned of %v", warnings)
	}
	if s := m.stateOf(id, "H43"); s.Phase != lifecycle.Sent {
		t.Errorf("agreed to nothing, it is %s", s.Phase)
	}
	if problems := m.hand("bac", revoke("2025/1", "H43"), 10); len(problems) > 0 { // accepted before the answer, heard behind it
		t.Fatal(problems)
	}
	if s := m.stateOf(id, "H43"); s.Phase != lifecycle.Recalled {
		t.Errorf("the question came, and it is %s", s.Phase)
	}
	if warnings := m.warned("bac", status("H43", "16", func(h *exchangev1.Header) { h.DocumentId = "again" }), 30); len(warnings) != 1 {
		t.Errorf("a second answer is warned of %v", warnings)
	}
	if s := m.stateOf(id, "H43"); s.Phase != lifecycle.Recalled {
		t.Errorf("a second answer makes it %s", s.Phase)
	}
}

// Whoever answers a question that is known speaks behind it, though the clock of
// the relay that accepts the answer is behind.
func TestAnswersStandBehindQuestions(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	if problems := m.hand("bac", revoke("2025/1", "H43"), 50); len(problems) > 0 {
		t.Fatal(problems)
	}
	m.now = noon
	if warnings := m.warned("nam", status("H43", "15"), 10); len(warnings) > 0 {
		t.Errorf("warned of %v", warnings)
	}
	if s := m.stateOf(id, "H43"); s.Phase != lifecycle.Recalled {
		t.Errorf("it is %s, asked %s", s.Phase, s.Asked)
	}
}

// What was heard is handed in again without a receipt: it is not held against
// what it has brought about.
func TestWhatWasHeardMaySayItAgain(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	recall := revoke("2025/1", "H43")
	for i, h := range []*exchangev1.Header{recall, status("H43", "15"), recall, status("H43", "15")} {
		if warnings := m.warned("trung", h, 10+i); len(warnings) > 0 {
			t.Errorf("step %d is warned of %v", i, warnings)
		}
	}
	if s := m.stateOf(id, "H43"); s.Phase != lifecycle.Recalled {
		t.Errorf("it is %s", s.Phase)
	}
	for _, d := range m.spools["bac"].records[id].Deliveries {
		if d.Agency == "H43" && len(d.Life.Said) != 2 {
			t.Errorf("%d statements are kept", len(d.Life.Said))
		}
	}
}
