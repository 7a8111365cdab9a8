package ledger_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

func statuses(deliveries []*exchangev1.Delivery) map[string]exchangev1.TransportStatus {
	all := map[string]exchangev1.TransportStatus{}
	for _, d := range deliveries {
		all[d.GetAgencyCode()] = d.GetTransport()
	}
	return all
}

func byID(id envelope.ID) *exchangev1.TrackRequest {
	return &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_EnvelopeId{EnvelopeId: id[:]}}
}

func byDocument(id string) *exchangev1.TrackRequest {
	return &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: id}}
}

func TestTrackShowsEachWhatIsTheirs(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	allRelays := byID(id)
	allRelays.AllRelays = true
	for _, test := range []struct {
		name   string
		relay  routing.RelayID
		agency routing.AgencyCode
		req    *exchangev1.TrackRequest
		want   map[string]exchangev1.TransportStatus // nil: not found
	}{
		{"sender at ingress", "bac", "G22", byID(id), map[string]exchangev1.TransportStatus{"H26": initial, "H29": initial, "H43": initial}},
		{"sender by document", "bac", "G22", byDocument("2025/1"), map[string]exchangev1.TransportStatus{"H26": initial, "H29": initial, "H43": initial}},
		{"sender asks all relays", "bac", "G22", allRelays, map[string]exchangev1.TransportStatus{"H26": processing, "H29": processing, "H43": done}},
		{"sender at another relay that has it", "nam", "G22", byID(id), map[string]exchangev1.TransportStatus{"H26": initial, "H29": processing, "H43": done}},
		{"recipient at home", "nam", "H43", byID(id), map[string]exchangev1.TransportStatus{"H43": done}},
		{"recipient elsewhere", "bac", "H29", byID(id), map[string]exchangev1.TransportStatus{"H29": initial}},
		{"recipient asks all relays", "bac", "H43", allRelays, map[string]exchangev1.TransportStatus{"H43": done}},
		{"recipient cannot ask by the sender's document id", "bac", "H43", byDocument("2025/1"), nil},
		{"neither", "bac", "K01", allRelays, nil},
		{"unknown", "bac", "G22", byID(envelope.ID{1}), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			response, err := m.ledgers[test.relay].Track(t.Context(), test.agency, test.req)
			if test.want == nil {
				if r, ok := envelope.AsRefusal(err); !ok || r.Reason != exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND {
					t.Errorf("got %v, %v, want NOT_FOUND", response, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := statuses(response.GetDeliveries())
			if len(got) != len(test.want) {
				t.Errorf("deliveries: got %v, want %v", got, test.want)
			}
			for code, want := range test.want {
				if got[code] != want {
					t.Errorf("%s: got %s, want %s", code, got[code], want)
				}
			}
			if response.GetHeader().GetDocumentId() != "2025/1" {
				t.Errorf("header: got %v", response.GetHeader())
			}
			for _, event := range response.GetEvents() {
				if test.agency != "G22" && event.GetAgencyCode() != "" && event.GetAgencyCode() != string(test.agency) {
					t.Errorf("%s sees the event %v", test.agency, event)
				}
			}
		})
	}
}

// A sender that moved to another relay after its own failed is answered there.
func TestTrackWhereNothingIsKnown(t *testing.T) {
	m := newMesh(t)
	m.travel()
	m.spools["trung"].records = map[envelope.ID]*envelope.Record{}
	response, err := m.ledgers["trung"].Track(t.Context(), "G22", byDocument("2025/1"))
	if err != nil || response.GetReceipt().GetRelayId() != "bac" {
		t.Errorf("got %v, %v, want the receipt of bac", response, err)
	}
}

func TestBadTrackAndTrace(t *testing.T) {
	m := newMesh(t)
	for name, req := range map[string]*exchangev1.TrackRequest{
		"nothing": {}, "short id": byID(envelope.ID{}), "empty document id": byDocument(""),
	} {
		if name == "short id" {
			req.Envelope = &exchangev1.TrackRequest_EnvelopeId{EnvelopeId: []byte{1}}
		}
		_, err := m.ledgers["bac"].Track(t.Context(), "G22", req)
		if r, ok := envelope.AsRefusal(err); !ok || r.Reason != exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD || len(r.Problems) != 1 {
			t.Errorf("%s: got %v, want INVALID_FIELD with the field", name, err)
		}
	}
	if _, err := m.ledgers["bac"].Trace(t.Context(), &adminv1.TraceRequest{}); err == nil {
		t.Error("trace without an id: got no error")
	}
}

func TestTraceMergesTheMesh(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	response, err := m.ledgers["trung"].Trace(t.Context(), &adminv1.TraceRequest{EnvelopeId: id[:]})
	if err != nil {
		t.Fatal(err)
	}
	if got := response.GetReceipt(); got.GetRelayId() != "bac" || !got.GetAcceptedAt().AsTime().Equal(noon) {
		t.Errorf("receipt: got %v, want that of the ingress", got)
	}
	want := map[string]exchangev1.TransportStatus{"H26": processing, "H29": processing, "H43": done}
	for code, status := range statuses(response.GetDeliveries()) {
		if want[code] != status {
			t.Errorf("%s: got %s, want %s: what is settled wins, whatever is newer", code, status, want[code])
		}
	}
	var relays []string
	for i, event := range response.GetEvents() {
		relays = append(relays, event.GetRelayId())
		if i > 0 && event.GetAt().AsTime().Before(response.GetEvents()[i-1].GetAt().AsTime()) {
			t.Errorf("event %d is out of order", i)
		}
	}
	if len(relays) != 5 || relays[0] != "bac" || relays[4] != "nam" {
		t.Errorf("events: got %v", relays)
	}
	holders := slices.Sorted(slices.Values(response.GetHolderRelayIds()))
	if !slices.Equal(holders, []string{"bac", "nam"}) || len(response.GetSilentRelayIds()) != 0 {
		t.Errorf("holders %v, silent %v, want bac and nam, none", holders, response.GetSilentRelayIds())
	}
	if p := response.GetParts(); len(p) != 1 || p[0].GetName() != "" || p[0].GetDescription() != "" || p[0].GetSize() != 3 {
		t.Errorf("parts: got %v, want size without name", p)
	}
	local, err := m.ledgers["trung"].Trace(t.Context(), &adminv1.TraceRequest{EnvelopeId: id[:], Local: true})
	if err != nil || len(local.GetEvents()) != 1 {
		t.Errorf("local: got %v, %v, want the one event of trung", local.GetEvents(), err)
	}
	if _, err := m.ledgers["bac"].Trace(t.Context(), &adminv1.TraceRequest{EnvelopeId: make([]byte, 16)}); err == nil {
		t.Error("unknown: got no error")
	}
}

// Silent relays cost a bounded time and are named; lost ones are not even asked.
func TestTraceNamesSilentRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		id := m.travel()
		m.silent["nam"] = true
		m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
			Relay: &directoryv1.Relay{Id: "lost", Region: "x", Address: "lost:7400"}}}})
		m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: "lost", Lost: true}}})
		began := time.Now()
		response, err := m.ledgers["bac"].Trace(t.Context(), &adminv1.TraceRequest{EnvelopeId: id[:]})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %s", took)
		}
		if got := response.GetSilentRelayIds(); !slices.Equal(got, []string{"lost", "nam"}) {
			t.Errorf("silent: got %v, want lost and nam", got)
		}
		if len(response.GetEvents()) != 3 {
			t.Errorf("events: got %d, want those of bac and trung", len(response.GetEvents()))
		}
		// Not known to anyone who answered proves nothing.
		other, err := m.ledgers["bac"].Trace(t.Context(), &adminv1.TraceRequest{EnvelopeId: make([]byte, 16)})
		if err != nil || len(other.GetSilentRelayIds()) != 2 {
			t.Errorf("unknown, relays silent: got %v, %v, want the silent ones named", other, err)
		}
	})
}

// An answer about another envelope, or about none, is not believed.
func TestTraceBelievesOnlyWhatGivesTheID(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	truth, err := m.ledgers["nam"].Inquire(t.Context(), &relayv1.InquireRequest{EnvelopeId: id[:]})
	if err != nil {
		t.Fatal(err)
	}
	for name, header := range map[string][]byte{"of another envelope": {8, 1}, "that is none": {0xff}} {
		lie := proto.CloneOf(truth)
		lie.Header = header
		m.lies = map[routing.RelayID]*relayv1.InquireResponse{"nam": lie}
		response, err := m.ledgers["bac"].Trace(t.Context(), &adminv1.TraceRequest{EnvelopeId: id[:]})
		if err != nil || !slices.Equal(response.GetSilentRelayIds(), []string{"nam"}) || statuses(response.GetDeliveries())["H43"] != initial {
			t.Errorf("header %s: got %v, %v, want nam taken for silent", name, response, err)
		}
	}
}

// A relay that lies may say what it likes about itself, but gets nobody to see
// an envelope, ends nobody else's delivery, and speaks in nobody else's name.
func TestRelaysAreBelievedAboutThemselves(t *testing.T) {
	m := newMesh(t)
	id := m.travel()
	lie, err := m.ledgers["nam"].Inquire(t.Context(), &relayv1.InquireRequest{EnvelopeId: id[:]})
	if err != nil {
		t.Fatal(err)
	}
	lie.SenderCode = "K01"
	lie.Deliveries = append(lie.Deliveries, &exchangev1.Delivery{AgencyCode: "H26", HomeRelayId: "nam", Transport: done})
	lie.Events = []*exchangev1.TraceEvent{{RelayId: "trung", Action: exchangev1.TraceAction_TRACE_ACTION_CONFIRMED, AgencyCode: "H26"}}
	m.lies = map[routing.RelayID]*relayv1.InquireResponse{"nam": lie}
	req := byID(id)
	req.AllRelays = true
	for _, relay := range []routing.RelayID{"bac", "trung"} {
		if response, err := m.ledgers[relay].Track(t.Context(), "K01", req); err == nil {
			t.Errorf("%s: a stranger sees %v", relay, response)
		}
		response, err := m.ledgers[relay].Track(t.Context(), "G22", req)
		if err != nil || statuses(response.GetDeliveries())["H26"] != processing || statuses(response.GetDeliveries())["H43"] != done {
			t.Errorf("%s: got %v, %v, want H26 processing and H43 done", relay, response, err)
		}
		for _, event := range response.GetEvents() {
			if event.GetRelayId() == "trung" && event.GetAction() == exchangev1.TraceAction_TRACE_ACTION_CONFIRMED {
				t.Errorf("%s: nam speaks for trung: %v", relay, event)
			}
		}
	}
}

// A report that a delivery was given up may be late: since then its ingress gave
// it more time. That it was done is true in every life.
func TestReportOfAnEarlierLife(t *testing.T) {
	for _, test := range []struct {
		status  exchangev1.TransportStatus
		settled int
	}{{fail, 0}, {done, 1}} {
		m := newMesh(t)
		id := m.travel()
		m.spools["nam"].records[id].ExpiresAt = noon.Add(time.Hour)
		m.spools["bac"].records[id].ExpiresAt = noon.Add(2 * time.Hour)
		report, err := envelope.ReportFor(m.spools["nam"].records[id], "nam", envelope.Settlement{ID: id, Agency: "H29",
			Transport: test.status, Reason: exchangev1.ErrorReason_ERROR_REASON_EXPIRED, At: noon.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.ledgers["bac"].Apply(t.Context(), report); err != nil || len(m.spools["bac"].settled) != test.settled {
			t.Errorf("%s: got %v, settled %v, want %d", test.status, err, m.spools["bac"].settled, test.settled)
		}
	}
}

func TestApply(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*mesh, *envelope.Custody)
		agency routing.AgencyCode
		status exchangev1.TransportStatus
		want   exchangev1.ErrorReason
	}{
		{name: "done", agency: "H29", status: done},
		{name: "fail", agency: "H29", status: fail},
		{name: "home moved twice", agency: "H29", status: done, change: func(m *mesh, c *envelope.Custody) { c.Ingress = "trung" }},
		{name: "relay not of the mesh", agency: "H29", status: done, want: exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY,
			change: func(m *mesh, c *envelope.Custody) { c.Ingress = "other" }},
		{name: "not accepted here", agency: "H29", status: done, want: exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND,
			change: func(m *mesh, c *envelope.Custody) {
				for _, r := range m.spools["bac"].records {
					r.FromSender = false
				}
			}},
		{name: "not known here", agency: "H29", status: done, want: exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND,
			change: func(m *mesh, c *envelope.Custody) { clear(m.spools["bac"].records) }},
		{name: "still waits for its home", agency: "H29", status: done,
			change: func(m *mesh, c *envelope.Custody) {
				m.waiting(envelope.Onward{Relay: "nam", Agencies: []routing.AgencyCode{"H29"}})
			}},
		{name: "still waits for another relay", agency: "H29", status: done, want: exchangev1.ErrorReason_ERROR_REASON_NOT_HOME,
			change: func(m *mesh, c *envelope.Custody) {
				m.waiting(envelope.Onward{Relay: "trung", Agencies: []routing.AgencyCode{"H26", "H29"}})
			}},
		{name: "still waits in the inbox here", agency: "H29", status: fail, want: exchangev1.ErrorReason_ERROR_REASON_NOT_HOME,
			change: func(m *mesh, c *envelope.Custody) {
				for _, r := range m.spools["bac"].records {
					r.Inboxes = []routing.AgencyCode{"H29"}
				}
			}},
		{name: "no recipient", agency: "K01", status: done, want: exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND},
		{name: "not an end", agency: "H29", status: processing, want: exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		{name: "of another document", agency: "H29", status: done, want: exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD,
			change: func(m *mesh, c *envelope.Custody) {
				for _, r := range m.spools["bac"].records {
					r.DocumentID = "2025/2"
				}
			}},
		{name: "no report", agency: "H29", status: done, want: exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD,
			change: func(m *mesh, c *envelope.Custody) { c.Header = []byte{0xff} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMesh(t)
			id := m.travel()
			settlement := envelope.Settlement{ID: id, Agency: test.agency, Transport: test.status,
				Reason: exchangev1.ErrorReason_ERROR_REASON_EXPIRED, At: noon.Add(time.Hour)}
			report, err := envelope.ReportFor(m.spools["nam"].records[id], "nam", settlement)
			if err != nil {
				t.Fatal(err)
			}
			if test.change != nil {
				test.change(m, report)
			}
			for range 2 {
				err = m.ledgers["bac"].Apply(t.Context(), report)
				if r, _ := envelope.AsRefusal(err); (err == nil) != (test.want == 0) || err != nil && r.Reason != test.want {
					t.Fatalf("got %v, want %s", err, test.want)
				}
			}
			want := 1
			if test.want != 0 {
				want = 0
			} else if test.status == fail {
				want = len(m.spools["bac"].settled) // the fake settles a failed one again
			}
			if got := m.spools["bac"].settled; len(got) != want || want > 0 && (got[0].Agency != "H29" || !got[0].At.Equal(settlement.At)) {
				t.Errorf("settled: got %v, want %d", got, want)
			}
		})
	}
}
