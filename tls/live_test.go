package tls_test

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/truclienthong/truc/tls"
)

// Whatever a connection was let in for may be taken back while it lives; then
// it is cut, whichever side finds out.
func TestLiveConnectionsAreCut(t *testing.T) {
	type end struct {
		endpoint *tls.Endpoint
		trust    *directory
		clock    *clock
		files    store
		counts   meter
		pair     pair
		ca       *authority
	}
	for name, test := range map[string]struct {
		takeBack func(t *testing.T, self, peer end)
		reason   string
	}{
		"revoked": {reason: "revoked", takeBack: func(t *testing.T, self, peer end) {
			self.trust.revoke(peer.pair.leaf(t), peer.ca.IssuerKeyHash())
			self.endpoint.CutRevoked()
		}},
		"end of validity": {reason: "expired", takeBack: func(_ *testing.T, self, _ end) {
			self.clock.forward(authorityLifetime)
			self.endpoint.CutRevoked()
		}},
		"authority taken out of the trust file": {reason: "foreign_root", takeBack: func(t *testing.T, self, _ end) {
			self.files.putTrust(t, self.ca.RootPEM())
			if err := self.endpoint.Reload(); err != nil {
				t.Error(err)
			}
		}},
	} {
		for _, accepted := range []bool{true, false} {
			side := map[bool]string{true: "by the side that accepted", false: "by the side that dialed"}[accepted]
			t.Run(name+", "+side, func(t *testing.T) {
				a, b := newAuthority(t, domain), newAuthority(t, domain)
				newEnd := func(ca *authority, relay string) end {
					e := end{trust: &directory{}, clock: &clock{}, ca: ca, pair: ca.issue(t, tls.KindRelay, relay)}
					e.files = newStore(t, e.pair, a.RootPEM(), b.RootPEM())
					config := e.files.config()
					config.Trust, config.Clock = e.trust, e.clock.now
					e.counts = newMeter(&config)
					e.endpoint = newEndpoint(t, config)
					return e
				}
				server, client := newEnd(a, "bac"), newEnd(b, "nam")
				s := serve(t, server.endpoint)
				stream := watch(t, dial(t, s.address, client.endpoint.ClientCredentials(nil)))
				raft, err := client.endpoint.DialRaft(testContext(t), s.address, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer raft.Close()
				if err := raft.SetDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
				echo(t, raft)

				self, peer := server, client
				if !accepted {
					self, peer = client, server
				}
				// Nothing changed: nothing is cut.
				server.endpoint.CutRevoked()
				client.endpoint.CutRevoked()
				echo(t, raft)

				test.takeBack(t, self, peer)
				mustBeCut(t, stream)
				mustEnd(t, raft)
				self.counts.await(t, "truc.tls.cut", test.reason, 2)
			})
		}
	}
}

// authorityLifetime is more than any certificate's here.
const authorityLifetime = 11 * 365 * 24 * time.Hour

func TestConnectionsAreCounted(t *testing.T) {
	ca := newAuthority(t, domain)
	config := newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM()).config()
	counts := newMeter(&config)
	s := serve(t, newEndpoint(t, config))
	c, err := newEndpoint(t, newStore(t, ca.issue(t, tls.KindRelay, "nam"), ca.RootPEM()).config()).DialRaft(testContext(t), s.address, nil)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, c)
	counts.await(t, "truc.tls.connections", "in", 1)
	c.Close()
	counts.await(t, "truc.tls.connections", "in", 0)
}

// One identity has so many connections and no more; others do not notice, and
// room comes back when one is closed.
func TestConnectionsPerIdentityAreBounded(t *testing.T) {
	s, ca, counts := port(t, func(c *tls.Config) { c.MaxConnections = 2 })
	open := func(name string) net.Conn {
		t.Helper()
		c, err := newEndpoint(t, newStore(t, ca.issue(t, tls.KindRelay, name), ca.RootPEM()).config()).DialRaft(testContext(t), s.address, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	first, second := open("nam"), open("nam")
	echo(t, first)
	echo(t, second)
	mustEnd(t, open("nam"))
	counts.await(t, "truc.tls.handshakes", "too_many", 1)
	echo(t, second)
	echo(t, open("trung"))
	first.Close()
	counts.await(t, "truc.tls.connections", "in", 2)
	echo(t, open("nam"))
}

func echo(t *testing.T, c io.ReadWriter) {
	t.Helper()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// A revocation that comes between the verification and the moment when the
// connection can be found by CutRevoked must not be missed.
func TestRevokedDuringTheHandshake(t *testing.T) {
	ca := newAuthority(t, domain)
	config := newStore(t, ca.issue(t, tls.KindRelay, "bac"), ca.RootPEM()).config()
	config.Trust = &sudden{}
	counts := newMeter(&config)
	s := serve(t, newEndpoint(t, config))
	c, err := newEndpoint(t, newStore(t, ca.issue(t, tls.KindRelay, "nam"), ca.RootPEM()).config()).DialRaft(testContext(t), s.address, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	mustEnd(t, c)
	counts.await(t, "truc.tls.handshakes", "revoked", 1)
}

// sudden revokes every certificate once it has let it pass.
type sudden struct {
	directory
	asked atomic.Int64
}

func (s *sudden) Revoked([]byte, [32]byte) bool { return s.asked.Add(1) > 1 }
