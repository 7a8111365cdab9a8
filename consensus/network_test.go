package consensus_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// network is the loopback with links that can be cut.
type network struct {
	mu    sync.Mutex
	cut   map[[2]string]bool // pairs without any link
	mute  map[string]bool    // relays without Raft; they can still be asked
	hang  map[string]bool    // relays that take requests and never answer
	conns map[*link]struct{}
	relay map[string]string // address, Raft or gRPC, to relay id
	raft  map[string]bool   // addresses of Raft
	grpc  map[string]string // relay id to gRPC address
}

func newNetwork() *network {
	return &network{
		cut: map[[2]string]bool{}, mute: map[string]bool{}, hang: map[string]bool{}, conns: map[*link]struct{}{},
		relay: map[string]string{}, raft: map[string]bool{}, grpc: map[string]string{},
	}
}

type link struct {
	net.Conn
	n        *network
	from, to string
	raft     bool
}

func (l *link) Close() error {
	l.n.mu.Lock()
	delete(l.n.conns, l)
	l.n.mu.Unlock()
	return l.Conn.Close()
}

func (n *network) dial(ctx context.Context, from, address string) (net.Conn, error) {
	n.mu.Lock()
	to := n.relay[address]
	l := &link{n: n, from: from, to: to, raft: n.raft[address]}
	severed := n.severed(l)
	n.mu.Unlock()
	if severed {
		return nil, fmt.Errorf("link %s-%s is cut", from, to)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	l.Conn = conn
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.severed(l) { // while it was made
		conn.Close()
		return nil, fmt.Errorf("link %s-%s is cut", from, to)
	}
	n.conns[l] = struct{}{}
	return l, nil
}

// isolate cuts every link between the two sides.
func (n *network) isolate(side, other []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range side {
		for _, b := range other {
			n.cut[[2]string{a, b}] = true
		}
	}
	n.closeSevered()
}

// silence cuts a relay off from Raft only.
func (n *network) silence(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mute[id] = true
	n.closeSevered()
}

func (n *network) severed(l *link) bool {
	return n.cut[[2]string{l.from, l.to}] || n.cut[[2]string{l.to, l.from}] || l.raft && (n.mute[l.from] || n.mute[l.to])
}

func (n *network) closeSevered() {
	for l := range n.conns {
		if n.severed(l) {
			l.Conn.Close()
		}
	}
}

func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	clear(n.mute)
	clear(n.hang)
}

// hung is a connection to a relay that does not answer.
type hung struct{}

func (hung) Invoke(ctx context.Context, _ string, _, _ any, _ ...grpc.CallOption) error {
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}

func (hung) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	<-ctx.Done()
	return nil, status.FromContextError(ctx.Err()).Err()
}

// layer is a plain stream layer.
type layer struct {
	net.Listener
	dial func(ctx context.Context, address string) (net.Conn, error)
}

func (l layer) Dial(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.dial(ctx, address)
}
