package pki_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/pki"
)

func TestIssue(t *testing.T) {
	a, _ := create(t)
	client, both := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for name, test := range map[string]struct {
		request pki.Request
		usage   []x509.ExtKeyUsage
		days    float64
	}{
		"relay":    {pki.Request{Kind: tls.KindRelay, Name: "bac", Hosts: []string{"bac.truc.test", "10.0.0.1", "::1"}}, both, 365},
		"agency":   {pki.Request{Kind: tls.KindAgency, Name: "H26.12.05"}, client, 365},
		"gateway":  {pki.Request{Kind: tls.KindGateway, Name: "saas", Validity: 48 * time.Hour}, client, 2},
		"operator": {pki.Request{Kind: tls.KindOperator, Name: "an"}, client, 365},
		"longer than the root": {pki.Request{Kind: tls.KindRelay, Name: "old", Validity: 30 * 365 * 24 * time.Hour}, both,
			time.Until(a.Certificate().NotAfter).Hours() / 24},
	} {
		t.Run(name, func(t *testing.T) {
			certPEM, keyPEM, err := a.Issue(test.request)
			if err != nil {
				t.Fatal(err)
			}
			leaf := parse(t, certPEM)
			want := tls.Identity{TrustDomain: domain, Kind: test.request.Kind, Name: test.request.Name}
			if got, err := tls.CertificateIdentity(leaf); err != nil || got != want {
				t.Errorf("identity: got %v, %v; want %v", got, err, want)
			}
			if err := leaf.CheckSignatureFrom(a.Certificate()); err != nil {
				t.Error(err)
			}
			if !slices.Equal(leaf.ExtKeyUsage, test.usage) || leaf.IsCA {
				t.Errorf("usage %v, authority %v; want %v, false", leaf.ExtKeyUsage, leaf.IsCA, test.usage)
			}
			if days := time.Until(leaf.NotAfter).Hours() / 24; days < test.days-0.1 || days > test.days+0.1 {
				t.Errorf("good for %.1f days, want %.1f", days, test.days)
			}
			if now := time.Now(); !leaf.NotBefore.Before(now) {
				t.Errorf("good from %s, it is %s", leaf.NotBefore, now)
			}
			if leaf.SerialNumber.Sign() <= 0 || leaf.SerialNumber.BitLen() > 128 {
				t.Errorf("serial number %x", leaf.SerialNumber)
			}
			for _, host := range test.request.Hosts {
				if err := leaf.VerifyHostname(host); err != nil {
					t.Error(err)
				}
			}
			dir := t.TempDir()
			c, k := filepath.Join(dir, "own.crt"), filepath.Join(dir, "own.key")
			if err := pki.WriteFiles(c, certPEM, k, keyPEM); err != nil {
				t.Fatal(err)
			}
			hash, err := pki.KeyHashOfFile(c)
			if err != nil {
				t.Fatal(err)
			}
			listed, err := a.Find(pki.FormatSerial(leaf.SerialNumber.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			if listed.Identity != want.String() || !listed.NotAfter.Equal(leaf.NotAfter) || listed.KeyHash != hex.EncodeToString(hash[:]) ||
				!slices.Equal(listed.Hosts, test.request.Hosts) {
				t.Errorf("the index has %+v", listed)
			}
			trust := filepath.Join(dir, "trust.crt")
			if err := pki.WriteFile(trust, a.RootPEM(), 0o644); err != nil {
				t.Fatal(err)
			}
			if e, err := tls.New(tls.Config{CertificateFile: c, KeyFile: k, TrustFile: trust}); err != nil || e.Identity() != want {
				t.Errorf("as an endpoint: %v, %v", e, err)
			}
		})
	}
}

func TestIssueRefuses(t *testing.T) {
	a, _ := create(t)
	for name, request := range map[string]pki.Request{
		"no kind":            {Name: "bac"},
		"no name":            {Kind: tls.KindRelay},
		"a path as name":     {Kind: tls.KindRelay, Name: "bac/relay"},
		"a name with spaces": {Kind: tls.KindAgency, Name: "Bộ Nội vụ"},
		"host with port":     {Kind: tls.KindRelay, Name: "bac", Hosts: []string{"bac:7400"}},
		"validity ended":     {Kind: tls.KindRelay, Name: "bac", Validity: -time.Hour},
	} {
		if _, _, err := a.Issue(request); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	if got := list(t, a); len(got) != 0 {
		t.Errorf("the index has %v", got)
	}
}

func TestSign(t *testing.T) {
	a, _ := create(t)
	relay := tls.Identity{TrustDomain: domain, Kind: tls.KindRelay, Name: "bac"}
	agency := tls.Identity{TrustDomain: domain, Kind: tls.KindAgency, Name: "G22"}
	request := func(id tls.Identity, hosts ...string) []byte {
		csr, _, err := pki.NewRequest(id, hosts...)
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	for name, test := range map[string]struct {
		csr    []byte
		expect pki.Request
		want   tls.Identity
		hosts  []string
		bad    string
	}{
		"as it says":            {csr: request(agency), want: agency},
		"expected":              {csr: request(agency), expect: pki.Request{Kind: tls.KindAgency, Name: "G22"}, want: agency},
		"relay with its hosts":  {csr: request(relay, "bac.truc.test"), want: relay, hosts: []string{"bac.truc.test"}},
		"hosts given":           {csr: request(relay, "nam.truc.test"), expect: pki.Request{Hosts: []string{"bac.truc.test"}}, want: relay, hosts: []string{"bac.truc.test"}},
		"agency asks for hosts": {csr: request(agency, "bac.truc.test"), want: agency},
		"other kind expected":   {csr: request(agency), expect: pki.Request{Kind: tls.KindRelay}, bad: "expected"},
		"other name expected":   {csr: request(agency), expect: pki.Request{Name: "G23"}, bad: "expected"},
		"other trust domain":    {csr: request(tls.Identity{TrustDomain: "other.test", Kind: tls.KindAgency, Name: "G22"}), bad: "trust domain"},
		"not a request":         {csr: a.RootPEM(), bad: "no certificate request"},
		"signature wrong":       {csr: spoil(t, request(agency)), bad: "signature"},
		"no identity":           {csr: rawRequest(t, 2048), bad: "0 URI names"},
		"two identities":        {csr: rawRequest(t, 2048, "spiffe://truc.test/agency/G22", "spiffe://truc.test/relay/bac"), bad: "2 URI names"},
		"RSA key":               {csr: rawRequest(t, 2048, "spiffe://truc.test/agency/G22"), want: agency},
		"weak RSA key":          {csr: rawRequest(t, 1024, "spiffe://truc.test/agency/G22"), bad: "1024"},
	} {
		t.Run(name, func(t *testing.T) {
			certPEM, err := a.Sign(test.csr, test.expect)
			if test.bad != "" {
				if err == nil || !strings.Contains(err.Error(), test.bad) {
					t.Errorf("got %v, want an error about %q", err, test.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			leaf := parse(t, certPEM)
			if got, err := tls.CertificateIdentity(leaf); err != nil || got != test.want {
				t.Errorf("identity: got %v, %v; want %v", got, err, test.want)
			}
			if !slices.Equal(leaf.DNSNames, test.hosts) {
				t.Errorf("hosts: got %v, want %v", leaf.DNSNames, test.hosts)
			}
			if got, err := pki.InspectRequest(test.csr); err != nil || got != test.want {
				t.Errorf("InspectRequest: got %v, %v; want %v", got, err, test.want)
			}
		})
	}
}

func spoil(t *testing.T, csr []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(csr)
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(block.Bytes), parsed.URIs[0].String())
	block.Bytes[at+len(parsed.URIs[0].String())-1] ^= 1
	return pem.EncodeToMemory(block)
}

func rawRequest(t *testing.T, bits int, uris ...string) []byte {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0") // to make the key that must be refused
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.CertificateRequest{}
	for _, uri := range uris {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestRenewalKeepsTheKey(t *testing.T) {
	a, _ := create(t)
	id := tls.Identity{TrustDomain: domain, Kind: tls.KindAgency, Name: "G22"}
	csr, key, err := pki.NewRequest(id)
	if err != nil {
		t.Fatal(err)
	}
	renewal, err := pki.RequestFor(id, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range [][]byte{csr, renewal} {
		if _, err := a.Sign(request, pki.Request{}); err != nil {
			t.Fatal(err)
		}
	}
	if l := list(t, a); len(l) != 2 || l[0].KeyHash != l[1].KeyHash || l[0].Serial == l[1].Serial {
		t.Errorf("the index has %+v; want one key under two serial numbers", l)
	}
}
