package relay_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// An agency with a good certificate tries for what is not its own.
func TestAgencyGetsNothingOfOthers(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.start("nam", nil)
	m.serving("bac", "nam")
	for code, home := range map[string]string{"G22": "bac", "H29": "nam", "H26": "bac", "H26.12.05": "bac"} {
		m.putAgency(code, home)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	accepted, err := submit(ctx, m.agency("bac", "G22"), document("G22", "1", "mật vụ", "H29", "H26"), "mật vụ")
	if err != nil {
		t.Fatal(err)
	}
	id := accepted.GetReceipt().GetEnvelopeId()
	for _, at := range []string{"bac", "nam"} {
		thief := m.agency(at, "H26.12.05")
		fetch := func(code string) error {
			stream, err := thief.Fetch(ctx, &exchangev1.FetchRequest{AgencyCode: code, EnvelopeId: id})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
		receive := func(code string) error {
			stream, err := thief.Receive(ctx, &exchangev1.ReceiveRequest{AgencyCode: code, Drain: true})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
		track := func(req *exchangev1.TrackRequest) error {
			_, err := thief.Track(ctx, req)
			return err
		}
		wrong, unknown := exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY, exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
		for name, test := range map[string]struct {
			err  error
			want exchangev1.ErrorReason
		}{
			"another's inbox":             {receive("H29"), wrong},
			"the superior's inbox":        {receive("H26"), wrong},
			"the same with other letters": {receive("h26"), wrong},
			"the same with blanks":        {receive(" H26"), wrong},
			"in full width":               {receive("Ｈ26"), wrong},
			"another's content":           {fetch("H29"), wrong},
			"content it was not sent":     {fetch(""), unknown},
			"another's envelope":          {track(&exchangev1.TrackRequest{AllRelays: true, Envelope: &exchangev1.TrackRequest_EnvelopeId{EnvelopeId: id}}), unknown},
			"another's document id":       {track(&exchangev1.TrackRequest{AllRelays: true, Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: "1"}}), unknown},
			"as the sender":               {track(&exchangev1.TrackRequest{AgencyCode: "G22", Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: "1"}}), wrong},
			"in another's name": {func() error {
				_, err := submit(ctx, thief, document("G22", "2", "x", "H26"), "x")
				return err
			}(), exchangev1.ErrorReason_ERROR_REASON_SENDER_NOT_CALLER},
		} {
			if !has(test.err, test.want) {
				t.Errorf("%s at %s: got %v, want %s", name, at, test.err, test.want)
			}
		}
		confirmed, err := thief.Confirm(ctx, &exchangev1.ConfirmRequest{EnvelopeIds: [][]byte{id}})
		if err != nil || confirmed.GetConfirmed() != 0 {
			t.Errorf("confirms what is not its own at %s: got %v, %v", at, confirmed, err)
		}
	}
	for _, code := range []string{"H29", "H26"} {
		if _, got, err := receiveOne(ctx, m.agency("bac", code)); err != nil || got != "mật vụ" {
			t.Errorf("%s: got %q, %v, want the document untouched", code, got, err)
		}
	}
}

// offerAs hands one offer to a relay, as another relay, and returns the answer.
func (m *mesh) offerAs(ctx context.Context, from, to string, o *relayv1.Offer) *relayv1.PassResponse {
	m.t.Helper()
	stream, err := relayv1.NewPeerServiceClient(m.dial(to, tls.KindRelay, from)).Pass(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	o.Number, o.HasContent = 1, true
	for _, r := range []*relayv1.PassRequest{
		{Message: &relayv1.PassRequest_Hello{Hello: &relayv1.PassHello{Stream: relayv1.Stream_STREAM_URGENT, Version: 1}}},
		{Message: &relayv1.PassRequest_Offer{Offer: o}},
	} {
		if err := stream.Send(r); err != nil && !errors.Is(err, io.EOF) {
			m.t.Fatal(err)
		}
	}
	answer, err := stream.Recv()
	if err != nil {
		m.t.Fatal(err)
	}
	return answer
}

// A relay with a good certificate reports the end of a delivery that never came
// to it. What waits for another relay, or in an inbox here, stays.
func TestReportsOfWhatNeverLeft(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.serving("bac")
	for _, id := range []string{"trung", "nam"} { // neither runs
		m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
			Relay: &directoryv1.Relay{Id: id, Region: id, Address: "127.0.0.1:1"}}}})
	}
	for code, home := range map[string]string{"G22": "bac", "H26": "bac", "H48": "trung"} {
		m.putAgency(code, home)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sender := m.agency("bac", "G22")
	h := document("G22", "1", "x", "H26", "H48")
	if _, err := submit(ctx, sender, h, "x"); err != nil {
		t.Fatal(err)
	}
	id, canonical, err := envelope.HeaderID(h)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("x"))
	forged := &envelope.Record{Custody: envelope.Custody{ID: id, Header: canonical, Sender: "G22", DocumentID: "1",
		Ingress: "bac", Parts: []envelope.PartSum{{Size: 1, SHA256: sum}}}}
	for _, agency := range []routing.AgencyCode{"H48", "H26"} {
		for _, end := range []exchangev1.TransportStatus{exchangev1.TransportStatus_TRANSPORT_STATUS_DONE, exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL} {
			report, err := envelope.ReportFor(forged, "nam", envelope.Settlement{ID: id, Agency: agency, Transport: end, At: timestamppb.Now().AsTime()})
			if err != nil {
				t.Fatal(err)
			}
			answer := m.offerAs(ctx, "nam", "bac", &relayv1.Offer{
				EnvelopeId: report.ID[:], Header: report.Header, IngressRelayId: "nam", AcceptedAt: timestamppb.Now(),
				DestinationRelayId: "bac", Purpose: relayv1.Purpose_PURPOSE_REPORT,
			})
			if r := answer.GetRefused(); r.GetReason() != exchangev1.ErrorReason_ERROR_REASON_NOT_HOME || !r.GetTemporary() {
				t.Errorf("forged %s of %s: got %v, want NOT_HOME for now", end, agency, answer)
			}
		}
	}
	tracked, err := sender.Track(ctx, &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: "1"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range tracked.GetDeliveries() {
		if d.GetTransport() > exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING {
			t.Errorf("delivery %v ended by a forged report", d)
		}
	}
	if _, got, err := receiveOne(ctx, m.agency("bac", "H26")); err != nil || got != "x" {
		t.Errorf("H26: got %q, %v, want the document", got, err)
	}
}

// What a broken or hostile relay offers is refused one by one, and the inbox
// behind it goes on.
func TestOffersOfAHostileRelay(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.serving("bac")
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
		Relay: &directoryv1.Relay{Id: "nam", Region: "nam", Address: "127.0.0.1:1"}}}})
	m.putAgency("G22", "bac")
	m.putAgency("H29", "nam")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	offer := func(id string, change func(*exchangev1.Header, *relayv1.Offer)) *relayv1.PassResponse {
		h := document("H29", id, "x", "G22")
		o := &relayv1.Offer{IngressRelayId: "nam", AcceptedAt: timestamppb.Now(), DestinationRelayId: "bac",
			AgencyCodes: []string{"G22"}, Purpose: relayv1.Purpose_PURPOSE_DELIVER, Content: [][]byte{[]byte("x")}}
		change(h, o)
		sum, canonical, err := envelope.HeaderID(h)
		if err != nil {
			t.Fatal(err)
		}
		o.EnvelopeId, o.Header = sum[:], canonical
		return m.offerAs(ctx, "nam", "bac", o)
	}
	for name, change := range map[string]func(*exchangev1.Header, *relayv1.Offer){
		"a lane that is none":     func(h *exchangev1.Header, _ *relayv1.Offer) { h.Priority = 77 },
		"a negative lane":         func(h *exchangev1.Header, _ *relayv1.Offer) { h.Priority = -1 },
		"a mark of secrecy":       func(h *exchangev1.Header, _ *relayv1.Offer) { h.Secrecy = 77 },
		"sizes beyond counting":   func(h *exchangev1.Header, _ *relayv1.Offer) { h.Parts[0].Size = 1 << 63 },
		"sizes that wrap around":  func(h *exchangev1.Header, o *relayv1.Offer) { h.Parts[0].Size = 1<<64 - 1; o.HasContent = false },
		"an hour beyond time":     func(h *exchangev1.Header, _ *relayv1.Offer) { h.NotBefore = &timestamppb.Timestamp{Seconds: 1 << 62} },
		"an end beyond time":      func(_ *exchangev1.Header, o *relayv1.Offer) { o.ExpiresAt = &timestamppb.Timestamp{Seconds: 1 << 62} },
		"a recipient named twice": func(_ *exchangev1.Header, o *relayv1.Offer) { o.AgencyCodes = []string{"H29", "H29"} },
		"more content than allowed": func(_ *exchangev1.Header, o *relayv1.Offer) {
			o.Content = [][]byte{make([]byte, forward.InlineLimit+1)}
		},
	} {
		if answer := offer(name, change); answer.GetRefused() == nil {
			t.Errorf("%s: got %v, want it refused", name, answer)
		}
	}
	if answer := offer("good", func(*exchangev1.Header, *relayv1.Offer) {}); answer.GetAccepted() == nil {
		t.Fatalf("a good offer: got %v", answer)
	}
	if arrival, _, err := receiveOne(ctx, m.agency("bac", "G22")); err != nil || arrival.GetEnvelope().GetHeader().GetDocumentId() != "good" {
		t.Errorf("behind them: got %v, %v", arrival, err)
	}
	// Nor does a relay make calls in the place of an agency, or for an inbox that
	// is not at home where it asks.
	conn := m.dial("bac", tls.KindRelay, "nam")
	stream, err := relayv1.NewPeerServiceClient(conn).ProxyReceive(ctx, &relayv1.ProxyReceiveRequest{Request: &exchangev1.ReceiveRequest{AgencyCode: "H29"}})
	if err == nil {
		_, err = stream.Recv()
	}
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_NOT_HOME) {
		t.Errorf("inbox of another home: got %v, want NOT_HOME", err)
	}
	if _, err := exchangev1.NewExchangeServiceClient(conn).Attach(ctx, &exchangev1.AttachRequest{AgencyCode: "G22"}, grpc.WaitForReady(true)); !has(err, exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY) {
		t.Errorf("attach as a relay: got %v, want WRONG_IDENTITY", err)
	}
}
