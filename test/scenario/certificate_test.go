package scenario

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	stdtls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/truclienthong/truc/cmd/relayd/dev"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/mesh"
)

// authority signs whatever a test wants, as one that has gone astray would.
type authority struct {
	certificate *x509.Certificate
	key         any
}

// meshAuthority is the authority that the mesh believes.
func meshAuthority(t *testing.T, l dev.Layout) authority {
	t.Helper()
	block := func(name string) []byte {
		raw, err := os.ReadFile(filepath.Join(l.Dir, "ca", name))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := pem.Decode(raw)
		return b.Bytes
	}
	certificate, err := x509.ParseCertificate(block("root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(block("root.key"))
	if err != nil {
		t.Fatal(err)
	}
	return authority{certificate, key}
}

// foreignAuthority is one that nobody believes, with the same trust domain.
func foreignAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "foreign"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{certificate, key}
}

// credentials are those of a client that believes anyone and shows a
// certificate with the name and the end of validity.
func (a authority) credentials(t *testing.T, name string, notAfter time.Time) (credentials.TransportCredentials, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	if name != "" {
		uri, err := url.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = []*url.URL{uri}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return credentials.NewTLS(&stdtls.Config{MinVersion: stdtls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"h2"},
		Certificates: []stdtls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}}), leaf
}

func dial(t *testing.T, address string, c credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Who shows no good certificate reaches no service; who shows a good one reaches
// only those meant for it.
func TestCertificates(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{})
	address := m.Layout.Address("bac")
	good, foreign := meshAuthority(t, m.Layout), foreignAuthority(t)
	tomorrow, yesterday := time.Now().Add(24*time.Hour), time.Now().Add(-time.Hour)
	const domain = "spiffe://" + dev.TrustDomain

	attach := func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := exchangev1.NewExchangeServiceClient(conn).Attach(ctx, &exchangev1.AttachRequest{})
		return err
	}
	probe := func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := relayv1.NewPeerServiceClient(conn).Probe(ctx, &relayv1.ProbeRequest{})
		return err
	}
	propose := func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := directoryv1.NewReplicationServiceClient(conn).Propose(ctx, &directoryv1.ProposeRequest{RequestId: make([]byte, 16)})
		return err
	}
	members := func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := adminv1.NewRaftServiceClient(conn).Members(ctx, &adminv1.MembersRequest{})
		return err
	}
	wrong := exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY
	for name, c := range map[string]struct {
		by       authority
		identity string
		notAfter time.Time
		call     func(context.Context, *grpc.ClientConn) error
		code     codes.Code
		reason   exchangev1.ErrorReason
	}{
		"good":                           {good, domain + "/agency/G22", tomorrow, attach, codes.OK, 0},
		"expired":                        {good, domain + "/agency/G22", yesterday, attach, codes.Unavailable, 0},
		"foreign root":                   {foreign, domain + "/agency/G22", tomorrow, attach, codes.Unavailable, 0},
		"no identity":                    {good, "", tomorrow, attach, codes.Unavailable, 0},
		"another trust domain":           {good, "spiffe://elsewhere/agency/G22", tomorrow, attach, codes.Unavailable, 0},
		"agency that is not registered":  {good, domain + "/agency/X99", tomorrow, attach, codes.PermissionDenied, exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED},
		"agency on a peer call":          {good, domain + "/agency/G22", tomorrow, probe, codes.PermissionDenied, wrong},
		"agency on a replication call":   {good, domain + "/agency/G22", tomorrow, propose, codes.PermissionDenied, wrong},
		"agency on an admin call":        {good, domain + "/agency/G22", tomorrow, members, codes.PermissionDenied, wrong},
		"relay on an agency call":        {good, domain + "/relay/bac", tomorrow, attach, codes.PermissionDenied, wrong},
		"relay on an admin call":         {good, domain + "/relay/bac", tomorrow, members, codes.PermissionDenied, wrong},
		"relay that is not registered":   {good, domain + "/relay/nowhere", tomorrow, probe, codes.Unavailable, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING},
		"operator on an agency call":     {good, domain + "/operator/dev", tomorrow, attach, codes.PermissionDenied, wrong},
		"operator on a peer call":        {good, domain + "/operator/dev", tomorrow, probe, codes.PermissionDenied, wrong},
		"gateway that is not registered": {good, domain + "/gateway/g1", tomorrow, attach, codes.PermissionDenied, exchangev1.ErrorReason_ERROR_REASON_GATEWAY_NOT_AUTHORIZED},
	} {
		t.Run(name, func(t *testing.T) {
			shown, _ := c.by.credentials(t, c.identity, c.notAfter)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := c.call(ctx, dial(t, address, shown))
			if got := status.Code(err); got != c.code {
				t.Errorf("code %s (%v), want %s", got, err, c.code)
			}
			if c.reason != 0 {
				if r, ok := envelope.AsRefusal(err); !ok || !r.Has(c.reason) {
					t.Errorf("%v, want reason %s", err, c.reason)
				}
			}
		})
	}

	t.Run("revoked during a live stream", func(t *testing.T) {
		shown, leaf := good.credentials(t, domain+"/agency/G22", tomorrow)
		conn := dial(t, address, shown)
		stream, err := exchangev1.NewExchangeServiceClient(conn).Receive(t.Context(), &exchangev1.ReceiveRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if err := attach(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		// Revoked at another relay than the one that serves the stream.
		change(t, m.Operator("nam"), &directoryv1.Command{Change: &directoryv1.Command_RevokeCertificate{
			RevokeCertificate: &directoryv1.RevokeCertificate{Revocation: &directoryv1.Revocation{
				Serial: leaf.SerialNumber.Bytes(), Reason: "lost"}}}})
		if _, err := stream.Recv(); err == nil {
			t.Error("the stream goes on after the revocation")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := attach(ctx, conn); status.Code(err) != codes.Unavailable {
			t.Errorf("a new call: %v, want a refused handshake", err)
		}
	})

	t.Run("plaintext client", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := attach(ctx, dial(t, address, insecure.NewCredentials())); status.Code(err) != codes.Unavailable {
			t.Errorf("%v, want Unavailable", err)
		}
	})

	for name, bytes := range map[string]string{
		"garbage": "\x00\xff\x13\x37 this is no handshake\r\n\r\n", "an HTTP request": "GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, bytes); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, bufio.NewReader(conn))
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("the connection stays open")
			}
		})
	}
	// After all of it documents travel as before.
	m.Agency("G22").Receive()
	m.Agency("H17").Send(mesh.Files{"a.txt": []byte("a")}, "G22")
}
