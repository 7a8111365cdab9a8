package ingress

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
)

// metrics holds the instruments; the attribute sets are built once, so that
// counting allocates nothing.
type metrics struct {
	accepted metric.Int64Counter
	refused  metric.Int64Counter
	receipt  metric.Float64Histogram
	bytes    metric.Int64Counter
	streams  metric.Int64UpDownCounter
	receipts metric.Int64Counter
	copyWait metric.Float64Histogram
	unread   metric.Int64Counter
	numbers  metric.Int64Counter
	law      metric.Int64Counter
	signed   metric.Float64Histogram

	fresh, repeat      metric.MeasurementOption
	received, sent     metric.MeasurementOption
	receiving, proxied metric.MeasurementOption
	single, several    metric.MeasurementOption
}

func newMetrics(meter metric.Meter) (*metrics, error) {
	var m metrics
	var errs [11]error
	m.accepted, errs[0] = meter.Int64Counter("truc.ingress.accepted",
		metric.WithUnit("{envelope}"), metric.WithDescription("Envelopes answered with a receipt."))
	m.refused, errs[1] = meter.Int64Counter("truc.ingress.refused",
		metric.WithUnit("{call}"), metric.WithDescription("Calls that ended without what was asked, by call and reason."))
	m.receipt, errs[2] = meter.Float64Histogram("truc.ingress.receipt.duration",
		metric.WithUnit("s"), metric.WithDescription("From the start of a submit to its receipt."),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 120))
	m.bytes, errs[3] = meter.Int64Counter("truc.ingress.bytes",
		metric.WithUnit("By"), metric.WithDescription("Content taken from and sent to agencies."))
	m.streams, errs[4] = meter.Int64UpDownCounter("truc.ingress.streams",
		metric.WithUnit("{stream}"), metric.WithDescription("Receive streams open: own inboxes, and those passed on to the home relay."))
	m.receipts, errs[5] = meter.Int64Counter("truc.ingress.receipts",
		metric.WithUnit("{receipt}"), metric.WithDescription("Receipts by the number of relays that were known to hold the envelope."))
	m.copyWait, errs[6] = meter.Float64Histogram("truc.ingress.copy.wait",
		metric.WithUnit("s"), metric.WithDescription("How long receipts waited for the second copy; those that did not wait are not counted."),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	m.unread, errs[7] = meter.Int64Counter("truc.ingress.unread",
		metric.WithUnit("{file}"), metric.WithDescription("Files accepted that could not be looked into for marks of state secrets: locked, damaged, or too large."))
	m.law, errs[8] = meter.Int64Counter("truc.ingress.sent",
		metric.WithUnit("{document}"), metric.WithDescription("Documents accepted, by lane and by whether they were sent the day they were signed or the next working morning (QD28 Art. 6); unknown where the header does not say when they were signed or issued."))
	m.signed, errs[9] = meter.Float64Histogram("truc.ingress.sent.duration",
		metric.WithUnit("s"), metric.WithDescription("From the signature of documents to their acceptance, by lane."),
		metric.WithExplicitBucketBoundaries(10, 60, 300, 900, 3600, 4*3600, 8*3600, 24*3600, 48*3600, 72*3600, 7*24*3600))
	m.numbers, errs[10] = meter.Int64Counter("truc.ingress.number.repeated",
		metric.WithUnit("{document}"), metric.WithDescription("Documents accepted whose sender was warned: it gave their number and notation to another document of that year."))
	option := func(key, value string) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(attribute.String(key, value)))
	}
	m.fresh, m.repeat = option("outcome", "accepted"), option("outcome", "repeat")
	m.received, m.sent = option("direction", "in"), option("direction", "out")
	m.receiving, m.proxied = option("inbox", "home"), option("inbox", "elsewhere")
	m.single, m.several = option("copies", "1"), option("copies", "2+")
	return &m, errors.Join(errs[:]...)
}

// answered counts a receipt by the copies that it states.
func (m *metrics) answered(ctx context.Context, copies uint32) {
	option := m.single
	if copies >= 2 {
		option = m.several
	}
	m.receipts.Add(ctx, 1, option)
}

// sentAfter counts a document by how it kept the limit for sending.
func (m *metrics) sentAfter(ctx context.Context, lane envelope.Lane, kept lifecycle.Keeping, after time.Duration) {
	with := attribute.Int("lane", int(lane))
	m.law.Add(ctx, 1, metric.WithAttributes(with, attribute.String("limit", kept.String())))
	if kept != lifecycle.Unknown {
		m.signed.Record(ctx, after.Seconds(), metric.WithAttributes(with))
	}
}

// refusal counts a call that failed, by the reason in its error.
func (m *metrics) refusal(ctx context.Context, call string, err error) {
	m.refused.Add(ctx, 1, metric.WithAttributes(attribute.String("call", call), attribute.String("reason", reasonOf(err))))
}

// reasonOf names why a call failed in one word, for metrics and logs: the text
// of an error may quote what the sender wrote.
func reasonOf(err error) string {
	if r, ok := envelope.AsRefusal(err); ok && r.Reason != exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return strings.TrimPrefix(r.Reason.String(), "ERROR_REASON_")
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return "CALL_ENDED"
	}
	return "OTHER"
}

// fieldsOf lists the fields at fault.
func fieldsOf(err error) []string {
	r, _ := envelope.AsRefusal(err)
	if r == nil {
		return nil
	}
	var fields []string
	for _, problem := range r.Problems {
		fields = append(fields, problem.Field)
	}
	return fields
}

// openStream counts a Receive stream until the returned function is called.
func (m *metrics) openStream(ctx context.Context, where metric.MeasurementOption) func() {
	m.streams.Add(ctx, 1, where)
	return func() { m.streams.Add(context.WithoutCancel(ctx), -1, where) }
}

// continueTrace puts a W3C trace context into ctx; what is malformed is left
// out, as W3C Trace Context §3.2 asks.
func continueTrace(ctx context.Context, parent, state string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": parent, "tracestate": state})
}

// traceOf returns the W3C trace context of the current span; empty where there
// is none.
func traceOf(ctx context.Context) (parent, state string) {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"], carrier["tracestate"]
}

// span starts a span about one envelope.
func (s *Service) span(ctx context.Context, name string, id envelope.ID) (context.Context, trace.Span) {
	return s.config.Tracer.Start(ctx, name, trace.WithAttributes(attribute.String("truc.envelope.id", id.String())))
}

// log returns the logger for lines about one envelope.
func (s *Service) log(ctx context.Context, id envelope.ID) *slog.Logger {
	l := s.config.Logger.With("envelope", id.String())
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		l = l.With("trace", span.TraceID().String())
	}
	return l
}
