package tls

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// verified is why a peer was let in: everything that must go on being true
// while its connection lives.
type verified struct {
	identity  Identity
	authority authority
	members   []member // the chain without its authority
	keyHash   [32]byte // SHA-256 of the leaf's SubjectPublicKeyInfo
	notAfter  time.Time
}

// member identifies one certificate of a chain as revocations do.
type member struct {
	serial        []byte
	issuerKeyHash [32]byte
}

// allAuthorities are those of the trust file and those of the directory. One
// of the directory counts fully only for a trust domain of the trust file.
func (e *Endpoint) allAuthorities() []authority {
	own := e.material.Load().authorities
	if e.config.Trust == nil {
		return own
	}
	all := slices.Clone(own)
	for _, root := range e.config.Trust.Roots() {
		if root.Certificate == nil {
			continue
		}
		home := slices.ContainsFunc(own, func(a authority) bool { return a.domain == root.TrustDomain })
		all = append(all, authority{
			certificate: root.Certificate, fingerprint: sha256.Sum256(root.Certificate.Raw),
			domain: root.TrustDomain, outside: root.Outside, home: home && !root.Outside,
		})
	}
	return all
}

// verify says who presents these certificates, leaf first.
func (e *Endpoint) verify(presented []*x509.Certificate, usage x509.ExtKeyUsage) (*verified, error) {
	if len(presented) == 0 {
		return nil, fmt.Errorf("%w: no certificate was presented", ErrNoIdentity)
	}
	leaf := presented[0]
	all := e.allAuthorities()
	identity, nameErr := CertificateIdentity(leaf)
	named := func(a authority) bool { return !a.outside && a.domain == identity.TrustDomain }

	failure := nameErr
	if nameErr == nil {
		v, err := e.verifyChain(presented, filter(all, named), usage)
		if err == nil {
			err = v.claim(identity)
		}
		if err == nil {
			return v, nil
		}
		if !errors.Is(err, ErrForeignRoot) {
			return nil, err
		}
		failure = fmt.Errorf("%s, trust domain %s: %w", identity, identity.TrustDomain, err)
	}

	v, err := e.verifyChain(presented, filter(all, func(a authority) bool { return a.outside }), usage)
	if err == nil {
		if v.identity, err = e.bound(v.keyHash); err != nil {
			return nil, err
		}
		return v, nil
	}
	if !errors.Is(err, ErrForeignRoot) {
		return nil, err
	}
	if nameErr != nil {
		// Tell a certificate of ours without a name from a stranger's.
		if _, err := e.verifyChain(presented, filter(all, func(a authority) bool { return !a.outside }), usage); err != nil {
			return nil, err
		}
	}
	return nil, failure
}

// claim gives the chain the identity that its leaf names, if its authority may
// vouch for one of that kind.
func (v *verified) claim(identity Identity) error {
	if !v.authority.home && identity.Kind != KindAgency && identity.Kind != KindGateway {
		return fmt.Errorf("%w: %s: only an authority of the trust file vouches for a %s", ErrForeignRoot, identity, identity.Kind)
	}
	v.identity = identity
	return nil
}

// bound finds who an outside certificate is bound to.
func (e *Endpoint) bound(keyHash [32]byte) (Identity, error) {
	if e.config.Trust != nil {
		if kind, name, ok := e.config.Trust.Bound(keyHash); ok {
			if kind != KindAgency && kind != KindGateway {
				return Identity{}, fmt.Errorf("%w: public key %x is bound to a %s; outside certificates stand for agencies and gateways only",
					ErrWrongIdentity, keyHash, kind)
			}
			return Identity{TrustDomain: e.trustDomain, Kind: kind, Name: name}, nil
		}
	}
	return Identity{}, fmt.Errorf("%w: it is from an outside authority and public key %x is bound to no agency or gateway in the directory",
		ErrNoIdentity, keyHash)
}

// verifyChain finds a chain to one of these authorities in which no certificate
// is revoked. The identity is left for the caller to fill in.
func (e *Endpoint) verifyChain(presented []*x509.Certificate, authorities []authority, usage x509.ExtKeyUsage) (*verified, error) {
	chains, err := buildChains(presented, authorities, usage, e.config.Clock())
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("%w: no chain ends in one", ErrForeignRoot)
	for _, chain := range chains {
		v := &verified{keyHash: sha256.Sum256(presented[0].RawSubjectPublicKeyInfo), notAfter: chain[0].NotAfter}
		last := chain[len(chain)-1]
		i := slices.IndexFunc(authorities, func(a authority) bool { return a.certificate.Equal(last) })
		if i < 0 {
			continue
		}
		v.authority = authorities[i]
		for i, c := range chain {
			if c.NotAfter.Before(v.notAfter) {
				v.notAfter = c.NotAfter
			}
			if i == len(chain)-1 && i > 0 {
				break // authorities are taken out of the trust file, not revoked
			}
			issuer := chain[min(i+1, len(chain)-1)]
			v.members = append(v.members, member{c.SerialNumber.Bytes(), sha256.Sum256(issuer.RawSubjectPublicKeyInfo)})
		}
		if err = e.revoked(v); err == nil {
			return v, nil
		}
	}
	return nil, err
}

func (e *Endpoint) revoked(v *verified) error {
	if e.config.Trust == nil {
		return nil
	}
	for _, m := range v.members {
		if e.config.Trust.Revoked(m.serial, m.issuerKeyHash) {
			return fmt.Errorf("%w: serial %x, issuer key %x", ErrRevoked, m.serial, m.issuerKeyHash)
		}
	}
	return nil
}

// stillGood looks whether what let a peer in is still true. It computes no
// signature, so it may run over all connections on every directory change.
// A false answer is not final: the peer may be good for another reason.
func (e *Endpoint) stillGood(v *verified, all []authority, now time.Time) bool {
	if now.After(v.notAfter) || e.revoked(v) != nil {
		return false
	}
	if !slices.ContainsFunc(all, v.authority.same) {
		return false
	}
	if v.authority.outside {
		identity, err := e.bound(v.keyHash)
		return err == nil && identity == v.identity
	}
	return true
}

func (a authority) same(o authority) bool {
	return a.fingerprint == o.fingerprint && a.domain == o.domain && a.outside == o.outside && a.home == o.home
}

func filter(all []authority, keep func(authority) bool) []authority {
	var kept []authority
	for _, a := range all {
		if keep(a) {
			kept = append(kept, a)
		}
	}
	return kept
}

// buildChains gives the chains from the leaf to one of the authorities.
func buildChains(presented []*x509.Certificate, authorities []authority, usage x509.ExtKeyUsage, now time.Time) ([][]*x509.Certificate, error) {
	if len(authorities) == 0 {
		return nil, fmt.Errorf("%w: no authority is known", ErrForeignRoot)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, a := range authorities {
		roots.AddCert(a.certificate)
	}
	for _, c := range presented[1:] {
		intermediates.AddCert(c)
	}
	chains, err := presented[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return chains, nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return nil, fmt.Errorf("%w: %w", ErrExpired, err)
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return nil, fmt.Errorf("%w: it is not meant for this side of a connection: %w", ErrWrongIdentity, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrForeignRoot, err)
}
