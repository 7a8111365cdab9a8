package forward_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
)

// log is what one relay logged.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// The spans of all hops are one trace, each the child of the one before.
func TestSpansContinueTheTrace(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		recorder := tracetest.NewSpanRecorder()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
		logs := new(log)
		for _, n := range m.nodes {
			n.tune = func(c *forward.Config) {
				c.Tracer = provider.Tracer("test")
				c.Logger = slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
			}
		}
		id := m.nodes[bac].send("1", atNam)
		const ingress = "00f067aa0ba902b7"
		m.nodes[bac].spool.records[id].TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-" + ingress + "-01"
		m.cutLink(bac, nam)
		m.start()
		until(t, "duties done", func() bool { return m.nodes[bac].spool.queued()+m.nodes[trung].spool.queued() == 0 })

		parent := ingress
		for _, want := range []string{"forward", "take", "forward", "take"} {
			i := slices.IndexFunc(recorder.Ended(), func(s sdktrace.ReadOnlySpan) bool { return s.Parent().SpanID().String() == parent })
			if i < 0 {
				t.Fatalf("no span is the child of %s, want %s", parent, want)
			}
			span := recorder.Ended()[i]
			if span.Name() != want || span.SpanContext().TraceID().String() != "4bf92f3577b34da6a3ce929d0e0e4736" {
				t.Fatalf("span %s of trace %s, want %s of the ingress's trace", span.Name(), span.SpanContext().TraceID(), want)
			}
			parent = span.SpanContext().SpanID().String()
		}
		logs.mu.Lock()
		defer logs.mu.Unlock()
		for _, what := range []string{"handed on", "taken into custody"} {
			if n := strings.Count(logs.b.String(), what); n != 2 {
				t.Errorf("%q was logged %d times, want 2", what, n)
			}
		}
		for line := range strings.Lines(logs.b.String()) {
			if strings.Contains(line, "handed on") && (!strings.Contains(line, id.String()) || !strings.Contains(line, "4bf92f3577b34da6a3ce929d0e0e4736")) {
				t.Errorf("line without envelope or trace: %s", line)
			}
		}
	})
}

func TestMetrics(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		reader := sdkmetric.NewManualReader()
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		m.nodes[bac].tune = func(c *forward.Config) { c.Meter = provider.Meter("test") }
		bad := m.nodes[bac].send("bad", atNam)
		m.nodes[nam].spool.onBegin = func(id envelope.ID) error {
			if id == bad {
				return envelope.Refuse(tooLarge, "larger than is taken")
			}
			return nil
		}
		m.nodes[bac].send("good", atNam)
		m.nodes[bac].send("waiting", atTrung)
		m.start(bac, nam)
		until(t, "one duty is left", func() bool { return m.nodes[bac].spool.queued() == 1 })
		pass(time.Minute)

		got := make(map[string]float64)
		var all metricdata.ResourceMetrics
		if err := reader.Collect(context.Background(), &all); err != nil {
			t.Fatal(err)
		}
		for _, scope := range all.ScopeMetrics {
			for _, metric := range scope.Metrics {
				collect(got, metric)
			}
		}
		for name, want := range map[string]float64{
			"truc.forward.offers{outcome=accepted,peer=nam,stream=bulk}":                 1,
			"truc.forward.offers{outcome=refused,peer=nam,reason=TOO_LARGE,stream=bulk}": 1,
			"truc.forward.under_way{peer=nam,stream=bulk}":                               0,
			"truc.forward.queue.length{lane=0,peer=trung}":                               1,
			"truc.forward.link.up{peer=nam}":                                             1,
			"truc.forward.link.up{peer=trung}":                                           0,
		} {
			if value, ok := got[name]; !ok || value != want {
				t.Errorf("%s is %v (present: %t), want %v", name, value, ok, want)
			}
		}
		if age := got["truc.forward.queue.age{lane=0,peer=trung}"]; age < 60 || age > 120 {
			t.Errorf("oldest has waited for %v s, want a minute", age)
		}
		for name := range got {
			if strings.Contains(name, bad.String()) {
				t.Errorf("%s names an envelope", name)
			}
		}
	})
}

func collect(into map[string]float64, metric metricdata.Metrics) {
	add := func(name string, value float64) { into[name] = value }
	switch d := metric.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range d.DataPoints {
			add(metric.Name+labelled(p), float64(p.Value))
		}
	case metricdata.Gauge[int64]:
		for _, p := range d.DataPoints {
			add(metric.Name+labelled(p), float64(p.Value))
		}
	case metricdata.Gauge[float64]:
		for _, p := range d.DataPoints {
			add(metric.Name+labelled(p), p.Value)
		}
	}
}

func labelled[N int64 | float64](p metricdata.DataPoint[N]) string {
	var labels []string
	for _, a := range p.Attributes.ToSlice() {
		labels = append(labels, string(a.Key)+"="+a.Value.String())
	}
	slices.Sort(labels)
	return "{" + strings.Join(labels, ",") + "}"
}
