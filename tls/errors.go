package tls

import (
	"context"
	stdtls "crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
)

// Why a peer is not let in. The side that refuses gets one of these, logs it
// and counts it; the other side sees a TLS alert and gets ErrRefused.
var (
	// ErrNoIdentity: the certificate names nobody, and no binding of its key
	// to an agency or gateway is known.
	ErrNoIdentity = errors.New("certificate carries no identity")
	// ErrForeignRoot: no authority that we believe vouches for this name.
	ErrForeignRoot = errors.New("certificate is not from an authority trusted for its name")
	// ErrExpired: outside the certificate's time of validity.
	ErrExpired = errors.New("certificate is expired or not yet valid")
	// ErrRevoked: the directory has taken the certificate back.
	ErrRevoked = errors.New("certificate is revoked")
	// ErrWrongIdentity: a verified identity, but not one that belongs here.
	ErrWrongIdentity = errors.New("wrong identity")
	// ErrTooMany: the identity has as many connections as one may have.
	ErrTooMany = errors.New("too many connections")
	// ErrProtocol: the peer does not speak TLS, or none of our protocols.
	ErrProtocol = errors.New("not a protocol of this port")
	// ErrRefused: the peer refused our own certificate.
	ErrRefused = errors.New("certificate refused by the peer")
)

// reasonOf is the label under which a failed handshake is counted.
func reasonOf(err error) string {
	var header stdtls.RecordHeaderError
	var timeout net.Error
	switch {
	case errors.Is(err, ErrNoIdentity):
		return "no_identity"
	case errors.Is(err, ErrForeignRoot):
		return "foreign_root"
	case errors.Is(err, ErrExpired):
		return "expired"
	case errors.Is(err, ErrRevoked):
		return "revoked"
	case errors.Is(err, ErrWrongIdentity):
		return "wrong_identity"
	case errors.Is(err, ErrTooMany):
		return "too_many"
	case errors.Is(err, ErrProtocol):
		return "protocol"
	case errors.Is(err, ErrRefused), isRemoteAlert(err):
		return "refused_by_peer"
	case errors.As(err, &header):
		return "not_tls"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled):
		return "closed"
	}
	return "handshake"
}

// isAboutCertificate tells refusals that an operator has to hear of from the
// noise that any open port attracts.
func isAboutCertificate(err error) bool {
	for _, target := range []error{ErrNoIdentity, ErrForeignRoot, ErrExpired, ErrRevoked, ErrWrongIdentity, ErrTooMany} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// isRemoteAlert reports whether err is a TLS alert that the peer sent.
// crypto/tls gives these as *net.OpError with this operation.
func isRemoteAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// isCertificateAlert reports whether the peer's alert speaks of our
// certificate; the alerts have no exported type, only their text.
func isCertificateAlert(err error) bool {
	return isRemoteAlert(err) && strings.Contains(err.Error(), "certificate")
}
