package relay

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// class separates traffic to one peer onto connections of its own, so that a
// large file holds up nothing urgent, and a slow connector nothing at all.
type class uint8

const (
	urgent    class = iota // sessions for urgent envelopes, and probes
	bulk                   // sessions for ordinary ones
	receiving              // inboxes of agencies attached here; these last
	calls                  // what else agencies and operators caused
)

// Connected are the options of every lasting connection from relay to relay:
// one that comes back is found within seconds, and one that has vanished without
// a word is given up within half a minute. gRPC's own pauses grow to two minutes.
func Connected() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: .2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithNoProxy(),
	}
}

// peers keeps one connection per relay and class, to the address that the
// directory gives or that Config.Dial has in its place, each proven to be the relay that was asked for. Connections
// make themselves again; one whose relay moved, or left, is closed.
type peers struct {
	config *Config

	mu     sync.Mutex
	conns  map[peerKey]peerConn
	closed bool
}

type peerKey struct {
	relay routing.RelayID
	class class
}

type peerConn struct {
	*grpc.ClientConn
	address string
}

func newPeers(c *Config) *peers { return &peers{config: c, conns: make(map[peerKey]peerConn)} }

// Conn is the connection for handing on.
func (p *peers) Conn(relay routing.RelayID, isUrgent bool) (grpc.ClientConnInterface, error) {
	if isUrgent {
		return p.conn(peerKey{relay, urgent})
	}
	return p.conn(peerKey{relay, bulk})
}

// Peer is for calls on behalf of others.
func (p *peers) Peer(relay routing.RelayID) (relayv1.PeerServiceClient, error) {
	short, err := p.conn(peerKey{relay, calls})
	if err != nil {
		return nil, err
	}
	lasting, err := p.conn(peerKey{relay, receiving})
	if err != nil {
		return nil, err
	}
	return onBehalf{relayv1.NewPeerServiceClient(short), relayv1.NewPeerServiceClient(lasting)}, nil
}

// onBehalf keeps the calls that last apart from the others: there may be as
// many of them as a connection takes.
type onBehalf struct {
	relayv1.PeerServiceClient
	lasting relayv1.PeerServiceClient
}

func (o onBehalf) ProxyReceive(ctx context.Context, req *relayv1.ProxyReceiveRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[relayv1.ProxyReceiveResponse], error) {
	return o.lasting.ProxyReceive(ctx, req, opts...)
}

func (p *peers) conn(key peerKey) (*grpc.ClientConn, error) {
	entry, ok := p.config.Directory.View().Relay(key.relay)
	if !ok || gone(entry) {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE,
			"relay %s is not in the mesh just now", key.relay)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING, "relay %s is stopping", p.config.ID)
	}
	if c, ok := p.conns[key]; ok {
		if c.address == entry.GetAddress() {
			return c.ClientConn, nil
		}
		c.Close()
		delete(p.conns, key)
	}
	conn, err := p.dial(key.relay, entry.GetAddress())
	if err != nil {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE, "relay %s at %q: %v", key.relay, entry.GetAddress(), err)
	}
	p.conns[key] = peerConn{ClientConn: conn, address: entry.GetAddress()}
	return conn, nil
}

func (p *peers) dial(relay routing.RelayID, address string) (*grpc.ClientConn, error) {
	if mapped, ok := p.config.Dial[address]; ok {
		address = mapped
	}
	options := append(Connected(),
		grpc.WithTransportCredentials(p.config.Endpoint.ClientCredentials(p.config.Endpoint.ExpectPeer(string(relay)))),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(p.config.maxMessage())),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(
			otelgrpc.WithMeterProvider(p.config.Meters), otelgrpc.WithTracerProvider(p.config.Tracers),
			otelgrpc.WithPropagators(propagation.TraceContext{}))),
	)
	if p.config.Dialer != nil {
		options = append(options, grpc.WithContextDialer(p.config.Dialer))
	}
	return grpc.NewClient("passthrough:///"+address, options...)
}

// follow closes the connections that the directory no longer stands behind.
func (p *peers) follow(view routing.View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, conn := range p.conns {
		if entry, ok := view.Relay(key.relay); !ok || gone(entry) || entry.GetAddress() != conn.address {
			conn.Close()
			delete(p.conns, key)
		}
	}
}

// close ends all connections, and no more are made.
func (p *peers) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var failed error
	for key, conn := range p.conns {
		failed = errors.Join(failed, conn.Close())
		delete(p.conns, key)
	}
	return failed
}

// gone reports whether a relay has left the mesh for good.
func gone(relay *directoryv1.Relay) bool {
	switch relay.GetState() {
	case directoryv1.RelayState_RELAY_STATE_RETIRED, directoryv1.RelayState_RELAY_STATE_LOST:
		return true
	}
	return false
}
