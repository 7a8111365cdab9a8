package relay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/relay/envelope"
)

// logged is a log as JSON that can be read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// of returns the values of a key in the lines with that message.
func (l *logged) of(t *testing.T, message, key string) (values []string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.b.Bytes()) {
		var o map[string]any
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatal(err)
		}
		if o["msg"] == message {
			values = append(values, fmt.Sprint(o[key]))
		}
	}
	slices.Sort(values)
	return values
}

// figures collects counters and gauges by name and attributes; zeros are left out.
func figures(t *testing.T, reader metric.Reader, prefix string) map[string]int64 {
	t.Helper()
	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	all := map[string]int64{}
	add := func(name string, set attribute.Set, n int64) {
		if n != 0 && len(name) > len(prefix) && name[:len(prefix)] == prefix {
			all[name[len(prefix):]+" "+set.Encoded(attribute.DefaultEncoder())] += n
		}
	}
	for _, scope := range data.ScopeMetrics {
		for _, instrument := range scope.Metrics {
			switch d := instrument.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					add(instrument.Name, p.Attributes, p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range d.DataPoints {
					add(instrument.Name, p.Attributes, p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					add(instrument.Name, p.Attributes, int64(p.Count))
				}
			}
		}
	}
	return all
}

// A delivery that misses the target of its lane raises the alarm at the relay that
// accepted it, once, wherever it waits; the relay where it waits lists it as late
// by when it was accepted, not by when it came there.
func TestLateDeliveriesRaiseTheAlarm(t *testing.T) {
	m := newMesh(t)
	var ahead atomic.Int64
	log, reader := new(logged), metric.NewManualReader()
	adjust := func(c *relay.Config) {
		c.Clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		c.LookEvery = 10 * time.Millisecond
		c.Targets[0] = 10 * time.Hour
		c.Forward.Rescan = 100 * time.Millisecond
	}
	alarmed := func(c *relay.Config) {
		adjust(c)
		c.Logger, c.Meters = slog.New(slog.NewJSONHandler(log, nil)), metric.NewMeterProvider(metric.WithReader(reader))
	}
	bac := m.start("bac", alarmed)
	m.serving("bac")
	m.putAgency("G22", "bac")
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
		Relay: &directoryv1.Relay{Id: "nam", Region: "nam", Address: "127.0.0.1:1"}}}})
	m.putAgency("H29", "nam")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	// nam is not there yet: all of it waits in the queue for nam.
	ids := map[int]string{}
	for lane := range 5 {
		h := document("G22", fmt.Sprint(lane), "x", "H29")
		if h.Priority = exchangev1.Priority(lane); lane == 4 {
			h.NotBefore = timestamppb.New(time.Now().Add(2 * time.Hour))
		}
		accepted, err := submit(ctx, m.agency("bac", "G22"), h, "x")
		if err != nil {
			t.Fatal(err)
		}
		ids[lane] = envelope.ID(accepted.GetReceipt().GetEnvelopeId()).String()
	}
	want := func(at string, lanes ...int) {
		t.Helper()
		wanted, gauges := []string{}, map[string]int64{}
		for _, lane := range lanes {
			wanted = append(wanted, ids[lane])
			gauges[fmt.Sprintf("late lane=%d", lane)], gauges[fmt.Sprintf("missed lane=%d", lane)] = 1, 1
		}
		slices.Sort(wanted)
		until(t, ctx, at, func() (bool, string) {
			got := log.of(t, "delivery is late", "envelope")
			return slices.Equal(got, wanted), fmt.Sprintf("late: got %v, want %v", got, wanted)
		})
		if got := figures(t, reader, "truc.delivery."); !maps.Equal(got, gauges) {
			t.Errorf("%s: metrics: got %v, want %v", at, got, gauges)
		}
		var listed []string
		for _, e := range entriesOf(t, ctx, m.custody("bac"), &adminv1.ListQueueRequest{Late: true}) {
			listed = append(listed, envelope.ID(e.GetEnvelopeId()).String())
		}
		slices.Sort(listed)
		if !slices.Equal(listed, wanted) {
			t.Errorf("%s: queue list --late: got %v, want %v", at, listed, wanted)
		}
	}
	for _, step := range []struct {
		at    time.Duration
		lanes []int
	}{
		{50 * time.Second, nil}, {2 * time.Minute, []int{3}}, {6 * time.Minute, []int{3, 2}}, {16 * time.Minute, []int{3, 2, 1}},
		{119 * time.Minute, []int{3, 2, 1}}, {122 * time.Minute, []int{3, 2, 1, 4}}, {11 * time.Hour, []int{3, 2, 1, 4, 0}},
	} {
		ahead.Store(int64(step.at))
		want(step.at.String(), step.lanes...)
	}

	// It comes to nam eleven hours after it was accepted, and is late there at once.
	m.start("nam", adjust)
	m.serving("nam")
	home := m.custody("nam")
	until(t, ctx, "all in the inbox at nam", func() (bool, string) {
		late := entriesOf(t, ctx, home, &adminv1.ListQueueRequest{Late: true})
		for _, e := range late {
			if e.GetAgencyCode() != "H29" || !e.GetLate() {
				t.Fatalf("got %v, want it late in the inbox of H29", e)
			}
		}
		return len(late) == 5, fmt.Sprint(late)
	})

	// Started again it tells how many are late, and none of them anew.
	if err := bac.stop(); err != nil {
		t.Fatal(err)
	}
	reader = metric.NewManualReader()
	m.start("bac", alarmed)
	m.serving("bac")
	if got := log.of(t, "deliveries were late before this start", "lane"); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
		t.Errorf("after the start: late in lanes %v, want all five", got)
	}
	// What is confirmed is late no more.
	for range 5 {
		if _, _, err := receiveOne(ctx, m.agency("nam", "H29")); err != nil {
			t.Fatal(err)
		}
	}
	until(t, ctx, "all confirmed", func() (bool, string) {
		got := figures(t, reader, "truc.delivery.")
		return len(got) == 0, fmt.Sprint(got)
	})
	if got := log.of(t, "delivery is late", "envelope"); len(got) != 5 {
		t.Errorf("told %d times in all, want each of five once: %v", len(got), got)
	}
}

// How the limits of the law were kept is counted where a document was accepted:
// when it was sent, and when its recipient confirmed it, once for each.
func TestLimitsOfTheLawAreMeasured(t *testing.T) {
	m := newMesh(t)
	reader := metric.NewManualReader()
	m.start("bac", func(c *relay.Config) { c.Meters = metric.NewMeterProvider(metric.WithReader(reader)) })
	m.start("nam", nil)
	m.serving("bac", "nam")
	m.putAgency("G22", "bac")
	m.putAgency("H29", "nam")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sender := m.agency("bac", "G22")
	for name, signed := range map[string]time.Time{"now": time.Now(), "long ago": time.Now().AddDate(0, 0, -9), "": {}} {
		h := document("G22", "số "+name, "x", "H29")
		if h.Priority = exchangev1.Priority_PRIORITY_KHAN; !signed.IsZero() {
			h.SignedAt = timestamppb.New(signed)
		}
		for range 2 { // a repeat is not counted
			if _, err := submit(ctx, sender, h, "x"); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := map[string]int64{"sent lane=1,limit=on time": 1, "sent lane=1,limit=late": 1, "sent lane=1,limit=unknown": 1, "sent.duration lane=1": 2}
	got := figures(t, reader, "truc.ingress.")
	maps.DeleteFunc(got, func(name string, _ int64) bool { return name[:4] != "sent" })
	if !maps.Equal(got, want) {
		t.Errorf("sent: got %v, want %v", got, want)
	}

	arrival, _, err := receiveOne(ctx, m.agency("nam", "H29"))
	if err != nil {
		t.Fatal(err)
	}
	document := arrival.GetEnvelope()
	until(t, ctx, "bac knows that it arrived", func() (bool, string) {
		track, err := sender.Track(ctx, &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_EnvelopeId{EnvelopeId: document.GetId()}})
		if err != nil {
			return false, err.Error()
		}
		state := track.GetDeliveries()[0].GetTransport()
		return state == exchangev1.TransportStatus_TRANSPORT_STATUS_DONE, state.String()
	})
	for i, code := range []string{"01", "03", "03"} { // only the first confirms
		status := &exchangev1.Header{
			Kind: exchangev1.Kind_KIND_STATUS, Sender: &exchangev1.Organization{Code: "H29"}, DocumentId: fmt.Sprint("st ", i),
			Recipients: []*exchangev1.Recipient{{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: "G22"}}}},
			Status: &exchangev1.Status{Code: code, EnvelopeId: document.GetId(), At: envelope.LocalTimeOf(time.Now()),
				ResponseFor: &exchangev1.ResponseFor{AgencyCode: "G22", DocumentId: document.GetHeader().GetDocumentId()}},
		}
		if _, err := submit(ctx, m.agency("nam", "H29"), status, ""); err != nil {
			t.Fatal(err)
		}
	}
	until(t, ctx, "all three are kept", func() (bool, string) {
		track, err := sender.Track(ctx, &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_EnvelopeId{EnvelopeId: document.GetId()}})
		if err != nil {
			return false, err.Error()
		}
		said := track.GetDeliveries()[0].GetStatements()
		return len(said) == 3, fmt.Sprint(said)
	})
	got, want = figures(t, reader, "truc.ledger."), map[string]int64{"accepted lane=1,limit=on time": 1, "accepted.duration lane=1": 1}
	maps.DeleteFunc(got, func(name string, _ int64) bool { return name[:8] != "accepted" })
	if !maps.Equal(got, want) {
		t.Errorf("accepted: got %v, want %v", got, want)
	}
}
