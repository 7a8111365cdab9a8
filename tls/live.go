package tls

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// conn is a live connection whose peer is verified.
type conn struct {
	*stdtls.Conn
	raw      net.Conn // under Conn
	endpoint *Endpoint
	identity Identity // of the peer; never changes while the connection lives
	expect   func(Identity) error
	usage    x509.ExtKeyUsage // in which the peer presented its certificate
	dialed   bool
	heard    atomic.Bool // something was read
	reasons  atomic.Pointer[verified]
}

// registry holds every live connection, accepted or dialed. It bounds those that
// one identity has opened: each costs memory, also when nothing is asked on it.
type registry struct {
	mu       sync.Mutex
	conns    map[*conn]struct{} // guarded by mu
	accepted map[Identity]int   // guarded by mu
}

func (r *registry) add(c *conn) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil {
		r.conns, r.accepted = make(map[*conn]struct{}), make(map[Identity]int)
	}
	if !c.dialed {
		if most := c.endpoint.config.MaxConnections; r.accepted[c.identity] >= most {
			return fmt.Errorf("%s: %w: it has %d; it has to close some first", c.identity, ErrTooMany, most)
		}
		r.accepted[c.identity]++
	}
	r.conns[c] = struct{}{}
	c.endpoint.instruments.connection(c.dialed, 1)
	return nil
}

func (r *registry) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.conns[c]; ok {
		delete(r.conns, c)
		if !c.dialed {
			if r.accepted[c.identity]--; r.accepted[c.identity] == 0 {
				delete(r.accepted, c.identity)
			}
		}
		c.endpoint.instruments.connection(c.dialed, -1)
	}
}

func (r *registry) all() []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*conn, 0, len(r.conns))
	for c := range r.conns {
		all = append(all, c)
	}
	return all
}

// enter makes a connection live after its handshake. It is checked once more
// when it can be seen by CutRevoked, so that a revocation during the handshake
// is not missed.
func (e *Endpoint) enter(c *conn, v *verified) error {
	c.endpoint, c.identity = e, v.identity
	c.reasons.Store(v)
	if err := e.live.add(c); err != nil {
		return err
	}
	if err := e.recheck(c, e.allAuthorities()); err != nil {
		e.live.remove(c)
		return err
	}
	return nil
}

// recheck reports why the connection may not go on.
func (e *Endpoint) recheck(c *conn, all []authority) error {
	if !e.stillGood(c.reasons.Load(), all, e.config.Clock()) {
		v, err := e.verify(c.ConnectionState().PeerCertificates, c.usage)
		if err != nil {
			return err
		}
		if v.identity != c.identity {
			return fmt.Errorf("%w: the certificate of %s now stands for %s", ErrWrongIdentity, c.identity, v.identity)
		}
		c.reasons.Store(v)
	}
	if c.expect != nil {
		return c.expect(c.identity)
	}
	return nil
}

// CutRevoked checks every live connection against the directory, the trust
// file and the clock as they are now, and closes those no longer allowed. Calls
// on them fail as on any lost connection; the next handshake says why.
func (e *Endpoint) CutRevoked() {
	live := e.live.all()
	if len(live) == 0 {
		return
	}
	all := e.allAuthorities()
	for _, c := range live {
		err := e.recheck(c, all)
		if err == nil {
			continue
		}
		e.logger.Warn("cut a live connection", "peer", c.identity.String(), "address", c.RemoteAddr().String(),
			"reason", reasonOf(err), "error", err)
		e.instruments.cutOne(err)
		e.live.remove(c)
		// Not Conn.Close: that would wait for a peer that does not read.
		_ = c.raw.Close()
	}
}

// Close ends the connection.
func (c *conn) Close() error {
	c.endpoint.live.remove(c)
	return c.Conn.Close()
}

// Read puts the peer's refusal into words. In TLS 1.3 a client has finished its
// handshake before the server has judged the client's certificate, so a refusal
// arrives with the first read.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(true)
	}
	if err != nil && c.dialed && !c.heard.Load() {
		err = c.endpoint.explain(c.identity.String(), err)
	}
	return n, err
}

// explain says what a failed handshake as a client means and what to do.
func (e *Endpoint) explain(peer string, err error) error {
	var header stdtls.RecordHeaderError
	switch {
	case isCertificateAlert(err):
		own := e.material.Load().own.Leaf
		who := e.identity.String()
		if e.identity == (Identity{}) {
			who = "a certificate without identity"
		}
		return fmt.Errorf("%s: %w: file %s, %s, serial %x, valid until %s. "+
			"It may be revoked, expired, signed by an authority that side does not trust, or bound to no agency; "+
			"the log of that side says which. Ask its operator, or have a new certificate issued: %w",
			peer, ErrRefused, e.config.CertificateFile, who, own.SerialNumber.Bytes(), own.NotAfter.UTC().Format("2006-01-02"), err)
	case errors.As(err, &header):
		return fmt.Errorf("%s: %w: it does not speak TLS; check host and port", peer, ErrProtocol)
	}
	return err
}
