// Package seal puts a signature on content that outlives the channel it came
// through: a statement that can be filed, and checked years later by anybody
// who has the authorities, with common tools.
//
// It promises:
//   - The form is CMS SignedData (RFC 5652, DER) with the content inside, one
//     signer, its certificates, and the time of signing among what is signed.
//   - Verify gives content out only after the signature was found good and the
//     caller has said that it believes this signer.
//   - What is weak is refused: digests below SHA-256, signatures over nothing
//     but the content (which another form of message could be made of), and
//     certificates that are not for signatures.
//
// It does not decide whom to believe: that is an authority's and the directory's
// word, and package tls asks them (Endpoint.VerifySigned). The time of signing
// is the signer's own word.
package seal

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"github.com/smallstep/pkcs7"
)

// MaxSize is the largest sealed message in bytes that Verify looks at.
const MaxSize = 1 << 20

// Errors that callers tell apart.
var (
	// ErrForm says that this is no sealed message of the form above.
	ErrForm = errors.New("not a signed statement")
	// ErrSignature says that content, time or signature were changed.
	ErrSignature = errors.New("the signature does not fit the statement")
)

// Statement is content that somebody stands behind.
type Statement struct {
	Content []byte
	// Signer is the certificate of whoever signed, Others what came with it.
	Signer *x509.Certificate
	Others []*x509.Certificate
	// SignedAt is when, by the clock of the signer, to the second.
	SignedAt time.Time
}

// Sign seals content with the key of chain[0], which is ECDSA or RSA; the rest
// of the chain goes along.
func Sign(content []byte, chain []*x509.Certificate, key crypto.Signer) ([]byte, error) {
	if len(chain) == 0 || key == nil {
		return nil, errors.New("seal: a certificate and its key are needed")
	}
	data, err := pkcs7.NewSignedData(content)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	data.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := data.AddSigner(chain[0], key, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, fmt.Errorf("seal: sign as %s: %w", chain[0].Subject, err)
	}
	for _, c := range chain[1:] {
		data.AddCertificate(c)
	}
	signed, err := data.Finish()
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return signed, nil
}

// Verify returns what was signed, if the signature fits it and believe, which
// is called with the certificates of the signer, has no objection.
func Verify(signed []byte, believe func(signer *x509.Certificate, others []*x509.Certificate) error) (*Statement, error) {
	message, err := parse(signed)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	statement := &Statement{Content: message.Content, Signer: message.GetOnlySigner()}
	if err := checkForm(message, statement); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if err := message.Verify(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	for _, c := range message.Certificates {
		if !c.Equal(statement.Signer) {
			statement.Others = append(statement.Others, c)
		}
	}
	if err := believe(statement.Signer, statement.Others); err != nil {
		return nil, fmt.Errorf("signed by %s: %w", statement.Signer.Subject, err)
	}
	return statement, nil
}

// parse reads the outer form. The parser is not ours, and what it reads comes
// from outside: should it panic on it, this is no statement.
func parse(signed []byte) (message *pkcs7.PKCS7, err error) {
	if len(signed) > MaxSize {
		return nil, fmt.Errorf("it has %d bytes, at most %d are looked at", len(signed), MaxSize)
	}
	defer func() {
		if cause := recover(); cause != nil {
			message, err = nil, fmt.Errorf("it does not parse: %v", cause)
		}
	}()
	return pkcs7.Parse(signed)
}

// strongDigests are those that a signature may be made with.
var strongDigests = []asn1.ObjectIdentifier{
	pkcs7.OIDDigestAlgorithmSHA256, pkcs7.OIDDigestAlgorithmSHA384, pkcs7.OIDDigestAlgorithmSHA512,
}

func checkForm(message *pkcs7.PKCS7, statement *Statement) error {
	signer := statement.Signer
	if signer == nil {
		return fmt.Errorf("it has %d signers with %d certificates, want one with its own", len(message.Signers), len(message.Certificates))
	}
	digest, strong := message.Signers[0].DigestAlgorithm.Algorithm, false
	for _, d := range strongDigests {
		strong = strong || digest.Equal(d)
	}
	if !strong {
		return fmt.Errorf("its digest %s is weak or unknown", digest)
	}
	if signer.KeyUsage != 0 && signer.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return fmt.Errorf("the certificate of %s is not for signatures", signer.Subject)
	}
	var content asn1.ObjectIdentifier
	if err := message.UnmarshalSignedAttribute(pkcs7.OIDAttributeContentType, &content); err != nil || !content.Equal(pkcs7.OIDData) {
		return errors.New("what kind of content it is was not signed")
	}
	if err := message.UnmarshalSignedAttribute(pkcs7.OIDAttributeSigningTime, &statement.SignedAt); err != nil {
		return errors.New("the time of signing was not signed")
	}
	return nil
}
