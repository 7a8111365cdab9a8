package ingress_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2025, 10, 20, 5, 0, 0, 0, time.UTC)

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Names for the types of keys, shorter in tables.
type (
	routingCode  = routing.AgencyCode
	routingRelay = routing.RelayID
)

// mesh is two relays, bac and nam, over one directory, each with its ingress.
type mesh struct {
	t         *testing.T
	directory *routing.Directory
	clock     *clock
	relays    map[routing.RelayID]*node
	// adjust, where set, changes the configuration of relays that start.
	adjust func(*ingress.Config)
	// away is what the ledger says of what is asked for and not here.
	away error
}

type node struct {
	spool   *memory
	service *ingress.Service
	conn    *grpc.ClientConn
	agency  exchangev1.ExchangeServiceClient
	peer    relayv1.PeerServiceClient
	// accepting is what the relay says of itself.
	accepting error
}

// identityKey carries the identity that the test's calls are made with, in
// place of a certificate.
const identityKey = "test-identity"

func caller(ctx context.Context) (tls.Identity, bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get(identityKey)
	if len(values) != 1 {
		return tls.Identity{}, false
	}
	id, err := tls.ParseIdentity(values[0])
	return id, err == nil
}

// as makes calls as "agency/G22", "gateway/sss", "relay/bac", "operator/an".
func as(ctx context.Context, who string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, identityKey, "spiffe://truc.test/"+who)
}

func newMesh(t *testing.T, limits ingress.Limits) *mesh {
	t.Helper()
	m := newDirectory(t)
	for _, id := range []routing.RelayID{"bac", "nam"} {
		m.start(id, limits)
	}
	return m
}

// newMeshWithoutNetwork is bac alone, by the time of the test's bubble.
func newMeshWithoutNetwork(t *testing.T, adjust ...func(*ingress.Config)) *mesh {
	t.Helper()
	m := newDirectory(t)
	n := &node{spool: newMemory("bac", time.Now)}
	c := m.config("bac", n, ingress.Limits{})
	c.Clock = time.Now
	for _, change := range adjust {
		change(&c)
	}
	var err error
	if n.service, err = ingress.New(c); err != nil {
		t.Fatal(err)
	}
	m.relays["bac"] = n
	return m
}

func newDirectory(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{t: t, directory: routing.NewDirectory(), clock: &clock{now: noon}, relays: map[routing.RelayID]*node{}}
	for _, id := range []string{"bac", "nam"} {
		m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
			Relay: &directoryv1.Relay{Id: id, Region: id, Address: id + ":7400"}}}})
	}
	for _, a := range []*directoryv1.Agency{
		{Code: "G22", Aliases: []string{"000.00.00.G22"}, Name: "Văn phòng Chính phủ", Tier: 1, HomeRelayId: "bac"},
		{Code: "G09", Name: "Bộ Nội vụ", Tier: 1, HomeRelayId: "bac"},
		{Code: "H26", Name: "Thành phố Hà Nội", Tier: 2, HomeRelayId: "bac"},
		{Code: "H29", Name: "Thành phố Hồ Chí Minh", Tier: 2, HomeRelayId: "nam"},
		{Code: "H43", Name: "Đà Nẵng", Tier: 2, HomeRelayId: "nam"},
		{Code: "H60", Name: "Trà Vinh", Tier: 2, HomeRelayId: "nam"},
		{Code: "K01", Name: "Đơn vị ngoài", Tier: 1, HomeRelayId: "nam"},
	} {
		m.change(&directoryv1.Command{Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{Agency: a}}})
	}
	m.suspend("H60", true)
	m.gateway("sss", "G09", "H26")
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRule{PutRule: &directoryv1.PutRule{Rule: &directoryv1.Rule{
		Id: "no-outside", Effect: directoryv1.Effect_EFFECT_DENY, From: &directoryv1.Selector{}, To: &directoryv1.Selector{Code: "K01"}}}}})
	return m
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

func (m *mesh) gateway(id string, codes ...string) {
	m.t.Helper()
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutGateway{PutGateway: &directoryv1.PutGateway{
		Gateway: &directoryv1.Gateway{Id: id, AgencyCodes: codes}}}})
}

func (m *mesh) suspend(code string, suspended bool) {
	m.t.Helper()
	m.change(&directoryv1.Command{Change: &directoryv1.Command_SuspendAgency{
		SuspendAgency: &directoryv1.SuspendAgency{AgencyCode: code, Suspended: suspended}}})
}

func (m *mesh) move(code, home string) {
	m.t.Helper()
	m.change(&directoryv1.Command{Change: &directoryv1.Command_MoveAgency{
		MoveAgency: &directoryv1.MoveAgency{AgencyCode: code, HomeRelayId: home}}})
}

// Peer makes the mesh the way from one relay to the other.
type peersOf struct {
	mesh *mesh
	self routing.RelayID
}

func (p peersOf) Peer(relay routing.RelayID) (relayv1.PeerServiceClient, error) {
	n, ok := p.mesh.relays[relay]
	if !ok {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE, "no relay %s", relay)
	}
	return relayCaller{n.peer, p.self}, nil
}

func (p peersOf) Reachable(routing.RelayID) bool { return true }

// relayCaller makes calls as a relay.
type relayCaller struct {
	relayv1.PeerServiceClient
	self routing.RelayID
}

func (c relayCaller) ProxyReceive(ctx context.Context, in *relayv1.ProxyReceiveRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[relayv1.ProxyReceiveResponse], error) {
	return c.PeerServiceClient.ProxyReceive(as(ctx, "relay/"+string(c.self)), in, opts...)
}

func (c relayCaller) ProxyFetch(ctx context.Context, in *relayv1.ProxyFetchRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[relayv1.ProxyFetchResponse], error) {
	return c.PeerServiceClient.ProxyFetch(as(ctx, "relay/"+string(c.self)), in, opts...)
}

func (c relayCaller) ProxyConfirm(ctx context.Context, in *relayv1.ProxyConfirmRequest, opts ...grpc.CallOption) (*relayv1.ProxyConfirmResponse, error) {
	return c.PeerServiceClient.ProxyConfirm(as(ctx, "relay/"+string(c.self)), in, opts...)
}

// noLedger answers that it was asked.
type noLedger struct{ mesh *mesh }

func (noLedger) Track(_ context.Context, agency routing.AgencyCode, _ *exchangev1.TrackRequest) (*exchangev1.TrackResponse, error) {
	return &exchangev1.TrackResponse{SilentRelayIds: []string{string(agency)}}, nil
}

func (noLedger) Judge(context.Context, routing.AgencyCode, *exchangev1.Header) (envelope.Judgement, error) {
	return envelope.Judgement{Hear: func(context.Context, *envelope.Record) error { return nil }}, nil
}

func (noLedger) Confirmed(_ context.Context, _ routing.AgencyCode, ids []envelope.ID) (takenBack []envelope.ID, err error) {
	return nil, nil
}

func (n noLedger) Away(context.Context, routing.AgencyCode, envelope.ID) error { return n.mesh.away }

// proxySide serves the part of PeerService that ingress has.
type proxySide struct {
	relayv1.UnimplementedPeerServiceServer
	*ingress.Service
	spool *memory
}

// Read sends all of a part in small pieces, as forward does in large ones.
func (p proxySide) Read(r *relayv1.ReadRequest, s grpc.ServerStreamingServer[relayv1.ReadResponse]) error {
	content, err := p.spool.Content(envelope.ID(r.GetEnvelopeId()), int(r.GetPart()), r.GetOffset())
	if err != nil {
		return err
	}
	for offset := r.GetOffset(); offset < r.GetOffset()+r.GetLength(); offset++ {
		piece := make([]byte, 1)
		if _, err := io.ReadFull(content, piece); err != nil {
			return err
		}
		if err := s.Send(&relayv1.ReadResponse{Offset: offset, Data: piece}); err != nil {
			return err
		}
	}
	return nil
}

func (p proxySide) ProxyReceive(r *relayv1.ProxyReceiveRequest, s grpc.ServerStreamingServer[relayv1.ProxyReceiveResponse]) error {
	return p.Service.ProxyReceive(r, s)
}

func (p proxySide) ProxyFetch(r *relayv1.ProxyFetchRequest, s grpc.ServerStreamingServer[relayv1.ProxyFetchResponse]) error {
	return p.Service.ProxyFetch(r, s)
}

func (p proxySide) ProxyConfirm(ctx context.Context, r *relayv1.ProxyConfirmRequest) (*relayv1.ProxyConfirmResponse, error) {
	return p.Service.ProxyConfirm(ctx, r)
}

func (m *mesh) config(id routing.RelayID, n *node, limits ingress.Limits) ingress.Config {
	return ingress.Config{
		Self: id, Region: string(id), Address: string(id) + ":7400", TrustDomain: "truc.test",
		Spool: n.spool, Inboxes: n.spool, Copies: n.spool, Usage: n.spool, Directory: m.directory, Peers: peersOf{m, id}, Ledger: noLedger{m},
		Accepting: func() error { return n.accepting },
		Caller:    caller, Limits: limits, Clock: m.clock.Now,
		CopyWait: time.Millisecond, // nobody makes one, but in tests of it
	}
}

func (m *mesh) start(id routing.RelayID, limits ingress.Limits) {
	m.t.Helper()
	n := &node{spool: newMemory(id, m.clock.Now)}
	var err error
	c := m.config(id, n, limits)
	if m.adjust != nil {
		m.adjust(&c)
	}
	if n.service, err = ingress.New(c); err != nil {
		m.t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(8 << 20))
	exchangev1.RegisterExchangeServiceServer(server, n.service)
	relayv1.RegisterPeerServiceServer(server, proxySide{Service: n.service, spool: n.spool})
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) })
	n.conn, err = grpc.NewClient("passthrough:///relay", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		m.t.Fatal(err)
	}
	n.agency, n.peer = exchangev1.NewExchangeServiceClient(n.conn), relayv1.NewPeerServiceClient(n.conn)
	m.relays[id] = n
	m.t.Cleanup(func() {
		n.conn.Close()
		server.Stop()
		serving.Wait()
	})
}

// document is a header for files, to recipients; "@name" is a group.
func document(sender, id string, files []string, to ...string) *exchangev1.Header {
	h := &exchangev1.Header{
		Kind: exchangev1.Kind_KIND_DOCUMENT, Sender: &exchangev1.Organization{Code: sender}, DocumentId: id,
		Document: &exchangev1.Document{Subject: "V/v thử nghiệm"},
	}
	for _, r := range to {
		recipient := &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: r}}}
		if r[0] == '@' {
			recipient.To = &exchangev1.Recipient_Group{Group: r[1:]}
		}
		h.Recipients = append(h.Recipients, recipient)
	}
	for i, content := range files {
		sum := sha256.Sum256([]byte(content))
		h.Parts = append(h.Parts, &exchangev1.Part{Name: fmt.Sprintf("file%d.pdf", i), MediaType: "application/pdf", Size: uint64(len(content)), Sha256: sum[:]})
	}
	return h
}

// send submits a header with its files and returns the answer.
func (m *mesh) send(relay routing.RelayID, who string, h *exchangev1.Header, files ...string) (*exchangev1.SubmitAccepted, error) {
	m.t.Helper()
	return m.sendMessages(relay, who, startOf(h), func(resume *exchangev1.SubmitResume) []*exchangev1.SubmitRequest {
		var messages []*exchangev1.SubmitRequest
		for i, content := range files {
			if offset := resume.GetOffsets()[i]; offset < uint64(len(content)) {
				messages = append(messages, chunk(i, offset, content[offset:]))
			}
		}
		return append(messages, commit())
	})
}

// sendMessages opens a submit, and sends what more says to the answer.
func (m *mesh) sendMessages(relay routing.RelayID, who string, start *exchangev1.SubmitRequest, more func(*exchangev1.SubmitResume) []*exchangev1.SubmitRequest) (*exchangev1.SubmitAccepted, error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(as(m.t.Context(), who), 10*time.Second)
	defer cancel()
	stream, err := m.relays[relay].agency.Submit(ctx)
	if err != nil {
		return nil, err
	}
	// The relay may end the call at any message; what it said is read below.
	stream.Send(start)
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if answer.GetAccepted() != nil {
		return answer.GetAccepted(), nil
	}
	for _, message := range more(answer.GetResume()) {
		if stream.Send(message) != nil {
			break
		}
	}
	stream.CloseSend()
	if answer, err = stream.Recv(); err != nil {
		return nil, err
	}
	if _, err := stream.Recv(); err != io.EOF {
		m.t.Errorf("after accepted: got %v, want the end", err)
	}
	return answer.GetAccepted(), nil
}

func startOf(h *exchangev1.Header) *exchangev1.SubmitRequest {
	return &exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Start{Start: &exchangev1.SubmitStart{Header: h}}}
}

func chunk(part int, offset uint64, data string) *exchangev1.SubmitRequest {
	return &exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Chunk{
		Chunk: &exchangev1.Chunk{Part: uint32(part), Offset: offset, Data: []byte(data)}}}
}

func commit() *exchangev1.SubmitRequest {
	return &exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Commit{Commit: &exchangev1.SubmitCommit{}}}
}

// mustSend is send where it has to work.
func (m *mesh) mustSend(relay routing.RelayID, who string, h *exchangev1.Header, files ...string) *exchangev1.SubmitAccepted {
	m.t.Helper()
	accepted, err := m.send(relay, who, h, files...)
	if err != nil {
		m.t.Fatalf("submit at %s as %s: %v", relay, who, err)
	}
	return accepted
}
