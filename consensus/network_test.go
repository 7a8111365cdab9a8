package consensus_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// network is the loopback with links that can be cut.
type network struct {
	mu    sync.Mutex
	cut   map[[2]string]bool
	conns map[*link]struct{}
	relay map[string]string // address, Raft or gRPC, to relay id
	grpc  map[string]string // relay id to gRPC address
}

type link struct {
	net.Conn
	n        *network
	from, to string
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
	severed := n.cut[[2]string{from, to}] || n.cut[[2]string{to, from}]
	n.mu.Unlock()
	if severed {
		return nil, fmt.Errorf("link %s-%s is cut", from, to)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	l := &link{Conn: conn, n: n, from: from, to: to}
	n.mu.Lock()
	n.conns[l] = struct{}{}
	n.mu.Unlock()
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
	for l := range n.conns {
		if n.cut[[2]string{l.from, l.to}] || n.cut[[2]string{l.to, l.from}] {
			l.Conn.Close()
		}
	}
}

func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
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
