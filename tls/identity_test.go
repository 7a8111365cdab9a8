package tls_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/truclienthong/truc/tls"
)

func TestParseIdentity(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want tls.Identity
		bad  bool
	}{
		"relay":               {in: "spiffe://truc.vn/relay/bac", want: tls.Identity{TrustDomain: "truc.vn", Kind: tls.KindRelay, Name: "bac"}},
		"agency":              {in: "spiffe://truc.vn/agency/H26.12.05", want: tls.Identity{TrustDomain: "truc.vn", Kind: tls.KindAgency, Name: "H26.12.05"}},
		"agency, older form":  {in: "spiffe://truc.vn/agency/000.00.00.G22", want: tls.Identity{TrustDomain: "truc.vn", Kind: tls.KindAgency, Name: "000.00.00.G22"}},
		"gateway":             {in: "spiffe://truc.vn/gateway/saas-1", want: tls.Identity{TrustDomain: "truc.vn", Kind: tls.KindGateway, Name: "saas-1"}},
		"operator":            {in: "spiffe://truc.vn/operator/an", want: tls.Identity{TrustDomain: "truc.vn", Kind: tls.KindOperator, Name: "an"}},
		"other scheme":        {in: "https://truc.vn/relay/bac", bad: true},
		"unknown kind":        {in: "spiffe://truc.vn/admin/an", bad: true},
		"upper-case kind":     {in: "spiffe://truc.vn/Relay/bac", bad: true},
		"no name":             {in: "spiffe://truc.vn/relay", bad: true},
		"empty name":          {in: "spiffe://truc.vn/relay/", bad: true},
		"no path":             {in: "spiffe://truc.vn", bad: true},
		"more path":           {in: "spiffe://truc.vn/relay/bac/x", bad: true},
		"dots as name":        {in: "spiffe://truc.vn/relay/..", bad: true},
		"escaped name":        {in: "spiffe://truc.vn/relay/%62ac", bad: true},
		"query":               {in: "spiffe://truc.vn/relay/bac?x=1", bad: true},
		"user":                {in: "spiffe://a@truc.vn/relay/bac", bad: true},
		"port":                {in: "spiffe://truc.vn:1/relay/bac", bad: true},
		"upper-case domain":   {in: "spiffe://TRUC.vn/relay/bac", bad: true},
		"no domain":           {in: "spiffe:///relay/bac", bad: true},
		"name that is a book": {in: "spiffe://truc.vn/agency/" + strings.Repeat("a", 129), bad: true},
		"nothing":             {in: "", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tls.ParseIdentity(test.in)
			if (err != nil) != test.bad || got != test.want {
				t.Fatalf("ParseIdentity(%q) = %v, %v; want %v, bad %v", test.in, got, err, test.want, test.bad)
			}
			if err == nil && got.String() != test.in {
				t.Errorf("String() = %q, want %q", got, test.in)
			}
		})
	}
}

func TestExpect(t *testing.T) {
	relay := tls.Identity{TrustDomain: domain, Kind: tls.KindRelay, Name: "bac"}
	agency := tls.Identity{TrustDomain: domain, Kind: tls.KindAgency, Name: "bac"}
	for name, test := range map[string]struct {
		expect func(tls.Identity) error
		got    tls.Identity
		ok     bool
	}{
		"kind":              {tls.ExpectKind(tls.KindRelay), relay, true},
		"other kind":        {tls.ExpectKind(tls.KindRelay), agency, false},
		"nobody":            {tls.ExpectKind(tls.KindRelay), tls.Identity{}, false},
		"relay":             {tls.ExpectRelay("bac"), relay, true},
		"other relay":       {tls.ExpectRelay("nam"), relay, false},
		"agency, same name": {tls.ExpectRelay("bac"), agency, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.expect(test.got)
			if (err == nil) != test.ok || err != nil && !errors.Is(err, tls.ErrWrongIdentity) {
				t.Errorf("got %v, want ok %v", err, test.ok)
			}
		})
	}
}
