package tls_test

import (
	"context"
	stdtls "crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/truclienthong/truc/tls"
)

func TestBothSidesKnowEachOther(t *testing.T) {
	ca := newAuthority(t, domain)
	s := serve(t, newEndpoint(t, newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM()).config()))
	for name, want := range map[string]tls.Identity{
		"agency":   {TrustDomain: domain, Kind: tls.KindAgency, Name: "H26.12.05"},
		"gateway":  {TrustDomain: domain, Kind: tls.KindGateway, Name: "saas"},
		"operator": {TrustDomain: domain, Kind: tls.KindOperator, Name: "an"},
		"relay":    {TrustDomain: domain, Kind: tls.KindRelay, Name: "nam"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(t, newStore(t, ca.issue(t, want.Kind, want.Name), ca.RootPEM()).config())
			if e.Identity() != want {
				t.Errorf("own identity: got %s, want %s", e.Identity(), want)
			}
			var p peer.Peer
			if err := check(t, dial(t, s.address, e.ClientCredentials(tls.ExpectRelay("bac"))), grpc.Peer(&p)); err != nil {
				t.Fatal(err)
			}
			if got := <-s.callers; got != want {
				t.Errorf("the relay sees %s, want %s", got, want)
			}
			got, ok := tls.FromContext(peer.NewContext(t.Context(), &p))
			if relay := (tls.Identity{TrustDomain: domain, Kind: tls.KindRelay, Name: "bac"}); !ok || got != relay {
				t.Errorf("the caller sees %s, want %s", got, relay)
			}
		})
	}
	t.Run("a client that is not ours", func(t *testing.T) {
		if err := check(t, dial(t, s.address, stranger(t, ca.issue(t, tls.KindAgency, "G22")))); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRefusedCallers(t *testing.T) {
	ca, second, foreign, outside := newAuthority(t, domain), newAuthority(t, "second.test"), newAuthority(t, domain), newAuthority(t, "outside.test")
	trust := &directory{}
	trust.setRoots(
		tls.Root{TrustDomain: "second.test", Certificate: second.Certificate()},
		tls.Root{TrustDomain: domain, Certificate: outside.Certificate(), Outside: true},
	)
	revoked := ca.issue(t, tls.KindAgency, "G22")
	trust.revoke(revoked.leaf(t), ca.IssuerKeyHash())
	boundRelay := outside.forge(t, named())
	trust.bind(boundRelay.keyHash(t), tls.KindRelay, "nam")
	boundOwn := ca.forge(t, named())
	trust.bind(boundOwn.keyHash(t), tls.KindAgency, "G22")

	for name, test := range map[string]struct {
		pair   pair
		reason string
	}{
		"expired": {ca.forge(t, func(c *x509.Certificate) {
			named("spiffe://truc.test/agency/G22")(c)
			c.NotAfter = time.Now().Add(-time.Minute)
		}), "expired"},
		"not yet valid": {ca.forge(t, func(c *x509.Certificate) {
			named("spiffe://truc.test/agency/G22")(c)
			c.NotBefore = time.Now().Add(30 * time.Minute)
		}), "expired"},
		"revoked":                               {revoked, "revoked"},
		"foreign root of the same trust domain": {foreign.issue(t, tls.KindAgency, "G22"), "foreign_root"},
		"trust domain without a root": {
			ca.forge(t, named("spiffe://third.test/agency/G22")), "foreign_root"},
		"root of one domain, name of another": {
			ca.forge(t, named("spiffe://second.test/agency/G22")), "foreign_root"},
		"and the other way round": {
			second.forge(t, named("spiffe://truc.test/agency/G22")), "foreign_root"},
		"relay of a domain that is the directory's only": {
			second.issue(t, tls.KindRelay, "bac"), "foreign_root"},
		"operator of a domain that is the directory's only": {
			second.issue(t, tls.KindOperator, "an"), "foreign_root"},
		"no identity":                     {ca.forge(t, named()), "no_identity"},
		"no identity, key bound":          {boundOwn, "no_identity"},
		"two identities":                  {ca.forge(t, named("spiffe://truc.test/agency/G22", "spiffe://truc.test/agency/H26")), "no_identity"},
		"an identity and another URI":     {ca.forge(t, named("spiffe://truc.test/agency/G22", "https://truc.test")), "no_identity"},
		"another URI":                     {ca.forge(t, named("https://truc.test/agency/G22")), "no_identity"},
		"outside, not bound":              {outside.forge(t, named()), "no_identity"},
		"outside, claims a name of ours":  {outside.forge(t, named("spiffe://truc.test/agency/G22")), "no_identity"},
		"outside, bound to a relay":       {boundRelay, "wrong_identity"},
		"outside root's own domain named": {outside.issue(t, tls.KindAgency, "G22"), "no_identity"},
		"for servers only": {ca.forge(t, func(c *x509.Certificate) {
			named("spiffe://truc.test/agency/G22")(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), "wrong_identity"},
	} {
		t.Run(name, func(t *testing.T) {
			config := newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM()).config()
			config.Trust = trust
			lines := &journal{}
			config.Logger = lines.logger()
			counts := newMeter(&config)
			s := serve(t, newEndpoint(t, config))
			err := check(t, dial(t, s.address, stranger(t, test.pair)))
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "bad certificate") {
				t.Errorf("the caller gets %v; want Unavailable with the alert", err)
			}
			counts.await(t, "truc.tls.handshakes", test.reason, 1)
			if want := "reason=" + test.reason; !strings.Contains(lines.String(), want) {
				t.Errorf("log has no %q:\n%s", want, lines)
			}
			if len(s.callers) != 0 {
				t.Errorf("the call came through as %s", <-s.callers)
			}
		})
	}
}

// In TLS 1.3 the refusal comes after the client's handshake; what the user of
// an agency reads must still say what happened and what to do.
func TestRefusalIsPutIntoWords(t *testing.T) {
	ca := newAuthority(t, domain)
	trust := &directory{}
	config := newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM()).config()
	config.Trust = trust
	s := serve(t, newEndpoint(t, config))

	agency, relay := ca.issue(t, tls.KindAgency, "G22"), ca.issue(t, tls.KindRelay, "nam")
	trust.revoke(agency.leaf(t), ca.IssuerKeyHash())
	trust.revoke(relay.leaf(t), ca.IssuerKeyHash())
	files := newStore(t, agency, ca.RootPEM())
	err := check(t, dial(t, s.address, newEndpoint(t, files.config()).ClientCredentials(nil)))
	if status.Code(err) != codes.Unavailable {
		t.Fatalf("got %v, want Unavailable", err)
	}
	for _, want := range []string{"spiffe://truc.test/relay/bac", "refused by the peer", files.file("own.crt"), "spiffe://truc.test/agency/G22", "new certificate"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}

	c, err := newEndpoint(t, newStore(t, relay, ca.RootPEM()).config()).DialRaft(testContext(t), s.address, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, tls.ErrRefused) {
		t.Errorf("first read on the raft protocol: got %v, want ErrRefused", err)
	}
}

func TestRefusedServers(t *testing.T) {
	ca, foreign := newAuthority(t, domain), newAuthority(t, domain)
	trust := &directory{}
	relay := ca.issue(t, tls.KindRelay, "bac")
	good := serve(t, newEndpoint(t, newStore(t, relay, ca.RootPEM()).config()))
	bad := serve(t, newEndpoint(t, newStore(t, foreign.issue(t, tls.KindRelay, "bac"), foreign.RootPEM(), ca.RootPEM()).config()))
	client := newStore(t, ca.issue(t, tls.KindRelay, "nam"), ca.RootPEM()).config()
	for name, test := range map[string]struct {
		address string
		expect  func(tls.Identity) error
		change  func(*tls.Config)
		want    error
	}{
		"foreign root":  {address: bad.address, want: tls.ErrForeignRoot},
		"another relay": {address: good.address, expect: tls.ExpectRelay("trung"), want: tls.ErrWrongIdentity},
		"another kind":  {address: good.address, expect: tls.ExpectKind(tls.KindAgency), want: tls.ErrWrongIdentity},
		"revoked": {address: good.address, want: tls.ErrRevoked, change: func(c *tls.Config) {
			trust.revoke(relay.leaf(t), ca.IssuerKeyHash())
			c.Trust = trust
		}},
		"own certificate ended meanwhile": {address: good.address, want: tls.ErrExpired, change: func(c *tls.Config) {
			later := &clock{}
			c.Clock = func() time.Time { // New still finds it good
				defer later.forward(400 * 24 * time.Hour)
				return later.now()
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			config := client
			if test.change != nil {
				test.change(&config)
			}
			e := newEndpoint(t, config)
			if c, err := e.DialRaft(testContext(t), test.address, test.expect); !errors.Is(err, test.want) {
				t.Errorf("DialRaft: got %v, %v; want %v", c, err, test.want)
			}
			err := check(t, dial(t, test.address, e.ClientCredentials(test.expect)))
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), test.want.Error()) {
				t.Errorf("call: got %v, want Unavailable: %v", err, test.want)
			}
		})
	}
	t.Run("does not speak TLS", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if c, err := listener.Accept(); err == nil {
				_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.9\r\n")
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			}
		}()
		_, err = newEndpoint(t, client).DialRaft(testContext(t), listener.Addr().String(), nil)
		if !errors.Is(err, tls.ErrProtocol) {
			t.Errorf("got %v, want ErrProtocol", err)
		}
		listener.Close()
		<-done
	})
}

func TestOutsideCertificateCountsByItsKey(t *testing.T) {
	ca, outside := newAuthority(t, domain), newAuthority(t, "outside.test")
	for name, shape := range map[string]func(*x509.Certificate){
		"without a name":         named(),
		"with a name of its own": named("https://example.vn/x", "https://example.vn/y"),
		"with a name of ours":    named("spiffe://truc.test/relay/bac"),
		"of no declared use":     func(c *x509.Certificate) { c.ExtKeyUsage = nil },
	} {
		t.Run(name, func(t *testing.T) {
			trust := &directory{}
			trust.setRoots(tls.Root{TrustDomain: "outside.test", Certificate: outside.Certificate(), Outside: true})
			config := newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM()).config()
			config.Trust = trust
			counts := newMeter(&config)
			e := newEndpoint(t, config)
			s := serve(t, e)

			p := outside.forge(t, shape)
			trust.bind(p.keyHash(t), tls.KindAgency, "G22")
			client := dial(t, s.address, stranger(t, p))
			if err := check(t, client); err != nil {
				t.Fatal(err)
			}
			if got, want := <-s.callers, (tls.Identity{TrustDomain: domain, Kind: tls.KindAgency, Name: "G22"}); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			stream := watch(t, client)
			trust.bind(p.keyHash(t), tls.KindAgency, "H26")
			e.CutRevoked()
			mustBeCut(t, stream)
			counts.await(t, "truc.tls.cut", "wrong_identity", 1)
			if err := check(t, client, grpc.WaitForReady(true)); err != nil {
				t.Fatal(err)
			}
			if got := <-s.callers; got.Name != "H26" {
				t.Errorf("after binding to another agency: got %s", got)
			}
			stream = watch(t, client)
			trust.bind(p.keyHash(t), 0, "")
			e.CutRevoked()
			mustBeCut(t, stream)
			counts.await(t, "truc.tls.cut", "no_identity", 1)
		})
	}
}

func TestOutsideClient(t *testing.T) {
	ca, outside := newAuthority(t, domain), newAuthority(t, "outside.test")
	trust := &directory{}
	trust.setRoots(tls.Root{TrustDomain: "outside.test", Certificate: outside.Certificate(), Outside: true})
	config := newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM()).config()
	config.Trust = trust
	s := serve(t, newEndpoint(t, config))
	p := outside.forge(t, named())
	trust.bind(p.keyHash(t), tls.KindAgency, "G22")
	// The trust file names the domain; the certificate cannot.
	e := newEndpoint(t, newStore(t, p, ca.RootPEM()).config())
	if e.Identity() != (tls.Identity{}) {
		t.Errorf("own identity: got %s, want nobody", e.Identity())
	}
	if err := check(t, dial(t, s.address, e.ClientCredentials(tls.ExpectRelay("bac")))); err != nil {
		t.Fatal(err)
	}
}

func TestTwoTrustDomains(t *testing.T) {
	ca, second := newAuthority(t, domain), newAuthority(t, "second.test")
	for name, test := range map[string]struct {
		trust func(*store, *directory)
		kind  tls.Kind
	}{
		"agency, by the directory": {kind: tls.KindAgency, trust: func(_ *store, d *directory) {
			d.setRoots(tls.Root{TrustDomain: "second.test", Certificate: second.Certificate()})
		}},
		"relay, by the trust file": {kind: tls.KindRelay, trust: func(s *store, _ *directory) {
			s.putTrust(t, ca.RootPEM(), second.RootPEM())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			files := newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM())
			trust := &directory{}
			test.trust(&files, trust)
			config := files.config()
			config.Trust = trust
			s := serve(t, newEndpoint(t, config))
			e := newEndpoint(t, newStore(t, second.issue(t, test.kind, "x"), ca.RootPEM()).config())
			if err := check(t, dial(t, s.address, e.ClientCredentials(nil))); err != nil {
				t.Fatal(err)
			}
			if got, want := <-s.callers, (tls.Identity{TrustDomain: "second.test", Kind: test.kind, Name: "x"}); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// An authority of another trust domain that the trust file names gets no relay
// of its own into this mesh: not into Raft, and not in the place of a relay.
func TestRelaysOfAnotherTrustDomain(t *testing.T) {
	ca, second := newAuthority(t, domain), newAuthority(t, "second.test")
	believing := func(a *authority, name string) *tls.Endpoint {
		files := newStore(t, a.issue(t, tls.KindRelay, name), ca.RootPEM())
		files.putTrust(t, ca.RootPEM(), second.RootPEM())
		return newEndpoint(t, files.config())
	}
	ours, theirs, foreign := serve(t, believing(ca, "bac")), serve(t, believing(second, "bac")), believing(second, "nam")
	if c, err := foreign.DialRaft(testContext(t), ours.address, nil); !errors.Is(err, tls.ErrWrongIdentity) {
		t.Errorf("foreign relay dials Raft: got %v, %v", c, err)
	}
	nam := believing(ca, "nam")
	if _, err := nam.DialRaft(testContext(t), theirs.address, nil); !errors.Is(err, tls.ErrWrongIdentity) {
		t.Errorf("Raft at a foreign relay: got %v, want wrong identity", err)
	}
	if err := check(t, dial(t, theirs.address, nam.ClientCredentials(nam.ExpectPeer("bac")))); err == nil {
		t.Error("a foreign relay bac was taken for ours")
	}
	if err := check(t, dial(t, ours.address, nam.ClientCredentials(nam.ExpectPeer("bac")))); err != nil {
		t.Errorf("our own relay bac: %v", err)
	}
	config := &stdtls.Config{NextProtos: []string{"truc-raft/1"}, InsecureSkipVerify: true,
		Certificates: []stdtls.Certificate{second.issue(t, tls.KindRelay, "bac").loaded(t)}}
	c := stdtls.Client(rawDial(t, ours.address), config)
	if err := c.HandshakeContext(testContext(t)); err == nil {
		_, _ = io.WriteString(c, "x")
		if _, err = io.ReadFull(c, make([]byte, 1)); err == nil {
			t.Error("a foreign relay got into Raft")
		}
	}
}

// watch opens a stream that has nothing to say.
func watch(t *testing.T, client healthpb.HealthClient) grpc.ServerStreamingClient[healthpb.HealthCheckResponse] {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	t.Cleanup(cancel)
	stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	return stream
}

func mustBeCut(t *testing.T, stream grpc.ServerStreamingClient[healthpb.HealthCheckResponse]) {
	t.Helper()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("live stream: got %v, want it cut (Unavailable)", err)
	}
}
