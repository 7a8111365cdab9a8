package ledger_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ledger"
	"github.com/truclienthong/truc/routing"
)

// books are those of a memory, with counters that can be wrong.
type books struct {
	*memory
	kept     *ledger.Tally
	skip     int // pending deliveries that are not told of
	findings []ledger.Finding
}

func (b books) Recount(_ context.Context, since time.Time, pending func(ledger.Pending) error) (*ledger.Recount, error) {
	result := &ledger.Recount{Findings: b.findings}
	for _, id := range b.ids() {
		r := b.records[id]
		if !r.FromSender || r.AcceptedAt.Before(since) {
			continue
		}
		for _, d := range r.Deliveries {
			t := &result.Counted
			t.Accepted++
			switch {
			case d.Place != envelope.Settled:
				if b.skip--; b.skip >= 0 {
					continue
				}
				if err := pending(ledger.Pending{ID: id, Agency: d.Agency, Place: d.Place, Home: d.Home}); err != nil {
					return nil, err
				}
			case d.Transport == done:
				t.Delivered++
			case d.Reason == exchangev1.ErrorReason_ERROR_REASON_EXPIRED:
				t.Expired++
			case d.Reason == exchangev1.ErrorReason_ERROR_REASON_RECALLED:
				t.Recalled++
			default:
				t.Refused++
			}
		}
	}
	result.Kept = result.Counted
	if b.kept != nil {
		result.Kept = *b.kept
	}
	return result, nil
}

func (b books) Accepted(_ context.Context, from, to time.Time, each func(*envelope.Record) error) error {
	for _, id := range b.ids() {
		if r := b.records[id]; r.FromSender && !r.CommittedAt.Before(from) && r.CommittedAt.Before(to) {
			if err := each(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memory) ids() []envelope.ID {
	return slices.SortedFunc(maps.Keys(m.records), func(a, b envelope.ID) int { return slices.Compare(a[:], b[:]) })
}

func (m *memory) Origins() ([]routing.RelayID, error) {
	origins := make(map[routing.RelayID]bool)
	for _, r := range m.records {
		if !r.FromSender {
			origins[r.Ingress] = true
		}
	}
	return slices.Sorted(maps.Keys(origins)), nil
}

func (m *memory) Origin(ingress routing.RelayID, after envelope.ID, max int) (ids []envelope.ID, _ error) {
	for _, id := range m.ids() {
		if r := m.records[id]; !r.FromSender && r.Ingress == ingress && slices.Compare(id[:], after[:]) > 0 && len(ids) < max {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// settleIn puts places to the deliveries that travel left: bac handed on to
// trung and nam, H43 has confirmed and bac knows.
func (m *mesh) settleIn(id envelope.ID) {
	place := func(relay routing.RelayID, places ...envelope.Place) {
		for i, p := range places {
			m.spools[relay].records[id].Deliveries[i].Place = p
		}
	}
	place("bac", envelope.Elsewhere, envelope.Elsewhere, envelope.Settled)
	m.spools["bac"].records[id].Deliveries[2].Transport = done
	place("trung", envelope.InInbox)
	place("nam", envelope.InInbox, envelope.Settled)
}

func (m *mesh) audit(relay routing.RelayID) *adminv1.AuditResponse {
	m.t.Helper()
	response, err := m.ledgers[relay].Audit(m.t.Context(), books{memory: m.spools[relay]}, &adminv1.AuditRequest{Local: true})
	if err != nil {
		m.t.Fatal(err)
	}
	return response
}

// told is what an audit says, but for its row.
func told(r *adminv1.AuditResponse) string {
	var all []string
	for _, id := range r.GetMissingEnvelopeIds() {
		all = append(all, fmt.Sprintf("missing %x", id[:1]))
	}
	for _, f := range r.GetFindings() {
		all = append(all, "found "+f.GetAgencyCode()+": "+f.GetProblem())
	}
	for _, relay := range r.GetSilentRelayIds() {
		all = append(all, "silent "+relay)
	}
	return strings.Join(all, "; ")
}

func TestAuditProves(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	m.settleIn(id)
	r := m.audit("bac")
	row := r.GetRows()[0]
	if len(r.GetRows()) != 1 || row.GetRelayId() != "bac" || row.GetAccepted() != 3 || row.GetDelivered() != 1 || row.GetPending() != 2 || told(r) != "" {
		t.Errorf("got %v, %s, want 3 accepted, 1 delivered, 2 pending and nothing wrong", row, told(r))
	}
	for _, relay := range []routing.RelayID{"trung", "nam"} {
		if r := m.audit(relay); r.GetRows()[0].GetAccepted() != 0 || told(r) != "" {
			t.Errorf("%s: got %v, want nothing accepted and nothing wrong", relay, r)
		}
	}
	r, err := m.ledgers["bac"].Audit(t.Context(), books{memory: m.spools["bac"]},
		&adminv1.AuditRequest{Local: true, Since: timestamppb.New(noon.Add(time.Hour))})
	if err != nil || r.GetRows()[0].GetAccepted() != 0 {
		t.Errorf("since later: got %v, %v, want nothing", r, err)
	}
}

// What is nowhere is named; what a relay has, wherever it went, is not, and
// neither is what only a silent relay may have.
func TestAuditLooksForWhatIsElsewhere(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*mesh, envelope.ID)
		want   string // with the id as ID
	}{
		"home lost it": {func(m *mesh, id envelope.ID) { clear(m.spools["trung"].records) },
			"missing ID; found H26: handed on to relay trung, and no relay has custody of it"},
		"home lost the recipient": {func(m *mesh, id envelope.ID) {
			m.spools["nam"].records[id].Deliveries = m.spools["nam"].records[id].Deliveries[1:]
		}, "missing ID; found H29: handed on to relay nam, and no relay has custody of it"},
		"a copy is no custody": {func(m *mesh, id envelope.ID) { m.spools["trung"].records[id].Deliveries[0].Place = envelope.Kept },
			"missing ID; found H26: handed on to relay trung, and no relay has custody of it"},
		"waits on the way": {func(m *mesh, id envelope.ID) {
			m.spools["nam"].records[id].Deliveries = append(m.spools["nam"].records[id].Deliveries,
				envelope.Delivery{Agency: "H26", Home: "trung", Place: envelope.InQueue})
			clear(m.spools["trung"].records)
		}, ""},
		"ended, and the report is on its way": {func(m *mesh, id envelope.ID) {
			m.spools["trung"].records[id].Deliveries[0].Place = envelope.Settled
		}, ""},
		"moved on from home": {func(m *mesh, id envelope.ID) {
			d := &m.spools["trung"].records[id].Deliveries[0]
			d.Place, d.Home = envelope.Elsewhere, "nam"
			m.spools["nam"].records[id].Deliveries = append(m.spools["nam"].records[id].Deliveries,
				envelope.Delivery{Agency: "H26", Home: "nam", Place: envelope.InInbox})
		}, ""},
		"relays that each say the other has it": {func(m *mesh, id envelope.ID) {
			d := &m.spools["trung"].records[id].Deliveries[0]
			d.Place, d.Home = envelope.Elsewhere, "nam"
			m.spools["nam"].records[id].Deliveries = append(m.spools["nam"].records[id].Deliveries,
				envelope.Delivery{Agency: "H26", Home: "trung", Place: envelope.Elsewhere})
		}, "missing ID; found H26: handed on to relay trung, and no relay has custody of it"},
		"home is silent": {func(m *mesh, id envelope.ID) { m.silent["trung"] = true }, "silent trung"},
		"another is silent": {func(m *mesh, id envelope.ID) {
			m.silent["nam"] = true
			clear(m.spools["trung"].records)
		}, "silent nam"},
		"home is given up": {func(m *mesh, id envelope.ID) {
			m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: "trung", Lost: true}}})
		}, "missing ID; found H26: handed on to relay trung, and no relay has custody of it"},
		"it is here and not in the books": {func(m *mesh, id envelope.ID) {
			m.spools["bac"].records[id].Deliveries[0].Place = envelope.Unknown
			clear(m.spools["trung"].records)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t)
				id := m.travel()
				m.settleIn(id)
				test.change(m, id)
				want := strings.ReplaceAll(test.want, "ID", fmt.Sprintf("%x", id[:1]))
				if got := told(m.audit("bac")); got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			})
		})
	}
}

// A document that goes from one relay to the next while the audit looks is not
// missing: it is looked for again.
func TestAuditDoesNotCryOverWhatMoves(t *testing.T) {
	for look := 1; look <= 3; look++ {
		synctest.Test(t, func(t *testing.T) {
			m := newMesh(t)
			id := m.travel()
			m.settleIn(id)
			there := m.spools["trung"].records[id]
			delete(m.spools["trung"].records, id)
			began := time.Now()
			m.onReconcile = func(routing.RelayID, *relayv1.ReconcileRequest) {
				if time.Since(began) >= time.Duration(look)*time.Second {
					m.spools["trung"].records[id] = there
				}
			}
			if got := told(m.audit("bac")); (got == "") != (look < 3) {
				t.Errorf("comes to light at look %d: got %q", look+1, got)
			}
		})
	}
	t.Run("or comes back, or ends", func(t *testing.T) {
		for _, place := range []envelope.Place{envelope.InQueue, envelope.InInbox, envelope.Settled} {
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t)
				id := m.travel()
				m.settleIn(id)
				clear(m.spools["trung"].records)
				m.onReconcile = func(routing.RelayID, *relayv1.ReconcileRequest) {
					m.spools["bac"].records[id].Deliveries[0].Place = place
				}
				if got := told(m.audit("bac")); got != "" {
					t.Errorf("place %d: got %q", place, got)
				}
			})
		}
	})
}

// What is here because another relay accepted it must be remembered there.
func TestAuditAsksTheIngress(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*mesh, envelope.ID)
		want   string
	}{
		"forgotten": {func(m *mesh, id envelope.ID) { clear(m.spools["bac"].records) },
			"missing ID; found : is here, and relay bac, which accepted it, does not remember it"},
		"known as one of many relays": {func(m *mesh, id envelope.ID) { m.spools["bac"].records[id].FromSender = false },
			"missing ID; found : is here, and relay bac, which accepted it, does not remember it"},
		"kept": {func(m *mesh, id envelope.ID) {
			clear(m.spools["bac"].records)
			m.spools["nam"].records[id].Deliveries[0].Place = envelope.Kept
		}, "missing ID; found : is here, and relay bac, which accepted it, does not remember it"},
		"ended here": {func(m *mesh, id envelope.ID) {
			clear(m.spools["bac"].records)
			m.spools["nam"].records[id].Deliveries[0].Place = envelope.Settled
		}, ""},
		"a report": {func(m *mesh, id envelope.ID) {
			clear(m.spools["bac"].records)
			m.spools["nam"].records[id].Report = true
		}, ""},
		"silent": {func(m *mesh, id envelope.ID) { m.silent["bac"] = true }, "silent bac"},
		"given up": {func(m *mesh, id envelope.ID) {
			clear(m.spools["bac"].records)
			m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: "bac", Lost: true}}})
		}, ""},
		"just ended": {func(m *mesh, id envelope.ID) {
			clear(m.spools["bac"].records)
			m.onReconcile = func(routing.RelayID, *relayv1.ReconcileRequest) { clear(m.spools["nam"].records) }
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t)
				id := m.travel()
				m.settleIn(id)
				test.change(m, id)
				want := strings.ReplaceAll(test.want, "ID", fmt.Sprintf("%x", id[:1]))
				if got := told(m.audit("nam")); got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			})
		})
	}
}

func TestAuditDoubtsTheCounters(t *testing.T) {
	m := newMesh(t)
	m.settleIn(m.travel())
	id := m.spools["bac"].ids()[0]
	for name, test := range map[string]struct {
		books books
		since time.Time
		want  string
	}{
		"counters say less": {books: books{kept: &ledger.Tally{Accepted: 2, Delivered: 1}},
			want: "found : the counters say {Accepted:2 Delivered:1 Expired:0 Refused:0 Recalled:0}, the records {Accepted:3 Delivered:1 Expired:0 Refused:0 Recalled:0}"},
		"but they count from the beginning": {books: books{kept: &ledger.Tally{Accepted: 2}}, since: noon},
		"a delivery is neither":             {books: books{skip: 1}, want: "found : 3 deliveries were accepted, and 1 delivered, 1 pending, 0 expired, 0 refused, 0 recalled"},
		"the crash rule is broken": {books: books{findings: []ledger.Finding{{ID: id, Agency: "H26", Problem: "is in the inbox without an entry"}}},
			want: "found H26: is in the inbox without an entry"},
	} {
		test.books.memory = m.spools["bac"]
		req := &adminv1.AuditRequest{Local: true}
		if !test.since.IsZero() {
			req.Since = timestamppb.New(test.since)
		}
		r, err := m.ledgers["bac"].Audit(t.Context(), test.books, req)
		if err != nil || told(r) != test.want {
			t.Errorf("%s: got %s, %v\nwant %s", name, told(r), err, test.want)
		}
		if got, want := ledger.Balanced(r.GetRows()[0]), test.books.skip == 0; got != want {
			t.Errorf("%s: balanced %v, want %v", name, got, want)
		}
	}
}

// Many deliveries are asked about in few questions, none of them too large.
func TestAuditAsksInBatches(t *testing.T) {
	m := newMesh(t)
	var codes []envelope.Delivery
	for i := range 30 {
		codes = append(codes, envelope.Delivery{Agency: routing.AgencyCode(fmt.Sprintf("H26.%d", i)), Home: "trung"})
	}
	for i := range 2_000 {
		id := envelope.ComputeID("G22", fmt.Sprint(i), nil)
		here, there := slices.Clone(codes), slices.Clone(codes)
		for j := range codes {
			here[j].Place, there[j].Place = envelope.Elsewhere, envelope.InInbox
		}
		custody := envelope.Custody{ID: id, Ingress: "bac", AcceptedAt: noon, FromSender: true}
		m.spools["bac"].records[id] = &envelope.Record{Custody: custody, Deliveries: here}
		custody.FromSender = false
		m.spools["trung"].records[id] = &envelope.Record{Custody: custody, Deliveries: there}
	}
	questions := 0
	m.onReconcile = func(_ routing.RelayID, req *relayv1.ReconcileRequest) {
		agencies := 0
		for _, item := range req.GetItems() {
			agencies += len(item.GetAgencyCodes())
		}
		if questions++; len(req.GetItems()) > 500 || agencies > 20_000 {
			t.Errorf("a question about %d envelopes and %d recipients", len(req.GetItems()), agencies)
		}
	}
	if r := m.audit("bac"); told(r) != "" || r.GetRows()[0].GetPending() != 60_000 {
		t.Errorf("got %v, %s", r.GetRows(), told(r))
	}
	if questions == 0 || questions > 30 {
		t.Errorf("%d questions about 2,000 envelopes with 60,000 recipients", questions)
	}
	if r := m.audit("trung"); told(r) != "" {
		t.Errorf("the other way: %s", told(r))
	}
}

// The audit of the mesh is that of every relay, whichever is asked.
func TestAuditOfTheMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		id := m.travel()
		m.settleIn(id)
		mesh := func(relay routing.RelayID) *adminv1.AuditResponse {
			t.Helper()
			r, err := m.ledgers[relay].Audit(t.Context(), books{memory: m.spools[relay]}, new(adminv1.AuditRequest))
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		for _, relay := range []routing.RelayID{"bac", "nam"} {
			r := mesh(relay)
			if rows := r.GetRows(); len(rows) != 3 || rows[0].GetRelayId() != "bac" || rows[0].GetAccepted() != 3 || told(r) != "" {
				t.Errorf("at %s: got %v, %s, want three rows, 3 accepted at bac, and nothing wrong", relay, rows, told(r))
			}
		}
		clear(m.spools["trung"].records)
		want := fmt.Sprintf("missing %x; found H26: handed on to relay trung, and no relay has custody of it", id[:1])
		if r := mesh("nam"); told(r) != want || r.GetFindings()[0].GetRelayId() != "bac" {
			t.Errorf("got  %s by %s\nwant %s by bac", told(r), r.GetFindings()[0].GetRelayId(), want)
		}
		m.silent["bac"] = true
		if r := mesh("nam"); told(r) != "silent bac" || len(r.GetRows()) != 2 {
			t.Errorf("got %s and %d rows, want bac silent and the rows of the others", told(r), len(r.GetRows()))
		}
		if _, err := m.ledgers["nam"].Audit(t.Context(), books{memory: m.spools["nam"]},
			&adminv1.AuditRequest{Since: &timestamppb.Timestamp{Nanos: -1}}); err == nil {
			t.Error("a time that is none: accepted")
		}
	})
}
