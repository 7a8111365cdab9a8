// Package mesh is the harness of the scenarios: a mesh of relays with real
// sockets, real TLS and real disks, either in this process or as relayd
// processes that can be killed, with senders and recipients that keep books.
//
// A test says what it needs and what happens; the harness checks at the end of
// every test that each accepted envelope is in each recipient's folder exactly
// once with the bytes that were sent, that the sender's track says so, that the
// audit of the mesh balances, and that the disk of every relay is whole.
//
//	m := mesh.Start(t, mesh.Config{})
//	sender, recipient := m.Agency("H17.97.08"), m.Agency("G22")
//	recipient.Receive()
//	sender.Send("G22", mesh.Files{"a.pdf": pdf})
//	m.Settle() // waits until every recipient has confirmed everything
package mesh

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/truclienthong/truc/cmd/relayd/dev"
	"github.com/truclienthong/truc/cmd/relayd/node"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/tls"
)

// patience bounds every wait of the harness. It is long because it only
// matters when something is lost; nothing waits for it when all is well. What
// relays find out by themselves, they find out within a minute or so.
const patience = 100 * time.Second

// Config says what a mesh is like. The zero value is that of `relayd dev`, in
// this process.
type Config struct {
	// Relays are the first voters; nil: bac, trung, nam.
	Relays []dev.Relay
	// Agencies is their CSV; nil: the samples of `relayd dev`.
	Agencies []byte
	// Processes runs each relay as a relayd process, which can be killed.
	Processes bool
	// Profiles are the agencies that need a profile; nil: all of them.
	Profiles []string
	// Links puts a proxy into every link, so that it can be broken: see
	// Mesh.Link and Mesh.AgencyLink.
	Links bool
	// Seed of what the proxies leave to chance.
	Seed uint64
	// Adjust changes relay.yaml of a relay before it is started first; may be nil.
	Adjust func(id string, config *node.Config)
	// Within says in which surroundings the process of a relay runs: the program
	// and arguments that the command line of relayd is appended to; nil: none.
	Within func(id string) []string
	// Nonvoters are those of Relays that are no voters, by id.
	Nonvoters []string
}

// Mesh is a running mesh. Its methods fail the test rather than return errors.
type Mesh struct {
	t        testing.TB
	config   Config
	Layout   dev.Layout
	ctx      context.Context
	operator *tls.Endpoint

	mu       sync.Mutex // owns what follows
	relays   map[string]relay
	agencies map[string]*Agency
	conns    map[string]*Operator // by relay
	retired  []*Operator
	sent     []*Sent

	links   *links // set at the start
	damaged bool   // whether a test has damaged disks
}

// relay is a relay that runs, in this process or as another.
type relay interface {
	// stop ends it in order; kill ends it between two instructions.
	stop() error
	kill() error
	// over reports whether it ended by itself, ended returns how.
	over() bool
	ended(within time.Duration) (error, bool)
}

// Start sets up a mesh, waits until it serves, and fills its directory.
func Start(t testing.TB, config Config) *Mesh {
	t.Helper()
	if config.Relays == nil {
		config.Relays = dev.Relays
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Mesh{t: t, config: config, ctx: ctx, relays: map[string]relay{}, agencies: map[string]*Agency{},
		conns: map[string]*Operator{}}
	dir := t.TempDir()
	base := freePorts(t, 2*len(config.Relays)+4)
	m.Layout = dev.Default(dir, base)
	m.Layout.Relays = config.Relays
	m.Layout.Ports = func(i int) (int, int) { return base + 2*i, base + 2*i + 1 }
	m.Layout.Only = config.Profiles
	if config.Agencies != nil {
		m.Layout.Agencies = config.Agencies
	}
	t.Cleanup(func() { m.end(cancel) })
	t.Cleanup(m.prove) // before it: where patience ends, the mesh still does in order
	if config.Links {
		m.openLinks(config.Relays)
	}
	m.check("lay out the mesh", m.Layout.Write())
	m.check("profiles by way of proxies", m.rewriteProfiles())
	for _, r := range config.Relays {
		m.check("adjust relay "+r.ID, m.rewriteRelay(r.ID))
		m.StartRelay(r.ID)
	}
	m.joinNonvoters()
	m.AwaitServing()
	var operators []*Operator
	for _, r := range config.Relays {
		operators = append(operators, m.Operator(r.ID))
	}
	_, err := m.Layout.Import(m.bound(), operators...)
	m.check("fill the directory", err)
	m.awaitLinks()
	return m
}

// awaitLinks waits until the relays reach each other: what is accepted before
// that is rightly told to have one copy.
func (m *Mesh) awaitLinks() {
	m.t.Helper()
	for _, r := range m.config.Relays {
		m.Await("relay "+r.ID+" reaches the others", func(ctx context.Context) error {
			seen, err := m.Operator(r.ID).Directory.ListRelays(ctx, &adminv1.ListRelaysRequest{})
			if err != nil {
				return err
			}
			for _, other := range seen.GetRelays() {
				if !other.GetReachable() {
					return fmt.Errorf("not %s", other.GetRelay().GetId())
				}
			}
			return nil
		})
	}
}

// prove checks the invariants of a test that has not failed.
func (m *Mesh) prove() {
	if !m.t.Failed() {
		m.Settle()
		m.Verify()
		m.Balance()
	}
}

// end stops all, and looks at the disks of a test that has not failed.
func (m *Mesh) end(cancel context.CancelFunc) {
	cancel()
	for _, a := range m.agencies {
		a.close()
	}
	for _, conn := range slices.AppendSeq(m.retired, maps.Values(m.conns)) {
		conn.Close()
	}
	for id, r := range m.relays {
		if err := r.stop(); err != nil {
			m.t.Errorf("relay %s did not stop in order: %v", id, err)
		}
	}
	m.links.close()
	if !m.t.Failed() {
		m.fsck()
	}
	if m.t.Failed() {
		m.showLogs()
	}
}

// AwaitServing waits until every running relay serves: it has a directory that
// knows it, and an open spool.
func (m *Mesh) AwaitServing() {
	m.t.Helper()
	m.mu.Lock()
	var ids []string
	for id := range m.relays {
		ids = append(ids, id)
	}
	m.mu.Unlock()
	for _, id := range ids {
		m.Await("relay "+id+" serves", func(ctx context.Context) error {
			health, err := m.Operator(id).Custody.Health(ctx, &adminv1.HealthRequest{})
			if err != nil {
				return err
			}
			if !health.GetServing() {
				return fmt.Errorf("not serving: %s", health.GetReason())
			}
			return nil
		})
	}
}

// Await asks again until ready returns nil, and fails the test when that takes
// longer than the harness has patience.
func (m *Mesh) Await(what string, ready func(context.Context) error) {
	m.t.Helper()
	ctx := m.bound()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ready(try)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			m.t.Fatalf("%s: still not so after %s: %v", what, patience, err)
		}
	}
}

// bound is a context that ends when the harness loses patience.
func (m *Mesh) bound() context.Context {
	ctx, cancel := context.WithTimeout(m.ctx, patience)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func (m *Mesh) check(what string, err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%s: %v", what, err)
	}
}

func (m *Mesh) logFile(id string) string {
	return filepath.Join(filepath.Dir(m.Layout.RelayConfig(id)), "relay.log")
}

// showLogs prints the end of each relay's log, for a test that failed.
func (m *Mesh) showLogs() {
	for _, r := range m.Layout.Relays {
		raw, err := os.ReadFile(m.logFile(r.ID))
		if err != nil {
			continue
		}
		const most = 6000
		m.t.Logf("log of relay %s (%d bytes, the end):\n%s", r.ID, len(raw), raw[max(0, len(raw)-most):])
	}
}

// handedOut are the ports of all meshes of this process, which may be starting at
// the same time.
var handedOut struct {
	mu    sync.Mutex
	ports map[int]bool
}

// freePorts finds n ports in a row that nobody listens on, below the range from
// which the system picks ports of outgoing connections.
func freePorts(t testing.TB, n int) int {
	t.Helper()
	handedOut.mu.Lock()
	defer handedOut.mu.Unlock()
	if handedOut.ports == nil {
		handedOut.ports = map[int]bool{}
	}
	for range 100 {
		base := 10_000 + rand.IntN(20_000)
		if !portsFree(base, n) {
			continue
		}
		for port := base; port < base+n; port++ {
			handedOut.ports[port] = true
		}
		return base
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0
}

// portsFree requires handedOut.mu.
func portsFree(base, n int) bool {
	for port := base; port < base+n; port++ {
		if handedOut.ports[port] {
			return false
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

// Operator is an operator's connection to one relay.
type Operator = dev.Operator

// Operator returns a connection to the relay, or to any that runs where id is
// empty. It is kept until the relay is started anew.
func (m *Mesh) Operator(id string) *Operator {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.operator == nil {
		var err error
		m.operator, err = m.Layout.OperatorEndpoint()
		m.check("operator's certificate", err)
	}
	if id == "" {
		for running := range m.relays {
			id = running
		}
	}
	if conn, ok := m.conns[id]; ok {
		return conn
	}
	conn, err := m.Layout.DialOperator(m.operator, id)
	m.check("operator's connection", err)
	m.conns[id] = conn
	return conn
}
