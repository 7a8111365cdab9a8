package tls_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	stdtls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const domain = "truc.test"

// patience is how long a test waits for what must come; nothing waits for it
// in a run without faults.
const patience = 60 * time.Second

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// authority is a pki.Authority that tests can also misuse.
type authority struct {
	*pki.Authority
	key crypto.Signer
}

func newAuthority(t *testing.T, trustDomain string) *authority {
	t.Helper()
	dir := t.TempDir()
	a, err := pki.Create(dir, trustDomain)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(content)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{a, key.(crypto.Signer)}
}

// pair is a certificate and its key.
type pair struct{ certificate, key []byte }

func (a *authority) issue(t *testing.T, kind tls.Kind, name string) pair {
	t.Helper()
	certificate, key, err := a.Issue(pki.Request{Kind: kind, Name: name, Hosts: []string{"127.0.0.1", "localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	return pair{certificate, key}
}

// forge signs whatever the test wants, beside the rules of the pki.
func (a *authority) forge(t *testing.T, change func(*x509.Certificate)) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: pkix.Name{CommonName: "forged"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate(), key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
}

func named(uris ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, uri := range uris {
			u, err := url.Parse(uri)
			if err != nil {
				panic(err)
			}
			c.URIs = append(c.URIs, u)
		}
	}
}

func (p pair) leaf(t *testing.T) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(p.certificate)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (p pair) keyHash(t *testing.T) [32]byte {
	return sha256.Sum256(p.leaf(t).RawSubjectPublicKeyInfo)
}

// loaded is the pair for a client that is not ours.
func (p pair) loaded(t *testing.T) stdtls.Certificate {
	t.Helper()
	c, err := stdtls.X509KeyPair(p.certificate, p.key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// store writes the three files of a Config.
type store struct{ dir string }

func newStore(t *testing.T, p pair, trust ...[]byte) store {
	s := store{t.TempDir()}
	s.putPair(t, p)
	s.putTrust(t, trust...)
	return s
}

func (s store) file(name string) string { return filepath.Join(s.dir, name) }

func (s store) putPair(t *testing.T, p pair) {
	t.Helper()
	if err := pki.WriteFiles(s.file("own.crt"), p.certificate, s.file("own.key"), p.key); err != nil {
		t.Fatal(err)
	}
}

func (s store) putTrust(t *testing.T, trust ...[]byte) {
	t.Helper()
	if err := pki.WriteFile(s.file("trust.crt"), bytes.Join(trust, nil), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (s store) config() tls.Config {
	return tls.Config{CertificateFile: s.file("own.crt"), KeyFile: s.file("own.key"), TrustFile: s.file("trust.crt")}
}

func newEndpoint(t *testing.T, config tls.Config) *tls.Endpoint {
	t.Helper()
	e, err := tls.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// directory is a Trust that tests change.
type directory struct {
	mu      sync.Mutex
	revoked map[string]bool
	bound   map[[32]byte]tls.Identity
	roots   []tls.Root
}

func (d *directory) Revoked(serial []byte, issuer [32]byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.revoked[string(serial)+string(issuer[:])]
}

func (d *directory) Bound(hash [32]byte) (tls.Kind, string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id, ok := d.bound[hash]
	return id.Kind, id.Name, ok
}

func (d *directory) Roots() []tls.Root {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.roots)
}

func (d *directory) revoke(c *x509.Certificate, issuer [32]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.revoked == nil {
		d.revoked = make(map[string]bool)
	}
	d.revoked[string(c.SerialNumber.Bytes())+string(issuer[:])] = true
}

func (d *directory) bind(hash [32]byte, kind tls.Kind, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bound == nil {
		d.bound = make(map[[32]byte]tls.Identity)
	}
	if kind == 0 {
		delete(d.bound, hash)
		return
	}
	d.bound[hash] = tls.Identity{Kind: kind, Name: name}
}

func (d *directory) setRoots(roots ...tls.Root) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.roots = roots
}

// clock is a time that tests move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// server is a relay's port with the health service on it, and an echo on the
// raft side.
type server struct {
	address string
	callers chan tls.Identity // of each call to Check
}

func serve(t *testing.T, e *tls.Endpoint) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: listener.Addr().String(), callers: make(chan tls.Identity, 100)}
	mux := e.Mux(listener)
	g := grpc.NewServer(grpc.Creds(e.ServerCredentials()),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			id, _ := tls.FromContext(ctx)
			s.callers <- id
			return next(ctx, req)
		}))
	healthpb.RegisterHealthServer(g, health.NewServer())
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := mux.Run(ctx); err != nil {
			t.Errorf("Mux.Run: %v", err)
		}
	})
	running.Go(func() { _ = g.Serve(mux.GRPC()) })
	running.Go(func() {
		for {
			c, err := mux.Raft().Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				buffer := make([]byte, 64)
				for {
					n, err := c.Read(buffer)
					if err != nil {
						return
					}
					if _, err := c.Write(buffer[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		g.Stop()
		running.Wait()
	})
	return s
}

func dial(t *testing.T, address string, creds credentials.TransportCredentials) healthpb.HealthClient {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return healthpb.NewHealthClient(c)
}

// stranger is a gRPC client that is not ours: it believes any server.
func stranger(t *testing.T, p pair) credentials.TransportCredentials {
	return credentials.NewTLS(&stdtls.Config{InsecureSkipVerify: true, Certificates: []stdtls.Certificate{p.loaded(t)}})
}

func check(t *testing.T, client healthpb.HealthClient, options ...grpc.CallOption) error {
	t.Helper()
	_, err := client.Check(testContext(t), &healthpb.HealthCheckRequest{}, options...)
	return err
}
