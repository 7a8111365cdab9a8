package agency

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls"
)

// maxMessage is the largest message taken from a relay: a header at its limit
// with inline content.
const maxMessage = 8 << 20

// A relay that is attached to is left for a faster one only where the gain is
// worth the move: more than a third of the round trip and more than a few
// milliseconds.
const worthMoving = 5 * time.Millisecond

// mesh is what the client knows of the relays, and which one it is attached to.
type mesh struct {
	config   Config
	endpoint *tls.Endpoint
	// measuring is held by the one goroutine that measures.
	measuring chan struct{}

	mu sync.Mutex
	// relays, current, region and measuredAt are guarded by mu, like the fields
	// of each relay that say so.
	relays     []*relay
	current    *relay
	region     string
	measuredAt time.Time
	closed     bool
}

// relay is one relay and the connection to it.
type relay struct {
	address string
	// named in the configuration, not learned.
	named bool
	// id is that expected of a learned relay, region what was said of it.
	id, region string
	conn       *grpc.ClientConn
	exchange   exchangev1.ExchangeServiceClient

	// Guarded by mesh.mu.
	info     *exchangev1.AttachResponse
	trip     time.Duration
	failures int
	retryAt  time.Time
}

func newMesh(config Config, endpoint *tls.Endpoint) (*mesh, error) {
	m := &mesh{config: config, endpoint: endpoint, measuring: make(chan struct{}, 1)}
	for _, address := range config.Relays {
		if err := m.add(address, "", ""); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	return m, nil
}

// add makes a relay known; a connection is opened by the first call. Requires
// mu, or that nobody else knows m yet.
func (m *mesh) add(address, id, region string) error {
	for _, r := range m.relays {
		if r.address == address {
			return nil
		}
	}
	expect := tls.ExpectKind(tls.KindRelay)
	if id != "" {
		expect = tls.ExpectRelay(id)
	}
	options := []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// A relay that vanished without a word is noticed within 25 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 15 * time.Second, Timeout: 8 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: m.config.timing.firstBackoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: m.config.timing.maxBackoff},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	if m.config.Dial != nil {
		options = append(options, m.config.Dial(expect)...)
	} else {
		options = append(options, grpc.WithTransportCredentials(m.endpoint.ClientCredentials(expect)))
	}
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return fmt.Errorf("relay %s: %w", address, err)
	}
	m.relays = append(m.relays, &relay{
		address: address, named: id == "", id: id, region: region, conn: conn, exchange: exchangev1.NewExchangeServiceClient(conn),
	})
	return nil
}

func (m *mesh) close() error {
	m.mu.Lock()
	relays := m.relays
	m.relays, m.current, m.closed = nil, nil, true
	m.mu.Unlock()
	var all []error
	for _, r := range relays {
		all = append(all, r.conn.Close())
	}
	return errors.Join(all...)
}

// errClosed is what calls get after Close.
var errClosed = envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, "the client is closed")

// nearest returns the relay to use: the one attached to, or after a failure or
// a long time the fastest one that answers. It waits where every relay failed
// so lately that another try is not due.
func (m *mesh) nearest(ctx context.Context) (*relay, error) {
	if r := m.attached(); r != nil {
		return r, nil
	}
	select {
	case m.measuring <- struct{}{}:
		defer func() { <-m.measuring }()
	case <-ctx.Done():
		return nil, ended(ctx)
	}
	// Another goroutine may have measured meanwhile.
	if r := m.attached(); r != nil {
		return r, nil
	}
	candidates, err := m.due(ctx)
	if err != nil {
		return nil, err
	}
	failures := m.measure(ctx, candidates)
	// Relays learned just now are measured too, once.
	if learned := m.unmeasured(); len(learned) > 0 && len(failures) < len(candidates) {
		m.measure(ctx, learned)
	}
	// Where the home region is lost, any other will do.
	if spares := m.spares(); len(spares) > 0 {
		failures = append(failures, m.measure(ctx, spares)...)
	}
	if ctx.Err() != nil {
		return nil, ended(ctx)
	}
	return m.choose(failures)
}

func (m *mesh) attached() *relay {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current != nil && time.Since(m.measuredAt) < m.stands() {
		return m.current
	}
	return nil
}

// stands is how long the choice of a relay stands: outside the home region it was
// made in bad times, which may be over soon. Requires mu.
func (m *mesh) stands() time.Duration {
	if at := m.current.info.GetRelay().GetRegion(); m.region != "" && at != m.region {
		return m.config.timing.away
	}
	return m.config.timing.remeasure
}

// untilMeasured is how long the choice of now stands.
func (m *mesh) untilMeasured() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current == nil {
		return m.config.timing.remeasure
	}
	return m.stands()
}

// due returns the relays that may be tried now; it waits for the first.
func (m *mesh) due(ctx context.Context) ([]*relay, error) {
	for {
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return nil, errClosed
		}
		now := time.Now()
		var due []*relay
		first, usable := m.relays[0].retryAt, false
		for _, r := range m.relays {
			if !r.retryAt.After(now) {
				usable = true
				if !m.spare(r) {
					due = append(due, r)
				}
			}
			if r.retryAt.Before(first) {
				first = r.retryAt
			}
		}
		m.mu.Unlock()
		if usable {
			return due, nil
		}
		if err := sleep(ctx, first.Sub(now)); err != nil {
			return nil, err
		}
	}
}

// unmeasured returns relays that no measurement has touched: learned ones of
// the home region.
func (m *mesh) unmeasured() []*relay {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*relay
	for _, r := range m.relays {
		if !r.named && !m.spare(r) && r.info == nil && r.failures == 0 {
			all = append(all, r)
		}
	}
	return all
}

// maxSpares is how many spare relays are measured at once.
const maxSpares = 5

// spare reports whether a relay is one for bad times: neither configured nor of
// the home region. Requires mu.
func (m *mesh) spare(r *relay) bool { return !r.named && m.region != "" && r.region != m.region }

// spares returns a few relays to measure while no other can be used.
func (m *mesh) spares() []*relay {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var all []*relay
	for _, r := range m.relays {
		switch {
		case r.retryAt.After(now):
		case r.info != nil:
			return nil // usable
		case m.spare(r):
			all = append(all, r)
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(len(all), maxSpares)]
}

// knows reports whether a relay is known by its id, whatever address was
// configured for it. Requires mu.
func (m *mesh) knows(id string) bool {
	return slices.ContainsFunc(m.relays, func(r *relay) bool { return r.id == id || r.info.GetRelay().GetId() == id })
}

// choose attaches to the best relay that answered.
func (m *mesh) choose(failures []error) (*relay, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var usable []*relay
	for _, r := range m.relays {
		if r.info != nil && !r.retryAt.After(now) {
			usable = append(usable, r)
		}
	}
	if len(usable) == 0 {
		return nil, noneAnswers(failures)
	}
	best := slices.MinFunc(usable, func(a, b *relay) int {
		return cmp.Or(cmp.Compare(m.abroad(a), m.abroad(b)), cmp.Compare(a.trip, b.trip))
	})
	if c := m.current; c != nil && slices.Contains(usable, c) && m.abroad(c) == m.abroad(best) &&
		(c.trip <= best.trip*3/2 || c.trip <= best.trip+worthMoving) {
		best = c
	}
	if best != m.current {
		m.config.Logger.Info("attached", "relay", best.info.GetRelay().GetId(), "address", best.address, "round_trip", best.trip)
	}
	m.current, m.measuredAt = best, now
	return best, nil
}

// abroad is 1 for a relay outside the home region. Requires mu.
func (m *mesh) abroad(r *relay) int {
	if m.region != "" && r.info.GetRelay().GetRegion() != m.region {
		return 1
	}
	return 0
}

// failed notes that a relay failed; it is not tried again before a growing
// while, nor before the time it asked for. One that answers, and only has no
// way to the home relay or is not ready, is asked again soon: what it waits for
// is the matter of seconds, and asking costs it little.
func (m *mesh) failed(r *relay, err error) {
	var wait time.Duration
	most := m.config.timing.maxBackoff
	if refusal, ok := envelope.AsRefusal(err); ok {
		wait = refusal.RetryAfter
		if refusal.Has(exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE) || refusal.Has(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING) {
			most = m.config.timing.answers
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.failures++
	r.retryAt = time.Now().Add(max(wait, min(m.config.timing.backoff(r.failures), most)))
	if m.current == r {
		m.current = nil
	}
}

// worked notes that a relay did what was asked.
func (m *mesh) worked(r *relay) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.failures, r.retryAt = 0, time.Time{}
}

// chunkSize is the largest chunk to send to r, in bytes.
func (m *mesh) chunkSize(r *relay) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	const best = 512 << 10
	if n := int(r.info.GetMaxChunkSize()); n > 0 {
		return min(n, best)
	}
	return best
}
