package tls

import (
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Kind says what an identity is.
type Kind uint8

// The kinds of identities; the zero Kind is none.
const (
	KindRelay Kind = iota + 1
	KindAgency
	KindGateway
	KindOperator
)

var kindNames = [...]string{KindRelay: "relay", KindAgency: "agency", KindGateway: "gateway", KindOperator: "operator"}

func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// ParseKind is the reverse of Kind.String.
func ParseKind(s string) (Kind, error) {
	for k := KindRelay; k <= KindOperator; k++ {
		if kindNames[k] == s {
			return k, nil
		}
	}
	return 0, fmt.Errorf("kind %q: must be relay, agency, gateway or operator", s)
}

// maxName is the longest name in bytes; the longest agency code has 64.
const maxName = 128

// Identity is who a certificate speaks for: the URI
// spiffe://TrustDomain/Kind/Name. The zero Identity is nobody.
type Identity struct {
	// TrustDomain is the lower-case domain whose authorities vouch for it.
	TrustDomain string
	// Kind is what it is.
	Kind Kind
	// Name is a relay id, agency code (upper case and dots allowed), gateway
	// id or operator name.
	Name string
}

// String returns the SPIFFE id, or "nobody" for the zero Identity.
func (i Identity) String() string {
	if i == (Identity{}) {
		return "nobody"
	}
	return "spiffe://" + i.TrustDomain + "/" + i.Kind.String() + "/" + i.Name
}

// ParseIdentity is the reverse of Identity.String; anything that is not
// exactly of that form is an error.
func ParseIdentity(s string) (Identity, error) {
	id, err := spiffeid.FromString(s)
	if err != nil {
		return Identity{}, fmt.Errorf("identity %q: %w", s, err)
	}
	kind, name, ok := strings.Cut(strings.TrimPrefix(id.Path(), "/"), "/")
	if !ok || strings.Contains(name, "/") {
		return Identity{}, fmt.Errorf("identity %q: must be spiffe://TRUST-DOMAIN/KIND/NAME", s)
	}
	if len(name) > maxName {
		return Identity{}, fmt.Errorf("identity %q: name has %d bytes, at most %d are allowed", s, len(name), maxName)
	}
	k, err := ParseKind(kind)
	if err != nil {
		return Identity{}, fmt.Errorf("identity %q: %w", s, err)
	}
	return Identity{TrustDomain: id.TrustDomain().Name(), Kind: k, Name: name}, nil
}

// CertificateIdentity reads the identity that a certificate claims. Whether
// the claim is true is for the verification of its chain to say. A certificate
// without exactly one URI that is an identity gives ErrNoIdentity.
func CertificateIdentity(certificate *x509.Certificate) (Identity, error) {
	switch len(certificate.URIs) {
	case 0:
		return Identity{}, fmt.Errorf("%w: it has no URI name", ErrNoIdentity)
	case 1:
	default:
		return Identity{}, fmt.Errorf("%w: it has %d URI names, exactly one is allowed", ErrNoIdentity, len(certificate.URIs))
	}
	id, err := ParseIdentity(certificate.URIs[0].String())
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrNoIdentity, err)
	}
	return id, nil
}

// AuthorityDomain reads the trust domain that an authority's certificate names
// as spiffe://TRUST-DOMAIN; empty where it names none.
func AuthorityDomain(certificate *x509.Certificate) string {
	if len(certificate.URIs) != 1 {
		return ""
	}
	id, err := spiffeid.FromURI(certificate.URIs[0])
	if err != nil || id.Path() != "" {
		return ""
	}
	return id.TrustDomain().Name()
}

// ExpectKind accepts any identity of the kind.
func ExpectKind(kind Kind) func(Identity) error {
	return func(got Identity) error {
		if got.Kind != kind {
			return fmt.Errorf("%w: it is %s, expected any %s", ErrWrongIdentity, got, kind)
		}
		return nil
	}
}

// ExpectRelay accepts the relay with this id.
func ExpectRelay(id string) func(Identity) error {
	return func(got Identity) error {
		if got.Kind != KindRelay || got.Name != id {
			return fmt.Errorf("%w: it is %s, expected relay %s", ErrWrongIdentity, got, id)
		}
		return nil
	}
}

// ExpectPeer accepts the relay with this id, or any where it is empty, of our
// own trust domain. Relays are members of one mesh by their domain: an authority
// that is believed about another one may name a relay just like ours.
func (e *Endpoint) ExpectPeer(id string) func(Identity) error {
	return func(got Identity) error {
		expect := ExpectKind(KindRelay)
		if id != "" {
			expect = ExpectRelay(id)
		}
		if err := expect(got); err != nil {
			return err
		}
		if got.TrustDomain != e.trustDomain {
			return fmt.Errorf("%w: it is %s, expected a relay of trust domain %s", ErrWrongIdentity, got, e.trustDomain)
		}
		return nil
	}
}
