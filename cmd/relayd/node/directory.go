package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/truclienthong/truc/consensus"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// directory is the relay's replica with the way to change it on every relay:
// here routing and consensus meet.
type directory struct {
	*routing.Directory
	raft *consensus.Node
}

var _ relay.Directory = (*directory)(nil)

func (d *directory) Propose(ctx context.Context, requestID [16]byte, command *directoryv1.Command) (relay.Proposed, error) {
	raw, err := proto.Marshal(command)
	if err != nil {
		return relay.Proposed{}, fmt.Errorf("directory command: %w", err)
	}
	applied, err := d.raft.Propose(ctx, requestID, raw)
	if err != nil {
		return relay.Proposed{}, err
	}
	result := new(directoryv1.CommandResult)
	if err := proto.Unmarshal(applied.Value, result); err != nil {
		return relay.Proposed{}, fmt.Errorf("directory result: %w", err)
	}
	return relay.Proposed{Index: applied.Index, Result: result, Repeat: applied.Repeat}, nil
}

func (d *directory) ReadBarrier(ctx context.Context) error { return d.raft.ReadBarrier(ctx) }

// verifySnapshot reads a directory without taking it over.
func verifySnapshot(state io.Reader) error { return routing.NewDirectory().Restore(state) }

// stream carries Raft over the relay's one port.
type stream struct {
	net.Listener
	endpoint *tls.Endpoint
	reached  func(advertised string) string
}

func (s stream) Dial(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.endpoint.DialRaft(ctx, s.reached(address), nil)
}

// peers keeps the connections by which Raft members forward to their leader.
type peers struct {
	endpoint *tls.Endpoint
	reached  func(advertised string) string

	mu    sync.Mutex
	conns map[peer]*grpc.ClientConn
}

// peer is a member at an address; one that has moved is dialed anew.
type peer struct{ id, address string }

func newPeers(endpoint *tls.Endpoint, reached func(string) string) *peers {
	return &peers{endpoint: endpoint, reached: reached, conns: map[peer]*grpc.ClientConn{}}
}

func (p *peers) dial(_ context.Context, id, address string) (grpc.ClientConnInterface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		return nil, errors.New("relay is stopping")
	}
	if conn, ok := p.conns[peer{id, address}]; ok {
		return conn, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+p.reached(address),
		append(relay.Connected(), grpc.WithTransportCredentials(p.endpoint.ClientCredentials(p.endpoint.ExpectPeer(id))))...)
	if err != nil {
		return nil, fmt.Errorf("raft member %s at %s: %w", id, address, err)
	}
	p.conns[peer{id, address}] = conn
	return conn, nil
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		conn.Close()
	}
	p.conns = nil
}
