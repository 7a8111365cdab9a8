package relay

import (
	"crypto/x509"
	"sync"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// trust answers the questions of the handshake from the directory.
type trust struct {
	view func() routing.View

	mu sync.Mutex
	// parsed are the authorities of the last answer, by the directory's entry,
	// which never changes; parsing them at each handshake would cost more than
	// the handshake.
	parsed map[*directoryv1.TrustRoot]*x509.Certificate
}

var _ tls.Trust = (*trust)(nil)

// NewTrust returns what the directory says about certificates, for the
// endpoint of a relay. View is asked at each handshake.
func NewTrust(view func() routing.View) tls.Trust { return &trust{view: view} }

func (t *trust) Revoked(serial []byte, issuerKeyHash [32]byte) bool {
	return t.view().Revoked(serial, issuerKeyHash)
}

func (t *trust) Bound(keyHash [32]byte) (tls.Kind, string, bool) {
	kind, name, ok := t.view().Bound(keyHash)
	if !ok {
		return 0, "", false
	}
	switch kind {
	case tls.KindAgency.String():
		return tls.KindAgency, name, true
	case tls.KindGateway.String():
		return tls.KindGateway, name, true
	}
	// Only these two can be bound; a kind of a later version is nobody here.
	return 0, "", false
}

// Roots leaves out what does not parse: the directory refuses such an entry,
// and one bad entry must not take the others along.
func (t *trust) Roots() []tls.Root {
	entries := t.view().TrustRoots()
	t.mu.Lock()
	defer t.mu.Unlock()
	parsed := make(map[*directoryv1.TrustRoot]*x509.Certificate, len(entries))
	var roots []tls.Root
	for _, entry := range entries {
		certificate, known := t.parsed[entry]
		if !known {
			// Nil where it does not parse.
			certificate, _ = x509.ParseCertificate(entry.GetCertificate())
		}
		parsed[entry] = certificate
		if certificate != nil {
			roots = append(roots, tls.Root{
				TrustDomain: entry.GetTrustDomain(), Certificate: certificate, Outside: entry.GetOutside(),
			})
		}
	}
	t.parsed = parsed
	return roots
}
