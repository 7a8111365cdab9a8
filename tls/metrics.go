package tls

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// instruments are built once. All of them are safe for concurrent use.
type instruments struct {
	handshakes  metric.Int64Counter
	connections metric.Int64UpDownCounter
	cut         metric.Int64Counter
	reloads     metric.Int64Counter
	expiry      metric.Int64Gauge
}

func newInstruments(meter metric.Meter) (*instruments, error) {
	if meter == nil {
		meter = noop.Meter{}
	}
	i := new(instruments)
	var err error
	if i.handshakes, err = meter.Int64Counter("truc.tls.handshakes",
		metric.WithDescription("Handshakes by direction and outcome; outcome is ok or the reason of the failure.")); err != nil {
		return nil, err
	}
	if i.connections, err = meter.Int64UpDownCounter("truc.tls.connections",
		metric.WithDescription("Live verified connections by direction.")); err != nil {
		return nil, err
	}
	if i.cut, err = meter.Int64Counter("truc.tls.cut",
		metric.WithDescription("Live connections ended because their peer is no longer trusted, by reason.")); err != nil {
		return nil, err
	}
	if i.reloads, err = meter.Int64Counter("truc.tls.reloads",
		metric.WithDescription("Changed certificate files taken up (ok) or not (failed).")); err != nil {
		return nil, err
	}
	if i.expiry, err = meter.Int64Gauge("truc.tls.certificate.expires", metric.WithUnit("s"),
		metric.WithDescription("End of our own certificate, Unix time.")); err != nil {
		return nil, err
	}
	return i, nil
}

var (
	directionIn  = attribute.String("direction", "in")
	directionOut = attribute.String("direction", "out")
)

func direction(dialed bool) attribute.KeyValue {
	if dialed {
		return directionOut
	}
	return directionIn
}

func (i *instruments) handshake(dialed bool, err error) {
	outcome := "ok"
	if err != nil {
		outcome = reasonOf(err)
	}
	i.handshakes.Add(context.Background(), 1, metric.WithAttributes(direction(dialed), attribute.String("outcome", outcome)))
}

func (i *instruments) connection(dialed bool, change int64) {
	i.connections.Add(context.Background(), change, metric.WithAttributes(direction(dialed)))
}

func (i *instruments) cutOne(err error) {
	i.cut.Add(context.Background(), 1, metric.WithAttributes(attribute.String("reason", reasonOf(err))))
}

func (i *instruments) reload(ok bool) {
	outcome := "ok"
	if !ok {
		outcome = "failed"
	}
	i.reloads.Add(context.Background(), 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}

func (i *instruments) ownExpiry(end time.Time) {
	i.expiry.Record(context.Background(), end.Unix())
}
