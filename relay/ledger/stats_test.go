package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ledger"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

var vietnam = time.FixedZone("UTC+7", 7*60*60)

// october is a month, and now its last day: a Saturday.
var (
	october = func(day, hour int) time.Time { return time.Date(2026, 10, day, hour, 0, 0, 0, vietnam) }
	lastDay = october(31, 12)
)

// What became of a delivery.
func ended(agency string, transport exchangev1.TransportStatus, reason exchangev1.ErrorReason, at time.Time) envelope.Delivery {
	return envelope.Delivery{Agency: routing.AgencyCode(agency), Place: envelope.Settled, Transport: transport, Reason: reason, UpdatedAt: at}
}

func receivedBy(agency string, at time.Time) envelope.Delivery { return ended(agency, done, 0, at) }

func failedAt(agency string, reason exchangev1.ErrorReason) envelope.Delivery {
	return ended(agency, fail, reason, october(3, 8))
}

func pendingAt(agency string, place envelope.Place) envelope.Delivery {
	return envelope.Delivery{Agency: routing.AgencyCode(agency), Place: place, Transport: processing}
}

// said has the recipient say codes at an instant.
func said(d envelope.Delivery, at time.Time, codes ...string) envelope.Delivery {
	d.Life = new(lifecycle.Life)
	for i, code := range codes {
		heard := at.Add(time.Duration(i) * time.Minute)
		d.Life.Hear(lifecycle.Heard{Source: [16]byte{byte(i + 1)}, Statement: lifecycle.Statement{
			Act: lifecycle.ActOf(code), Code: code, By: lifecycle.Speaker(lifecycle.ActOf(code)), At: heard, Heard: heard, Note: "vì"}})
	}
	return d
}

// accept has a relay accept an envelope.
func (m *mesh) accept(relay routing.RelayID, at time.Time, h *exchangev1.Header, deliveries ...envelope.Delivery) {
	m.t.Helper()
	if h.GetDocumentId() == "" {
		h.DocumentId = fmt.Sprint(relay, len(m.spools[relay].records))
	}
	id, canonical, err := envelope.HeaderID(h)
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := envelope.NewCustody(h, canonical, envelope.Acceptance{Ingress: relay, AcceptedAt: at, FromSender: true})
	if err != nil {
		m.t.Fatal(err)
	}
	m.spools[relay].records[id] = &envelope.Record{Custody: *c, CommittedAt: at, Deliveries: deliveries}
}

func documentOf(sender, kind string, priority exchangev1.Priority, signedAt time.Time) *exchangev1.Header {
	h := &exchangev1.Header{Kind: exchangev1.Kind_KIND_DOCUMENT, Sender: &exchangev1.Organization{Code: sender}, Priority: priority,
		Document: &exchangev1.Document{TypeName: kind}}
	if !signedAt.IsZero() {
		h.SignedAt = timestamppb.New(signedAt)
	}
	return h
}

func statusOf(sender string) *exchangev1.Header {
	return &exchangev1.Header{Kind: exchangev1.Kind_KIND_STATUS, Sender: &exchangev1.Organization{Code: sender}, Status: &exchangev1.Status{Code: "03"}}
}

// aMonth is a mesh with everything that can become of a document.
func aMonth(t *testing.T) *mesh {
	m := newMesh(t)
	m.now = lastDay
	// G22 is central, H26 a province, H26.1 a commune; H29 and H43 are not told of.
	for code, tier := range map[string]uint32{"H26": 2, "H26.1": 4} {
		m.change(&directoryv1.Command{Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{
			Agency: &directoryv1.Agency{Code: code, Name: "Cơ quan " + code, Tier: tier, HomeRelayId: "trung"}}}})
	}
	const expired, recalled = exchangev1.ErrorReason_ERROR_REASON_EXPIRED, exchangev1.ErrorReason_ERROR_REASON_RECALLED
	// Signed on Friday the second, accepted on Monday morning: in time. H26 says so the
	// day it arrives, H26.1 the day after; H29, which nobody knows now, never.
	m.accept("bac", october(5, 9), documentOf("G22", "Công văn", 0, october(2, 16)),
		said(receivedBy("H26", october(5, 10)), october(5, 11), "01", "03"),
		said(receivedBy("H26.1", october(5, 10)), october(6, 11), "03", "06"),
		receivedBy("X9", october(5, 10)))
	// In the afternoon: late.
	m.accept("bac", october(5, 14), documentOf("G22", "quyet dinh", 3, october(2, 16)),
		failedAt("H26", expired), failedAt("H26.1", recalled), failedAt("G22", exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED),
		pendingAt("X9", envelope.Elsewhere))
	// Not signed, of no kind, without a date; returned by the one, asked back from the
	// other, who agreed.
	m.accept("trung", october(8, 9), documentOf("H26", "Thư ngỏ", 1, time.Time{}),
		said(receivedBy("G22", october(8, 10)), october(8, 11), "02"),
		said(receivedBy("H26.1", october(8, 10)), october(8, 11), "03", "13", "15"),
		pendingAt("X9", envelope.InInbox))
	signed := documentOf("X9", "Công văn", 0, time.Time{})
	signed.SignatureRaw, signed.Document.IssuedOn = []byte("<Signature/>"), &exchangev1.Date{Year: 2026, Month: 10, Day: 31}
	m.accept("nam", lastDay, signed, receivedBy("H26", lastDay)) // today: the day is not over
	m.accept("trung", october(8, 11), statusOf("G22"), receivedBy("H26", october(8, 12)))
	m.accept("trung", october(8, 12), statusOf("H26.1"), pendingAt("H26", envelope.InQueue))
	m.accept("nam", october(9, 12), statusOf("H26.1"), failedAt("X9", expired))
	// Not of the month, and not accepted there.
	m.accept("nam", october(1, 0).Add(-1), documentOf("G22", "Công văn", 0, time.Time{}), receivedBy("H26", october(1, 1)))
	for _, r := range m.spools["bac"].records {
		other := *r
		other.FromSender = false
		m.spools["nam"].records[r.ID] = &other
	}
	return m
}

func (m *mesh) stats(relay routing.RelayID, req *adminv1.StatsRequest) *adminv1.StatsResponse {
	m.t.Helper()
	r, err := m.ledgers[relay].Stats(m.t.Context(), books{memory: m.spools[relay]}, req)
	if err != nil {
		m.t.Fatal(err)
	}
	if wrong := ledger.Differences(r); len(wrong) > 0 {
		m.t.Errorf("%v does not add up: %s", req, strings.Join(wrong, "; "))
	}
	return r
}

func row(key string, r *adminv1.StatsRow, statuses *adminv1.StatsStatuses, priorities, phases []uint64) *adminv1.StatsRow {
	r.Key, r.Statuses, r.ByPriority, r.ByPhase = key, statuses, make([]uint64, 5), make([]uint64, 8)
	if statuses == nil {
		r.Statuses = new(adminv1.StatsStatuses)
	}
	copy(r.ByPriority, priorities)
	copy(r.ByPhase, phases)
	return r
}

func TestStatsCount(t *testing.T) {
	m := aMonth(t)
	for by, want := range map[string][]*adminv1.StatsRow{
		"": {row("", &adminv1.StatsRow{
			Sent: 4, DigitallySigned: 3, OnTime: 2, Late: 1, Deliveries: 11, Delivered: 6, Pending: 2, Expired: 1, Refused: 1, Recalled: 1,
			Addressed: 11, Received: 6, AcceptedOnTime: 3, AcceptedLate: 2},
			&adminv1.StatsStatuses{Sent: 3, Deliveries: 3, Delivered: 1, Pending: 1, Expired: 1, Addressed: 3, Received: 1},
			[]uint64{2, 1, 0, 1}, []uint64{6, 0, 1, 0, 0, 1, 1, 2})},
		"agency": {
			row("G22", &adminv1.StatsRow{Name: "G22", Sent: 2, DigitallySigned: 2, OnTime: 1, Late: 1,
				Deliveries: 7, Delivered: 3, Pending: 1, Expired: 1, Refused: 1, Recalled: 1,
				Addressed: 2, Received: 1, AcceptedOnTime: 1},
				&adminv1.StatsStatuses{Sent: 1, Deliveries: 1, Delivered: 1}, []uint64{1, 0, 0, 1}, []uint64{1, 0, 0, 0, 0, 0, 1}),
			row("H26", &adminv1.StatsRow{Name: "Cơ quan H26", Sent: 1, Deliveries: 3, Delivered: 2, Pending: 1,
				Addressed: 3, Received: 2, AcceptedOnTime: 1},
				&adminv1.StatsStatuses{Addressed: 2, Received: 1}, []uint64{0, 1}, []uint64{2, 0, 1}),
			row("H26.1", &adminv1.StatsRow{Name: "Cơ quan H26.1", Addressed: 3, Received: 2, AcceptedOnTime: 1, AcceptedLate: 1},
				&adminv1.StatsStatuses{Sent: 2, Deliveries: 2, Pending: 1, Expired: 1}, nil, []uint64{0, 0, 0, 0, 0, 1, 0, 2}),
			row("X9", &adminv1.StatsRow{Sent: 1, DigitallySigned: 1, OnTime: 1, Deliveries: 1, Delivered: 1,
				Addressed: 3, Received: 1, AcceptedLate: 1},
				&adminv1.StatsStatuses{Addressed: 1}, []uint64{1}, []uint64{3}),
		},
		"tier": {
			row("1", &adminv1.StatsRow{Sent: 2, DigitallySigned: 2, OnTime: 1, Late: 1,
				Deliveries: 7, Delivered: 3, Pending: 1, Expired: 1, Refused: 1, Recalled: 1, Addressed: 2, Received: 1, AcceptedOnTime: 1},
				&adminv1.StatsStatuses{Sent: 1, Deliveries: 1, Delivered: 1}, []uint64{1, 0, 0, 1}, []uint64{1, 0, 0, 0, 0, 0, 1}),
			row("2", &adminv1.StatsRow{Sent: 1, Deliveries: 3, Delivered: 2, Pending: 1, Addressed: 3, Received: 2, AcceptedOnTime: 1},
				&adminv1.StatsStatuses{Addressed: 2, Received: 1}, []uint64{0, 1}, []uint64{2, 0, 1}),
			row("4", &adminv1.StatsRow{Addressed: 3, Received: 2, AcceptedOnTime: 1, AcceptedLate: 1},
				&adminv1.StatsStatuses{Sent: 2, Deliveries: 2, Pending: 1, Expired: 1}, nil, []uint64{0, 0, 0, 0, 0, 1, 0, 2}),
			row("?", &adminv1.StatsRow{Sent: 1, DigitallySigned: 1, OnTime: 1, Deliveries: 1, Delivered: 1,
				Addressed: 3, Received: 1, AcceptedLate: 1},
				&adminv1.StatsStatuses{Addressed: 1}, []uint64{1}, []uint64{3}),
		},
		"kind": {
			row("Quyết định", &adminv1.StatsRow{Sent: 1, DigitallySigned: 1, Late: 1, Deliveries: 4, Pending: 1, Expired: 1, Refused: 1, Recalled: 1, Addressed: 4},
				nil, []uint64{0, 0, 0, 1}, []uint64{3, 0, 0, 0, 0, 0, 0, 1}),
			row("Công văn", &adminv1.StatsRow{Sent: 2, DigitallySigned: 2, OnTime: 2, Deliveries: 4, Delivered: 4, Addressed: 4, Received: 4, AcceptedOnTime: 1, AcceptedLate: 2},
				nil, []uint64{2}, []uint64{2, 0, 1, 0, 0, 1}),
			row("other", &adminv1.StatsRow{Sent: 1, Deliveries: 3, Delivered: 2, Pending: 1, Addressed: 3, Received: 2, AcceptedOnTime: 2},
				nil, []uint64{0, 1}, []uint64{1, 0, 0, 0, 0, 0, 1, 1}),
			row("status", &adminv1.StatsRow{}, &adminv1.StatsStatuses{Sent: 3, Deliveries: 3, Delivered: 1, Pending: 1, Expired: 1, Addressed: 3, Received: 1}, nil, nil),
		},
	} {
		t.Run("by/"+by, func(t *testing.T) {
			for _, relay := range []routing.RelayID{"bac", "nam"} {
				r := m.stats(relay, &adminv1.StatsRequest{Month: "2026-10", By: by})
				if diff := cmp.Diff(want, r.GetRows(), protocmp.Transform()); diff != "" {
					t.Errorf("at %s, want - got +\n%s", relay, diff)
				}
				if len(r.GetRelays()) != 3 || r.GetRelays()[0].GetKey() != "bac" || r.GetMonth() != "2026-10" {
					t.Errorf("relays %v of %s", r.GetRelays(), r.GetMonth())
				}
			}
		})
	}
}

// An instant belongs to the month in Vietnam time, whole to the nanosecond.
func TestStatsMonthEdges(t *testing.T) {
	m := newMesh(t)
	m.now = time.Date(2026, 12, 31, 23, 0, 0, 0, vietnam)
	begin, end := october(1, 0), time.Date(2026, 11, 1, 0, 0, 0, 0, vietnam)
	for i, at := range []time.Time{begin.Add(-1), begin, begin.UTC().Add(time.Hour), end.Add(-1), end, time.Date(2026, 12, 31, 22, 0, 0, 0, vietnam)} {
		h := documentOf("G22", "Công văn", 0, time.Time{})
		h.DocumentId = fmt.Sprint(i)
		m.accept("bac", at, h, receivedBy("H26", at))
	}
	for month, want := range map[string]uint64{"2026-09": 1, "2026-10": 3, "2026-11": 1, "2026-12": 1, "": 1} {
		if got := m.stats("bac", &adminv1.StatsRequest{Month: month}).GetTotal().GetSent(); got != want {
			t.Errorf("%q: %d sent, want %d", month, got, want)
		}
	}
}

// What cannot be counted is refused with the field at fault, also by another relay.
func TestStatsRefuses(t *testing.T) {
	m := aMonth(t)
	for name, c := range map[string]struct {
		req   *adminv1.StatsRequest
		field string
	}{
		"no month":              {&adminv1.StatsRequest{Month: "10/2026"}, "month"},
		"a month to come":       {&adminv1.StatsRequest{Month: "2026-11"}, "month"},
		"a month long ago":      {&adminv1.StatsRequest{Month: "2025-09"}, "month"},
		"by what nobody knows":  {&adminv1.StatsRequest{By: "sender"}, "by"},
		"a relay nobody knows":  {&adminv1.StatsRequest{RelayId: "tay"}, "relay_id"},
		"another, and itself":   {&adminv1.StatsRequest{RelayId: "nam", Local: true}, "relay_id"},
		"a relay that is taken": {&adminv1.StatsRequest{RelayId: "trung"}, "relay_id"},
	} {
		if c.req.GetRelayId() == "trung" {
			m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: "trung", Lost: true}}})
		}
		_, err := m.ledgers["bac"].Stats(t.Context(), books{memory: m.spools["bac"]}, c.req)
		if r, ok := envelope.AsRefusal(err); !ok || !r.Has(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD) || len(r.Problems) != 1 || r.Problems[0].Field != c.field {
			t.Errorf("%s: got %v, want a refusal of %s", name, err, c.field)
		}
	}
	// 400 days before the last day of October 2026 was 26 September 2025.
	m.now = time.Date(2026, 11, 4, 23, 59, 0, 0, vietnam)
	m.stats("bac", &adminv1.StatsRequest{Month: "2025-10"})
	m.now = time.Date(2026, 11, 5, 0, 0, 0, 0, vietnam)
	if _, err := m.ledgers["bac"].Stats(t.Context(), books{memory: m.spools["bac"]}, &adminv1.StatsRequest{Month: "2025-10"}); err == nil {
		t.Error("a month of which a document may be forgotten by now: counted")
	}
	shorter, err := ledger.New(ledger.Config{Self: "nam", Spool: m.spools["nam"], Directory: m.directory, Peers: m, Report: m.spools["nam"].report,
		Clock: m.clock, Remembers: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	m.ledgers["nam"] = shorter
	_, err = m.ledgers["bac"].Stats(t.Context(), books{memory: m.spools["bac"]}, &adminv1.StatsRequest{Month: "2026-10"})
	if r, ok := envelope.AsRefusal(err); !ok || len(r.Problems) != 1 || r.Problems[0].Field != "month" || !strings.Contains(err.Error(), "nam") {
		t.Errorf("a relay that remembers less: %v, want a refusal of month that names it", err)
	}
}

// A relay that does not answer is named, and nothing else is missing; one relay can
// be asked for alone.
func TestStatsOfTheMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := aMonth(t)
		ofRelay := func(req *adminv1.StatsRequest) string {
			t.Helper()
			r := m.stats("bac", req)
			var relays []string
			for _, row := range r.GetRelays() {
				relays = append(relays, row.GetKey())
			}
			return fmt.Sprintf("%v %d of %v, silent %v", len(r.GetRows()), r.GetTotal().GetDeliveries(), relays, r.GetSilentRelayIds())
		}
		for want, req := range map[string]*adminv1.StatsRequest{
			"4 11 of [bac nam trung], silent []": {By: "agency"},
			"4 7 of [bac], silent []":            {By: "agency", Local: true},
			"1 7 of [bac], silent []":            {RelayId: "bac"},
			"4 3 of [trung], silent []":          {By: "agency", RelayId: "trung"},
			"1 1 of [nam], silent []":            {RelayId: "nam"},
		} {
			if got := ofRelay(req); got != want {
				t.Errorf("%v: got %s, want %s", req, got, want)
			}
		}
		m.silent["nam"] = true
		if got, want := ofRelay(&adminv1.StatsRequest{By: "kind"}), "4 10 of [bac trung], silent [nam]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got, want := ofRelay(&adminv1.StatsRequest{By: "kind", RelayId: "nam"}), "0 0 of [], silent [nam]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		m.silent["nam"], m.ledgers["nam"] = false, m.ledgers["trung"] // it speaks for another
		if got, want := ofRelay(&adminv1.StatsRequest{By: "kind"}), "4 10 of [bac trung], silent [nam]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// What statistics count of a month are the deliveries that the audit counts since
// its beginning, less those since its end.
func TestStatsAreThoseOfTheAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := aMonth(t)
		m.now = lastDay.AddDate(0, 0, 3)
		m.accept("bac", october(31, 24), documentOf("G22", "Công văn", 0, time.Time{}), receivedBy("H26", october(31, 24)))
		count := func(since time.Time) (sum [6]uint64) {
			for _, relay := range []routing.RelayID{"bac", "trung", "nam"} {
				r, err := m.ledgers[relay].Audit(t.Context(), books{memory: m.spools[relay]}, &adminv1.AuditRequest{Since: timestamppb.New(since), Local: true})
				if err != nil {
					t.Fatal(err)
				}
				row := r.GetRows()[0]
				for i, n := range []uint64{row.GetAccepted(), row.GetDelivered(), row.GetPending(), row.GetExpired(), row.GetRefused(), row.GetRecalled()} {
					sum[i] += n
				}
			}
			return sum
		}
		want, behind := count(october(1, 0)), count(october(31, 24))
		for i := range want {
			want[i] -= behind[i]
		}
		for _, by := range []string{"", "agency", "tier", "kind"} {
			var got [6]uint64
			for _, r := range m.stats("nam", &adminv1.StatsRequest{Month: "2026-10", By: by}).GetRows() {
				s := r.GetStatuses()
				for i, n := range []uint64{r.GetDeliveries() + s.GetDeliveries(), r.GetDelivered() + s.GetDelivered(), r.GetPending() + s.GetPending(),
					r.GetExpired() + s.GetExpired(), r.GetRefused() + s.GetRefused(), r.GetRecalled() + s.GetRecalled()} {
					got[i] += n
				}
			}
			if got != want || behind[0] != 1 {
				t.Errorf("by %q: %v, the audit says %v", by, got, want)
			}
		}
	})
}

// Every agency of the country has a row, and a message holds them all.
func TestStatsAtNationalSize(t *testing.T) {
	const agencies = 111_339
	m := newMesh(t)
	m.now = lastDay
	var all []envelope.Delivery
	for i := range agencies {
		all = append(all, receivedBy(fmt.Sprintf("H26.%d", i), october(5, 10)))
	}
	for i, part := range slices.Collect(slices.Chunk(all, 20_000)) {
		h := documentOf(fmt.Sprintf("H26.%d", i), "Công văn", 0, october(5, 8))
		h.DocumentId = fmt.Sprint(i)
		m.accept([]routing.RelayID{"bac", "trung", "nam"}[i%3], october(5, 9), h, part...)
	}
	r := m.stats("bac", &adminv1.StatsRequest{By: "agency"})
	if len(r.GetRows()) != agencies || r.GetTotal().GetReceived() != agencies {
		t.Errorf("%d rows, %d received", len(r.GetRows()), r.GetTotal().GetReceived())
	}
	for _, row := range r.GetRows() { // as the directory would
		row.Name = strings.Repeat("Ủy ban nhân dân xã ", 4)
	}
	t.Logf("%d rows with names take %d bytes", agencies, proto.Size(r))
	if size := proto.Size(r); size > 32<<20 {
		t.Errorf("%d bytes, want half of what the call takes at the most", size)
	}
}

// A failure of the books is no answer.
func TestStatsNeedTheBooks(t *testing.T) {
	m := aMonth(t)
	if _, err := m.ledgers["bac"].Stats(t.Context(), torn{}, &adminv1.StatsRequest{Local: true}); !errors.Is(err, errTorn) {
		t.Errorf("got %v, want %v", err, errTorn)
	}
	if _, err := m.ledgers["bac"].Count(t.Context(), torn{}, &relayv1.CountRequest{}); !errors.Is(err, errTorn) {
		t.Errorf("got %v, want %v", err, errTorn)
	}
}

var errTorn = errors.New("a page is torn")

type torn struct{ books }

func (torn) Accepted(context.Context, time.Time, time.Time, func(*envelope.Record) error) error {
	return errTorn
}
