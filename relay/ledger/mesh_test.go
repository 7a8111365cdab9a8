package ledger_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ledger"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2025, 10, 20, 5, 0, 0, 0, time.UTC)

const (
	initial    = exchangev1.TransportStatus_TRANSPORT_STATUS_INITIAL
	processing = exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING
	done       = exchangev1.TransportStatus_TRANSPORT_STATUS_DONE
	fail       = exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL
)

// memory is what one relay holds.
type memory struct {
	records map[envelope.ID]*envelope.Record
	events  map[envelope.ID][]envelope.Event
	settled []envelope.Settlement
	said    []envelope.Said
	reports []*envelope.Custody
	// slow is how long what is said takes to be durable.
	slow time.Duration
}

func (m *memory) Say(_ context.Context, said envelope.Said) error {
	time.Sleep(m.slow)
	m.said = append(m.said, said)
	for i := range m.records[said.ID].Deliveries {
		if d := &m.records[said.ID].Deliveries[i]; slices.Contains(said.Agencies, d.Agency) {
			if d.Life = d.Life.Clone(); d.Life == nil {
				d.Life = new(lifecycle.Life)
			}
			d.Life.Hear(lifecycle.Heard{Statement: said.Statement, Source: said.Source})
		}
	}
	return nil
}

func (m *memory) report(_ context.Context, report *envelope.Custody) error {
	m.reports = append(m.reports, report)
	return nil
}

func (m *memory) Record(id envelope.ID) (*envelope.Record, error) {
	if r, ok := m.records[id]; ok {
		return r, nil
	}
	return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "no envelope %s", id)
}

func (m *memory) ByDocument(sender routing.AgencyCode, documentID string) (envelope.ID, bool, error) {
	for id, r := range m.records {
		if r.Sender == sender && r.DocumentID == documentID {
			return id, true, nil
		}
	}
	return envelope.ID{}, false, nil
}

func (m *memory) Events(id envelope.ID) ([]envelope.Event, error) { return m.events[id], nil }

func (m *memory) Settle(_ context.Context, batch []envelope.Settlement) (int, error) {
	settled := 0
	for _, s := range batch {
		for i := range m.records[s.ID].Deliveries {
			if d := &m.records[s.ID].Deliveries[i]; d.Agency == s.Agency && d.Transport != done {
				d.Place, d.Transport, d.Reason, d.UpdatedAt = envelope.Settled, s.Transport, s.Reason, s.At
				m.settled = append(m.settled, s)
				settled++
			}
		}
	}
	return settled, nil
}

// mesh is relays bac, trung and nam, each with its ledger.
type mesh struct {
	t         *testing.T
	directory *routing.Directory
	spools    map[routing.RelayID]*memory
	ledgers   map[routing.RelayID]*ledger.Ledger
	// now is zero where it does not matter.
	now time.Time
	// silent relays never answer.
	silent map[routing.RelayID]bool
	// lies are answers in place of those of the ledger.
	lies map[routing.RelayID]*relayv1.InquireResponse
	// onReconcile, if not nil, is told of every question before its answer.
	onReconcile func(routing.RelayID, *relayv1.ReconcileRequest)
	// metrics reads what the ledgers count.
	metrics *metric.ManualReader
}

// Peer is the way from any relay to another.
func (m *mesh) Peer(relay routing.RelayID) (relayv1.PeerServiceClient, error) {
	return peer{mesh: m, relay: relay}, nil
}

type peer struct {
	relayv1.PeerServiceClient
	mesh  *mesh
	relay routing.RelayID
}

func (p peer) Inquire(ctx context.Context, req *relayv1.InquireRequest, _ ...grpc.CallOption) (*relayv1.InquireResponse, error) {
	if p.mesh.silent[p.relay] {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if lie := p.mesh.lies[p.relay]; lie != nil {
		return lie, nil
	}
	return p.mesh.ledgers[p.relay].Inquire(ctx, req)
}

func (p peer) Reconcile(ctx context.Context, req *relayv1.ReconcileRequest, _ ...grpc.CallOption) (*relayv1.ReconcileResponse, error) {
	if p.mesh.silent[p.relay] {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if p.mesh.onReconcile != nil {
		p.mesh.onReconcile(p.relay, req)
	}
	return p.mesh.ledgers[p.relay].Reconcile(ctx, req)
}

func (p peer) Account(ctx context.Context, req *relayv1.AccountRequest, _ ...grpc.CallOption) (*relayv1.AccountResponse, error) {
	if p.mesh.silent[p.relay] {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return p.mesh.ledgers[p.relay].Account(ctx, books{memory: p.mesh.spools[p.relay]}, req)
}

func (p peer) Count(ctx context.Context, req *relayv1.CountRequest, _ ...grpc.CallOption) (*relayv1.CountResponse, error) {
	if p.mesh.silent[p.relay] {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return p.mesh.ledgers[p.relay].Count(ctx, books{memory: p.mesh.spools[p.relay]}, req)
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{t: t, directory: routing.NewDirectory(), spools: map[routing.RelayID]*memory{},
		ledgers: map[routing.RelayID]*ledger.Ledger{}, silent: map[routing.RelayID]bool{}, metrics: metric.NewManualReader()}
	meter := metric.NewMeterProvider(metric.WithReader(m.metrics)).Meter("")
	for _, id := range []routing.RelayID{"bac", "trung", "nam"} {
		m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
			Relay: &directoryv1.Relay{Id: string(id), Region: string(id), Address: string(id) + ":7400"}}}})
		m.spools[id] = &memory{records: map[envelope.ID]*envelope.Record{}, events: map[envelope.ID][]envelope.Event{}}
		var err error
		if m.ledgers[id], err = ledger.New(ledger.Config{Self: id, Spool: m.spools[id], Directory: m.directory, Peers: m, Report: m.spools[id].report, Clock: m.clock, Meter: meter}); err != nil {
			t.Fatal(err)
		}
	}
	for code, home := range map[string]string{"G22": "bac", "H26": "trung", "H29": "nam", "H43": "nam"} {
		m.change(&directoryv1.Command{Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{
			Agency: &directoryv1.Agency{Code: code, Name: code, Tier: 1, HomeRelayId: home}}}})
	}
	return m
}

// clock is that of all ledgers: now, or what a test says.
func (m *mesh) clock() time.Time {
	if m.now.IsZero() {
		return time.Now()
	}
	return m.now
}

func (m *mesh) change(c *directoryv1.Command) {
	m.t.Helper()
	c.Version, c.Actor, c.At = routing.CommandVersion, "spiffe://truc.test/operator/an", timestamppb.New(noon)
	encoded, err := proto.Marshal(c)
	if err != nil {
		m.t.Fatal(err)
	}
	answer, err := m.directory.Apply(encoded)
	if err != nil {
		m.t.Fatal(err)
	}
	result := new(directoryv1.CommandResult)
	if err := proto.Unmarshal(answer, result); err != nil || result.GetReason() != 0 {
		m.t.Fatalf("change %v: %v %v", c, err, result)
	}
}

// waiting gives the envelope at bac a duty that is still open.
func (m *mesh) waiting(duty envelope.Onward) {
	for _, r := range m.spools["bac"].records {
		r.Onward = append(r.Onward, duty)
	}
}

// travel puts a document of G22 to H26, H29 and H43 where it would be: accepted
// at bac, passed by trung to nam, confirmed by H43, not by H29.
func (m *mesh) travel() envelope.ID {
	m.t.Helper()
	h := &exchangev1.Header{Kind: exchangev1.Kind_KIND_DOCUMENT, Sender: &exchangev1.Organization{Code: "G22"}, DocumentId: "2025/1",
		Parts: []*exchangev1.Part{{Name: "Nguyễn Văn A.pdf", Size: 3, Sha256: make([]byte, 32), Description: "của ông A"}}}
	id, canonical, err := envelope.HeaderID(h)
	if err != nil {
		m.t.Fatal(err)
	}
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	put := func(relay routing.RelayID, fromSender bool, minutes int, deliveries ...envelope.Delivery) {
		c, err := envelope.NewCustody(h, canonical, envelope.Acceptance{Ingress: "bac", AcceptedAt: noon, FromSender: fromSender})
		if err != nil {
			m.t.Fatal(err)
		}
		m.spools[relay].records[id] = &envelope.Record{Custody: *c, CommittedAt: at(minutes), Deliveries: deliveries, Copies: 1}
	}
	put("bac", true, 0,
		envelope.Delivery{Agency: "H26", Home: "trung", Transport: initial, UpdatedAt: at(0)},
		envelope.Delivery{Agency: "H29", Home: "nam", Transport: initial, UpdatedAt: at(0)},
		envelope.Delivery{Agency: "H43", Home: "nam", Transport: initial, UpdatedAt: at(9)})
	put("trung", false, 1, envelope.Delivery{Agency: "H26", Home: "trung", Transport: processing, UpdatedAt: at(1)})
	put("nam", false, 2,
		envelope.Delivery{Agency: "H29", Home: "nam", Transport: processing, UpdatedAt: at(2)},
		envelope.Delivery{Agency: "H43", Home: "nam", Transport: done, UpdatedAt: at(3)})
	m.spools["trung"].records[id].ContentReleased = true
	m.spools["bac"].events[id] = []envelope.Event{{At: at(0), Action: exchangev1.TraceAction_TRACE_ACTION_ACCEPTED}, {At: at(1), Action: exchangev1.TraceAction_TRACE_ACTION_HANDED_ON, Peer: "trung"}}
	m.spools["trung"].events[id] = []envelope.Event{{At: at(1), Action: exchangev1.TraceAction_TRACE_ACTION_TAKEN, Peer: "bac"}}
	m.spools["nam"].events[id] = []envelope.Event{{At: at(2), Action: exchangev1.TraceAction_TRACE_ACTION_ARRIVED}, {At: at(3), Action: exchangev1.TraceAction_TRACE_ACTION_CONFIRMED, Agency: "H43"}}
	return id
}
