package routing

import (
	"crypto/sha256"
	"encoding/hex"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// applyPutTrustRoot checks the hash only: whether the certificate is one, the
// proposer has asked (see the package comment).
func (t *tx) applyPutTrustRoot(c *directoryv1.PutTrustRoot) error {
	r := c.GetRoot()
	if r == nil {
		return refuse(invalidField, "root is missing")
	}
	var p problems
	if p.trustRoot(r); p.found() {
		return p.err()
	}
	if sum := sha256.Sum256(r.GetCertificate()); string(sum[:]) != string(r.GetSha256()) {
		return refuse(invalidField, "sha256 is not that of the certificate, which is %x", sum)
	}
	r.Version = t.version
	t.insert(trustRootTable, r)
	return nil
}

func (t *tx) applyRemoveTrustRoot(c *directoryv1.RemoveTrustRoot) error {
	var p problems
	if p.hash("sha256", c.GetSha256()); p.found() {
		return p.err()
	}
	r, ok := first[*directoryv1.TrustRoot](t.rows, trustRootTable, hex.EncodeToString(c.GetSha256()))
	if !ok {
		return refuse(notFound, "authority %x is not in the directory", c.GetSha256())
	}
	t.remove(trustRootTable, r)
	return nil
}

// applyRevokeCertificate keeps the time of the first revocation when the same
// certificate is revoked again.
func (t *tx) applyRevokeCertificate(c *directoryv1.RevokeCertificate) error {
	r := c.GetRevocation()
	if r == nil {
		return refuse(invalidField, "revocation is missing")
	}
	var p problems
	if p.revocation(r); p.found() {
		return p.err()
	}
	if before, ok := first[*directoryv1.Revocation](t.rows, revocationTable, revocationKey(r)); ok {
		r.At = before.GetAt()
	} else if r.GetAt() == nil {
		r.At = t.at
	}
	r.Version = t.version
	t.insert(revocationTable, r)
	return nil
}
