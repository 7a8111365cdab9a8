package bench

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/test/mesh"
	"github.com/truclienthong/truc/test/torture/tally"
)

// TestStatsOfAMonth lets three relays accept the documents of a month, with
// everything that can become of them, by a clock that runs through it and a little
// beyond at both ends, and then counts by Stats what the audit counts, by every key,
// as the test itself counted while it wrote: 2,000 documents, or with TORTURE=long
// 200,000, as many as the axis had in a month of 2020. It logs how long the counts
// take. Circulars to 80,000 codes that no directory knows make the answer larger
// than what relays take of one another by default.
func TestStatsOfAMonth(t *testing.T) {
	documents := tally.Pick(2_000, 200_000)
	m := mesh.Start(t, mesh.Config{Agencies: sampleCountry(), Profiles: []string{"G01"}})
	w := &writer{t: t, m: m, random: rand.New(rand.NewPCG(tally.Seed(t), 5)), books: map[string]map[string]*account{}}
	w.month = lifecycle.MonthOf(lifecycle.MonthOf(time.Now()).Begin().Add(-time.Hour))
	w.month = lifecycle.MonthOf(w.month.Begin().Add(-time.Hour)) // the one before the last, so that it is over
	w.learn()
	for _, r := range m.Layout.Relays {
		m.StopRelay(r.ID)
	}
	began := time.Now()
	for i, r := range m.Layout.Relays {
		w.write(routing.RelayID(r.ID), documents/3, i == 2)
	}
	t.Logf("%d documents and %d statuses written in %s, %d of them in %s", w.sent["document"], w.sent["status"], time.Since(began).Round(time.Millisecond), w.inMonth, w.month)
	for _, r := range m.Layout.Relays {
		m.StartRelay(r.ID)
	}
	m.AwaitServing()

	row := func(a *adminv1.AuditRow) [6]uint64 {
		return [6]uint64{a.GetAccepted(), a.GetDelivered(), a.GetPending(), a.GetExpired(), a.GetRefused(), a.GetRecalled()}
	}
	audits := make(map[string][6]uint64) // by relay; "" for all
	began = time.Now()
	for i, since := range []time.Time{w.month.Begin(), w.month.End()} {
		audit, err := m.Operator("bac").Custody.Audit(t.Context(), &adminv1.AuditRequest{Since: timestamppb.New(since)})
		if err != nil || len(audit.GetSilentRelayIds()) > 0 {
			t.Fatal(err, audit.GetSilentRelayIds())
		}
		if i == 0 {
			t.Logf("audit since the beginning of the month: %s", time.Since(began).Round(time.Millisecond))
		}
		for _, r := range audit.GetRows() {
			for _, key := range []string{"", r.GetRelayId()} {
				sum := audits[key]
				for j, n := range row(r) {
					if i == 0 {
						sum[j] += n
					} else {
						sum[j] -= n
					}
				}
				audits[key] = sum
			}
		}
	}
	for _, by := range []string{"", "agency", "tier", "kind"} {
		began := time.Now()
		stats, err := m.Operator("bac").Custody.Stats(t.Context(), &adminv1.StatsRequest{Month: w.month.String(), By: by})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("stats by %q: %d rows, %d bytes, in %s", by, len(stats.GetRows()), proto.Size(stats), time.Since(began).Round(time.Millisecond))
		if len(stats.GetRelays()) != 3 || len(stats.GetSilentRelayIds()) > 0 {
			t.Errorf("by %q: %d relays, %v silent", by, len(stats.GetRelays()), stats.GetSilentRelayIds())
		}
		if size := proto.Size(stats); by == "agency" && size <= anyOther {
			t.Errorf("by agency: %d bytes, which fit into any other message too", size)
		}
		sum := new(account)
		got := make(map[string]*account)
		for _, r := range stats.GetRows() {
			got[r.GetKey()] = accountOf(r)
			sum.add(accountOf(r))
		}
		if sum.audited() != audits[""] {
			t.Errorf("by %q: rows come to %v, the audit to %v", by, sum.audited(), audits[""])
		}
		for _, r := range stats.GetRelays() {
			if accountOf(r).audited() != audits[r.GetKey()] {
				t.Errorf("by %q, relay %s: %v, the audit says %v", by, r.GetKey(), accountOf(r).audited(), audits[r.GetKey()])
			}
		}
		for key, want := range w.books[by] {
			if got[key] == nil || *got[key] != *want {
				t.Errorf("by %q, %s:\ngot  %+v\nwant %+v", by, key, got[key], want)
			}
			delete(got, key)
		}
		if len(got) > 0 {
			t.Errorf("by %q: %d rows that nobody wrote, as %v", by, len(got), slices.Collect(maps.Keys(got))[0])
		}
		if t.Failed() {
			return
		}
	}
}

// sampleCountry are 402 agencies of four tiers.
func sampleCountry() []byte {
	var b strings.Builder
	b.WriteString("code,name,tier,parent_code\n")
	for i := 1; i <= 30; i++ {
		fmt.Fprintf(&b, "G%02d,Bộ %d,1,\nH%02d,Tỉnh %d,2,\n", i, i, i, i)
	}
	for i := 1; i <= 114; i++ {
		fmt.Fprintf(&b, "H%02d.%d,Huyện %d,3,H%02d\nH%02d.%d.1,Xã %d,4,H%02d.%d\nH%02d.%d.2,Phường %d,4,H%02d.%d\n",
			i%30+1, i, i, i%30+1, i%30+1, i, i, i%30+1, i, i%30+1, i, i, i%30+1, i)
	}
	return []byte(b.String())
}

// account is what the test counts of one key.
type account struct {
	sent, signed, onTime, late                                      uint64
	priorities                                                      [5]uint64
	deliveries, delivered, pending, expired, refused, recalled      uint64
	addressed, received, accepted                                   uint64
	statuses                                                        uint64
	statusDeliveries, statusDelivered, statusPending, statusExpired uint64
	statusRefused, statusRecalled, statusAddressed, statusReceived  uint64
}

func accountOf(r *adminv1.StatsRow) *account {
	s := r.GetStatuses()
	return &account{sent: r.GetSent(), signed: r.GetDigitallySigned(), onTime: r.GetOnTime(), late: r.GetLate(), priorities: [5]uint64(r.GetByPriority()),
		deliveries: r.GetDeliveries(), delivered: r.GetDelivered(), pending: r.GetPending(), expired: r.GetExpired(), refused: r.GetRefused(), recalled: r.GetRecalled(),
		addressed: r.GetAddressed(), received: r.GetReceived(), accepted: r.GetByPhase()[lifecycle.Accepted],
		statuses: s.GetSent(), statusDeliveries: s.GetDeliveries(), statusDelivered: s.GetDelivered(), statusPending: s.GetPending(), statusExpired: s.GetExpired(),
		statusRefused: s.GetRefused(), statusRecalled: s.GetRecalled(), statusAddressed: s.GetAddressed(), statusReceived: s.GetReceived()}
}

// audited are the deliveries in the order of an AuditRow.
func (a *account) audited() [6]uint64 {
	return [6]uint64{a.deliveries + a.statusDeliveries, a.delivered + a.statusDelivered, a.pending + a.statusPending,
		a.expired + a.statusExpired, a.refused + a.statusRefused, a.recalled + a.statusRecalled}
}

func (a *account) numbers() []*uint64 {
	all := []*uint64{&a.sent, &a.signed, &a.onTime, &a.late, &a.deliveries, &a.delivered, &a.pending, &a.expired, &a.refused, &a.recalled,
		&a.addressed, &a.received, &a.accepted, &a.statuses, &a.statusDeliveries, &a.statusDelivered, &a.statusPending, &a.statusExpired,
		&a.statusRefused, &a.statusRecalled, &a.statusAddressed, &a.statusReceived}
	for i := range a.priorities {
		all = append(all, &a.priorities[i])
	}
	return all
}

func (a *account) add(other *account) {
	from := other.numbers()
	for i, n := range a.numbers() {
		*n += *from[i]
	}
}

// writer writes the month into the spools of relays that do not run.
type writer struct {
	t        *testing.T
	m        *mesh.Mesh
	month    lifecycle.Month
	random   *rand.Rand
	agencies []*agencyOf
	// what follows is owned by mu: books by what they are by and by key.
	mu      sync.Mutex
	books   map[string]map[string]*account
	sent    map[string]int
	inMonth int
}

type agencyOf struct {
	code routing.AgencyCode
	tier string
	home routing.RelayID
}

// learn asks for the agencies and their homes.
func (w *writer) learn() {
	w.t.Helper()
	w.sent = map[string]int{}
	r, err := w.m.Operator("bac").Directory.ListAgencies(w.t.Context(), &adminv1.ListAgenciesRequest{PageSize: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range r.GetAgencies() {
		w.agencies = append(w.agencies, &agencyOf{routing.AgencyCode(a.GetCode()), fmt.Sprint(a.GetTier()), routing.RelayID(a.GetHomeRelayId())})
	}
	if len(w.agencies) != 402 {
		w.t.Fatalf("%d agencies", len(w.agencies))
	}
}

// plan is one envelope that is to be written, with what becomes of it.
type plan struct {
	header     *exchangev1.Header
	sender     *agencyOf
	recipients []*agencyOf
	outcomes   []envelope.Outcome
	says       bool
}

// circulars to as many recipients as a document may have, by codes as long as they
// may be, make an answer larger than any other that relays give one another, in
// bytes.
const circulars, circular, anyOther = 4, 20_000, 6 << 20

// write has a relay accept documents, and a twentieth as many statuses.
func (w *writer) write(relay routing.RelayID, documents int, toMany bool) {
	w.t.Helper()
	from, to := w.month.Begin().Add(-12*time.Hour), w.month.End().Add(12*time.Hour)
	var plans []plan
	for i := range documents + documents/20 {
		plans = append(plans, w.plan(fmt.Sprintf("%s-%d", relay, i), i >= documents))
	}
	w.random.Shuffle(len(plans), func(i, j int) { plans[i], plans[j] = plans[j], plans[i] })
	if toMany {
		for i := range circulars {
			p := plan{sender: w.agencies[i], header: w.document(fmt.Sprint("circular-", i), w.agencies[i], 2)}
			for j := range circular {
				p.recipients = append(p.recipients, &agencyOf{routing.AgencyCode(fmt.Sprintf("H99.%0*d", routing.MaxCodeLength-4, i*circular+j)), "?", relay})
				p.outcomes = append(p.outcomes, envelope.Expired)
			}
			plans = slices.Insert(plans, len(plans)/2, p)
		}
	}
	// The clock runs through the month once, whatever is asked of it.
	step := to.Sub(from) / time.Duration(len(plans))
	var done atomic.Int64
	clock := func() time.Time { return from.Add(time.Duration(done.Load()) * step) }
	s, err := spool.Open(spool.Config{Dir: w.m.Data(string(relay), "spool"), Self: relay, Clock: clock})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	next := make(chan plan)
	var writing sync.WaitGroup
	for range 64 {
		writing.Go(func() {
			for p := range next {
				if err := w.accept(s, relay, clock, p); err != nil {
					w.t.Error(err)
				}
				done.Add(1)
			}
		})
	}
	for _, p := range plans {
		next <- p
	}
	close(next)
	writing.Wait()
	cancel()
	if err := <-ended; err != nil {
		w.t.Error(err)
	}
	if err := s.Close(); err != nil {
		w.t.Error(err)
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
}

func (w *writer) any() *agencyOf { return w.agencies[w.random.IntN(len(w.agencies))] }

func (w *writer) plan(id string, status bool) plan {
	p := plan{sender: w.any(), says: w.random.IntN(10) == 0}
	recipients := 1
	if status {
		p.header = &exchangev1.Header{Kind: exchangev1.Kind_KIND_STATUS, Sender: &exchangev1.Organization{Code: string(p.sender.code)}, DocumentId: id,
			Status: &exchangev1.Status{Code: "03"}}
	} else {
		p.header = w.document(id, p.sender, w.random.IntN(4))
		recipients += w.random.IntN(3)
	}
	for range recipients {
		a := w.any()
		if slices.Contains(p.recipients, a) {
			continue
		}
		p.recipients = append(p.recipients, a)
		outcome := envelope.Delivered
		if n := w.random.IntN(25); n < 4 {
			outcome = []envelope.Outcome{envelope.Pending, envelope.Expired, envelope.Refused, envelope.Recalled}[n]
		}
		p.outcomes = append(p.outcomes, outcome)
	}
	return p
}

func (w *writer) document(id string, sender *agencyOf, priority int) *exchangev1.Header {
	h := &exchangev1.Header{Kind: exchangev1.Kind_KIND_DOCUMENT, Sender: &exchangev1.Organization{Code: string(sender.code)}, DocumentId: id,
		Priority: exchangev1.Priority(priority), Document: &exchangev1.Document{Subject: "Báo cáo tháng", TypeName: "Thông tư"}}
	if kind := envelope.DocumentKind(w.random.IntN(envelope.DocumentKinds + 1)); kind > 0 {
		h.Document.TypeName = kind.Name()
	}
	switch w.random.IntN(4) {
	case 0:
	case 1:
		h.SignatureRaw = []byte("<Signature/>")
	default:
		day := w.month.Begin().Add(time.Duration(w.random.IntN(30*24)) * time.Hour)
		h.SignedAt = timestamppb.New(day)
	}
	return h
}

// accept writes one envelope and what becomes of it, and counts it.
func (w *writer) accept(s *spool.Spool, relay routing.RelayID, clock func() time.Time, p plan) error {
	ctx := context.Background()
	_, canonical, err := envelope.HeaderID(p.header)
	if err != nil {
		return err
	}
	a := envelope.Acceptance{Ingress: relay, AcceptedAt: clock(), ExpiresAt: time.Now().Add(90 * 24 * time.Hour), FromSender: true}
	onward := map[routing.RelayID][]routing.AgencyCode{}
	for _, r := range p.recipients {
		if r.home == relay {
			a.Inboxes = append(a.Inboxes, r.code)
		} else {
			onward[r.home] = append(onward[r.home], r.code)
		}
	}
	for home, codes := range onward {
		a.Onward = append(a.Onward, envelope.Onward{Relay: home, Agencies: codes})
	}
	custody, err := envelope.NewCustody(p.header, canonical, a)
	if err != nil {
		return err
	}
	in, err := s.Begin(ctx, custody)
	if err != nil {
		return err
	}
	defer in.Close()
	record, err := in.Commit(ctx)
	if err != nil {
		return err
	}
	var settled []envelope.Settlement
	for i, r := range p.recipients {
		one := envelope.Settlement{ID: custody.ID, Agency: r.code, Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL, At: clock()}
		switch p.outcomes[i] {
		case envelope.Pending:
			continue
		case envelope.Delivered:
			one.Transport = exchangev1.TransportStatus_TRANSPORT_STATUS_DONE
		case envelope.Expired:
			one.Reason = exchangev1.ErrorReason_ERROR_REASON_EXPIRED
		case envelope.Refused:
			one.Reason = exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED
		case envelope.Recalled:
			one.Reason = exchangev1.ErrorReason_ERROR_REASON_RECALLED
		}
		settled = append(settled, one)
	}
	if n, err := s.Settle(ctx, settled); err != nil || n != len(settled) {
		return fmt.Errorf("settle %s: %d of %d, %w", custody.ID, n, len(settled), err)
	}
	said := p.says && p.outcomes[0] == envelope.Delivered
	if said {
		if err := s.Say(ctx, envelope.Said{ID: custody.ID, Source: custody.ID, Agencies: []routing.AgencyCode{p.recipients[0].code},
			Statement: lifecycle.Statement{Act: lifecycle.SaysAccepted, Code: "03", At: clock(), Heard: clock()}}); err != nil {
			return err
		}
	}
	w.count(p, record, said)
	return nil
}
