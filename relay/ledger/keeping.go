package ledger

import (
	"context"
	"hash/maphash"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

// turns has what confirms the same document for the same agency kept one after the
// other, so that one of them is the first. A turn is a channel: it is held over a
// sync of the disk, and who waits for it can go away.
type turns struct {
	seed  maphash.Seed
	lanes [1 << 10]chan struct{}
}

func newTurns() *turns {
	t := &turns{seed: maphash.MakeSeed()}
	for i := range t.lanes {
		t.lanes[i] = make(chan struct{}, 1)
	}
	return t
}

// take waits for the turn of an agency's statement on a document.
func (t *turns) take(ctx context.Context, said envelope.Said) (done func(), err error) {
	type turn struct {
		document envelope.ID
		agency   routing.AgencyCode
	}
	lane := t.lanes[maphash.Comparable(t.seed, turn{said.ID, said.Agencies[0]})%uint64(len(t.lanes))]
	select {
	case lane <- struct{}{}:
		return func() { <-lane }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// confirms tells whether a statement is one by which a recipient confirms.
func confirms(said envelope.Said) bool {
	return len(said.Agencies) == 1 && hasConfirmed(lifeOf(said))
}

func lifeOf(said envelope.Said) *lifecycle.Life {
	return &lifecycle.Life{Said: []lifecycle.Heard{{Statement: said.Statement, Source: said.Source}}}
}

// firstConfirmation finds out, before a statement that confirms is kept, in its turn,
// whether it is the first by which its recipient confirms the document; measure
// then holds it against the limit of the law. A statement that is told twice is
// measured once.
func (l *Ledger) firstConfirmation(said envelope.Said) (measure func(context.Context), err error) {
	nothing := func(context.Context) {}
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
		kept, after := l.config.Calendar.Accepted(lifeOf(said), d.Arrived(), l.config.Clock())
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
