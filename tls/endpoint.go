package tls

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"golang.org/x/time/rate"
)

// Root is an authority that the directory adds to those of the trust file.
type Root struct {
	// TrustDomain is whose names it vouches for.
	TrustDomain string
	// Certificate is the authority's own.
	Certificate *x509.Certificate
	// Outside: it vouches for no name, only for certificates whose key is
	// bound (Trust.Bound).
	Outside bool
}

// Trust is what the directory says about certificates. It is asked on every
// handshake and on every CutRevoked, from many goroutines, and must answer from
// memory.
type Trust interface {
	// Revoked reports whether the certificate with this serial number
	// (big-endian, no leading zeros) is taken back; issuerKeyHash is the
	// SHA-256 of its issuer's SubjectPublicKeyInfo.
	Revoked(serial []byte, issuerKeyHash [32]byte) bool
	// Bound names the agency or gateway to which the public key (SHA-256 of
	// the SubjectPublicKeyInfo) is bound.
	Bound(keyHash [32]byte) (kind Kind, name string, ok bool)
	// Roots lists the additional authorities.
	Roots() []Root
}

// Config says who this end is and whom it believes.
type Config struct {
	// CertificateFile is our certificate in PEM, intermediates after it.
	CertificateFile string
	// KeyFile is its private key in PEM.
	KeyFile string
	// TrustFile holds the authorities in PEM. One that names a trust domain
	// (URI spiffe://DOMAIN) vouches for that one, every other for TrustDomain.
	TrustFile string
	// TrustDomain of authorities that name none; empty: that of our own
	// certificate.
	TrustDomain string
	// Trust is the directory's word; nil in clients.
	Trust Trust
	// ReloadInterval is how often Run looks for changed files and ended
	// certificates; 0: 2 seconds.
	ReloadInterval time.Duration
	// HandshakeTimeout bounds every handshake; 0: 10 seconds.
	HandshakeTimeout time.Duration
	// MaxHandshakes is how many accepted connections may be in their handshake
	// at once; one more ends the oldest of them. 0: 512.
	MaxHandshakes int
	// MaxConnections is how many accepted connections one identity may have;
	// 0: 256.
	MaxConnections int
	// Clock is the time that certificates are judged by; nil: time.Now.
	Clock  func() time.Time
	Logger *slog.Logger
	Meter  metric.Meter
}

const (
	defaultReloadInterval   = 2 * time.Second
	defaultHandshakeTimeout = 10 * time.Second
	defaultMaxHandshakes    = 512
	defaultMaxConnections   = 256
	// expiryNotice is how long before its end a certificate of ours is
	// reported, once a day.
	expiryNotice = 30 * 24 * time.Hour
)

// Endpoint is one end of secured channels: our identity, the authorities we
// believe, and the live connections let in on their word. Its methods may be
// called from any goroutine.
type Endpoint struct {
	config      Config
	logger      *slog.Logger
	instruments *instruments
	refusals    *rate.Limiter // of log lines; the counters count them all
	identity    Identity      // fixed by New; a reload with another is refused
	trustDomain string        // fixed by New

	// material is what the files said when they were last good.
	material atomic.Pointer[material]

	reload  sync.Mutex // one reload at a time; owns seen and noticed
	seen    files      // contents last looked at, good or bad
	noticed time.Time  // last notice of the coming end of our certificate

	live registry
}

// New reads the files and starts nothing. Its errors name the file at fault.
func New(config Config) (*Endpoint, error) {
	if config.ReloadInterval <= 0 {
		config.ReloadInterval = defaultReloadInterval
	}
	if config.HandshakeTimeout <= 0 {
		config.HandshakeTimeout = defaultHandshakeTimeout
	}
	if config.MaxHandshakes <= 0 {
		config.MaxHandshakes = defaultMaxHandshakes
	}
	if config.MaxConnections <= 0 {
		config.MaxConnections = defaultMaxConnections
	}
	if config.Clock == nil {
		config.Clock = time.Now
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	instruments, err := newInstruments(config.Meter)
	if err != nil {
		return nil, fmt.Errorf("tls instruments: %w", err)
	}
	e := &Endpoint{
		config: config, logger: config.Logger, instruments: instruments,
		refusals: rate.NewLimiter(5, 50),
	}
	if e.seen, err = readFiles(config); err != nil {
		return nil, err
	}
	own, err := parsePair(config, e.seen)
	if err != nil {
		return nil, err
	}
	if e.identity, err = ownIdentity(own.Leaf); err != nil {
		return nil, fmt.Errorf("certificate file %s: %w", config.CertificateFile, err)
	}
	roots, err := parseAuthorities(config.TrustFile, e.seen.trust)
	if err != nil {
		return nil, err
	}
	if e.trustDomain, err = homeDomain(config, e.identity, roots); err != nil {
		return nil, err
	}
	m := &material{own: own, authorities: settleDomains(roots, e.trustDomain)}
	now := config.Clock()
	if err := validNow(own.Leaf, now); err != nil {
		return nil, fmt.Errorf("certificate file %s: %w; issue a new one", config.CertificateFile, err)
	}
	if err := m.vouchesForOwn(e.identity, now); err != nil {
		return nil, fmt.Errorf("certificate file %s and trust file %s: %w", config.CertificateFile, config.TrustFile, err)
	}
	e.material.Store(m)
	e.instruments.ownExpiry(own.Leaf.NotAfter)
	return e, nil
}

// Identity is who we are; zero where our certificate comes from an outside
// authority and names nobody.
func (e *Endpoint) Identity() Identity { return e.identity }

// Run keeps up with the files and with time until ctx ends: it takes up changed
// files, and cuts connections whose certificates have come to their end or
// were taken back.
func (e *Endpoint) Run(ctx context.Context) error {
	ticker := time.NewTicker(e.config.ReloadInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		// A file that cannot be used is reported by Reload and leaves the old
		// one in force.
		_ = e.Reload()
		e.CutRevoked()
	}
}

// Reload reads the files now. The certificate with its key, and the trust
// file, are taken up each on its own; what cannot be used leaves the old in
// force, and the error says why. Authorities taken back cut their connections.
// The same bad contents are logged once.
func (e *Endpoint) Reload() error {
	e.reload.Lock()
	defer e.reload.Unlock()
	now := e.config.Clock()
	e.noticeExpiry(now)

	next, err := readFiles(e.config)
	if err != nil {
		if !e.seen.unreadable {
			e.logger.Error("cannot read certificate files; the old ones stay in force", "error", err)
			e.instruments.reload(false)
		}
		e.seen.unreadable = true
		return err
	}
	old := e.material.Load()
	changed := !next.equal(e.seen)
	if !changed && !e.seen.unreadable {
		return e.seen.failure
	}
	own, pairErr := e.reloadPair(next, now)
	if pairErr != nil {
		own = old.own
	}
	roots, rootsErr := parseAuthorities(e.config.TrustFile, next.trust)
	authorities := old.authorities
	if rootsErr == nil {
		authorities = settleDomains(roots, e.trustDomain)
	}
	e.material.Store(&material{own: own, authorities: authorities})
	e.instruments.ownExpiry(own.Leaf.NotAfter)
	next.failure = errors.Join(pairErr, rootsErr)
	e.seen = next
	e.instruments.reload(next.failure == nil)
	if next.failure != nil {
		e.logger.Error("cannot use changed certificate files; the old ones stay in force", "error", next.failure)
	} else {
		e.logger.Info("took up changed certificate files", "identity", e.identity.String(),
			"expires", own.Leaf.NotAfter, "authorities", len(authorities))
	}
	if err := e.material.Load().vouchesForOwn(e.identity, now); err != nil {
		// The trust file is obeyed all the same: keeping an authority that was
		// just taken out would be worse than being refused by others.
		e.logger.Warn("own certificate does not agree with the trust file", "error", err)
	}
	e.CutRevoked()
	return next.failure
}

// noticeExpiry reports the coming end of our own certificate once a day.
// Requires e.reload.
func (e *Endpoint) noticeExpiry(now time.Time) {
	end := e.material.Load().own.Leaf.NotAfter
	if end.Sub(now) > expiryNotice || now.Sub(e.noticed) < 24*time.Hour {
		return
	}
	e.noticed = now
	e.logger.Warn("own certificate comes to its end: issue a new one and replace the file",
		"file", e.config.CertificateFile, "expires", end)
}
