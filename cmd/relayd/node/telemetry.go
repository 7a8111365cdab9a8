package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"

	"github.com/truclienthong/truc/cmd/internal/cli"
)

// telemetry holds the providers of one relay. Metrics always go to the
// Prometheus handler; traces and metrics go to a collector where one is
// configured. Without a collector spans are not recorded, but trace ids exist
// and travel all the same.
type telemetry struct {
	meters  *metric.MeterProvider
	tracers *trace.TracerProvider
	handler http.Handler
}

// durationBuckets, in seconds, are for histograms that name none: the default
// ones are meant for milliseconds.
var durationBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

func newTelemetry(ctx context.Context, c Config, version string) (*telemetry, error) {
	about := resource.NewSchemaless(
		semconv.ServiceName("relayd"),
		semconv.ServiceVersion(version),
		semconv.ServiceInstanceID(c.ID),
	)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	meterOptions := []metric.Option{metric.WithResource(about), metric.WithReader(exporter)}
	for _, name := range []string{"truc.raft.*.duration", "truc.ledger.ask.duration"} {
		meterOptions = append(meterOptions, metric.WithView(metric.NewView(
			metric.Instrument{Name: name},
			metric.Stream{Aggregation: metric.AggregationExplicitBucketHistogram{Boundaries: durationBuckets}})))
	}
	tracerOptions := []trace.TracerProviderOption{trace.WithResource(about), trace.WithSampler(trace.NeverSample())}
	if c.OTLP != "" {
		spans, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(c.OTLP))
		if err != nil {
			return nil, fmt.Errorf("telemetry: traces to %s: %w", c.OTLP, err)
		}
		points, err := otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpointURL(c.OTLP))
		if err != nil {
			return nil, fmt.Errorf("telemetry: metrics to %s: %w", c.OTLP, err)
		}
		meterOptions = append(meterOptions, metric.WithReader(metric.NewPeriodicReader(points)))
		tracerOptions = []trace.TracerProviderOption{trace.WithResource(about), trace.WithBatcher(spans),
			trace.WithSampler(trace.ParentBased(trace.AlwaysSample()))}
	}
	return &telemetry{
		meters:  metric.NewMeterProvider(meterOptions...),
		tracers: trace.NewTracerProvider(tracerOptions...),
		handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	}, nil
}

func (t *telemetry) shutdown(ctx context.Context) error {
	return errors.Join(t.tracers.Shutdown(ctx), t.meters.Shutdown(ctx))
}

// NewLogger returns the logger that the configuration asks for. Its times are
// Vietnam time, as all that the tools write.
func NewLogger(c Config, w io.Writer) *slog.Logger {
	var level slog.Level
	if c.Log.Level != "" {
		_ = level.UnmarshalText([]byte(c.Log.Level)) // Load has checked it
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindTime {
			a.Value = slog.StringValue(cli.Stamp(a.Value.Time()))
		}
		return a
	}}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if c.Log.Format == "json" {
		handler = slog.NewJSONHandler(w, options)
	}
	return slog.New(handler)
}
