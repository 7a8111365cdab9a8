package forward

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// maxCounted bounds the counting of one lane of one queue at a collection; a
// longer queue is shown as this long.
const maxCounted = 2000

// telemetry holds the instruments and the attribute sets that repeat. Labels
// are relays, streams, lanes and reasons: all bounded.
type telemetry struct {
	f *Forwarder

	offers   metric.Int64Counter       // by peer, stream, outcome, reason
	taken    metric.Int64Counter       // by peer, outcome, reason
	bytes    metric.Int64Counter       // by peer, direction
	retries  metric.Int64Counter       // by peer, scope
	underWay metric.Int64UpDownCounter // by peer, stream
	latency  metric.Float64Histogram   // by peer, stream

	queueLength metric.Int64ObservableGauge
	queueAge    metric.Float64ObservableGauge
	roundTrip   metric.Float64ObservableGauge
	linkUp      metric.Int64ObservableGauge

	mu   sync.Mutex
	sets map[labels]metric.MeasurementOption // guarded by mu
}

// labels name one measurement; unused ones are empty.
type labels struct{ peer, stream, outcome, reason string }

func newTelemetry(f *Forwarder) (*telemetry, error) {
	t := &telemetry{f: f, sets: make(map[labels]metric.MeasurementOption)}
	var errs [10]error
	t.offers, errs[0] = f.Meter.Int64Counter("truc.forward.offers",
		metric.WithDescription("Envelopes offered to peers, by what became of the offer"))
	t.taken, errs[1] = f.Meter.Int64Counter("truc.forward.taken",
		metric.WithDescription("Envelopes offered by peers, by what became of the offer"))
	t.bytes, errs[2] = f.Meter.Int64Counter("truc.forward.content", metric.WithUnit("By"),
		metric.WithDescription("Content sent to and received from peers"))
	t.retries, errs[3] = f.Meter.Int64Counter("truc.forward.retries",
		metric.WithDescription("Failures after which an envelope, or a whole destination, is tried again later"))
	t.underWay, errs[4] = f.Meter.Int64UpDownCounter("truc.forward.under_way",
		metric.WithDescription("Offers under way"))
	t.latency, errs[5] = f.Meter.Float64Histogram("truc.forward.hop.duration", metric.WithUnit("s"),
		metric.WithDescription("From the offer until custody has moved, recorded on this side"))
	t.queueLength, errs[6] = f.Meter.Int64ObservableGauge("truc.forward.queue.length",
		metric.WithDescription("Envelopes that wait for a destination; counted to 2000"))
	t.queueAge, errs[7] = f.Meter.Float64ObservableGauge("truc.forward.queue.age", metric.WithUnit("s"),
		metric.WithDescription("Age of the first envelope of a queue"))
	t.roundTrip, errs[8] = f.Meter.Float64ObservableGauge("truc.forward.link.round_trip", metric.WithUnit("s"),
		metric.WithDescription("Smoothed round trip of a link that is up"))
	t.linkUp, errs[9] = f.Meter.Int64ObservableGauge("truc.forward.link.up",
		metric.WithDescription("1 while the link carries traffic"))
	return t, errors.Join(errs[:]...)
}

// with returns the attribute set for labels, built once.
func (t *telemetry) with(l labels) metric.MeasurementOption {
	t.mu.Lock()
	defer t.mu.Unlock()
	set, ok := t.sets[l]
	if !ok {
		var attributes []attribute.KeyValue
		for _, a := range []struct{ key, value string }{
			{"peer", l.peer}, {"stream", l.stream}, {"outcome", l.outcome}, {"reason", l.reason},
		} {
			if a.value != "" {
				attributes = append(attributes, attribute.String(a.key, a.value))
			}
		}
		set = metric.WithAttributeSet(attribute.NewSet(attributes...))
		t.sets[l] = set
	}
	return set
}

func (o *outlet) labels() labels {
	if o.urgent {
		return labels{peer: string(o.peer), stream: "urgent"}
	}
	return labels{peer: string(o.peer), stream: "bulk"}
}

func (t *telemetry) inFlight(ctx context.Context, o *outlet, n int64) {
	t.underWay.Add(ctx, n, t.with(o.labels()))
}

func (t *telemetry) sent(ctx context.Context, o *outlet, n uint64) {
	t.bytes.Add(ctx, int64(n), t.with(labels{peer: string(o.peer), outcome: "sent"}))
}

func (t *telemetry) received(ctx context.Context, peer routing.RelayID, n int) {
	t.bytes.Add(ctx, int64(n), t.with(labels{peer: string(peer), outcome: "received"}))
}

func (t *telemetry) accepted(ctx context.Context, a *attempt, repeat bool, now time.Time) {
	l := a.outlet.labels()
	t.latency.Record(ctx, now.Sub(a.offered).Seconds(), t.with(l))
	l.outcome = "accepted"
	if repeat {
		l.outcome = "repeat"
	}
	t.offers.Add(ctx, 1, t.with(l))
}

func (t *telemetry) refused(ctx context.Context, a *attempt, reason exchangev1.ErrorReason) {
	l := a.outlet.labels()
	l.outcome, l.reason = "refused", reasonName(reason)
	t.offers.Add(ctx, 1, t.with(l))
}

func (t *telemetry) retried(ctx context.Context, a *attempt, scope string) {
	t.retries.Add(ctx, 1, t.with(labels{peer: string(a.outlet.peer), outcome: scope}))
}

func (t *telemetry) took(ctx context.Context, peer routing.RelayID, outcome string, reason exchangev1.ErrorReason) {
	l := labels{peer: string(peer), outcome: outcome}
	if outcome == "refused" {
		l.reason = reasonName(reason)
	}
	t.taken.Add(ctx, 1, t.with(l))
}

// observe makes queues and links visible to collections until the returned
// function is called.
func (t *telemetry) observe() (unregister func(), err error) {
	r, err := t.f.Meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, k := range t.f.links.snapshot() {
			if k.From != t.f.Self {
				continue
			}
			with := t.with(labels{peer: string(k.To)})
			if k.Up {
				o.ObserveInt64(t.linkUp, 1, with)
				o.ObserveFloat64(t.roundTrip, k.RoundTrip.Seconds(), with)
			} else {
				o.ObserveInt64(t.linkUp, 0, with)
			}
		}
		relays, err := t.f.Queues.Destinations()
		if err != nil {
			return err
		}
		for _, relay := range relays {
			if err := t.observeQueue(o, relay); err != nil {
				return err
			}
		}
		return nil
	}, t.linkUp, t.roundTrip, t.queueLength, t.queueAge)
	if err != nil {
		return nil, err
	}
	return func() { _ = r.Unregister() }, nil
}

func (t *telemetry) observeQueue(o metric.Observer, relay routing.RelayID) error {
	for _, lane := range envelope.LaneOrder {
		page, err := t.f.Queues.Queue(relay, before(lane), maxCounted)
		if err != nil {
			return err
		}
		n := 0
		for n < len(page) && page[n].Lane == lane {
			n++
		}
		with := metric.WithAttributes(attribute.String("peer", string(relay)), attribute.Int("lane", int(lane)))
		o.ObserveInt64(t.queueLength, int64(n), with)
		var age time.Duration
		if n > 0 {
			age = max(t.f.Clock().Sub(page[0].QueuedAt), 0)
		}
		o.ObserveFloat64(t.queueAge, age.Seconds(), with)
	}
	return nil
}

// reasonName names a reason; those that this release does not know have one
// name, so that labels stay few.
func reasonName(reason exchangev1.ErrorReason) string {
	if _, known := exchangev1.ErrorReason_name[int32(reason)]; !known {
		return "UNKNOWN"
	}
	return strings.TrimPrefix(reason.String(), "ERROR_REASON_")
}

var traceContext propagation.TraceContext

// extract continues the trace that an envelope carries.
func extract(ctx context.Context, parent, state string) context.Context {
	if parent == "" {
		return ctx
	}
	return traceContext.Extract(ctx, propagation.MapCarrier{"traceparent": parent, "tracestate": state})
}

// inject writes down the trace that goes on from here; empty where none is.
func inject(ctx context.Context) (parent, state string) {
	carrier := propagation.MapCarrier{}
	traceContext.Inject(ctx, carrier)
	return carrier["traceparent"], carrier["tracestate"]
}

func (t *telemetry) startForward(ctx context.Context, a *attempt) (context.Context, trace.Span) {
	return t.f.Tracer.Start(extract(ctx, a.record.TraceParent, a.record.TraceState), "forward",
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			attribute.String("truc.envelope", a.entry.ID.String()),
			attribute.String("truc.peer", string(a.outlet.peer)),
			attribute.String("truc.destination", string(a.destination.relay)),
			attribute.Int("truc.recipients", len(a.agencies))))
}

func (t *telemetry) startTake(ctx context.Context, peer routing.RelayID, id envelope.ID, offer *relayv1.Offer) (context.Context, trace.Span) {
	return t.f.Tracer.Start(extract(ctx, offer.GetTraceparent(), offer.GetTracestate()), "take",
		trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
			attribute.String("truc.envelope", id.String()),
			attribute.String("truc.peer", string(peer)),
			attribute.String("truc.destination", offer.GetDestinationRelayId())))
}
