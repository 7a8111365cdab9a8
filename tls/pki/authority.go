// Package pki is the built-in authority: for meshes without one of their own,
// for trials and for tests. It issues certificates that carry identities of
// package tls.
//
// It promises that no certificate leaves it that its index does not list: the
// entry is on disk before Issue or Sign returns. Serial numbers are random and
// never zero. The root's key never leaves its directory.
//
// It does not distribute revocations: MarkRevoked writes down that a
// certificate was taken back, and what makes it so for relays is the
// directory's RevokeCertificate with the same serial number and IssuerKeyHash.
//
// The directory holds root.crt, root.key (readable by its owner only) and
// issued.jsonl, one JSON object per line and event, only ever appended to.
// Several processes may use one directory at the same time.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/truclienthong/truc/tls"
)

const (
	rootCertificate = "root.crt"
	rootKey         = "root.key"
	indexName       = "issued.jsonl"

	// rootValidity is how long a new root is good for.
	rootValidity = 10 * 365 * 24 * time.Hour
	// DefaultValidity is that of a certificate whose Request does not say.
	DefaultValidity = 365 * 24 * time.Hour
	// backdate allows for clocks that are behind ours.
	backdate = 5 * time.Minute
)

// Authority issues the certificates of one trust domain. Its methods may be
// called from any goroutine.
type Authority struct {
	domain      string
	certificate *x509.Certificate
	key         crypto.Signer
	index       *index
}

// Create makes a new authority in dir, which must not hold one already.
func Create(dir, trustDomain string) (*Authority, error) {
	if _, err := tls.ParseIdentity("spiffe://" + trustDomain + "/relay/x"); err != nil {
		return nil, fmt.Errorf("trust domain %q: lower-case letters, digits, dots, dashes and underscores only", trustDomain)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	// The certificate is written last, so a key without one is what a crash
	// left behind and vouches for nothing.
	if _, err := os.Lstat(filepath.Join(dir, rootCertificate)); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("create authority: %s holds one already; open it, or choose another directory", dir)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Authority of " + trustDomain},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(rootValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	if err := WriteFiles(filepath.Join(dir, rootCertificate), encodeCertificate(der), filepath.Join(dir, rootKey), keyPEM); err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	return Open(dir)
}

// Open opens the authority in dir.
func Open(dir string) (*Authority, error) {
	certificatePath, keyPath := filepath.Join(dir, rootCertificate), filepath.Join(dir, rootKey)
	content, err := os.ReadFile(certificatePath)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	certificate, err := decodeCertificate(content)
	if err != nil {
		return nil, fmt.Errorf("open authority: %s: %w", certificatePath, err)
	}
	domain := tls.AuthorityDomain(certificate)
	if domain == "" || !certificate.IsCA {
		return nil, fmt.Errorf("open authority: %s is not an authority's certificate for a trust domain", certificatePath)
	}
	info, err := os.Stat(keyPath)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("open authority: %s has mode %04o, others may read it: chmod 600", keyPath, mode)
	}
	if content, err = os.ReadFile(keyPath); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	key, err := decodeKey(content)
	if err != nil {
		return nil, fmt.Errorf("open authority: %s: %w", keyPath, err)
	}
	if public, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("open authority: %s is not the key of %s", keyPath, certificatePath)
	}
	index, err := openIndex(filepath.Join(dir, indexName))
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	return &Authority{domain: domain, certificate: certificate, key: key, index: index}, nil
}

// TrustDomain is the domain it vouches for.
func (a *Authority) TrustDomain() string { return a.domain }

// Certificate is the root's own.
func (a *Authority) Certificate() *x509.Certificate { return a.certificate }

// RootPEM is the root certificate, as it belongs in trust files.
func (a *Authority) RootPEM() []byte { return encodeCertificate(a.certificate.Raw) }

// IssuerKeyHash names the authority in revocations: the SHA-256 of its
// SubjectPublicKeyInfo.
func (a *Authority) IssuerKeyHash() [32]byte {
	return sha256.Sum256(a.certificate.RawSubjectPublicKeyInfo)
}

// newSerial returns 128 random bits, never zero.
func newSerial() (*big.Int, error) {
	for {
		var b [16]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, err
		}
		if serial := new(big.Int).SetBytes(b[:]); serial.Sign() > 0 {
			return serial, nil
		}
	}
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func decodeCertificate(content []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(content)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no certificate in PEM form")
	}
	return x509.ParseCertificate(block.Bytes)
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func decodeKey(content []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(content)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no private key in PEM form (PKCS #8)")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}
