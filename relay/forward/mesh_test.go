package forward_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	bac   routing.RelayID = "bac"
	trung routing.RelayID = "trung"
	nam   routing.RelayID = "nam"
)

// One agency at home at each relay; the sender is at bac.
const (
	sender  routing.AgencyCode = "G22"
	atBac   routing.AgencyCode = "H26"
	atTrung routing.AgencyCode = "H17"
	atNam   routing.AgencyCode = "H29"
)

// inMesh runs a test on the fake clock of a bubble, with a mesh of relays.
func inMesh(t *testing.T, relays []routing.RelayID, test func(*testing.T, *mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &mesh{t: t, lines: make(map[[2]routing.RelayID]line), nodes: make(map[routing.RelayID]*node), cut: make(map[[2]routing.RelayID]bool), conns: make(map[[2]routing.RelayID][]net.Conn)}
		for _, id := range relays {
			m.add(id)
		}
		for _, r := range relays {
			m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
				Relay: &directoryv1.Relay{Id: string(r), Region: "Miền Bắc", Address: string(r) + ".truc.test:7400"},
			}}})
		}
		for code, home := range map[routing.AgencyCode]routing.RelayID{sender: bac, atBac: bac, atTrung: trung, atNam: nam} {
			if slices.Contains(relays, home) {
				m.putAgency(code, home)
			}
		}
		defer m.stop()
		test(t, m)
	})
}

// mesh is relays that reach each other over connections that can be cut.
type mesh struct {
	t     *testing.T
	nodes map[routing.RelayID]*node

	mu    sync.Mutex
	cut   map[[2]routing.RelayID]bool
	conns map[[2]routing.RelayID][]net.Conn
	lines map[[2]routing.RelayID]line
}

// node is one relay: a spool, a directory, and the forwarder that uses them.
type node struct {
	mesh      *mesh
	id        routing.RelayID
	spool     *memory
	directory *routing.Directory
	reports   *reports
	tune      func(*forward.Config)

	forwarder *forward.Forwarder
	stop      func()

	mu        sync.Mutex
	listener  *bufconn.Listener // nil while stopped
	clients   map[string]*grpc.ClientConn
	accepting error
	sessions  int // Pass streams that peers opened
	unserved  error
	// Seams: called instead of the forwarder, or before it.
	onPass  func(relayv1.PeerService_PassServer) error
	onProbe func(from routing.RelayID) error
}

func (m *mesh) add(id routing.RelayID) *node {
	n := &node{mesh: m, id: id, spool: newMemory(id), directory: routing.NewDirectory(), reports: new(reports), clients: make(map[string]*grpc.ClientConn)}
	m.nodes[id] = n
	return n
}

// start runs a relay, or all.
func (m *mesh) start(ids ...routing.RelayID) {
	m.t.Helper()
	if len(ids) == 0 {
		for id := range m.nodes {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		m.nodes[id].start()
	}
}

func (m *mesh) stop() {
	for _, n := range m.nodes {
		if n.stop != nil {
			n.stop()
		}
	}
}

func (n *node) start() {
	n.mesh.t.Helper()
	config := forward.Config{
		Self: n.id, Directory: n.directory, Peers: n, Queues: n.spool, Inboxes: n.spool, Holdings: n.spool, Facts: n.spool,
		Reports: n.reports, Begin: n.spool.Begin,
		Accepting: func() error {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.accepting
		},
		Caller: callerByMetadata,
		Random: rand.NewPCG(1, uint64(len(n.id))),
	}
	if n.tune != nil {
		n.tune(&config)
	}
	var err error
	if n.forwarder, err = forward.New(config); err != nil {
		n.mesh.t.Fatalf("new %s: %v", n.id, err)
	}
	listener, server, forwarder := bufconn.Listen(64<<10), grpc.NewServer(), n.forwarder
	relayv1.RegisterPeerServiceServer(server, served{n: n, f: forwarder})
	n.set(func() { n.listener = listener })
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	running.Go(func() {
		if err := forwarder.Run(ctx); err != nil {
			n.mesh.t.Errorf("run %s: %v", n.id, err)
		}
	})
	n.stop = func() {
		n.set(func() { n.listener = nil })
		cancel()
		server.GracefulStop() // sessions end by themselves
		running.Wait()
		var clients map[string]*grpc.ClientConn
		n.set(func() { clients, n.clients = n.clients, make(map[string]*grpc.ClientConn) })
		for _, c := range clients {
			_ = c.Close() // waits for dials, which want the lock
		}
		n.stop = nil
	}
}

// served is the part of a relay that answers peers.
type served struct {
	relayv1.UnimplementedPeerServiceServer
	n *node
	f *forward.Forwarder
}

func (s served) Pass(stream relayv1.PeerService_PassServer) error {
	s.n.mu.Lock()
	s.n.sessions++
	err, instead := s.n.unserved, s.n.onPass
	s.n.mu.Unlock()
	if err != nil {
		return err
	}
	if instead != nil {
		return instead(stream)
	}
	return s.f.Pass(stream)
}

func (s served) Probe(ctx context.Context, req *relayv1.ProbeRequest) (*relayv1.ProbeResponse, error) {
	s.n.mu.Lock()
	before := s.n.onProbe
	s.n.mu.Unlock()
	if before != nil {
		caller, _ := callerByMetadata(ctx)
		if err := before(routing.RelayID(caller.Name)); err != nil {
			return nil, err
		}
	}
	return s.f.Probe(ctx, req)
}

func (s served) Read(req *relayv1.ReadRequest, stream relayv1.PeerService_ReadServer) error {
	return s.f.Read(req, stream)
}

func callerByMetadata(ctx context.Context) (tls.Identity, bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("identity"); len(v) == 1 {
		id, err := tls.ParseIdentity(v[0])
		return id, err == nil
	}
	return tls.Identity{}, false
}

// identity sends the name by which callerByMetadata knows the caller.
type identity string

func (i identity) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"identity": string(i)}, nil
}
func (identity) RequireTransportSecurity() bool { return false }

func relayIdentity(id routing.RelayID) identity {
	return identity("spiffe://truc.test/relay/" + string(id))
}

// Conn is the Peers of the node.
func (n *node) Conn(relay routing.RelayID, urgent bool) (grpc.ClientConnInterface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := fmt.Sprint(relay, urgent)
	if c := n.clients[key]; c != nil {
		return c, nil
	}
	c, err := n.mesh.dial(n.id, relay, relayIdentity(n.id))
	if err == nil {
		n.clients[key] = c
	}
	return c, err
}

func (m *mesh) dial(from, to routing.RelayID, as identity) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+string(to),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(as),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}, MinConnectTimeout: time.Second}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			link := [2]routing.RelayID{from, to}
			m.mu.Lock()
			down := m.cut[link]
			m.mu.Unlock()
			var listener *bufconn.Listener
			m.nodes[to].set(func() { listener = m.nodes[to].listener })
			if down || listener == nil {
				return nil, errors.New("cut")
			}
			conn, err := listener.DialContext(ctx)
			if err != nil {
				return nil, err
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.cut[link] { // while it was being made
				_ = conn.Close()
				return nil, errors.New("cut")
			}
			if l, slow := m.lines[link]; slow {
				conn = l.over(conn)
			}
			m.conns[link] = append(m.conns[link], conn)
			return conn, nil
		}))
}

// cutLink takes the link between two relays down in both directions.
func (m *mesh) cutLink(a, b routing.RelayID) {
	m.mu.Lock()
	m.cut[[2]routing.RelayID{a, b}], m.cut[[2]routing.RelayID{b, a}] = true, true
	m.mu.Unlock()
	m.dropConns(a, b)
}

// cutOneWay keeps one relay from calling another; the other still calls it.
func (m *mesh) cutOneWay(from, to routing.RelayID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	link := [2]routing.RelayID{from, to}
	m.cut[link] = true
	for _, c := range m.conns[link] {
		_ = c.Close()
	}
	delete(m.conns, link)
}

func (m *mesh) mendLink(a, b routing.RelayID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.cut, [2]routing.RelayID{a, b})
	delete(m.cut, [2]routing.RelayID{b, a})
}

// dropConns breaks the connections of a link; new ones may be made.
func (m *mesh) dropConns(a, b routing.RelayID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, link := range [][2]routing.RelayID{{a, b}, {b, a}} {
		for _, c := range m.conns[link] {
			_ = c.Close()
		}
		delete(m.conns, link)
	}
}

// set changes what a node does, under its lock.
func (n *node) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (n *node) sessionsOpened() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sessions
}
