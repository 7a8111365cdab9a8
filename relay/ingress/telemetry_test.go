package ingress_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// What is told of an envelope: figures without its id, spans and lines with it,
// and never what it is about.
func TestTelemetry(t *testing.T) {
	m := newDirectory(t)
	reader := metric.NewManualReader()
	spans := tracetest.NewSpanRecorder()
	log := new(lines)
	m.adjust = func(c *ingress.Config) {
		c.Meter = metric.NewMeterProvider(metric.WithReader(reader)).Meter("test")
		c.Tracer = trace.NewTracerProvider(trace.WithSpanProcessor(spans)).Tracer("test")
		c.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	m.start("bac", ingress.Limits{})

	h := document("G22", "số 1", []string{"nội dung kín"}, "H26")
	accepted := m.mustSend("bac", "agency/G22", h, "nội dung kín")
	m.mustSend("bac", "agency/G22", h, "nội dung kín")
	if _, err := m.send("bac", "agency/G22", document("G22", "số 2", nil, "H99")); err == nil {
		t.Fatal("an unknown recipient was accepted")
	}
	m.drain("bac", "agency/H26", &exchangev1.ReceiveRequest{InlineLimit: 1000})
	id := accepted.GetReceipt().GetEnvelopeId()
	if _, err := m.relays["bac"].agency.Confirm(as(t.Context(), "agency/H26"), &exchangev1.ConfirmRequest{EnvelopeIds: [][]byte{id}}); err != nil {
		t.Fatal(err)
	}

	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int64{}
	for _, scope := range data.ScopeMetrics {
		for _, instrument := range scope.Metrics {
			switch d := instrument.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					counts[instrument.Name+" "+p.Attributes.Encoded(attribute.DefaultEncoder())] += p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					counts[instrument.Name+" "+p.Attributes.Encoded(attribute.DefaultEncoder())] += int64(p.Count)
				}
			}
		}
	}
	for name, want := range map[string]int64{
		"truc.ingress.accepted outcome=accepted":                    1,
		"truc.ingress.accepted outcome=repeat":                      1,
		"truc.ingress.receipt.duration outcome=accepted":            1,
		"truc.ingress.refused call=submit,reason=UNKNOWN_RECIPIENT": 1,
		"truc.ingress.bytes direction=in":                           int64(len("nội dung kín")),
		"truc.ingress.bytes direction=out":                          int64(len("nội dung kín")),
		"truc.ingress.streams inbox=home":                           0,
	} {
		if got, ok := counts[name]; !ok || got != want {
			t.Errorf("%s: got %d (told: %t), want %d", name, got, ok, want)
		}
	}

	text := envelope.ID(id).String()
	named := map[string]bool{}
	for _, span := range spans.Ended() {
		for _, a := range span.Attributes() {
			if a.Key == "truc.envelope.id" && a.Value.AsString() == text {
				named[span.Name()] = true
			}
		}
	}
	for _, name := range []string{"accept", "deliver", "confirm"} {
		if !named[name] {
			t.Errorf("no span %q with the envelope's id", name)
		}
	}
	for _, line := range []string{"envelope accepted", "envelope delivered", "envelope confirmed"} {
		found := false
		for l := range strings.Lines(log.String()) {
			found = found || strings.Contains(l, `"`+line+`"`) && strings.Contains(l, text) && strings.Contains(l, `"trace":`)
		}
		if !found {
			t.Errorf("no line %q with envelope and trace id in\n%s", line, log)
		}
	}
	for _, secret := range []string{"V/v", "nội dung", "file0", "số 1"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log tells %q:\n%s", secret, log)
		}
	}
}
