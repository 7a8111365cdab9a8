package tls_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/truclienthong/truc/tls"
)

// meter counts what the endpoint counts.
type meter struct{ reader *sdkmetric.ManualReader }

func newMeter(config *tls.Config) meter {
	m := meter{sdkmetric.NewManualReader()}
	config.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(m.reader)).Meter("tls_test")
	return m
}

// sum adds up the points of an instrument that carry the attribute value.
func (m meter) sum(t *testing.T, instrument, value string) (total int64) {
	t.Helper()
	var data metricdata.ResourceMetrics
	if err := m.reader.Collect(context.Background(), &data); err != nil {
		t.Fatal(err)
	}
	for _, scope := range data.ScopeMetrics {
		for _, one := range scope.Metrics {
			points, ok := one.Data.(metricdata.Sum[int64])
			if !ok || one.Name != instrument {
				continue
			}
			for _, p := range points.DataPoints {
				for _, kv := range p.Attributes.ToSlice() {
					if kv.Value == attribute.StringValue(value) {
						total += p.Value
					}
				}
			}
		}
	}
	return total
}

// await waits until the count is reached: what a peer sees may be ahead of it.
func (m meter) await(t *testing.T, instrument, value string, want int64) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	ctx := testContext(t)
	for {
		got := m.sum(t, instrument, value)
		if got == want {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s{%s}: got %d, want %d", instrument, value, got, want)
		}
	}
}

// journal keeps log lines.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
