package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/truclienthong/truc/tls"
)

// Request says what a certificate is to be for.
type Request struct {
	Kind tls.Kind
	Name string
	// Hosts are DNS names and IP addresses. Relays know one another by
	// identity; clients that check host names need them.
	Hosts []string
	// Validity from now on; 0: DefaultValidity. The root's end is the limit.
	Validity time.Duration
}

// NewKey makes a private key in PEM form.
func NewKey() (keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return encodeKey(key)
}

// NewRequest makes a key and a certificate request for the identity, to be
// signed where the authority is; the key stays here.
func NewRequest(identity tls.Identity, hosts ...string) (csrPEM, keyPEM []byte, err error) {
	if keyPEM, err = NewKey(); err != nil {
		return nil, nil, err
	}
	if csrPEM, err = RequestFor(identity, keyPEM, hosts...); err != nil {
		return nil, nil, err
	}
	return csrPEM, keyPEM, nil
}

// RequestFor makes a certificate request for a key that exists already, for a
// renewal.
func RequestFor(identity tls.Identity, keyPEM []byte, hosts ...string) (csrPEM []byte, err error) {
	uri, err := identityURI(identity)
	if err != nil {
		return nil, fmt.Errorf("request certificate: %w", err)
	}
	key, err := decodeKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("request certificate for %s: %w", identity, err)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: identity.Name}, URIs: []*url.URL{uri}}
	if template.DNSNames, template.IPAddresses, err = splitHosts(hosts); err != nil {
		return nil, fmt.Errorf("request certificate for %s: %w", identity, err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("request certificate for %s: %w", identity, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// Issue makes a key and a certificate for it.
func (a *Authority) Issue(r Request) (certPEM, keyPEM []byte, err error) {
	if keyPEM, err = NewKey(); err != nil {
		return nil, nil, err
	}
	key, err := decodeKey(keyPEM)
	if err != nil {
		return nil, nil, err
	}
	if certPEM, err = a.certify(r, key.Public()); err != nil {
		return nil, nil, err
	}
	return certPEM, keyPEM, nil
}

// Sign makes a certificate for the key of a certificate request, under the
// identity that the request names. Where expect has a Kind or a Name, the
// request must name that one; otherwise whoever calls has looked at it
// (InspectRequest). Host names come from expect; for relays, where expect has
// none, from the request.
func (a *Authority) Sign(csrPEM []byte, expect Request) (certPEM []byte, err error) {
	identity, csr, err := readRequest(csrPEM)
	if err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	switch {
	case identity.TrustDomain != a.domain:
		return nil, fmt.Errorf("sign request: it is for %s, this authority is of trust domain %s", identity, a.domain)
	case expect.Kind != 0 && expect.Kind != identity.Kind, expect.Name != "" && expect.Name != identity.Name:
		return nil, fmt.Errorf("sign request: it is for %s, not for the %s %s that was expected", identity,
			kindOrAny(expect.Kind), nameOrAny(expect.Name))
	}
	expect.Kind, expect.Name = identity.Kind, identity.Name
	if len(expect.Hosts) == 0 && identity.Kind == tls.KindRelay {
		expect.Hosts = csr.DNSNames
		for _, ip := range csr.IPAddresses {
			expect.Hosts = append(expect.Hosts, ip.String())
		}
	}
	return a.certify(expect, csr.PublicKey)
}

// InspectRequest checks the signature of a certificate request and returns the
// identity that it names.
func InspectRequest(csrPEM []byte) (tls.Identity, error) {
	identity, _, err := readRequest(csrPEM)
	return identity, err
}

func readRequest(csrPEM []byte) (tls.Identity, *x509.CertificateRequest, error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return tls.Identity{}, nil, errors.New("no certificate request in PEM form")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return tls.Identity{}, nil, err
	}
	// Proof that whoever asks holds the key.
	if err := csr.CheckSignature(); err != nil {
		return tls.Identity{}, nil, fmt.Errorf("its signature is wrong: %w", err)
	}
	if len(csr.URIs) != 1 {
		return tls.Identity{}, nil, fmt.Errorf("it has %d URI names, exactly one identity is needed", len(csr.URIs))
	}
	identity, err := tls.ParseIdentity(csr.URIs[0].String())
	return identity, csr, err
}

// certify makes the certificate and lists it before it hands it out.
func (a *Authority) certify(r Request, public crypto.PublicKey) ([]byte, error) {
	identity := tls.Identity{TrustDomain: a.domain, Kind: r.Kind, Name: r.Name}
	uri, err := identityURI(identity)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if err := checkKey(public); err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", identity, err)
	}
	if r.Validity < 0 {
		return nil, fmt.Errorf("issue certificate for %s: validity %s is in the past", identity, r.Validity)
	}
	if r.Validity == 0 {
		r.Validity = DefaultValidity
	}
	now := time.Now()
	if !now.Before(a.certificate.NotAfter) {
		return nil, fmt.Errorf("issue certificate for %s: the authority itself ended %s", identity, a.certificate.NotAfter.Format(time.RFC3339))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", identity, err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: identity.Name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(r.Validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{uri},
	}
	if template.NotBefore.Before(a.certificate.NotBefore) {
		template.NotBefore = a.certificate.NotBefore
	}
	if template.NotAfter.After(a.certificate.NotAfter) {
		template.NotAfter = a.certificate.NotAfter
	}
	if r.Kind == tls.KindRelay {
		// Relays serve, and dial one another.
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if template.DNSNames, template.IPAddresses, err = splitHosts(r.Hosts); err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", identity, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", identity, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", identity, err)
	}
	keyHash := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	if err := a.index.append(event{
		Event: eventIssued, At: now.UTC(), Serial: FormatSerial(leaf.SerialNumber.Bytes()),
		Identity: identity.String(), Hosts: r.Hosts,
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, KeyHash: hex.EncodeToString(keyHash[:]),
	}); err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", identity, err)
	}
	return encodeCertificate(der), nil
}

// identityURI refuses what would not be read back as the same identity.
func identityURI(identity tls.Identity) (*url.URL, error) {
	parsed, err := tls.ParseIdentity(identity.String())
	if err != nil {
		return nil, err
	}
	if parsed != identity {
		return nil, fmt.Errorf("%s is not a proper identity", identity)
	}
	return url.Parse(identity.String())
}

// checkKey refuses keys too weak for the years they are certified for.
func checkKey(public crypto.PublicKey) error {
	if key, ok := public.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		return fmt.Errorf("its RSA key has %d bits, at least 2048 are needed", key.N.BitLen())
	}
	return nil
}

func splitHosts(hosts []string) (names []string, addresses []net.IP, err error) {
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			addresses = append(addresses, ip)
			continue
		}
		if host == "" || strings.ContainsAny(host, " :/@") {
			return nil, nil, fmt.Errorf("host %q: must be a DNS name or an IP address, without a port", host)
		}
		names = append(names, host)
	}
	return names, addresses, nil
}

func kindOrAny(kind tls.Kind) string {
	if kind == 0 {
		return "identity"
	}
	return kind.String()
}

func nameOrAny(name string) string {
	if name == "" {
		return "of any name"
	}
	return name
}
