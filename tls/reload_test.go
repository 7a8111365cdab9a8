package tls_test

import (
	"context"
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/pki"
)

func TestNewNamesTheFileAtFault(t *testing.T) {
	ca, foreign := newAuthority(t, domain), newAuthority(t, domain)
	relay, other := ca.issue(t, tls.KindRelay, "bac"), ca.issue(t, tls.KindRelay, "nam")
	put := func(name, content string) func(*testing.T, store, *tls.Config) {
		return func(t *testing.T, s store, _ *tls.Config) {
			if err := os.WriteFile(s.file(name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, store, *tls.Config) {
		return func(t *testing.T, s store, _ *tls.Config) {
			if err := os.Remove(s.file(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		change func(*testing.T, store, *tls.Config)
		want   []string
	}{
		"no certificate file":      {remove("own.crt"), []string{"certificate file", "own.crt"}},
		"no key file":              {remove("own.key"), []string{"key file", "own.key"}},
		"no trust file":            {remove("trust.crt"), []string{"trust file", "trust.crt"}},
		"trust file not set":       {func(_ *testing.T, _ store, c *tls.Config) { c.TrustFile = "" }, []string{"no trust file"}},
		"empty certificate":        {put("own.crt", ""), []string{"own.crt", "no certificate"}},
		"garbage certificate":      {put("own.crt", "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"), []string{"own.crt"}},
		"key in place of the cert": {put("own.crt", string(relay.key)), []string{"own.crt", "no certificate"}},
		"cert in place of the key": {put("own.key", string(relay.certificate)), []string{"own.key", "no private key"}},
		"key of another":           {put("own.key", string(other.key)), []string{"own.crt", "own.key", "does not match"}},
		"empty trust":              {put("trust.crt", "none"), []string{"trust.crt", "no certificate"}},
		"key in the trust file":    {put("trust.crt", string(ca.RootPEM())+string(relay.key)), []string{"trust.crt", "only certificates"}},
		"trust of another authority": {put("trust.crt", string(foreign.RootPEM())),
			[]string{"own.crt", "trust.crt", "no authority"}},
		"malformed identity": {func(t *testing.T, s store, _ *tls.Config) {
			s.putPair(t, ca.forge(t, named("spiffe://truc.test/admin/x")))
		}, []string{"own.crt", "kind"}},
		"ended": {func(_ *testing.T, _ store, c *tls.Config) {
			c.Clock = func() time.Time { return time.Now().AddDate(2, 0, 0) }
		}, []string{"own.crt", "issue a new one"}},
		"odd trust domain": {func(_ *testing.T, _ store, c *tls.Config) { c.TrustDomain = "Truc Việt" }, []string{"trust domain"}},
		"no trust domain anywhere": {func(t *testing.T, s store, _ *tls.Config) {
			p := ca.forge(t, named()) // neither names one, as an authority or as itself
			s.putPair(t, p)
			s.putTrust(t, p.certificate)
		}, []string{"own.crt", "trust.crt", "trust domain"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, relay, ca.RootPEM())
			config := s.config()
			test.change(t, s, &config)
			_, err := tls.New(config)
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing in: %v", want, err)
				}
			}
		})
	}
}

func TestReload(t *testing.T) {
	ca, next := newAuthority(t, domain), newAuthority(t, domain)
	first, second := ca.issue(t, tls.KindRelay, "bac"), ca.issue(t, tls.KindRelay, "bac")
	files := newStore(t, first, ca.RootPEM())
	config := files.config()
	lines := &journal{}
	config.Logger = lines.logger()
	counts := newMeter(&config)
	e := newEndpoint(t, config)
	s := serve(t, e)
	client := newEndpoint(t, newStore(t, ca.issue(t, tls.KindAgency, "G22"), ca.RootPEM(), next.RootPEM()).config())
	presented := func(want pair) {
		t.Helper()
		var p peer.Peer
		if err := check(t, dial(t, s.address, client.ClientCredentials(nil)), grpc.Peer(&p)); err != nil {
			t.Fatal(err)
		}
		if got := p.AuthInfo.(tls.AuthInfo).State.PeerCertificates[0]; !got.Equal(want.leaf(t)) {
			t.Errorf("the relay presents %x, want %x", got.SerialNumber, want.leaf(t).SerialNumber)
		}
	}
	presented(first)
	if err := e.Reload(); err != nil || strings.Contains(lines.String(), "took up") {
		t.Errorf("nothing changed: got %v, log %s", err, lines)
	}

	files.putPair(t, second)
	if err := e.Reload(); err != nil {
		t.Fatal(err)
	}
	presented(second)
	counts.await(t, "truc.tls.reloads", "ok", 1)

	// None of these may replace what works.
	for name, bad := range map[string]pair{
		"another identity": ca.issue(t, tls.KindRelay, "nam"),
		"another kind":     ca.issue(t, tls.KindAgency, "bac"),
		"certificate only": {ca.issue(t, tls.KindRelay, "bac").certificate, second.key},
		"garbage":          {[]byte("-----BEGIN CERTIFICATE-----\n"), second.key},
		"a certificate ended ": ca.forge(t, func(c *x509.Certificate) {
			named("spiffe://truc.test/relay/bac")(c)
			c.NotAfter = time.Now().Add(-time.Minute)
		}),
	} {
		files.putPair(t, bad)
		before := counts.sum(t, "truc.tls.reloads", "failed")
		for range 3 {
			if err := e.Reload(); err == nil || !strings.Contains(err.Error(), "own.crt") {
				t.Errorf("%s: got %v, want an error that names the file", name, err)
			}
		}
		if got := counts.sum(t, "truc.tls.reloads", "failed"); got != before+1 {
			t.Errorf("%s: reported %d times, want once", name, got-before)
		}
		presented(second)
	}

	// A bad certificate does not keep a change of the trust file from counting.
	stranger := newEndpoint(t, newStore(t, next.issue(t, tls.KindAgency, "H26"), ca.RootPEM(), next.RootPEM()).config())
	if err := check(t, dial(t, s.address, stranger.ClientCredentials(nil))); err == nil {
		t.Fatal("an agency of the next authority came in before it is trusted")
	}
	files.putTrust(t, ca.RootPEM(), next.RootPEM())
	if err := e.Reload(); err == nil {
		t.Error("the bad certificate file is still there, Reload says nothing")
	}
	if err := check(t, dial(t, s.address, stranger.ClientCredentials(nil))); err != nil {
		t.Errorf("an agency of the next authority: %v", err)
	}

	files.putPair(t, second)
	files.putTrust(t, []byte("nothing"))
	if err := e.Reload(); err == nil || !strings.Contains(err.Error(), "trust.crt") {
		t.Errorf("broken trust file: got %v, want an error that names it", err)
	}
	presented(second)

	if err := os.Remove(files.file("trust.crt")); err != nil {
		t.Fatal(err)
	}
	if err := e.Reload(); err == nil || !strings.Contains(err.Error(), "trust.crt") {
		t.Errorf("missing trust file: got %v, want an error that names it", err)
	}
	presented(second)
	files.putTrust(t, ca.RootPEM())
	if err := e.Reload(); err != nil {
		t.Errorf("all is well again: %v", err)
	}
	presented(second)
}

func TestRunTakesUpChangedFiles(t *testing.T) {
	ca := newAuthority(t, domain)
	synctest.Test(t, func(t *testing.T) {
		// Time in here begins long before the authority does.
		ahead := time.Until(ca.Certificate().NotBefore.Add(time.Hour))
		issue := func() pair {
			return ca.forge(t, func(c *x509.Certificate) {
				named("spiffe://truc.test/relay/bac")(c)
				c.NotBefore, c.NotAfter = ca.Certificate().NotBefore, ca.Certificate().NotAfter
			})
		}
		files := newStore(t, issue(), ca.RootPEM())
		config := files.config()
		lines := &journal{}
		config.Logger = lines.logger()
		config.Clock = func() time.Time { return time.Now().Add(ahead) }
		e := newEndpoint(t, config)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()

		files.putPair(t, issue())
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := strings.Count(lines.String(), "took up changed certificate files"); got != 1 {
			t.Errorf("taken up %d times, want once:\n%s", got, lines)
		}
		files.putPair(t, pair{[]byte("gone"), []byte("gone")})
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := strings.Count(lines.String(), "the old ones stay in force"); got != 1 {
			t.Errorf("reported %d times, want once:\n%s", got, lines)
		}
		if strings.Contains(lines.String(), "comes to its end") {
			t.Errorf("end of the certificate reported years ahead:\n%s", lines)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestComingEndIsReportedDaily(t *testing.T) {
	ca := newAuthority(t, domain)
	c, k, err := ca.Issue(pki.Request{Kind: tls.KindRelay, Name: "bac", Validity: 29 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	config := newStore(t, pair{c, k}, ca.RootPEM()).config()
	lines, now := &journal{}, &clock{}
	config.Logger, config.Clock = lines.logger(), now.now
	e := newEndpoint(t, config)
	for range 3 {
		for range 5 {
			if err := e.Reload(); err != nil {
				t.Fatal(err)
			}
		}
		now.forward(24 * time.Hour)
	}
	if got := strings.Count(lines.String(), "comes to its end"); got != 3 {
		t.Errorf("reported %d times in three days, want 3:\n%s", got, lines)
	}
}
