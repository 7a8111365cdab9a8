package relay_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 90 * time.Second

// sharedDirectory is one directory for all relays of a test, without Raft.
type sharedDirectory struct {
	*routing.Directory

	mu         sync.Mutex
	leaderless bool
	applied    map[[16]byte]*directoryv1.CommandResult
	commands   []*directoryv1.Command
}

func newSharedDirectory() *sharedDirectory {
	return &sharedDirectory{Directory: routing.NewDirectory(), applied: map[[16]byte]*directoryv1.CommandResult{}}
}

func (d *sharedDirectory) Propose(_ context.Context, id [16]byte, c *directoryv1.Command) (relay.Proposed, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leaderless {
		return relay.Proposed{}, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_LEADER, "no leader")
	}
	if result, ok := d.applied[id]; ok {
		return relay.Proposed{Result: result, Repeat: true}, nil
	}
	encoded, err := proto.Marshal(c)
	if err != nil {
		return relay.Proposed{}, err
	}
	answer, err := d.Apply(encoded)
	if err != nil {
		return relay.Proposed{}, err
	}
	result := new(directoryv1.CommandResult)
	if err := proto.Unmarshal(answer, result); err != nil {
		return relay.Proposed{}, err
	}
	d.applied[id], d.commands = result, append(d.commands, c)
	return relay.Proposed{Index: result.GetVersion(), Result: result}, nil
}

func (d *sharedDirectory) ReadBarrier(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leaderless {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_LEADER, "no leader")
	}
	return nil
}

func (d *sharedDirectory) leader(is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaderless = !is
}

// mesh is some relays on the loopback, with their own authority.
type mesh struct {
	t         *testing.T
	dir       string
	authority *pki.Authority
	directory *sharedDirectory
	relays    map[string]*node
	// believed are further authorities in trust files.
	believed []byte
}

type node struct {
	id       string
	address  string
	http     string
	endpoint *tls.Endpoint
	// stop ends Run and returns what it returned.
	stop func() error
	// ended is closed when Run returned.
	ended chan struct{}
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{t: t, dir: t.TempDir(), directory: newSharedDirectory(), relays: map[string]*node{}}
	var err error
	if m.authority, err = pki.Create(filepath.Join(m.dir, "ca"), "truc.test"); err != nil {
		t.Fatal(err)
	}
	return m
}

// files issues a certificate and returns the configuration that uses it.
func (m *mesh) files(kind tls.Kind, name string) tls.Config {
	m.t.Helper()
	return m.filesBy(m.authority, kind, name)
}

func (m *mesh) filesBy(authority *pki.Authority, kind tls.Kind, name string) tls.Config {
	m.t.Helper()
	certificate, key, err := authority.Issue(pki.Request{Kind: kind, Name: name})
	if err != nil {
		m.t.Fatal(err)
	}
	base := filepath.Join(m.dir, kind.String()+"-"+name+"-"+authority.TrustDomain())
	c := tls.Config{CertificateFile: base + ".crt", KeyFile: base + ".key", TrustFile: base + ".trust"}
	if err := pki.WriteFiles(c.CertificateFile, certificate, c.KeyFile, key); err != nil {
		m.t.Fatal(err)
	}
	if err := pki.WriteFile(c.TrustFile, append(m.authority.RootPEM(), m.believed...), 0o644); err != nil {
		m.t.Fatal(err)
	}
	return c
}

// start runs a relay; adjust may change its configuration first.
func (m *mesh) start(id string, adjust func(*relay.Config)) *node {
	m.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	return m.startAt(listener, id, adjust)
}

// startAt runs a relay that listens there.
func (m *mesh) startAt(listener net.Listener, id string, adjust func(*relay.Config)) *node {
	m.t.Helper()
	files := m.files(tls.KindRelay, id)
	files.Trust = relay.NewTrust(m.directory.View)
	endpoint, err := tls.New(files)
	if err != nil {
		m.t.Fatal(err)
	}
	httpListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	mux := endpoint.Mux(listener)
	n := &node{id: id, address: listener.Addr().String(), http: "http://" + httpListener.Addr().String(), endpoint: endpoint, ended: make(chan struct{})}
	c := relay.Config{
		ID: routing.RelayID(id), Region: id, Address: n.address, Version: "test",
		Directory: m.directory, Endpoint: endpoint, Listener: mux.GRPC(), HTTPListener: httpListener,
		Spool:  spool.Config{Dir: filepath.Join(m.dir, "spool-"+id)},
		Logger: slog.New(slog.NewTextHandler(m.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})).With("relay", id),
	}
	if adjust != nil {
		adjust(&c)
	}
	r, err := relay.New(c)
	if err != nil {
		m.t.Fatal(err)
	}
	relayCtx, stopRelay := context.WithCancel(context.Background())
	muxCtx, stopMux := context.WithCancel(context.Background())
	var running sync.WaitGroup
	var failure error
	running.Go(func() {
		defer close(n.ended)
		failure = r.Run(relayCtx)
	})
	running.Go(func() { mux.Run(muxCtx) })
	n.stop = sync.OnceValue(func() error {
		stopRelay()
		<-n.ended
		stopMux()
		running.Wait()
		return failure
	})
	m.t.Cleanup(func() { n.stop() })
	m.relays[id] = n
	return n
}

// serving waits until the relay says that it serves.
func (m *mesh) serving(relays ...string) {
	m.t.Helper()
	for _, id := range relays {
		m.awaitHealth(id, healthv1.HealthCheckResponse_SERVING)
	}
}

func (m *mesh) awaitHealth(id string, want healthv1.HealthCheckResponse_ServingStatus) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	watch, err := healthv1.NewHealthClient(m.dial(id, tls.KindOperator, "watcher")).Watch(ctx, &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		m.t.Fatal(err)
	}
	for {
		status, err := watch.Recv()
		if err != nil {
			m.t.Fatalf("relay %s: wait for %s: %v", id, want, err)
		}
		if status.GetStatus() == want {
			return
		}
	}
}

// dial connects to a relay as somebody.
func (m *mesh) dial(id string, kind tls.Kind, name string) *grpc.ClientConn {
	m.t.Helper()
	return m.dialWith(id, m.files(kind, name))
}

func (m *mesh) dialWith(id string, files tls.Config) *grpc.ClientConn {
	m.t.Helper()
	endpoint, err := tls.New(files)
	if err != nil {
		m.t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+m.relays[id].address,
		grpc.WithTransportCredentials(endpoint.ClientCredentials(tls.ExpectRelay(id))))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { conn.Close() })
	return conn
}

func (m *mesh) agency(id, code string) exchangev1.ExchangeServiceClient {
	m.t.Helper()
	return exchangev1.NewExchangeServiceClient(m.dial(id, tls.KindAgency, code))
}

// change applies a command.
func (m *mesh) change(c *directoryv1.Command) {
	m.t.Helper()
	c.Version, c.Actor, c.At = routing.CommandVersion, "spiffe://truc.test/operator/an", timestamppb.Now()
	proposed, err := m.directory.Propose(m.t.Context(), uuid.New(), c)
	if err != nil || proposed.Result.GetReason() != 0 {
		m.t.Fatalf("change %v: %v %v", c, err, proposed)
	}
}

func (m *mesh) putAgency(code, home string) {
	m.t.Helper()
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{
		Agency: &directoryv1.Agency{Code: code, Name: code, Tier: 1, HomeRelayId: home}}}})
}

func (m *mesh) suspend(code string, suspended bool) {
	m.t.Helper()
	m.change(&directoryv1.Command{Change: &directoryv1.Command_SuspendAgency{
		SuspendAgency: &directoryv1.SuspendAgency{AgencyCode: code, Suspended: suspended}}})
}

// readyz returns what the relay says of itself.
func (m *mesh) readyz(id string) (ready bool, reasons []string) {
	m.t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(m.relays[id].http + "/readyz")
	if err != nil {
		m.t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct {
		Ready   bool     `json:"ready"`
		Reasons []string `json:"reasons"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		m.t.Fatal(err)
	}
	if want := map[bool]int{true: http.StatusOK, false: http.StatusServiceUnavailable}[answer.Ready]; response.StatusCode != want {
		m.t.Errorf("readyz of %s: code %d, want %d", id, response.StatusCode, want)
	}
	return answer.Ready, answer.Reasons
}

// document is a header for one file.
func document(sender, id, content string, to ...string) *exchangev1.Header {
	sum := sha256.Sum256([]byte(content))
	h := &exchangev1.Header{
		Kind: exchangev1.Kind_KIND_DOCUMENT, Sender: &exchangev1.Organization{Code: sender}, DocumentId: id,
		Document: &exchangev1.Document{Subject: "V/v thử nghiệm"},
		Parts:    []*exchangev1.Part{{Name: "van-ban.pdf", MediaType: "application/pdf", Size: uint64(len(content)), Sha256: sum[:]}},
	}
	for _, r := range to {
		h.Recipients = append(h.Recipients, &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: r}}})
	}
	return h
}

// submit hands a document over.
func submit(ctx context.Context, client exchangev1.ExchangeServiceClient, h *exchangev1.Header, content string) (*exchangev1.SubmitAccepted, error) {
	stream, err := client.Submit(ctx)
	if err != nil {
		return nil, err
	}
	stream.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Start{Start: &exchangev1.SubmitStart{Header: h}}})
	answer, err := stream.Recv()
	if err != nil || answer.GetAccepted() != nil {
		return answer.GetAccepted(), err
	}
	offset := 0
	if have := answer.GetResume().GetOffsets(); len(have) > 0 {
		offset = int(have[0])
	}
	for offset < len(content) {
		n := min(1<<20, len(content)-offset)
		stream.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Chunk{
			Chunk: &exchangev1.Chunk{Offset: uint64(offset), Data: []byte(content[offset : offset+n])}}})
		offset += n
	}
	stream.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Commit{Commit: &exchangev1.SubmitCommit{}}})
	if answer, err = stream.Recv(); err != nil {
		return nil, err
	}
	return answer.GetAccepted(), nil
}

// receiveOne waits for one arrival, fetches and confirms it.
func receiveOne(ctx context.Context, client exchangev1.ExchangeServiceClient) (*exchangev1.ReceiveResponse, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Receive(ctx, &exchangev1.ReceiveRequest{})
	if err != nil {
		return nil, "", err
	}
	arrival, err := stream.Recv()
	if err != nil {
		return nil, "", err
	}
	fetch, err := client.Fetch(ctx, &exchangev1.FetchRequest{EnvelopeId: arrival.GetEnvelope().GetId()})
	if err != nil {
		return nil, "", err
	}
	var content []byte
	for {
		piece, err := fetch.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, "", err
		}
		content = append(content, piece.GetData()...)
	}
	confirmed, err := client.Confirm(ctx, &exchangev1.ConfirmRequest{EnvelopeIds: [][]byte{arrival.GetEnvelope().GetId()}})
	if err == nil && confirmed.GetConfirmed() != 1 {
		err = fmt.Errorf("confirm: got %v, want 1 confirmed", confirmed)
	}
	return arrival, string(content), err
}

func has(err error, reason exchangev1.ErrorReason) bool {
	r, ok := envelope.AsRefusal(err)
	return ok && r.Has(reason)
}
