package ingress_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
)

// deliver puts a document into the inbox of H26 (home bac), straight into the
// spool, and returns its id.
func (m *mesh) deliver(id string, priority exchangev1.Priority, files ...string) envelope.ID {
	m.t.Helper()
	h := document("H29", id, files, "H26")
	h.Priority = priority
	return m.deliverHeader(h, files...)
}

func (m *mesh) deliverHeader(h *exchangev1.Header, files ...string) envelope.ID {
	m.t.Helper()
	_, canonical, err := envelope.HeaderID(h)
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := envelope.NewCustody(h, canonical, envelope.Acceptance{Ingress: "nam", AcceptedAt: noon, Inboxes: []routingCode{"H26"}})
	if err != nil {
		m.t.Fatal(err)
	}
	in, err := m.relays["bac"].spool.Begin(m.t.Context(), c)
	if err != nil {
		m.t.Fatal(err)
	}
	for i, content := range files {
		if err := in.Write(m.t.Context(), i, 0, []byte(content)); err != nil {
			m.t.Fatal(err)
		}
	}
	if _, err := in.Commit(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
	return c.ID
}

// drain receives everything that waits for H26 at a relay.
func (m *mesh) drain(relay, who string, req *exchangev1.ReceiveRequest) []*exchangev1.ReceiveResponse {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(as(m.t.Context(), who), 10*time.Second)
	defer cancel()
	req.Drain = true
	stream, err := m.relays[routingRelay(relay)].agency.Receive(ctx, req)
	if err != nil {
		m.t.Fatal(err)
	}
	var all []*exchangev1.ReceiveResponse
	for {
		arrival, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			m.t.Fatalf("receive at %s as %s: %v", relay, who, err)
		}
		all = append(all, arrival)
	}
}

func documents(arrivals []*exchangev1.ReceiveResponse) []string {
	var ids []string
	for _, a := range arrivals {
		ids = append(ids, a.GetEnvelope().GetHeader().GetDocumentId())
	}
	return ids
}

func TestReceiveByLanesAndAgainUntilConfirmed(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	m.deliver("thường 1", 0)
	m.deliver("khẩn", 1)
	m.deliver("hỏa tốc", 3)
	m.deliver("thường 2", 0)
	m.deliver("hẹn giờ, đã đến giờ", 4)
	m.deliver("thượng khẩn", 2)
	want := []string{"hỏa tốc", "hẹn giờ, đã đến giờ", "thượng khẩn", "khẩn", "thường 1", "thường 2"}
	var ids [][]byte
	for range 2 {
		got := m.drain("bac", "agency/H26", &exchangev1.ReceiveRequest{})
		if !slices.Equal(documents(got), want) {
			t.Fatalf("got %q, want %q", documents(got), want)
		}
		ids = ids[:0]
		for _, a := range got {
			ids = append(ids, a.GetEnvelope().GetId())
		}
	}
	response, err := m.relays["bac"].agency.Confirm(as(t.Context(), "agency/H26"), &exchangev1.ConfirmRequest{EnvelopeIds: ids[:5]})
	if err != nil || response.GetConfirmed() != 5 || response.GetRepeats() != 0 {
		t.Fatalf("confirm: got %v, %v, want 5 confirmed", response, err)
	}
	response, err = m.relays["bac"].agency.Confirm(as(t.Context(), "agency/H26"), &exchangev1.ConfirmRequest{EnvelopeIds: append(ids[:2:2], make([]byte, 16), ids[0])})
	if err != nil || response.GetConfirmed() != 0 || response.GetRepeats() != 4 {
		t.Errorf("confirm again: got %v, %v, want 4 repeats", response, err)
	}
	if got := documents(m.drain("bac", "agency/H26", &exchangev1.ReceiveRequest{})); !slices.Equal(got, want[5:]) {
		t.Errorf("after confirming: got %q, want %q", got, want[5:])
	}
	for _, s := range m.relays["bac"].spool.settled {
		if s.Transport != exchangev1.TransportStatus_TRANSPORT_STATUS_DONE || s.Report == nil || !s.Report.Report || s.Report.Onward[0].Relay != "nam" {
			t.Errorf("settlement of %s: want done, with a report to the ingress nam, got %+v", s.ID, s)
		}
	}
}

// Nobody settles what is not in their inbox, and where this relay is the
// ingress itself there is nobody to report to.
func TestConfirmOwnInboxOnly(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	accepted := m.mustSend("bac", "agency/G22", document("G22", "1", nil, "H26", "H29"))
	for _, test := range []struct {
		who       string
		confirmed uint32
		asked     int
	}{{"agency/G22", 0, 0}, {"agency/G09", 0, 0}, {"agency/H26", 1, 1}} {
		response, err := m.relays["bac"].agency.Confirm(as(t.Context(), test.who), &exchangev1.ConfirmRequest{EnvelopeIds: [][]byte{accepted.GetReceipt().GetEnvelopeId()}})
		if asked := m.relays["bac"].spool.asked; err != nil || response.GetConfirmed() != test.confirmed || asked != test.asked {
			t.Errorf("%s: got %v, %v, %d settlements, want %d confirmed, %d settlements", test.who, response, err, asked, test.confirmed, test.asked)
		}
	}
	if s := m.relays["bac"].spool.settled[0]; s.Report != nil || s.Agency != "H26" || !s.At.Equal(noon) {
		t.Errorf("settlement: got %+v, want one of H26 without a report", s)
	}
}

// A recipient may have the document by the time that it is given up.
func TestConfirmAfterTheEnd(t *testing.T) {
	for name, test := range map[string]struct {
		reason    exchangev1.ErrorReason
		confirmed uint32
	}{
		"expired while it was stored": {exchangev1.ErrorReason_ERROR_REASON_EXPIRED, 1},
		"taken back by its sender":    {exchangev1.ErrorReason_ERROR_REASON_RECALLED, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, ingress.Limits{})
			id := m.mustSend("bac", "agency/G22", document("G22", "1", nil, "H26")).GetReceipt().GetEnvelopeId()
			m.drain("bac", "agency/H26", &exchangev1.ReceiveRequest{})
			m.relays["bac"].spool.giveUp(envelope.ID(id), "H26", test.reason)
			response, err := m.relays["bac"].agency.Confirm(as(t.Context(), "agency/H26"), &exchangev1.ConfirmRequest{EnvelopeIds: [][]byte{id}})
			if err != nil || response.GetConfirmed() != test.confirmed {
				t.Errorf("got %v, %v, want %d confirmed", response, err, test.confirmed)
			}
			if told := len(response.GetRecalledIds()) == 1; told != (test.confirmed == 0) {
				t.Errorf("told of %x as taken back", response.GetRecalledIds())
			}
		})
	}
}

// A recall that becomes durable while a confirmation is on its way was first: the
// recipient is told.
func TestConfirmAgainstARecall(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	id := m.mustSend("bac", "agency/G22", document("G22", "1", nil, "H26")).GetReceipt().GetEnvelopeId()
	other := m.mustSend("bac", "agency/G22", document("G22", "2", nil, "H26")).GetReceipt().GetEnvelopeId()
	spool := m.relays["bac"].spool
	spool.beforeSettle = func() { spool.giveUp(envelope.ID(id), "H26", exchangev1.ErrorReason_ERROR_REASON_RECALLED) }
	response, err := m.relays["bac"].agency.Confirm(as(t.Context(), "agency/H26"), &exchangev1.ConfirmRequest{EnvelopeIds: [][]byte{id, other}})
	if err != nil || response.GetConfirmed() != 1 || len(response.GetRecalledIds()) != 1 || !slices.Equal(response.GetRecalledIds()[0], id) {
		t.Errorf("got %v, %v, want one confirmed and %x told as taken back", response, err, id)
	}
}

// More than a page, in order.
func TestReceivePages(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprintf("thường %02d", i))
		m.deliver(want[i], 0)
	}
	if got := documents(m.drain("bac", "agency/H26", &exchangev1.ReceiveRequest{})); !slices.Equal(got, want) {
		t.Errorf("got %d %q, want %d in order", len(got), got, len(want))
	}
}

func TestInlineContentAndFetch(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	big := strings.Repeat("0123456789", 100_000)
	small := m.deliver("nhỏ", 3, "một", "", "ba")
	large := m.deliver("lớn", 0, big)
	got := m.drain("bac", "gateway/sss", &exchangev1.ReceiveRequest{AgencyCode: "H26", InlineLimit: 100})
	if !got[0].GetHasContent() || string(got[0].GetContent()[0]) != "một" || len(got[0].GetContent()[1]) != 0 || string(got[0].GetContent()[2]) != "ba" {
		t.Errorf("small: got content %q", got[0].GetContent())
	}
	if got[1].GetHasContent() {
		t.Error("large: content came along")
	}
	for _, test := range []struct {
		name           string
		who            string
		id             envelope.ID
		part           uint32
		offset, length uint64
		want           string
		reason         exchangev1.ErrorReason
	}{
		{name: "whole", id: large, want: big},
		{name: "range", id: large, offset: 999_990, length: 5, want: "01234"},
		{name: "tail", id: large, offset: 999_995, want: "56789"},
		{name: "at the end", id: large, offset: 1_000_000},
		{name: "empty part", id: small, part: 1},
		{name: "beyond", id: large, offset: 1_000_001, reason: exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		{name: "too long", id: large, offset: 999_999, length: 2, reason: exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		{name: "no such part", id: large, part: 1, reason: exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		{name: "no such envelope", reason: exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND},
		{name: "not a recipient", who: "agency/G09", id: large, reason: exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND},
		{name: "for another agency", who: "agency/G22", id: large, reason: exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY},
	} {
		t.Run(test.name, func(t *testing.T) {
			who, code := test.who, "H26"
			if who == "" {
				who = "agency/H26"
			}
			if who == "agency/G09" {
				code = ""
			}
			stream, err := m.relays["bac"].agency.Fetch(as(t.Context(), who), &exchangev1.FetchRequest{
				AgencyCode: code, EnvelopeId: test.id[:], Part: test.part, Offset: test.offset, Length: test.length})
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for {
				piece, err := stream.Recv()
				if err != nil {
					if test.reason != 0 && !has(err, test.reason) || test.reason == 0 && !errors.Is(err, io.EOF) {
						t.Errorf("got error %v, want reason %s", err, test.reason)
					}
					break
				}
				if piece.GetOffset() != test.offset+uint64(got.Len()) {
					t.Fatalf("piece at %d, want %d", piece.GetOffset(), test.offset+uint64(got.Len()))
				}
				got.Write(piece.GetData())
			}
			if got.String() != test.want {
				t.Errorf("got %d bytes, want %d", got.Len(), len(test.want))
			}
		})
	}
}

// An arrival that cannot be read stops itself and not the inbox; where only its
// content is damaged, it comes without, and Fetch says what is wrong.
func TestOneBadArrival(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	lost, unreadable := m.deliver("record", 3, "không"), m.deliver("header", 3, "một")
	damaged, good := m.deliver("content", 2, "hai"), m.deliver("good", 0, "ba")
	spool := m.relays["bac"].spool
	spool.mu.Lock()
	spool.records[unreadable].Header = []byte{0xff}
	spool.lost = map[envelope.ID]bool{lost: true}
	spool.damaged = map[envelope.ID]bool{damaged: true}
	spool.mu.Unlock()
	got := m.drain("bac", "agency/H26", &exchangev1.ReceiveRequest{AgencyCode: "H26", InlineLimit: 100})
	if len(got) != 2 || envelope.ID(got[0].GetEnvelope().GetId()) != damaged || envelope.ID(got[1].GetEnvelope().GetId()) != good {
		t.Fatalf("got %v, want the damaged and the good one", got)
	}
	if got[0].GetHasContent() || !got[1].GetHasContent() {
		t.Errorf("content came along: %t and %t, want only that of the good one", got[0].GetHasContent(), got[1].GetHasContent())
	}
	stream, err := m.relays["bac"].agency.Fetch(as(t.Context(), "agency/H26"), &exchangev1.FetchRequest{EnvelopeId: damaged[:]})
	if err == nil {
		_, err = stream.Recv()
	}
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_DAMAGED) {
		t.Errorf("fetch: got %v, want DAMAGED", err)
	}
}

func TestReceiveLimits(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	for _, test := range []struct {
		name  string
		req   *exchangev1.ReceiveRequest
		field string
	}{
		{"inline", &exchangev1.ReceiveRequest{InlineLimit: 256<<10 + 1}, "inline_limit"},
		{"window", &exchangev1.ReceiveRequest{MaxUnconfirmed: 10_001}, "max_unconfirmed"},
	} {
		stream, err := m.relays["bac"].agency.Receive(as(t.Context(), "agency/H26"), test.req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		r, ok := envelope.AsRefusal(err)
		if !ok || len(r.Problems) != 1 || r.Problems[0].Field != test.field {
			t.Errorf("%s: got %v, want a refusal of %s", test.name, err, test.field)
		}
	}
	for _, test := range []struct {
		name string
		ids  [][]byte
	}{{"none", nil}, {"short", [][]byte{{1}}}, {"too many", make([][]byte, 1001)}} {
		_, err := m.relays["bac"].agency.Confirm(as(t.Context(), "agency/H26"), &exchangev1.ConfirmRequest{EnvelopeIds: test.ids})
		if !has(err, exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD) {
			t.Errorf("confirm %s: got %v, want INVALID_FIELD", test.name, err)
		}
	}
}

// An agency attached elsewhere gets its inbox all the same.
func TestReceiveAwayFromHome(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	id := m.deliver("1", 0, "nội dung")
	got := m.drain("nam", "agency/H26", &exchangev1.ReceiveRequest{InlineLimit: 100})
	if !slices.Equal(documents(got), []string{"1"}) || string(got[0].GetContent()[0]) != "nội dung" {
		t.Fatalf("got %v", got)
	}
	stream, err := m.relays["nam"].agency.Fetch(as(t.Context(), "agency/H26"), &exchangev1.FetchRequest{EnvelopeId: id[:], Offset: 4})
	if err != nil {
		t.Fatal(err)
	}
	if piece, err := stream.Recv(); err != nil || string(piece.GetData()) != "nội dung"[4:] {
		t.Errorf("fetch: got %q, %v", piece.GetData(), err)
	}
	response, err := m.relays["nam"].agency.Confirm(as(t.Context(), "gateway/sss"), &exchangev1.ConfirmRequest{AgencyCode: "H26", EnvelopeIds: [][]byte{id[:]}})
	if err != nil || response.GetConfirmed() != 1 {
		t.Errorf("confirm: got %v, %v, want 1", response, err)
	}
	if got := m.drain("bac", "agency/H26", &exchangev1.ReceiveRequest{}); len(got) != 0 {
		t.Errorf("after confirming: got %q, want nothing", documents(got))
	}
}

// While an agency moves, the relay that believes to be its home may not have what
// another one gave it: that passes.
func TestFetchWhileTheAgencyMoves(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	m.away = envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE, "on its way")
	others := m.mustSend("bac", "agency/G22", document("G22", "1", []string{"một"}, "H29"), "một").GetReceipt().GetEnvelopeId()
	for _, id := range [][]byte{make([]byte, 16), others} {
		stream, err := m.relays["bac"].agency.Fetch(as(t.Context(), "agency/H26"), &exchangev1.FetchRequest{EnvelopeId: id})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !has(err, exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE) || !envelope.Temporary(err) {
			t.Errorf("got %v, want a refusal that passes", err)
		}
	}
}

// The home side answers relays only, and only for agencies at home there.
func TestHomeSideIsForRelaysAndItsOwnAgencies(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	id := m.deliver("1", 0, "x")
	for _, test := range []struct {
		who, code string
		reason    exchangev1.ErrorReason
	}{
		{"agency/H26", "H26", exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY},
		{"gateway/sss", "H26", exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY},
		{"operator/an", "H26", exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY},
		{"agency/", "H26", exchangev1.ErrorReason_ERROR_REASON_NO_IDENTITY},
		{"relay/nam", "H29", exchangev1.ErrorReason_ERROR_REASON_NOT_HOME},
		{"relay/nam", "", exchangev1.ErrorReason_ERROR_REASON_NOT_HOME},
	} {
		t.Run(test.who+" for "+test.code, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(as(t.Context(), test.who), 10*time.Second)
			defer cancel()
			peer := m.relays["bac"].peer
			receive, err := peer.ProxyReceive(ctx, &relayv1.ProxyReceiveRequest{Request: &exchangev1.ReceiveRequest{AgencyCode: test.code}})
			if err == nil {
				_, err = receive.Recv()
			}
			if !has(err, test.reason) {
				t.Errorf("receive: got %v, want %s", err, test.reason)
			}
			fetch, err := peer.ProxyFetch(ctx, &relayv1.ProxyFetchRequest{Request: &exchangev1.FetchRequest{AgencyCode: test.code, EnvelopeId: id[:]}})
			if err == nil {
				_, err = fetch.Recv()
			}
			if !has(err, test.reason) {
				t.Errorf("fetch: got %v, want %s", err, test.reason)
			}
			_, err = peer.ProxyConfirm(ctx, &relayv1.ProxyConfirmRequest{Request: &exchangev1.ConfirmRequest{AgencyCode: test.code, EnvelopeIds: [][]byte{id[:]}}})
			if !has(err, test.reason) {
				t.Errorf("confirm: got %v, want %s", err, test.reason)
			}
		})
	}
}
