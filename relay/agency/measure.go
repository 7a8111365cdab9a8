package agency

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

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
			m.failed(result.relay, result.err)
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

// learn records answers, and the relays that they name.
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
			if !info.GetReachable() || info.GetAddress() == "" || m.knows(info.GetId()) {
				continue
			}
			if err := m.add(info.GetAddress(), info.GetId(), info.GetRegion()); err != nil {
				m.config.Logger.Warn("relay named by the mesh is not used", "relay", info.GetId(), "error", err)
			}
		}
	}
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
