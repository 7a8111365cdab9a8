package routing

import (
	"bytes"
	"slices"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// View is the directory at one version: immutable, and free to keep and to
// share. The messages it returns are shared too and must not be changed. The
// zero View is not usable; Directory.View makes one.
type View struct{ s *state }

// Version counts the changes applied so far.
func (v View) Version() uint64 { return v.s.version }

// AgencyCount returns how many agencies there are.
func (v View) AgencyCount() uint64 { return v.s.agencies }

// Agency finds an agency by its code or an alias.
func (v View) Agency(code AgencyCode) (*directoryv1.Agency, bool) {
	e := v.s.lookup(string(code))
	if e == nil {
		return nil, false
	}
	return e.Agency, true
}

// Relay finds a relay.
func (v View) Relay(id RelayID) (*directoryv1.Relay, bool) {
	r, ok := v.s.relays[id]
	return r, ok
}

// Relays lists the relays by id, those that left too.
func (v View) Relays() []*directoryv1.Relay { return sortedValues(v.s.relays) }

// Homes returns how many agencies have the relay as home.
func (v View) Homes(relay RelayID) uint64 { return v.s.homes[relay] }

// Gateway finds a gateway.
func (v View) Gateway(id string) (*directoryv1.Gateway, bool) {
	g, ok := v.s.gateways[id]
	return g, ok
}

// Gateways lists the gateways by id.
func (v View) Gateways() []*directoryv1.Gateway { return sortedValues(v.s.gateways) }

// SpeaksFor reports whether the gateway may speak for the agency, given by
// code or alias. A suspended gateway speaks for none.
func (v View) SpeaksFor(gateway string, code AgencyCode) bool {
	g, e := v.s.gateways[gateway], v.s.lookup(string(code))
	if g == nil || g.GetSuspended() || e == nil {
		return false
	}
	_, found := slices.BinarySearch(g.GetAgencyCodes(), e.GetCode())
	return found
}

// Staged tells how many agencies each import has staged that has not taken
// effect, by its name.
func (v View) Staged() map[string]int {
	staged := make(map[string]int, len(v.s.staged))
	for name, agencies := range v.s.staged {
		staged[name] = len(agencies)
	}
	return staged
}

// Groups lists the stored groups by name; the built-in ones are not among
// them.
func (v View) Groups() []*directoryv1.Group { return sortedValues(v.s.groups) }

// Rules lists the rules by id.
func (v View) Rules() []*directoryv1.Rule { return slices.Clone(v.s.rules) }

// TrustRoots lists the authorities by hash.
func (v View) TrustRoots() []*directoryv1.TrustRoot {
	return slices.Collect(all[*directoryv1.TrustRoot](v.s.rows, trustRootTable))
}

// Revocations lists what was revoked by serial number.
func (v View) Revocations() []*directoryv1.Revocation {
	return slices.Collect(all[*directoryv1.Revocation](v.s.rows, revocationTable))
}

// Revoked reports whether the certificate with that serial number (big-endian)
// of the issuer with that key hash was taken back.
func (v View) Revoked(serial []byte, issuerKeyHash [32]byte) bool {
	serial = bytes.TrimLeft(serial, "\x00")
	for _, issuer := range [][]byte{issuerKeyHash[:], nil} {
		if _, ok := first[*directoryv1.Revocation](v.s.rows, revocationTable, revocationKeyOf(serial, issuer)); ok {
			return true
		}
	}
	return false
}

// Bound returns what the SHA-256 of a public key (SubjectPublicKeyInfo) is
// bound to: kind "agency" or "gateway", and its code or id.
func (v View) Bound(keyHash [32]byte) (kind, name string, ok bool) {
	h := v.s.keys.get(keyHash)
	if h == nil {
		return "", "", false
	}
	return h.kind, h.name, true
}
