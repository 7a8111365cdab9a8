package spool_test

import (
	"context"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func TestMeter(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	cfg := config(t)
	cfg.Meter = provider.Meter("spool")
	n := start(t, cfg)
	n.mustPut(newParcel(1, 1000).inbox("A").onward("nam", "B"))
	got := make(map[string]int64)
	collect := func() {
		var all metricdata.ResourceMetrics
		if err := reader.Collect(context.Background(), &all); err != nil {
			t.Fatal(err)
		}
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				if g, ok := m.Data.(metricdata.Gauge[int64]); ok && len(g.DataPoints) == 1 {
					got[m.Name] = g.DataPoints[0].Value
				}
			}
		}
	}
	collect()
	for name, want := range map[string]int64{
		"truc.spool.envelopes": 1, "truc.spool.content": 1000, "truc.spool.inboxed": 1, "truc.spool.queued": 1,
		"truc.spool.journal": cfg.SegmentSize,
	} {
		if got[name] != want {
			t.Errorf("%s is %d, want %d", name, got[name], want)
		}
	}
	n.end()
	collect() // asks nobody any more
	if err := provider.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}
