package relay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// custody is the operator's service of a relay.
func (m *mesh) custody(id string) adminv1.CustodyServiceClient {
	m.t.Helper()
	return adminv1.NewCustodyServiceClient(m.dial(id, tls.KindOperator, "an"))
}

func entriesOf(t *testing.T, ctx context.Context, c adminv1.CustodyServiceClient, req *adminv1.ListQueueRequest) (entries []*adminv1.QueueEntry) {
	t.Helper()
	stream, err := c.ListQueue(ctx, req)
	for err == nil {
		var r *adminv1.ListQueueResponse
		if r, err = stream.Recv(); err == nil {
			entries = append(entries, r.GetEntry())
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return entries
}

// filled puts n envelopes for each destination and inbox into the spool of a
// relay that does not run.
func (m *mesh) filled(id string, n int, relays []routing.RelayID, inboxes []routing.AgencyCode) {
	m.t.Helper()
	s, err := spool.Open(spool.Config{Dir: m.dir + "/spool-" + id, Self: routing.RelayID(id)})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(m.t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	var putting errgroup.Group
	putting.SetLimit(32) // so that many share a sync
	put := func(name string, priority exchangev1.Priority, change func(*envelope.Custody)) error {
		h := document("K01", name, "")
		h.Parts, h.Priority = nil, priority
		_, canonical, err := envelope.HeaderID(h)
		if err != nil {
			return err
		}
		c, err := envelope.NewCustody(h, canonical, envelope.Acceptance{Ingress: routing.RelayID(id), AcceptedAt: time.Now(), FromSender: true})
		if err != nil {
			return err
		}
		change(c)
		in, err := s.Begin(ctx, c)
		if err != nil {
			return err
		}
		_, err = in.Commit(ctx)
		return errors.Join(err, in.Close())
	}
	for i := range n {
		priority := exchangev1.Priority(i % 4)
		for _, relay := range relays {
			putting.Go(func() error {
				return put(fmt.Sprint("to ", relay, i), priority, func(c *envelope.Custody) {
					c.Onward = []envelope.Onward{{Relay: relay, Agencies: []routing.AgencyCode{"H43"}}}
				})
			})
		}
		for _, agency := range inboxes {
			putting.Go(func() error {
				return put(fmt.Sprint("in ", agency, i), priority, func(c *envelope.Custody) { c.Inboxes = []routing.AgencyCode{agency} })
			})
		}
	}
	failed := putting.Wait()
	stop()
	if err := errors.Join(failed, <-ran, s.Close()); err != nil {
		m.t.Fatal(err)
	}
}

// A long queue is listed whole and counted whole, in pages; of many inboxes the
// fullest have a row each, and none is left out of the count.
func TestQueueIsListedAndCounted(t *testing.T) {
	m := newMesh(t)
	const each, inboxes = 2, 250
	var codes []routing.AgencyCode
	for i := range inboxes {
		codes = append(codes, routing.AgencyCode(fmt.Sprintf("H26.%d", i)))
	}
	m.filled("bac", 600, []routing.RelayID{"nam"}, nil)
	m.filled("bac", each, nil, codes)
	m.start("bac", nil)
	m.serving("bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := m.custody("bac")

	all := entriesOf(t, ctx, c, &adminv1.ListQueueRequest{Limit: 1 << 30})
	if len(all) != 600+each*inboxes {
		t.Errorf("listed %d entries, want %d", len(all), 600+each*inboxes)
	}
	seen := make(map[string]bool)
	for _, e := range all {
		key := fmt.Sprintf("%x %s %s", e.GetEnvelopeId(), e.GetRelayId(), e.GetAgencyCode())
		if seen[key] || e.GetAtRelayId() != "bac" || (e.GetRelayId() == "") == (e.GetAgencyCode() == "") {
			t.Fatalf("entry %v comes twice, or for nobody", e)
		}
		seen[key] = true
	}
	for name, test := range map[string]struct {
		req  *adminv1.ListQueueRequest
		want int
	}{
		"most by default": {&adminv1.ListQueueRequest{}, 1_000},
		"a limit":         {&adminv1.ListQueueRequest{Limit: 7}, 7},
		"one destination": {&adminv1.ListQueueRequest{RelayId: "nam"}, 600},
		"another":         {&adminv1.ListQueueRequest{RelayId: "trung"}, 0},
		"one inbox":       {&adminv1.ListQueueRequest{AgencyCode: "H26.7"}, each},
		"late":            {&adminv1.ListQueueRequest{Late: true}, 0},
		"held":            {&adminv1.ListQueueRequest{Held: true}, 0},
		"given up":        {&adminv1.ListQueueRequest{Expired: true}, 0},
		"one envelope":    {&adminv1.ListQueueRequest{EnvelopeId: all[3].GetEnvelopeId()}, 1},
	} {
		if got := entriesOf(t, ctx, c, test.req); len(got) != test.want {
			t.Errorf("%s: %d entries, want %d", name, len(got), test.want)
		}
	}
	// The urgent lanes of a queue come first.
	queue := entriesOf(t, ctx, c, &adminv1.ListQueueRequest{RelayId: "nam"})
	if !slices.IsSortedFunc(queue, func(a, b *adminv1.QueueEntry) int { return int(b.GetPriority()) - int(a.GetPriority()) }) {
		t.Error("the queue is not listed in the order of its lanes")
	}

	shape, err := c.ShapeQueue(ctx, &adminv1.ShapeQueueRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var total uint64
	for _, row := range shape.GetRows() {
		if len(row.GetCounts()) != len(shape.GetAges())+1 {
			t.Fatalf("row %v has not as many columns as ages and one", row)
		}
		for _, n := range row.GetCounts() {
			total += n
		}
	}
	first, rest := shape.GetRows()[0], shape.GetRows()[1]
	if len(shape.GetRows()) != 102 || total != 600+each*inboxes || first.GetRelayId() != "nam" ||
		rest.GetRelayId() != "" || rest.GetAgencyCode() != "" || rest.GetCounts()[0] != each*(inboxes-100) {
		t.Errorf("%d rows over %d entries, first %v, then %v; want nam, the 150 other inboxes together, and 100 more", len(shape.GetRows()), total, first, rest)
	}
}

// What is late is listed as such: each lane has its own measure.
func TestQueueTellsWhatIsLate(t *testing.T) {
	m := newMesh(t)
	m.filled("bac", 4, []routing.RelayID{"nam"}, []routing.AgencyCode{"G22"})
	var ahead atomic.Int64
	m.start("bac", func(c *relay.Config) {
		c.Clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	m.serving("bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := m.custody("bac")
	for wait, want := range map[time.Duration]int{30 * time.Second: 0, 2 * time.Minute: 2, 6 * time.Minute: 4, 2 * time.Hour: 6, 25 * time.Hour: 8} {
		ahead.Store(int64(wait))
		if got := entriesOf(t, ctx, c, &adminv1.ListQueueRequest{Late: true}); len(got) != want {
			t.Errorf("%d are late after %s, want %d", len(got), wait, want)
		}
	}
}

// An upload that is under way when a relay begins to drain may end, and the
// relay is not done before.
func TestDrainWaitsForUploads(t *testing.T) {
	m := newMesh(t)
	hurried := func(c *relay.Config) { c.Forward.Rescan = 100 * time.Millisecond }
	m.start("bac", hurried)
	m.start("nam", hurried)
	m.serving("bac", "nam")
	m.putAgency("G22", "bac")
	m.putAgency("H43", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const content = "nội dung"
	upload, err := m.agency("bac", "G22").Submit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	upload.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Start{
		Start: &exchangev1.SubmitStart{Header: document("G22", "1", content, "H43")}}})
	if answer, err := upload.Recv(); err != nil || answer.GetResume() == nil {
		t.Fatalf("start: %v, %v", answer, err)
	}
	if stream, err := m.custody("bac").Drain(ctx, &adminv1.DrainRequest{RelayId: "bac"}); err == nil {
		if _, err = stream.Recv(); !has(err, exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE) {
			t.Errorf("a relay that is active: %v", err)
		}
	}
	m.change(&directoryv1.Command{Change: &directoryv1.Command_SetRelayState{SetRelayState: &directoryv1.SetRelayState{
		RelayId: "bac", State: directoryv1.RelayState_RELAY_STATE_DRAINING, MoveAgencies: true}}})

	drain, err := m.custody("bac").Drain(ctx, &adminv1.DrainRequest{RelayId: "bac"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if r, err := drain.Recv(); err != nil || r.GetDone() || r.GetRemaining() == 0 {
			t.Fatalf("with an upload under way: %v, %v", r, err)
		}
	}
	upload.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Chunk{Chunk: &exchangev1.Chunk{Data: []byte(content)}}})
	upload.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Commit{Commit: &exchangev1.SubmitCommit{}}})
	if answer, err := upload.Recv(); err != nil || answer.GetAccepted() == nil {
		t.Fatalf("the upload that was under way: %v, %v", answer, err)
	}
	var last *adminv1.DrainResponse
	for !last.GetDone() {
		if last, err = drain.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	statement, identity, err := m.relays["nam"].endpoint.VerifySigned(last.GetStatement(), m.relays["nam"].endpoint.ExpectPeer("bac"))
	if err != nil || identity.Name != "bac" || len(statement.Content) == 0 {
		t.Errorf("statement: %v, %s, %v", statement, identity, err)
	}
	if entries := entriesOf(t, ctx, m.custody("bac"), &adminv1.ListQueueRequest{}); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
	if _, _, err := receiveOne(ctx, m.agency("nam", "H43")); err != nil {
		t.Errorf("at the new home: %v", err)
	}
	if stream, err := m.custody("nam").Drain(ctx, &adminv1.DrainRequest{RelayId: "bac"}); err == nil {
		if _, err = stream.Recv(); !has(err, exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD) {
			t.Errorf("asked of another relay: %v", err)
		}
	}
}
