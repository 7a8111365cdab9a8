package ledger

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
)

// firstConfirmation finds out, before a statement is kept, whether it is the first
// by which its recipient confirms the document; measure then holds it against the
// limit of the law. A statement that is told twice is measured once.
func (l *Ledger) firstConfirmation(said envelope.Said) (measure func(context.Context), err error) {
	nothing := func(context.Context) {}
	one := &lifecycle.Life{Said: []lifecycle.Heard{{Statement: said.Statement, Source: said.Source}}}
	if _, confirms := one.AcceptedAt(); !confirms || len(said.Agencies) != 1 {
		return nothing, nil
	}
	record, err := l.config.Spool.Record(said.ID)
	if err != nil {
		return nil, err
	}
	for i := range record.Deliveries {
		d := &record.Deliveries[i]
		if d.Agency != said.Agencies[0] {
			continue
		}
		if d.Life != nil && (d.Life.Dropped > 0 || hasConfirmed(d.Life)) {
			return nothing, nil
		}
		kept, after := l.config.Calendar.Accepted(one, d.Arrived(), l.config.Clock())
		lane := attribute.Int("lane", int(record.Lane))
		return func(ctx context.Context) {
			l.accepted.Add(ctx, 1, metric.WithAttributes(lane, attribute.String("limit", kept.String())))
			if kept != lifecycle.Unknown {
				l.acceptedAfter.Record(ctx, after.Seconds(), metric.WithAttributes(lane))
			}
		}, nil
	}
	return nothing, nil
}

func hasConfirmed(life *lifecycle.Life) bool {
	_, ok := life.AcceptedAt()
	return ok
}
