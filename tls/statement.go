package tls

import (
	"crypto"
	"crypto/x509"
	"fmt"

	"github.com/truclienthong/truc/tls/seal"
)

// Sign puts our signature on content: a CMS SignedData that Verify of package
// seal describes. The certificates that we present to peers go along.
func (e *Endpoint) Sign(content []byte) ([]byte, error) {
	own := e.material.Load().own
	key, ok := own.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key file %s holds a key that cannot sign", e.config.KeyFile)
	}
	chain := make([]*x509.Certificate, 0, len(own.Certificate))
	for _, der := range own.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate file %s: %w", e.config.CertificateFile, err)
		}
		chain = append(chain, c)
	}
	signed, err := seal.Sign(content, chain, key)
	if err != nil {
		return nil, fmt.Errorf("sign as %s: %w", e.identity, err)
	}
	return signed, nil
}

// VerifySigned returns what was signed, if the signature is good, the signer is
// one that we would let in just now, and expect has no objection to who that
// is.
func (e *Endpoint) VerifySigned(signed []byte, expect func(Identity) error) (*seal.Statement, Identity, error) {
	var identity Identity
	statement, err := seal.Verify(signed, func(signer *x509.Certificate, others []*x509.Certificate) error {
		v, err := e.verify(append([]*x509.Certificate{signer}, others...), x509.ExtKeyUsageAny)
		if err != nil {
			return err
		}
		identity = v.identity
		return expect(identity)
	})
	if err != nil {
		return nil, Identity{}, err
	}
	return statement, identity, nil
}
