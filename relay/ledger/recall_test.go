package ledger_test

import (
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

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
	if err := m.ledgers["nam"].Heard(t.Context(), record, true); err != nil {
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

// A document that waits at its ingress is not taken back there: it may have come
// to its home, unknown to the ingress.
func TestTheHomeAloneTakesBack(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	for i := range m.spools["bac"].records[id].Deliveries {
		m.spools["bac"].records[id].Deliveries[i].Place = envelope.InQueue
	}
	if problems := m.hand("bac", revoke("2025/1", "H43"), 10); len(problems) > 0 {
		t.Fatal(problems)
	}
	if len(m.spools["bac"].settled) > 0 {
		t.Errorf("the ingress has settled %+v", m.spools["bac"].settled)
	}
}

// Whoever fetched a document at the home before, and confirms it at this one before
// it comes, is not asked again, and keeps it.
func TestAConfirmationBeforeTheDocument(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	home := m.spools["nam"].records[id]
	home.Inboxes, home.Deliveries[0].Place = []routing.AgencyCode{"H29"}, envelope.InInbox
	for _, agency := range []routing.AgencyCode{"H29", "H26"} { // H26 is not at home here
		if back, err := m.ledgers["nam"].Confirmed(t.Context(), agency, []envelope.ID{id}); len(back) > 0 || err != nil {
			t.Errorf("%s is told that %v was taken back, %v", agency, back, err)
		}
	}
	others := *home
	others.Inboxes = []routing.AgencyCode{"H43"} // it is in their inbox, and on its way to this one
	for _, record := range []*envelope.Record{&others, home, home} {
		if err := m.ledgers["nam"].Heard(t.Context(), record, false); err != nil {
			t.Fatal(err)
		}
	}
	if settled := m.spools["nam"].settled; len(settled) != 1 || settled[0].Agency != "H29" || settled[0].Transport != done || settled[0].Report == nil {
		t.Errorf("settled %+v, want done at H29, and the ingress told", settled)
	}
}

// Whoever confirms a document at its new home that was taken back at the old one is
// told so; not where the document was confirmed there after all.
func TestAConfirmationOfWhatWasTakenBackElsewhere(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	d := &m.spools["trung"].records[id].Deliveries[0] // that of H26
	d.Place, d.Transport, d.Reason = envelope.Settled, exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL, exchangev1.ErrorReason_ERROR_REASON_RECALLED
	if back, err := m.ledgers["nam"].Confirmed(t.Context(), "H26", []envelope.ID{id, {1}}); len(back) != 1 || back[0] != id || err != nil {
		t.Errorf("%v was taken back, %v, want %s", back, err, id)
	}
	d.Place = envelope.InInbox // it can be taken back there still
	if back, err := m.ledgers["nam"].Confirmed(t.Context(), "H26", []envelope.ID{id}); len(back) > 0 || !envelope.Temporary(err) {
		t.Errorf("while the old home has it %v was taken back, %v", back, err)
	}
	m.silent["trung"] = true
	if back, err := m.ledgers["nam"].Confirmed(t.Context(), "H26", []envelope.ID{id}); len(back) > 0 || !envelope.Temporary(err) {
		t.Errorf("while the old home is silent %v was taken back, %v", back, err)
	}
	m.silent["trung"] = false
	other := &m.spools["bac"].records[id].Deliveries[0]
	other.Place, other.Transport = envelope.Settled, done
	if back, err := m.ledgers["nam"].Confirmed(t.Context(), "H26", []envelope.ID{id}); len(back) != 0 || err != nil {
		t.Errorf("%v was taken back, which was confirmed, %v", back, err)
	}
}

// What an agency asks for at a home that does not have it may come as long as another
// relay has it, or may have it.
func TestAway(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	d := &m.spools["trung"].records[id].Deliveries[0] // that of H26
	d.Place = envelope.InInbox
	if err := m.ledgers["nam"].Away(t.Context(), "H26", id); !envelope.Temporary(err) {
		t.Errorf("while another relay has it: %v", err)
	}
	if err := m.ledgers["nam"].Away(t.Context(), "H26", envelope.ID{1}); err != nil {
		t.Errorf("nobody has it: %v", err)
	}
	m.silent["trung"] = true
	if err := m.ledgers["nam"].Away(t.Context(), "H26", envelope.ID{1}); !envelope.Temporary(err) {
		t.Errorf("while a relay is silent: %v", err)
	}
	m.silent["trung"] = false
	d.Place, d.Transport = envelope.Settled, done
	if err := m.ledgers["nam"].Away(t.Context(), "H26", id); err != nil {
		t.Errorf("after it was confirmed: %v", err)
	}
}

// Where a confirmation is durable first, the recipient is asked.
func TestARecallThatConfirmationForestalls(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	home := m.spools["nam"].records[id]
	home.Deliveries[0].Place, home.Deliveries[0].Transport = envelope.InInbox, done // as Settle will find it
	h := revoke("2025/1", "H29")
	recall, canonical, err := envelope.HeaderID(h)
	if err != nil {
		t.Fatal(err)
	}
	c, err := envelope.NewCustody(h, canonical, envelope.Acceptance{Ingress: "bac", AcceptedAt: noon, Inboxes: []routing.AgencyCode{"H29"}})
	if err != nil {
		t.Fatal(err)
	}
	record := &envelope.Record{Custody: *c, Deliveries: []envelope.Delivery{{Agency: "H29", Place: envelope.InInbox}}}
	m.spools["nam"].records[recall] = record
	if err := m.ledgers["nam"].Heard(t.Context(), record, true); err != nil {
		t.Fatal(err)
	}
	if len(m.spools["nam"].settled) > 0 {
		t.Errorf("settled %+v, want the recipient asked", m.spools["nam"].settled)
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
		judged, err := m.ledgers["nam"].Judge(t.Context(), "G22", h)
		if len(judged.Problems) > 0 || err == nil != want && !m.silent["bac"] {
			t.Errorf("%s, handed in there: %v, %v", when, judged.Problems, err)
		}
	}
	ready(true, "the document is in the inbox")
	was := m.spools["nam"].records[id]
	delete(m.spools["nam"].records, id)
	ready(false, "the document is on its way")
	was.Inboxes, was.Deliveries[0].Place = []routing.AgencyCode{"H29"}, envelope.InInbox
	m.spools["nam"].records[id] = was
	if err := m.ledgers["nam"].Heard(t.Context(), was, false); err != nil {
		t.Fatal(err)
	}
	if settled := m.spools["nam"].settled; len(settled) != 1 || settled[0].Agency != "H29" || settled[0].Reason != exchangev1.ErrorReason_ERROR_REASON_RECALLED {
		t.Errorf("the document comes behind its recall: %+v, want it taken back", settled)
	}
	delete(m.spools["nam"].records, id)
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
