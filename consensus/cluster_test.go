package consensus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/truclienthong/truc/consensus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ledger is the replicated state of the tests: lists of words by key. A command
// is "append KEY WORD" or "set KEY WORD"; its result is the list after it. "hold
// KEY WORD" waits for hold before it does the same as set.
type ledger struct {
	mu    sync.Mutex
	lists map[string][]string
	hold  chan struct{}
}

func newLedger() *ledger {
	return &ledger{lists: map[string][]string{}}
}

func (l *ledger) Apply(command []byte) ([]byte, error) {
	f := strings.SplitN(string(command), " ", 3)
	if len(f) != 3 {
		return nil, fmt.Errorf("not understood: %q", command)
	}
	if f[0] == "hold" {
		<-l.hold
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch f[0] {
	case "append":
		l.lists[f[1]] = append(slices.Clip(l.lists[f[1]]), f[2])
	case "set", "hold":
		l.lists[f[1]] = []string{f[2]}
	default:
		return nil, fmt.Errorf("not understood: %q", command)
	}
	return []byte(strings.Join(l.lists[f[1]], ",")), nil
}

type image []byte

func (i image) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(i)
	return int64(n), err
}

func (l *ledger) Snapshot() (io.WriterTo, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := json.Marshal(l.lists)
	return image(b), err
}

func (l *ledger) Restore(r io.Reader) error {
	lists := map[string][]string{}
	if err := json.NewDecoder(r).Decode(&lists); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lists = lists
	return nil
}

func (l *ledger) get(key string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lists[key], ",")
}

// eventually looks at a condition that nothing announces. It waits long: disks
// that others write to at the same time may take many seconds to sync a vote.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline, look := time.After(time.Minute), time.NewTicker(2*time.Millisecond)
	defer look.Stop()
	for !cond() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("%s: not reached", what)
		}
	}
}

type cluster struct {
	t       *testing.T
	net     *network
	members map[string]*member
	tune    func(*consensus.Config)
	voters  []consensus.Peer
}

type member struct {
	*consensus.Node
	c        *cluster
	id       string
	address  string
	dir      string
	ledger   *ledger
	cancel   context.CancelFunc
	ended    chan error // Run's result
	server   *grpc.Server
	serving  chan struct{}
	connMu   sync.Mutex
	conns    map[string]*grpc.ClientConn
	running  bool
	listener net.Listener // for the next start
}

// newCluster starts voters that are each other's initial configuration.
func newCluster(t *testing.T, voters int, tune func(*consensus.Config)) *cluster {
	t.Helper()
	c := &cluster{
		t: t, tune: tune, members: map[string]*member{},
		net: newNetwork(),
	}
	for i := range voters {
		m := c.place(string(rune('a' + i)))
		c.voters = append(c.voters, consensus.Peer{ID: m.id, Address: m.address})
	}
	for _, p := range c.voters {
		c.members[p.ID].start()
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			m.halt()
		}
	})
	return c
}

// place gives a relay its address and folder; it does not run yet.
func (c *cluster) place(id string) *member {
	c.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	m := &member{c: c, id: id, address: listener.Addr().String(), dir: c.t.TempDir(), listener: listener}
	c.members[id] = m
	c.net.mu.Lock()
	c.net.relay[m.address], c.net.raft[m.address] = id, true
	c.net.mu.Unlock()
	return m
}

func (m *member) config() consensus.Config {
	heartbeat := 300 * time.Millisecond // leaders must not change because a test machine is busy
	if len(m.c.voters) == 1 {
		heartbeat = 40 * time.Millisecond // nobody to be heard of
	}
	cfg := consensus.Config{
		ID: m.id, Address: m.address, Dir: m.dir, Voters: m.c.voters, StateMachine: m.ledger,
		Stream: layer{Listener: m.listener, dial: func(ctx context.Context, address string) (net.Conn, error) {
			return m.c.net.dial(ctx, m.id, address)
		}},
		DialPeer:         m.dialPeer,
		HeartbeatTimeout: heartbeat, CommitTimeout: 5 * time.Millisecond,
		StreamTimeout: 5 * time.Second, ProposeTimeout: 10 * time.Second,
		Logger: testLogger(m.c.t),
	}
	if m.c.tune != nil {
		m.c.tune(&cfg)
	}
	return cfg
}

func testLogger(t *testing.T) *slog.Logger {
	if os.Getenv("TRUC_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// start runs the member on its folder, with an empty state machine.
func (m *member) start() *member {
	t := m.c.t
	t.Helper()
	if m.listener == nil {
		var err error
		if m.listener, err = net.Listen("tcp", m.address); err != nil {
			t.Fatal(err)
		}
	}
	m.ledger = newLedger()
	node, err := consensus.New(m.config())
	if err != nil {
		t.Fatal(err)
	}
	m.listener = nil
	m.Node, m.conns = node, map[string]*grpc.ClientConn{}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.c.net.mu.Lock()
	m.c.net.relay[front.Addr().String()] = m.id
	m.c.net.grpc[m.id] = front.Addr().String()
	m.c.net.mu.Unlock()
	m.server, m.serving = grpc.NewServer(), make(chan struct{})
	node.Register(m.server)
	go func() {
		defer close(m.serving)
		m.server.Serve(front)
	}()
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.ended, m.running = cancel, make(chan error, 1), true
	go func() { m.ended <- node.Run(ctx) }()
	return m
}

func (m *member) dialPeer(_ context.Context, id, address string) (grpc.ClientConnInterface, error) {
	m.c.net.mu.Lock()
	front, known, hangs := m.c.net.grpc[id], m.c.net.relay[address] == id, m.c.net.hang[id]
	m.c.net.mu.Unlock()
	if hangs {
		return hung{}, nil
	}
	if !known {
		return nil, fmt.Errorf("%s is not at %s", id, address)
	}
	m.connMu.Lock()
	defer m.connMu.Unlock()
	if conn, ok := m.conns[front]; ok {
		return conn, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+front, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return m.c.net.dial(ctx, m.id, address)
		}))
	if err == nil {
		m.conns[front] = conn
	}
	return conn, err
}

// halt stops the member and returns what Run returned.
func (m *member) halt() error {
	if !m.running {
		if m.listener != nil {
			m.listener.Close()
			m.listener = nil
		}
		return nil
	}
	m.running = false
	m.cancel()
	var err error
	select {
	case err = <-m.ended:
	case <-time.After(30 * time.Second):
		m.c.t.Error(m.id, "does not stop")
	}
	m.server.Stop()
	<-m.serving
	m.connMu.Lock()
	defer m.connMu.Unlock()
	for _, conn := range m.conns {
		conn.Close()
	}
	return err
}

// leader waits for a leader that all running members of the list agree on.
func (c *cluster) leader(among ...string) *member {
	c.t.Helper()
	if len(among) == 0 {
		for id, m := range c.members {
			if m.running {
				among = append(among, id)
			}
		}
	}
	var leader string
	eventually(c.t, "agree on a leader", func() bool {
		leader = c.members[among[0]].Status().LeaderID
		for _, id := range among {
			if s := c.members[id].Status(); leader == "" || s.LeaderID != leader {
				return false
			}
		}
		return slices.Contains(among, leader) && c.members[leader].Status().State == "leader"
	})
	return c.members[leader]
}

// others returns the running members other than m, by id.
func (c *cluster) others(m *member) []*member {
	var list []*member
	for _, o := range c.members {
		if o != m && o.running {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b *member) int { return strings.Compare(a.id, b.id) })
	return list
}

func ids(list []*member) []string {
	var out []string
	for _, m := range list {
		out = append(out, m.id)
	}
	return out
}

func newID() [16]byte { return uuid.Must(uuid.NewV7()) }

func (m *member) write(command string) consensus.Result {
	m.c.t.Helper()
	result, err := m.Propose(m.c.t.Context(), newID(), []byte(command))
	if err != nil {
		m.c.t.Fatalf("%s: write %q: %v", m.id, command, err)
	}
	return result
}

// read returns a key after a barrier.
func (m *member) read(key string) string {
	m.c.t.Helper()
	if err := m.ReadBarrier(m.c.t.Context()); err != nil {
		m.c.t.Fatalf("%s: barrier: %v", m.id, err)
	}
	return m.ledger.get(key)
}

func (m *member) backup() []byte {
	m.c.t.Helper()
	var b bytes.Buffer
	if err := m.Backup(m.c.t.Context(), &b); err != nil {
		m.c.t.Fatalf("%s: backup: %v", m.id, err)
	}
	return b.Bytes()
}

func check[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
