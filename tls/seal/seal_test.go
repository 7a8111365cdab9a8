package seal_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/truclienthong/truc/tls/seal"
)

var content = []byte(`{"relay":"bac","remaining":0}`)

// signer is a certificate that vouches for itself: whom to believe is not this
// package's business.
func signer(t *testing.T, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "bac"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func anybody(*x509.Certificate, []*x509.Certificate) error { return nil }

func TestSignAndVerify(t *testing.T) {
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ecdsa": newKey(t), "rsa": big} {
		c := signer(t, key, nil)
		other := signer(t, newKey(t), nil)
		signed, err := seal.Sign(content, []*x509.Certificate{c, other}, key)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var asked *x509.Certificate
		got, err := seal.Verify(signed, func(signer *x509.Certificate, others []*x509.Certificate) error {
			asked = signer
			return nil
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(got.Content, content) || !asked.Equal(c) || len(got.Others) != 1 || !got.Others[0].Equal(other) {
			t.Errorf("%s: got %s by %s with %d more", name, got.Content, got.Signer.Subject, len(got.Others))
		}
		if age := time.Since(got.SignedAt); age < -2*time.Second || age > time.Minute {
			t.Errorf("%s: signed at %s", name, got.SignedAt)
		}
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Sign(content, []*x509.Certificate{signer(t, edwards, nil)}, edwards); err == nil {
		t.Error("a key that CMS here does not know: signed")
	}
}

// No byte of what was signed can be changed: neither content nor time, neither
// signature nor certificate.
func TestTamperedIsRefused(t *testing.T) {
	key := newKey(t)
	c := signer(t, key, nil)
	signed, err := seal.Sign(content, []*x509.Certificate{c}, key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range signed {
		changed := slices.Clone(signed)
		changed[i] ^= 0x11
		got, err := seal.Verify(changed, func(signer *x509.Certificate, _ []*x509.Certificate) error {
			if !signer.Equal(c) {
				return errors.New("nobody we know")
			}
			return nil
		})
		// Names of algorithms and versions beside what is signed may differ.
		if err == nil && (!bytes.Equal(got.Content, content) || got.SignedAt.IsZero()) {
			t.Fatalf("byte %d changed: got %q at %s", i, got.Content, got.SignedAt)
		}
	}
	at := bytes.Index(signed, []byte(`"remaining":0`)) + len(`"remaining":`)
	changed := slices.Clone(signed)
	changed[at] = '7'
	if _, err := seal.Verify(changed, anybody); !errors.Is(err, seal.ErrSignature) {
		t.Errorf("another number: got %v, want %v", err, seal.ErrSignature)
	}
}

func TestVerifyRefuses(t *testing.T) {
	key := newKey(t)
	good := signer(t, key, nil)
	sign := func(change func(*pkcs7.SignedData) error) []byte {
		t.Helper()
		data, err := pkcs7.NewSignedData(content)
		if err == nil {
			data.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
			err = change(data)
		}
		if err != nil {
			t.Fatal(err)
		}
		signed, err := data.Finish()
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	plain := pkcs7.SignerInfoConfig{}
	disbelief := errors.New("nobody we know")
	for name, test := range map[string]struct {
		signed  []byte
		believe func(*x509.Certificate, []*x509.Certificate) error
		want    error
	}{
		"nothing":  {nil, anybody, seal.ErrForm},
		"no CMS":   {content, anybody, seal.ErrForm},
		"too much": {make([]byte, seal.MaxSize+1), anybody, seal.ErrForm},
		"a weak digest": {sign(func(d *pkcs7.SignedData) error {
			d.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA1)
			return d.AddSigner(good, key, plain)
		}), anybody, seal.ErrForm},
		"the bare content signed": {sign(func(d *pkcs7.SignedData) error { return d.SignWithoutAttr(good, key, plain) }), anybody, seal.ErrForm},
		"two signers": {sign(func(d *pkcs7.SignedData) error {
			return errors.Join(d.AddSigner(good, key, plain), d.AddSigner(good, key, plain))
		}), anybody, seal.ErrForm},
		"no signer": {sign(func(d *pkcs7.SignedData) error { d.AddCertificate(good); return nil }), anybody, seal.ErrForm},
		"a certificate for something else": {sign(func(d *pkcs7.SignedData) error {
			return d.AddSigner(signer(t, key, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), key, plain)
		}), anybody, seal.ErrForm},
		"an expired certificate": {sign(func(d *pkcs7.SignedData) error {
			return d.AddSigner(signer(t, key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), key, plain)
		}), anybody, seal.ErrSignature},
		"another's key": {sign(func(d *pkcs7.SignedData) error { return d.AddSigner(good, newKey(t), plain) }), anybody, seal.ErrSignature},
		"a signer nobody believes": {sign(func(d *pkcs7.SignedData) error { return d.AddSigner(good, key, plain) }),
			func(*x509.Certificate, []*x509.Certificate) error { return disbelief }, disbelief},
	} {
		if got, err := seal.Verify(test.signed, test.believe); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, test.want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	c, _ := x509.ParseCertificate(der)
	signed, err := seal.Sign(content, []*x509.Certificate{c}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := seal.Verify(b, func(signer *x509.Certificate, _ []*x509.Certificate) error {
			if !signer.Equal(c) {
				return errors.New("nobody we know")
			}
			return nil
		})
		if err == nil && !bytes.Equal(got.Content, content) {
			t.Fatalf("got %q, which was never signed", got.Content)
		}
	})
}
