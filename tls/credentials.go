package tls

import (
	"context"
	stdtls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// The protocols of a relay's one port, as ALPN names them.
const (
	protocolGRPC = "h2"
	protocolRaft = "truc-raft/1"
)

// AuthInfo is what a gRPC call knows of its peer.
type AuthInfo struct {
	credentials.TLSInfo
	// Identity of the peer, verified.
	Identity Identity
}

// FromContext returns the verified identity of a gRPC call's peer; false
// outside of a call, and for calls over other credentials than ours.
func FromContext(ctx context.Context) (Identity, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, false
	}
	info, ok := p.AuthInfo.(AuthInfo)
	return info.Identity, ok && info.Identity != Identity{}
}

func (c *conn) authInfo() AuthInfo {
	return AuthInfo{
		TLSInfo: credentials.TLSInfo{
			State:          c.ConnectionState(),
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		},
		Identity: c.identity,
	}
}

// ServerCredentials are for a grpc.Server that serves Mux.GRPC: they take the
// connections that the Mux has verified, and no others.
func (e *Endpoint) ServerCredentials() credentials.TransportCredentials {
	return &serverCredentials{}
}

// ClientCredentials dial gRPC. expect judges the verified identity of the
// server, on the handshake and on every CutRevoked after it; nil: any relay.
func (e *Endpoint) ClientCredentials(expect func(Identity) error) credentials.TransportCredentials {
	return &clientCredentials{endpoint: e, expect: expect}
}

var (
	_ credentials.TransportCredentials = (*serverCredentials)(nil)
	_ credentials.TransportCredentials = (*clientCredentials)(nil)
)

var protocolInfo = credentials.ProtocolInfo{SecurityProtocol: "tls"}

type serverCredentials struct{}

func (*serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*conn)
	if !ok {
		return nil, nil, fmt.Errorf("connection from %s did not come through the Mux", raw.RemoteAddr())
	}
	return c, c.authInfo(), nil
}

func (*serverCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("server credentials cannot dial")
}

func (*serverCredentials) Info() credentials.ProtocolInfo { return protocolInfo }

func (s *serverCredentials) Clone() credentials.TransportCredentials { return s }

// OverrideServerName does nothing: peers are known by identity, not by host.
func (*serverCredentials) OverrideServerName(string) error { return nil }

type clientCredentials struct {
	endpoint *Endpoint
	expect   func(Identity) error
}

func (c *clientCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, err := c.endpoint.connect(ctx, raw, authority, protocolGRPC, c.expect)
	if err != nil {
		return nil, nil, err
	}
	return secured, secured.authInfo(), nil
}

func (*clientCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("client credentials cannot serve")
}

func (*clientCredentials) Info() credentials.ProtocolInfo { return protocolInfo }

func (c *clientCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName does nothing: peers are known by identity, not by host.
func (*clientCredentials) OverrideServerName(string) error { return nil }

// DialRaft connects to the Raft side of a relay's port. expect judges the
// verified identity besides that it is a relay of our trust domain; nil: any.
func (e *Endpoint) DialRaft(ctx context.Context, address string, expect func(Identity) error) (net.Conn, error) {
	member := e.ExpectPeer("")
	if expect != nil {
		further := expect
		expect = func(got Identity) error { return errors.Join(member(got), further(got)) }
	} else {
		expect = member
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("dial raft at %s: %w", address, err)
	}
	c, err := e.connect(ctx, raw, address, protocolRaft, expect)
	if err != nil {
		return nil, fmt.Errorf("dial raft at %s: %w", address, err)
	}
	return c, nil
}

// connect makes a dialed connection secure; on error it closes raw.
func (e *Endpoint) connect(ctx context.Context, raw net.Conn, address, protocol string, expect func(Identity) error) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.config.HandshakeTimeout)
	defer cancel()
	c, err := e.clientHandshake(ctx, raw, address, protocol, expect)
	e.instruments.handshake(true, err)
	if err != nil {
		_ = raw.Close()
		if isAboutCertificate(err) && e.refusals.Allow() {
			e.logger.Warn("did not connect", "address", address, "reason", reasonOf(err), "error", err)
		}
		return nil, err
	}
	return c, nil
}

func (e *Endpoint) clientHandshake(ctx context.Context, raw net.Conn, address, protocol string, expect func(Identity) error) (*conn, error) {
	if expect == nil {
		expect = ExpectKind(KindRelay)
	}
	own := e.material.Load().own
	if err := validNow(own.Leaf, e.config.Clock()); err != nil {
		return nil, fmt.Errorf("own certificate file %s: %w; have a new one issued and replace the file", e.config.CertificateFile, err)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	var v *verified
	config := e.base()
	config.ServerName = host // for the server to read, not for us to check
	config.NextProtos = []string{protocol}
	// Go's own verification wants a host name and one pool of roots; ours
	// stands in VerifyConnection, which runs on every handshake.
	config.InsecureSkipVerify = true
	config.GetClientCertificate = func(*stdtls.CertificateRequestInfo) (*stdtls.Certificate, error) { return own, nil }
	config.VerifyConnection = func(state stdtls.ConnectionState) error {
		peer, err := e.verify(state.PeerCertificates, x509.ExtKeyUsageServerAuth)
		if err == nil {
			err = expect(peer.identity)
		}
		if err != nil {
			return fmt.Errorf("peer at %s%s: %w", address, claimed(state.PeerCertificates), err)
		}
		if state.NegotiatedProtocol != protocol {
			return fmt.Errorf("peer at %s: %w: it does not offer %s", address, ErrProtocol, protocol)
		}
		v = peer
		return nil
	}
	client := stdtls.Client(raw, config)
	if err := client.HandshakeContext(ctx); err != nil {
		return nil, e.explain("peer at "+address, err)
	}
	c := &conn{Conn: client, raw: raw, expect: expect, usage: x509.ExtKeyUsageServerAuth, dialed: true}
	if err := e.enter(c, v); err != nil {
		return nil, fmt.Errorf("peer at %s: %w", address, err)
	}
	return c, nil
}

// serverHandshake makes an accepted connection secure. It leaves raw open on
// error, for the caller to let the alert reach the peer.
func (e *Endpoint) serverHandshake(ctx context.Context, raw net.Conn) (*conn, error) {
	var v *verified
	config := e.base()
	config.NextProtos = []string{protocolGRPC, protocolRaft}
	// Which authorities count depends on the certificate, so the chain is
	// verified in VerifyConnection alone.
	config.ClientAuth = stdtls.RequireAnyClientCert
	own := e.material.Load().own
	config.GetCertificate = func(*stdtls.ClientHelloInfo) (*stdtls.Certificate, error) { return own, nil }
	config.VerifyConnection = func(state stdtls.ConnectionState) error {
		peer, err := e.verify(state.PeerCertificates, x509.ExtKeyUsageClientAuth)
		if err != nil {
			return fmt.Errorf("peer%s: %w", claimed(state.PeerCertificates), err)
		}
		switch state.NegotiatedProtocol {
		case protocolGRPC:
		case protocolRaft:
			if err := e.ExpectPeer("")(peer.identity); err != nil {
				return fmt.Errorf("peer on the raft protocol: %w", err)
			}
		default:
			return fmt.Errorf("%s: %w: it asks for no protocol by ALPN", peer.identity, ErrProtocol)
		}
		v = peer
		return nil
	}
	server := stdtls.Server(raw, config)
	if err := server.HandshakeContext(ctx); err != nil {
		if strings.Contains(err.Error(), "unsupported application protocols") {
			err = fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		return nil, err
	}
	c := &conn{Conn: server, raw: raw, usage: x509.ExtKeyUsageClientAuth}
	if err := e.enter(c, v); err != nil {
		return nil, err
	}
	return c, nil
}

// base is what both sides have in common. No client session cache and no
// tickets: nothing is ever resumed.
func (e *Endpoint) base() *stdtls.Config {
	return &stdtls.Config{
		MinVersion:             stdtls.VersionTLS13,
		SessionTicketsDisabled: true,
		Time:                   e.config.Clock,
	}
}

// claimed names the identity that a refused certificate claims, and the number
// by which its authority knows it.
func claimed(presented []*x509.Certificate) string {
	if len(presented) == 0 {
		return ""
	}
	leaf := presented[0]
	identity, err := CertificateIdentity(leaf)
	if err != nil {
		return fmt.Sprintf(" with certificate %x", leaf.SerialNumber.Bytes())
	}
	return fmt.Sprintf(" that claims to be %s with certificate %x", identity, leaf.SerialNumber.Bytes())
}
