package simulation

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/tls"
)

// trustDomain is that of everybody here.
const trustDomain = "truc.sim"

// endpoint stands for TLS: a connection has the identities of its two hosts, and
// nobody can have another's. What real handshakes refuse is tested in tls.
type endpoint struct{ identity tls.Identity }

var (
	_ relay.Endpoint                   = endpoint{}
	_ credentials.TransportCredentials = handshake{}
)

func (e endpoint) Identity() tls.Identity { return e.identity }

// Sign is not reached: nothing here asks for a relay's statement.
func (e endpoint) Sign([]byte) ([]byte, error) {
	return nil, errors.New("there are no keys in a simulation")
}

func (e endpoint) ServerCredentials() credentials.TransportCredentials { return handshake{} }

func (e endpoint) ClientCredentials(expect func(tls.Identity) error) credentials.TransportCredentials {
	return handshake{expect}
}

func (e endpoint) ExpectPeer(name string) func(tls.Identity) error { return tls.ExpectRelay(name) }

func (e endpoint) CutRevoked() {}

type handshake struct{ expect func(tls.Identity) error }

func (h handshake) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c := raw.(*conn)
	if err := h.expect(c.identity); err != nil {
		return nil, nil, fmt.Errorf("%s is %s: %w", c.remote, c.identity, err)
	}
	return c, authInfo(c), nil
}

func (h handshake) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return raw, authInfo(raw.(*conn)), nil
}

func authInfo(c *conn) tls.AuthInfo {
	return tls.AuthInfo{
		TLSInfo:  credentials.TLSInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}},
		Identity: c.identity,
	}
}

func (handshake) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (h handshake) Clone() credentials.TransportCredentials { return h }
func (handshake) OverrideServerName(string) error           { return nil }

// reach gives the options with which gRPC reaches relays from a host of now.
func (n *network) reach(from string) func(func(tls.Identity) error) []grpc.DialOption {
	dialer := n.dialer(from)
	return func(expect func(tls.Identity) error) []grpc.DialOption {
		return []grpc.DialOption{grpc.WithTransportCredentials(handshake{expect}), grpc.WithContextDialer(dialer)}
	}
}
