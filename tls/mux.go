package tls

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// handoverTimeout is how long a verified connection waits for its server
	// to accept it; a server that does not is not serving.
	handoverTimeout = 5 * time.Second
	// lingerTimeout and lingerBytes bound what is read from a refused peer
	// before its connection is closed. Closing with its bytes unread would
	// reset the connection and could destroy the alert on its way.
	lingerTimeout = time.Second
	lingerBytes   = 64 << 10
)

// Mux serves one port for gRPC and Raft. Each connection does its handshake on
// its own, within a time and a number of others; then ALPN decides who gets it.
// What is not TLS, or neither protocol, is closed and counted.
type Mux struct {
	endpoint *Endpoint
	listener net.Listener
	grpc     *handover
	raft     *handover
	pending  pending
}

// Mux takes over the listener; Run serves and closes it.
func (e *Endpoint) Mux(listener net.Listener) *Mux {
	return &Mux{
		endpoint: e, listener: listener,
		grpc: newHandover(listener.Addr()), raft: newHandover(listener.Addr()),
		pending: pending{max: e.config.MaxHandshakes},
	}
}

// GRPC is the listener for a grpc.Server with ServerCredentials.
func (m *Mux) GRPC() net.Listener { return m.grpc }

// Raft is the listener for the Raft stream layer; only relays get there.
func (m *Mux) Raft() net.Listener { return m.raft }

// Run accepts until ctx ends (nil) or the listener fails. On return the
// listener and both of its sides are closed and no handshake is going on;
// connections handed over live on with those who have them.
func (m *Mux) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var handshakes sync.WaitGroup
	defer handshakes.Wait()
	defer cancel()
	defer m.grpc.Close()
	defer m.raft.Close()
	defer m.listener.Close()
	if m.endpoint.identity.Kind != KindRelay {
		return fmt.Errorf("serve %s: certificate file %s is for %s, only a relay serves",
			m.listener.Addr(), m.endpoint.config.CertificateFile, m.endpoint.identity)
	}
	stop := context.AfterFunc(ctx, func() { m.listener.Close() })
	defer stop()

	var pause time.Duration
	for {
		raw, err := m.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("serve %s: %w", m.listener.Addr(), err)
			}
			// Mostly too many open files: it passes when others end.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			m.endpoint.logger.Error("cannot accept connections", "address", m.listener.Addr().String(), "error", err, "pause", pause)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		done := m.pending.enter(raw)
		handshakes.Go(func() {
			defer done()
			m.serve(ctx, raw)
		})
	}
}

// serve brings one connection to its server, or ends it.
func (m *Mux) serve(ctx context.Context, raw net.Conn) {
	// stop tells whether the connection is still ours to give away.
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	e := m.endpoint
	c, err := m.handshake(ctx, raw)
	if err != nil {
		if isAboutCertificate(err) && e.refusals.Allow() {
			e.logger.Warn("refused a connection", "address", raw.RemoteAddr().String(), "reason", reasonOf(err), "error", err)
		} else {
			e.logger.Debug("handshake failed", "address", raw.RemoteAddr().String(), "reason", reasonOf(err), "error", err)
		}
		e.instruments.handshake(false, err)
		if isAboutCertificate(err) || errors.Is(err, ErrProtocol) {
			linger(raw)
		}
		raw.Close()
		return
	}
	e.instruments.handshake(false, nil)
	side := m.grpc
	if c.ConnectionState().NegotiatedProtocol == protocolRaft {
		side = m.raft
	}
	if !stop() || !side.give(ctx, c) {
		e.logger.Debug("nobody takes the connection", "address", raw.RemoteAddr().String(), "peer", c.identity.String())
		e.live.remove(c)
		raw.Close()
	}
}

func (m *Mux) handshake(ctx context.Context, raw net.Conn) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, m.endpoint.config.HandshakeTimeout)
	defer cancel()
	return m.endpoint.serverHandshake(ctx, raw)
}

// linger says that nothing follows and waits for the peer to hang up.
func linger(raw net.Conn) {
	half, ok := raw.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if raw.SetReadDeadline(time.Now().Add(lingerTimeout)) == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(raw, lingerBytes))
	}
}

// pending bounds the connections in their handshake. At the bound the oldest
// is ended: an honest handshake is done within a few round trips, so the
// oldest is the likeliest to be holding on without end.
type pending struct {
	max   int
	mu    sync.Mutex
	conns list.List // of net.Conn, oldest first; guarded by mu
}

// enter adds a connection; the result takes it out again.
func (p *pending) enter(raw net.Conn) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if oldest := p.conns.Front(); p.conns.Len() >= p.max {
		p.conns.Remove(oldest).(net.Conn).Close()
	}
	element := p.conns.PushBack(raw)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.conns.Remove(element) // does nothing where it was the oldest
	}
}

// handover is one side of the Mux.
type handover struct {
	address net.Addr
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

var _ net.Listener = (*handover)(nil)

func newHandover(address net.Addr) *handover {
	return &handover{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give reports whether somebody took the connection.
func (h *handover) give(ctx context.Context, c net.Conn) bool {
	timeout := time.NewTimer(handoverTimeout)
	defer timeout.Stop()
	select {
	case h.conns <- c:
		return true
	case <-h.closed:
	case <-ctx.Done():
	case <-timeout.C:
	}
	return false
}

// Accept waits for the next verified connection; net.ErrClosed after Close.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, fmt.Errorf("accept on %s: %w", h.address, net.ErrClosed)
	}
}

// Close ends Accept; the port itself is the Mux's.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handover) Addr() net.Addr { return h.address }
