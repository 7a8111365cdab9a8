package pki_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/pki"
)

const domain = "truc.test"

func create(t *testing.T) (*pki.Authority, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	a, err := pki.Create(dir, domain)
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

func parse(t *testing.T, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(certPEM)
	if block == nil {
		t.Fatalf("no PEM: %q", certPEM)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func list(t *testing.T, a *pki.Authority) []pki.Issued {
	t.Helper()
	l, err := a.List()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestCreateAndOpen(t *testing.T) {
	a, dir := create(t)
	root := parse(t, a.RootPEM())
	if got := tls.AuthorityDomain(root); got != domain || !root.IsCA {
		t.Errorf("root is of domain %q, authority %v", got, root.IsCA)
	}
	if years := time.Until(root.NotAfter).Hours() / 24 / 365; years < 9.9 || years > 10.1 {
		t.Errorf("root is good for %.1f years, want 10", years)
	}
	info, err := os.Stat(filepath.Join(dir, "root.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("root.key: mode %v, %v; want 0600", info.Mode(), err)
	}
	again, err := pki.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again.TrustDomain() != domain || again.IssuerKeyHash() != a.IssuerKeyHash() {
		t.Error("opened another authority than was created")
	}
	if got, want := a.IssuerKeyHash(), sha256.Sum256(root.RawSubjectPublicKeyInfo); got != want {
		t.Errorf("IssuerKeyHash: got %x, want %x", got, want)
	}
	if _, err := pki.Create(dir, domain); err == nil {
		t.Error("a second authority took the place of the first")
	}
}

func TestCreateAfterACrash(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "root.key"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Create(dir, domain); err != nil {
		t.Errorf("a key without a certificate is in the way: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	other, _ := create(t)
	_, otherKey, err := other.Issue(pki.Request{Kind: tls.KindRelay, Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(dir string) error
		want   string
	}{
		"nothing there":      {func(dir string) error { return os.RemoveAll(dir) }, "root.crt"},
		"no key":             {func(dir string) error { return os.Remove(filepath.Join(dir, "root.key")) }, "root.key"},
		"key open to others": {func(dir string) error { return os.Chmod(filepath.Join(dir, "root.key"), 0o640) }, "chmod 600"},
		"another key": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "root.key"), otherKey, 0o600)
		}, "not the key"},
		"certificate of no authority": {func(dir string) error {
			a, err := pki.Open(dir)
			if err != nil {
				return err
			}
			c, _, err := a.Issue(pki.Request{Kind: tls.KindRelay, Name: "x"})
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "root.crt"), c, 0o644)
		}, "not an authority"},
		"damaged index": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "issued.jsonl"), []byte("{}\n{\"event\n{}\n"), 0o600)
		}, "line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, dir := create(t)
			if err := test.change(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := pki.Open(dir); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error about %q", err, test.want)
			}
		})
	}
	for _, domain := range []string{"", "Truc", "truc vn", "truc/relay", "truc:1"} {
		if _, err := pki.Create(t.TempDir(), domain); err == nil {
			t.Errorf("trust domain %q was taken", domain)
		}
	}
}

func TestMarkRevoked(t *testing.T) {
	a, dir := create(t)
	for _, name := range []string{"G22", "H26"} {
		if _, _, err := a.Issue(pki.Request{Kind: tls.KindAgency, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	serial := list(t, a)[0].Serial
	if err := a.MarkRevoked(strings.ToUpper(serial), "key lost"); err != nil {
		t.Fatal(err)
	}
	if err := a.MarkRevoked(serial, "again"); err != nil {
		t.Fatal(err)
	}
	if err := a.MarkRevoked("01", "never seen"); !errors.Is(err, pki.ErrUnknownSerial) {
		t.Errorf("unknown serial number: got %v", err)
	}
	again, err := pki.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := list(t, again)
	if len(l) != 2 || l[0].RevokedAt.IsZero() || l[0].Reason != "key lost" || !l[1].RevokedAt.IsZero() {
		t.Errorf("the index has %+v", l)
	}
}

func TestSerial(t *testing.T) {
	for in, want := range map[string]string{
		"0a1b": "0a1b", "0A:1B": "0a1b", "a1b": "0a1b", "00:0a:1b": "0a1b", " ff ": "ff",
		"": "", "00": "", "xy": "", strings.Repeat("ff", 21): "",
	} {
		got, err := pki.ParseSerial(in)
		if pki.FormatSerial(got) != want || (err != nil) != (want == "") {
			t.Errorf("ParseSerial(%q) = %x, %v; want %q", in, got, err, want)
		}
		if want != "" && !slices.Equal(got, new(big.Int).SetBytes(got).Bytes()) {
			t.Errorf("ParseSerial(%q) keeps leading zeros", in)
		}
	}
}

// A crash in the middle of an append leaves a line cut short; its certificate
// was never handed out.
func TestIndexAfterACrash(t *testing.T) {
	a, dir := create(t)
	if _, _, err := a.Issue(pki.Request{Kind: tls.KindAgency, Name: "G22"}); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "issued.jsonl")
	file, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(`{"event":"issued","ser`); err != nil {
		t.Fatal(err)
	}
	file.Close()
	again, err := pki.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := again.Issue(pki.Request{Kind: tls.KindAgency, Name: "H26"}); err != nil {
		t.Fatal(err)
	}
	if l := list(t, again); len(l) != 2 || !strings.HasSuffix(l[1].Identity, "/H26") {
		t.Errorf("the index has %+v", l)
	}
}

func TestSeveralAtOnce(t *testing.T) {
	a, dir := create(t)
	b, err := pki.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var workers sync.WaitGroup
	for i := range 8 {
		authority := []*pki.Authority{a, b}[i%2]
		workers.Go(func() {
			for range 4 {
				if _, _, err := authority.Issue(pki.Request{Kind: tls.KindAgency, Name: "G22"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	serials := make(map[string]bool)
	for _, issued := range list(t, a) {
		serials[issued.Serial] = true
	}
	if len(serials) != 32 {
		t.Errorf("the index has %d certificates, want 32", len(serials))
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "own.key")
	if err := os.WriteFile(name, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := pki.WriteFile(name, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(name)
	info, statErr := os.Stat(name)
	if err != nil || statErr != nil || string(content) != "new" || info.Mode().Perm() != 0o600 {
		t.Errorf("got %q, %v, %v %v", content, info.Mode(), err, statErr)
	}
	if err := pki.WriteFile(filepath.Join(dir, "none", "own.key"), nil, 0o600); err == nil {
		t.Error("wrote into a directory that is not there")
	}
	if err := pki.WriteFile(dir, nil, 0o600); err == nil {
		t.Error("replaced a directory")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
