package tls_test

import (
	"context"
	stdtls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/truclienthong/truc/tls"
)

// port is a relay's port and its counters.
func port(t *testing.T, change func(*tls.Config)) (*server, *authority, meter) {
	t.Helper()
	ca := newAuthority(t, domain)
	config := newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM()).config()
	if change != nil {
		change(&config)
	}
	counts := newMeter(&config)
	return serve(t, newEndpoint(t, config)), ca, counts
}

func rawDial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// mustEnd reads until the other side hangs up.
func mustEnd(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("connection still open after %s", patience)
	}
}

func TestWhatIsNotOurs(t *testing.T) {
	for name, test := range map[string]struct {
		send   string
		reason string
	}{
		"HTTP":           {"GET / HTTP/1.1\r\nHost: relay\r\n\r\n", "not_tls"},
		"plaintext gRPC": {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not_tls"},
		"garbage":        {strings.Repeat("\x00\xff\x7f", 1000), "not_tls"},
		"broken TLS":     {"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "handshake"},
		"an endless TLS": {"\x16\x03\x01\xff\xff" + strings.Repeat("x", 1<<16), "not_tls"},
		"one byte, gone": {"\x16", "closed"},
	} {
		t.Run(name, func(t *testing.T) {
			s, ca, counts := port(t, nil)
			c := rawDial(t, s.address)
			if _, err := io.WriteString(c, test.send); err != nil {
				t.Logf("write: %v", err)
			}
			if test.reason == "closed" {
				c.Close()
			} else {
				mustEnd(t, c)
			}
			counts.await(t, "truc.tls.handshakes", test.reason, 1)
			if err := check(t, dial(t, s.address, stranger(t, ca.issue(t, tls.KindAgency, "G22")))); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestProtocols(t *testing.T) {
	s, ca, counts := port(t, nil)
	agency, relay := ca.issue(t, tls.KindAgency, "G22").loaded(t), ca.issue(t, tls.KindRelay, "nam").loaded(t)
	for name, test := range map[string]struct {
		config *stdtls.Config
		ok     bool
		reason string
		count  int64
	}{
		"gRPC as agency":            {config: &stdtls.Config{NextProtos: []string{"h2"}, Certificates: []stdtls.Certificate{agency}}, ok: true},
		"gRPC, with older offer":    {config: &stdtls.Config{NextProtos: []string{"http/1.1", "h2"}, Certificates: []stdtls.Certificate{agency}}, ok: true},
		"raft as relay":             {config: &stdtls.Config{NextProtos: []string{"truc-raft/1"}, Certificates: []stdtls.Certificate{relay}}, ok: true},
		"raft as agency":            {config: &stdtls.Config{NextProtos: []string{"truc-raft/1"}, Certificates: []stdtls.Certificate{agency}}, reason: "wrong_identity"},
		"raft as operator":          {config: &stdtls.Config{NextProtos: []string{"truc-raft/1"}, Certificates: []stdtls.Certificate{ca.issue(t, tls.KindOperator, "an").loaded(t)}}, reason: "wrong_identity"},
		"no protocol":               {config: &stdtls.Config{Certificates: []stdtls.Certificate{agency}}, reason: "protocol"},
		"unknown protocol":          {config: &stdtls.Config{NextProtos: []string{"truc-raft/9"}, Certificates: []stdtls.Certificate{relay}}, reason: "protocol"},
		"TLS 1.2":                   {config: &stdtls.Config{NextProtos: []string{"h2"}, MaxVersion: stdtls.VersionTLS12, Certificates: []stdtls.Certificate{agency}}, reason: "handshake"},
		"no certificate of its own": {config: &stdtls.Config{NextProtos: []string{"h2"}}, reason: "handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			reason := test.reason
			if test.ok {
				reason = "ok"
			}
			before := counts.sum(t, "truc.tls.handshakes", reason)
			test.config.InsecureSkipVerify = true
			c := stdtls.Client(rawDial(t, s.address), test.config)
			err := c.HandshakeContext(testContext(t))
			if err == nil {
				if c.ConnectionState().NegotiatedProtocol == "truc-raft/1" {
					_, _ = io.WriteString(c, "x")
				}
				_, err = io.ReadFull(c, make([]byte, 1))
			}
			if (err == nil) != test.ok {
				t.Errorf("got %v, want ok %v", err, test.ok)
			}
			counts.await(t, "truc.tls.handshakes", reason, before+1)
		})
	}
}

func TestSlowHandshakesEnd(t *testing.T) {
	s, _, counts := port(t, func(c *tls.Config) { c.HandshakeTimeout = 50 * time.Millisecond })
	c := rawDial(t, s.address)
	if _, err := io.WriteString(c, "\x16\x03\x01"); err != nil {
		t.Fatal(err)
	}
	mustEnd(t, c)
	counts.await(t, "truc.tls.handshakes", "timeout", 1)
}

// With every place taken by connections that never finish, an honest caller
// still gets in, and the oldest of the others has to go.
func TestSlowHandshakesDoNotKeepOthersOut(t *testing.T) {
	const places = 4
	s, ca, counts := port(t, func(c *tls.Config) { c.MaxHandshakes = places; c.HandshakeTimeout = time.Hour })
	var slow []net.Conn
	for range places {
		c := rawDial(t, s.address)
		if _, err := io.WriteString(c, "\x16"); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	if err := check(t, dial(t, s.address, stranger(t, ca.issue(t, tls.KindAgency, "G22")))); err != nil {
		t.Fatal(err)
	}
	mustEnd(t, slow[0])
	counts.await(t, "truc.tls.handshakes", "closed", 1)
}

func TestSessionsAreNotResumed(t *testing.T) {
	ca := newAuthority(t, domain)
	trust := &directory{}
	config := newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM()).config()
	config.Trust = trust
	counts := newMeter(&config)
	s := serve(t, newEndpoint(t, config))

	relay := ca.issue(t, tls.KindRelay, "nam")
	cache := &countingCache{ClientSessionCache: stdtls.NewLRUClientSessionCache(8)}
	client := &stdtls.Config{
		NextProtos: []string{"truc-raft/1"}, InsecureSkipVerify: true, ServerName: "bac",
		Certificates: []stdtls.Certificate{relay.loaded(t)}, ClientSessionCache: cache,
	}
	try := func() (bool, error) {
		c := stdtls.Client(rawDial(t, s.address), client)
		defer c.Close()
		if err := c.HandshakeContext(testContext(t)); err != nil {
			return false, err
		}
		if _, err := io.WriteString(c, "x"); err != nil {
			return false, err
		}
		_, err := io.ReadFull(c, make([]byte, 1)) // a ticket would come before it
		return c.ConnectionState().DidResume, err
	}
	for range 2 {
		if resumed, err := try(); err != nil || resumed {
			t.Fatalf("got resumed %v, %v; want a full handshake", resumed, err)
		}
	}
	if cache.put != 0 {
		t.Errorf("the server gave %d session tickets, want none", cache.put)
	}
	trust.revoke(relay.leaf(t), ca.IssuerKeyHash())
	if _, err := try(); err == nil {
		t.Error("a revoked certificate came back in")
	}
	counts.await(t, "truc.tls.handshakes", "revoked", 1)
}

type countingCache struct {
	stdtls.ClientSessionCache
	put int
}

func (c *countingCache) Put(key string, session *stdtls.ClientSessionState) {
	if session != nil {
		c.put++
	}
	c.ClientSessionCache.Put(key, session)
}

func TestConnectionsBesideTheMuxAreRefused(t *testing.T) {
	ca := newAuthority(t, domain)
	e := newEndpoint(t, newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM()).config())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.Creds(e.ServerCredentials()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(listener)
	}()
	defer func() {
		g.Stop()
		<-done
	}()
	err = check(t, dial(t, listener.Addr().String(), stranger(t, ca.issue(t, tls.KindAgency, "G22"))))
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
}

func TestMuxNeedsARelay(t *testing.T) {
	ca := newAuthority(t, domain)
	e := newEndpoint(t, newStore(t, ca.issue(t, tls.KindAgency, "G22"), ca.RootPEM()).config())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := e.Mux(listener)
	if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "own.crt") {
		t.Errorf("got %v, want an error that names the certificate file", err)
	}
	if _, err := m.GRPC().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Run: got %v, want net.ErrClosed", err)
	}
}

func TestMuxEndsWithItsContext(t *testing.T) {
	ca := newAuthority(t, domain)
	e := newEndpoint(t, newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM()).config())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	m := e.Mux(listener)
	go func() { ended <- m.Run(ctx) }()
	// One in its handshake, one verified that nobody accepts.
	half := rawDial(t, listener.Addr().String())
	if _, err := io.WriteString(half, "\x16"); err != nil {
		t.Fatal(err)
	}
	waiting, err := newEndpoint(t, newStore(t, ca.issue(t, tls.KindRelay, "nam"), ca.RootPEM()).config()).
		DialRaft(testContext(t), listener.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-testContext(t).Done():
		t.Fatal("Run goes on")
	}
	mustEnd(t, half)
	mustEnd(t, waiting)
	if c, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}

// A listener that fails for a while, as with too many open files, is tried
// again; one that is closed behind our back is an error.
func TestMuxOutlivesFailuresToAccept(t *testing.T) {
	ca := newAuthority(t, domain)
	e := newEndpoint(t, newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM()).config())
	err := e.Mux(&failingListener{failures: 2}).Run(testContext(t))
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed after the other failures", err)
	}
}

type failingListener struct{ failures int }

func (l *failingListener) Accept() (net.Conn, error) {
	if l.failures--; l.failures >= 0 {
		return nil, fmt.Errorf("accept: too many open files")
	}
	return nil, net.ErrClosed
}
func (l *failingListener) Close() error   { return nil }
func (l *failingListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
