package envelope_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

func custodyOf(t *testing.T, h *exchangev1.Header, a envelope.Acceptance) *envelope.Custody {
	t.Helper()
	_, canonical, err := envelope.HeaderID(h)
	if err != nil {
		t.Fatal(err)
	}
	c, err := envelope.NewCustody(h, canonical, a)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewCustody(t *testing.T) {
	h := good()
	h.Priority = exchangev1.Priority_PRIORITY_HOA_TOC_HEN_GIO
	h.NotBefore = timestamppb.New(timeZero.Add(time.Hour))
	id, canonical, err := envelope.HeaderID(h)
	if err != nil {
		t.Fatal(err)
	}
	a := envelope.Acceptance{
		Sender: "G22", Ingress: "bac", AcceptedAt: timeZero, TraceParent: "00-1-2-01", TraceState: "x=y",
		Visited: []routing.RelayID{"nam"}, FromSender: true,
		Inboxes: []routing.AgencyCode{"H26"}, Onward: []envelope.Onward{{Relay: "trung", Agencies: []routing.AgencyCode{"H48"}}},
	}
	got := custodyOf(t, h, a)
	want := &envelope.Custody{
		ID: id, Header: canonical, Sender: "G22", DocumentID: h.DocumentId, Lane: 4,
		Parts:   []envelope.PartSum{{Size: 10, SHA256: [32]byte(h.Parts[0].Sha256)}, {SHA256: [32]byte(h.Parts[1].Sha256)}},
		Ingress: "bac", AcceptedAt: timeZero, NotBefore: timeZero.Add(time.Hour), ExpiresAt: timeZero.Add(envelope.DefaultLifetime),
		TraceParent: "00-1-2-01", TraceState: "x=y", Visited: a.Visited, FromSender: true, Inboxes: a.Inboxes, Onward: a.Onward,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("custody (-want +got):\n%s", diff)
	}
	if got.Size() != 10 {
		t.Errorf("size %d, want 10", got.Size())
	}

	h.ExpiresAt = timestamppb.New(timeZero.Add(2 * time.Hour))
	if got := custodyOf(t, h, a).ExpiresAt; !got.Equal(timeZero.Add(2 * time.Hour)) {
		t.Errorf("expires at %s, want what the header says", got)
	}
	a.ExpiresAt = timeZero.Add(3 * time.Hour)
	if got := custodyOf(t, h, a).ExpiresAt; !got.Equal(a.ExpiresAt) {
		t.Errorf("expires at %s, want what ingress set", got)
	}
	h.Parts[1].Sha256 = nil
	if _, err := envelope.NewCustody(h, nil, a); err == nil {
		t.Error("a part without hash: got no error")
	}
}

func TestLanes(t *testing.T) {
	if got := envelope.LaneOf(good()); got != 0 || got.Urgent() {
		t.Errorf("ordinary document: lane %d", got)
	}
	if got := envelope.LaneOf(goodStatus()); got != 1 || !got.Urgent() {
		t.Errorf("status: lane %d, want khẩn", got)
	}
	status := goodStatus()
	status.Priority = exchangev1.Priority_PRIORITY_HOA_TOC
	if got := envelope.LaneOf(status); got != 3 {
		t.Errorf("status about a hỏa tốc: lane %d, want 3", got)
	}
}

func TestReportsHaveOneID(t *testing.T) {
	r := &envelope.Record{Custody: *custodyOf(t, good(), envelope.Acceptance{Sender: "G22", Ingress: "bac", AcceptedAt: timeZero, TraceParent: "tp"})}
	done := envelope.Settlement{ID: r.ID, Agency: "H26", Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_DONE, At: timeZero.Add(time.Minute)}
	fail := envelope.Settlement{ID: r.ID, Agency: "H26", Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL,
		Reason: exchangev1.ErrorReason_ERROR_REASON_EXPIRED, Note: "nobody came", At: timeZero}
	report := func(s envelope.Settlement) *envelope.Custody {
		t.Helper()
		c, err := envelope.ReportFor(r, "nam", s)
		if err != nil || c == nil {
			t.Fatalf("report: %v, %v", c, err)
		}
		return c
	}
	first := report(done)
	if !first.Report || first.FromSender || first.Sender != "H26" || first.Ingress != "nam" || !first.AcceptedAt.Equal(done.At) || first.TraceParent != "tp" || first.Lane != 1 {
		t.Errorf("report is %+v", first)
	}
	if want := []envelope.Onward{{Relay: "bac"}}; cmp.Diff(want, first.Onward) != "" {
		t.Errorf("goes to %v, want %v", first.Onward, want)
	}
	if want := "report:" + r.ID.String() + ":H26:done"; first.DocumentID != want {
		t.Errorf("document id %q, want %q", first.DocumentID, want)
	}
	later := done
	later.At = done.At.Add(time.Hour)
	if again := report(later); again.ID != first.ID {
		t.Errorf("the same report written later has id %s, want %s", again.ID, first.ID)
	}
	other := done
	other.Agency = "H48"
	if report(other).ID == first.ID || report(fail).ID == first.ID {
		t.Error("reports on another recipient or another end have the same id")
	}
	before := report(fail)
	if want := fail.At.Add(envelope.DefaultLifetime); !before.ExpiresAt.Equal(want) {
		t.Errorf("the report that it was given up lives until %s, want %s", before.ExpiresAt, want)
	}
	r.ExpiresAt = r.ExpiresAt.Add(time.Hour)
	if again := report(done); again.ID != first.ID {
		t.Error("done is another report for an envelope that was given more time")
	}
	if report(fail).ID == before.ID {
		t.Error("given up again, in another life, is the same report")
	}
	for _, s := range []envelope.Settlement{done, fail} {
		got, err := envelope.ParseReport(report(s))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, got); diff != "" {
			t.Errorf("report reads back as (-want +got):\n%s", diff)
		}
	}
	if c, err := envelope.ReportFor(r, "bac", done); c != nil || err != nil {
		t.Errorf("at the ingress itself: got %v, %v; want no report", c, err)
	}
	if _, err := envelope.ParseReport(custodyOf(t, goodStatus(), envelope.Acceptance{})); err == nil {
		t.Error("an agency's status reads as a report")
	}
}

func TestReceiptStatesWhatIsHeld(t *testing.T) {
	r := &envelope.Record{Custody: *custodyOf(t, good(), envelope.Acceptance{Ingress: "bac", AcceptedAt: timeZero}), CommittedAt: timeZero,
		Deliveries: make([]envelope.Delivery, 3)}
	got := r.Receipt("bac")
	if got.GetCopies() != 1 || got.GetRecipients() != 3 || got.GetContentSize() != 10 || got.GetRelayId() != "bac" || envelope.ID(got.GetEnvelopeId()) != r.ID || len(got.GetHeaderSha256()) != 32 {
		t.Errorf("receipt is %v", got)
	}
}
