package agency

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	// id is that expected of a learned relay.
	id       string
	conn     *grpc.ClientConn
	exchange exchangev1.ExchangeServiceClient

	// Guarded by mesh.mu.
	info     *exchangev1.AttachResponse
	trip     time.Duration
	failures int
	retryAt  time.Time
}

func newMesh(config Config, endpoint *tls.Endpoint) (*mesh, error) {
	m := &mesh{config: config, endpoint: endpoint, measuring: make(chan struct{}, 1)}
	for _, address := range config.Relays {
		if err := m.add(address, ""); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	return m, nil
}

// add makes a relay known; a connection is opened by the first call. Requires
// mu, or that nobody else knows m yet.
func (m *mesh) add(address, id string) error {
	for _, r := range m.relays {
		if r.address == address {
			return nil
		}
	}
	expect := tls.ExpectKind(tls.KindRelay)
	if id != "" {
		expect = tls.ExpectRelay(id)
	}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(m.endpoint.ClientCredentials(expect)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// A relay that vanished without a word is noticed within a minute.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 15 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: m.config.timing.firstBackoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: m.config.timing.maxBackoff},
			MinConnectTimeout: 5 * time.Second,
		}))
	if err != nil {
		return fmt.Errorf("relay %s: %w", address, err)
	}
	m.relays = append(m.relays, &relay{
		address: address, named: id == "", id: id, conn: conn, exchange: exchangev1.NewExchangeServiceClient(conn),
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
	if ctx.Err() != nil {
		return nil, ended(ctx)
	}
	return m.choose(failures)
}

func (m *mesh) attached() *relay {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current != nil && time.Since(m.measuredAt) < m.config.timing.remeasure {
		return m.current
	}
	return nil
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
		first := m.relays[0].retryAt
		for _, r := range m.relays {
			if !r.retryAt.After(now) {
				due = append(due, r)
			}
			if r.retryAt.Before(first) {
				first = r.retryAt
			}
		}
		m.mu.Unlock()
		if len(due) > 0 {
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
		if !r.named && r.info == nil && r.failures == 0 {
			all = append(all, r)
		}
	}
	return all
}

// measurement is the outcome of one probe.
type measurement struct {
	relay *relay
	info  *exchangev1.AttachResponse
	trip  time.Duration
	err   error
}

// measure probes relays at once and records what they answer. After the first
// answer the others get a few times as long as it took; who is slower than
// that, is not the nearest. It returns the failures.
func (m *mesh) measure(caller context.Context, relays []*relay) []error {
	ctx, cancel := context.WithCancel(caller)
	defer cancel()
	results := make(chan measurement, len(relays))
	var probes sync.WaitGroup
	began := time.Now()
	for _, r := range relays {
		probes.Go(func() { results <- m.probe(ctx, r) })
	}
	go func() { probes.Wait(); close(results) }()

	var failures []error
	var answers []measurement
	// All have the time of a probe until one has answered.
	grace := time.AfterFunc(m.config.timing.probe, cancel)
	defer grace.Stop()
	for result := range results {
		switch {
		case result.err == nil:
			if len(answers) == 0 {
				grace.Reset(max(3*time.Since(began), 50*time.Millisecond))
			}
			answers = append(answers, result)
		case caller.Err() != nil, len(answers) > 0 && ctx.Err() != nil:
			// Nobody waits any more, or too slow to matter: not at fault.
		default:
			failures = append(failures, fmt.Errorf("%s: %w", result.relay.address, asRefusal(result.err)))
			m.failed(result.relay, 0)
		}
	}
	m.learn(answers)
	return failures
}

// probe attaches twice: the first call may have to connect, the second is the
// round trip.
func (m *mesh) probe(ctx context.Context, r *relay) measurement {
	r.conn.ResetConnectBackoff()
	var info *exchangev1.AttachResponse
	var trip time.Duration
	for range 2 {
		began := time.Now()
		var err error
		if info, err = r.exchange.Attach(ctx, &exchangev1.AttachRequest{AgencyCode: m.config.Agency}, grpc.WaitForReady(false)); err != nil {
			return measurement{relay: r, err: err}
		}
		trip = time.Since(began)
	}
	return measurement{relay: r, info: info, trip: trip}
}

// learn records answers, and the relays of the home region that they name.
func (m *mesh) learn(answers []measurement) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	for _, answer := range answers {
		answer.relay.info, answer.relay.trip = answer.info, answer.trip
		for _, info := range answer.info.GetRelays() {
			if info.GetId() == answer.info.GetHomeRelayId() {
				m.region = info.GetRegion()
			}
		}
	}
	for _, answer := range answers {
		for _, info := range answer.info.GetRelays() {
			// Without a home relay, any region is as good as another.
			if !info.GetReachable() || info.GetAddress() == "" || m.region != "" && info.GetRegion() != m.region || m.knows(info.GetId()) {
				continue
			}
			if err := m.add(info.GetAddress(), info.GetId()); err != nil {
				m.config.Logger.Warn("relay named by the mesh is not used", "relay", info.GetId(), "error", err)
			}
		}
	}
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

// noneAnswers joins the failures of all relays into one. A relay that refuses
// for good decides: the others cannot be asked.
func noneAnswers(failures []error) error {
	var texts []string
	for _, err := range failures {
		if !envelope.Temporary(err) {
			return err
		}
		texts = append(texts, plain(err.Error()))
	}
	if len(texts) == 0 {
		texts = append(texts, "every relay failed just now")
	}
	return errors.New("no relay answers: " + strings.Join(texts, "; "))
}

// plain takes the library's wrapping off the reason of a failed connection.
func plain(text string) string {
	before, reason, wrapped := strings.Cut(text, `connection error: desc = "transport: `)
	if !wrapped {
		return text
	}
	return before + strings.TrimSuffix(reason, `"`)
}

// failed notes that a relay failed; it is not tried again before a growing
// while, nor before the time it asked for.
func (m *mesh) failed(r *relay, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.failures++
	r.retryAt = time.Now().Add(max(wait, m.config.timing.backoff(r.failures)))
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
