package tls_test

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/truclienthong/truc/tls"
)

// A statement counts only from the one that was asked for it, with a
// certificate that would be let in.
func TestStatementOf(t *testing.T) {
	ours, theirs := newAuthority(t, domain), newAuthority(t, domain)
	configOf := func(a *authority, p pair) tls.Config { return newStore(t, p, a.RootPEM()).config() }
	operator := newEndpoint(t, configOf(ours, ours.issue(t, tls.KindOperator, "an")))
	content := []byte(`{"relay":"bac"}`)
	sign := func(a *authority, p pair) []byte {
		t.Helper()
		signed, err := newEndpoint(t, configOf(a, p)).Sign(content)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	bac := "spiffe://" + domain + "/relay/bac"
	shortLived := ours.forge(t, func(c *x509.Certificate) {
		named(bac)(c)
		c.NotAfter = time.Now().Add(time.Minute)
	})
	for name, test := range map[string]struct {
		signed []byte
		later  time.Duration
		want   error
	}{
		"the relay":                  {signed: sign(ours, ours.issue(t, tls.KindRelay, "bac"))},
		"another relay":              {signed: sign(ours, ours.issue(t, tls.KindRelay, "nam")), want: tls.ErrWrongIdentity},
		"an agency of that name":     {signed: sign(ours, ours.issue(t, tls.KindAgency, "bac")), want: tls.ErrWrongIdentity},
		"from another authority":     {signed: sign(theirs, theirs.issue(t, tls.KindRelay, "bac")), want: tls.ErrForeignRoot},
		"by a certificate that ends": {signed: sign(ours, shortLived)},
		"which has ended since":      {signed: sign(ours, shortLived), later: time.Hour, want: tls.ErrExpired},
	} {
		config := configOf(ours, ours.issue(t, tls.KindOperator, "an"))
		config.Clock = func() time.Time { return time.Now().Add(test.later) }
		operator := newEndpoint(t, config)
		statement, identity, err := operator.VerifySigned(test.signed, operator.ExpectPeer("bac"))
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
		if err == nil && (string(statement.Content) != string(content) || identity.String() != bac) {
			t.Errorf("%s: got %s by %s", name, statement.Content, identity)
		}
	}
	if _, _, err := operator.VerifySigned(content, operator.ExpectPeer("bac")); err == nil {
		t.Error("no statement at all: believed")
	}
}
