package tls

import (
	"bytes"
	"crypto/sha256"
	stdtls "crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// files are the contents of the three files as they were last read.
type files struct {
	certificate, key, trust []byte
	unreadable              bool  // a later look failed
	failure                 error // why these contents, or some of them, are not in use
}

func (f files) equal(o files) bool {
	return bytes.Equal(f.certificate, o.certificate) && bytes.Equal(f.key, o.key) && bytes.Equal(f.trust, o.trust)
}

// readFiles compares contents, not times: whoever replaces a file, by rename,
// in place or by turning a symbolic link, is noticed, and three small files
// every few seconds cost nothing.
func readFiles(config Config) (files, error) {
	var f files
	for _, file := range []struct {
		what, name string
		into       *[]byte
	}{
		{"certificate", config.CertificateFile, &f.certificate},
		{"key", config.KeyFile, &f.key},
		{"trust", config.TrustFile, &f.trust},
	} {
		if file.name == "" {
			return files{}, fmt.Errorf("no %s file is configured", file.what)
		}
		content, err := os.ReadFile(file.name)
		if err != nil {
			return files{}, fmt.Errorf("read %s file: %w", file.what, err)
		}
		*file.into = content
	}
	return f, nil
}

// authority is a certificate that may vouch for others, and for which.
type authority struct {
	certificate *x509.Certificate
	fingerprint [32]byte // SHA-256 of the certificate
	domain      string
	outside     bool
	home        bool // may vouch for relays and operators
}

// material is what the files give. It is never changed, only replaced.
type material struct {
	own         *stdtls.Certificate // Leaf is set
	authorities []authority
}

func parsePair(config Config, f files) (*stdtls.Certificate, error) {
	if !bytes.Contains(f.certificate, []byte("-----BEGIN CERTIFICATE-----")) {
		return nil, fmt.Errorf("certificate file %s holds no certificate in PEM form", config.CertificateFile)
	}
	if !bytes.Contains(f.key, []byte("PRIVATE KEY-----")) {
		return nil, fmt.Errorf("key file %s holds no private key in PEM form", config.KeyFile)
	}
	own, err := stdtls.X509KeyPair(f.certificate, f.key)
	if err != nil {
		return nil, fmt.Errorf("certificate file %s with key file %s: %w", config.CertificateFile, config.KeyFile, err)
	}
	return &own, nil
}

// reloadPair checks a changed certificate as New does, and that it still is us:
// peers and the directory know this process by its identity.
func (e *Endpoint) reloadPair(f files, now time.Time) (*stdtls.Certificate, error) {
	own, err := parsePair(e.config, f)
	if err != nil {
		return nil, err
	}
	identity, err := ownIdentity(own.Leaf)
	if err != nil {
		return nil, fmt.Errorf("certificate file %s: %w", e.config.CertificateFile, err)
	}
	if identity != e.identity {
		return nil, fmt.Errorf("certificate file %s is for %s, this process is %s: restart to change identity",
			e.config.CertificateFile, identity, e.identity)
	}
	// The certificate in use may have ended while nobody replaced it; it must
	// not keep a change of the trust file from being taken up.
	if err := validNow(own.Leaf, now); err != nil && !own.Leaf.Equal(e.material.Load().own.Leaf) {
		return nil, fmt.Errorf("certificate file %s: %w", e.config.CertificateFile, err)
	}
	return own, nil
}

// ownIdentity is the identity our certificate claims; none is fine for a
// certificate from an outside authority, a broken one is not.
func ownIdentity(leaf *x509.Certificate) (Identity, error) {
	identity, err := CertificateIdentity(leaf)
	if err == nil {
		return identity, nil
	}
	for _, uri := range leaf.URIs {
		if strings.EqualFold(uri.Scheme, "spiffe") {
			return Identity{}, err
		}
	}
	return Identity{}, nil
}

func validNow(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("%w: valid from %s, it is %s", ErrExpired, c.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fmt.Errorf("%w: ended %s, it is %s", ErrExpired, c.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// parseAuthorities reads the trust file; the domain of an authority that names
// none is left empty.
func parseAuthorities(name string, content []byte) ([]authority, error) {
	var found []authority
	for rest := content; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("trust file %s holds a %s; only certificates belong there", name, strings.ToLower(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("trust file %s, certificate %d: %w", name, len(found)+1, err)
		}
		found = append(found, authority{
			certificate: c, fingerprint: sha256.Sum256(c.Raw), domain: AuthorityDomain(c), home: true,
		})
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("trust file %s holds no certificate in PEM form", name)
	}
	return found, nil
}

// homeDomain is the trust domain of this end: as configured, else our own
// certificate's, else the only one that the trust file names.
func homeDomain(config Config, own Identity, roots []authority) (string, error) {
	if config.TrustDomain != "" {
		if _, err := ParseIdentity("spiffe://" + config.TrustDomain + "/relay/x"); err != nil {
			return "", fmt.Errorf("trust domain %q is not one: lower-case letters, digits, dots, dashes and underscores", config.TrustDomain)
		}
		return config.TrustDomain, nil
	}
	if own.TrustDomain != "" {
		return own.TrustDomain, nil
	}
	var domains []string
	for _, root := range roots {
		domains = append(domains, root.domain)
	}
	slices.Sort(domains)
	domains = slices.Compact(domains)
	if len(domains) == 1 && domains[0] != "" {
		return domains[0], nil
	}
	return "", fmt.Errorf("neither certificate file %s nor trust file %s names one trust domain: configure it",
		config.CertificateFile, config.TrustFile)
}

func settleDomains(roots []authority, domain string) []authority {
	for i := range roots {
		if roots[i].domain == "" {
			roots[i].domain = domain
		}
	}
	return roots
}

// vouchesForOwn finds the mistake of a certificate and a trust file that do not
// belong together. A certificate of another trust domain, or from outside, is
// for the other side to judge.
func (m *material) vouchesForOwn(own Identity, now time.Time) error {
	var chosen []authority
	for _, a := range m.authorities {
		if a.domain == own.TrustDomain {
			chosen = append(chosen, a)
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	var presented []*x509.Certificate
	for _, der := range m.own.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("parse own chain: %w", err)
		}
		presented = append(presented, c)
	}
	_, err := buildChains(presented, chosen, x509.ExtKeyUsageClientAuth, now)
	if errors.Is(err, ErrForeignRoot) {
		return fmt.Errorf("no authority of the trust file signed this certificate for %s: %w", own, err)
	}
	return err
}
