package forward

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/trace"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// taking is one offer on its way into custody.
type taking struct {
	in     *intake
	offer  *relayv1.Offer
	chunks chan *relayv1.PassRequest // chunk, end or cancel; nil where content came inside
	done   chan struct{}             // closed at the end: nobody reads chunks
}

// errGone ends a taking that nobody waits for.
var errGone = errors.New("taken back")

// run takes the offer and answers it once.
func (t *taking) run(ctx context.Context) {
	defer close(t.done)
	f := t.in.f
	id, _ := envelope.IDFromBytes(t.offer.GetEnvelopeId())
	ctx, span := f.telemetry.startTake(ctx, t.in.peer, id, t.offer)
	defer span.End()

	answer, err := t.take(ctx)
	switch {
	case errors.Is(err, errGone) || (err != nil && ctx.Err() != nil):
		f.telemetry.took(ctx, t.in.peer, "cut", 0)
		return
	case err != nil:
		span.RecordError(err)
		t.in.refuse(ctx, t.offer, err)
		return
	}
	outcome := "accepted"
	if answer.GetRepeat() {
		outcome = "repeat"
	}
	f.telemetry.took(ctx, t.in.peer, outcome, 0)
	f.Logger.DebugContext(ctx, "taken into custody", "envelope", id.String(), "trace", traceID(ctx), "peer", t.in.peer,
		"destination", t.offer.GetDestinationRelayId(), "repeat", answer.GetRepeat(), "refused", len(answer.GetRefused()))
	answer.Number = t.offer.GetNumber()
	t.in.send(&relayv1.PassResponse{Message: &relayv1.PassResponse_Accepted{Accepted: answer}})
}

// take brings the offer to the spool's durable commit; only then is there
// something to answer.
func (t *taking) take(ctx context.Context) (*relayv1.OfferAccepted, error) {
	f := t.in.f
	x, err := f.examine(t.in.peer, t.offer)
	switch {
	case errors.Is(err, errKnown):
		record, err := f.Holdings.Record(x.custody.ID)
		if err != nil {
			return nil, fmt.Errorf("record: %w", err)
		}
		return f.repeat(ctx, record, x)
	case err != nil:
		return nil, err
	}
	if trace.SpanContextFromContext(ctx).IsValid() {
		x.custody.TraceParent, x.custody.TraceState = inject(ctx)
	}
	if x.report {
		if err := f.Reports.Apply(ctx, x.custody); err != nil {
			return nil, fmt.Errorf("apply report: %w", err)
		}
		record := &envelope.Record{Custody: *x.custody, CommittedAt: f.Clock()}
		return &relayv1.OfferAccepted{Receipt: record.Receipt(f.Self)}, nil
	}
	if x.speaks {
		if err := f.Reports.Ready(ctx, x.custody); err != nil {
			return nil, fmt.Errorf("not yet: %w", err)
		}
	}
	incoming, err := f.Begin(ctx, x.custody)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer incoming.Close()
	if record, ok := incoming.Repeat(); ok {
		return f.repeat(ctx, record, x)
	}
	if err := t.receive(ctx, x.custody, incoming); err != nil {
		return nil, err
	}
	record, err := incoming.Commit(ctx)
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	f.damage.forget(record.ID)
	if err := f.heard(ctx, record, x); err != nil {
		return nil, err
	}
	return &relayv1.OfferAccepted{Receipt: record.Receipt(f.Self), Refused: x.refused}, nil
}

// repeat answers an offer of what is known here already.
func (f *Forwarder) repeat(ctx context.Context, record *envelope.Record, x *examined) (*relayv1.OfferAccepted, error) {
	if err := f.heard(ctx, record, x); err != nil {
		return nil, err
	}
	return &relayv1.OfferAccepted{Receipt: record.Receipt(f.Self), Repeat: true, Refused: x.refused, Released: record.ContentReleased}, nil
}

// heard tells the ledger of what has come.
func (f *Forwarder) heard(ctx context.Context, record *envelope.Record, x *examined) error {
	if err := f.Reports.Heard(ctx, record, x.speaks); err != nil {
		return fmt.Errorf("hear what it says: %w", err)
	}
	return nil
}

// receive writes the content, which is in the offer or comes in chunks.
func (t *taking) receive(ctx context.Context, c *envelope.Custody, incoming Incoming) error {
	offsets := incoming.Offsets()
	if t.chunks == nil {
		for i, data := range t.offer.GetContent() {
			if offsets[i] < uint64(len(data)) {
				if err := t.write(ctx, incoming, i, offsets[i], data[offsets[i]:]); err != nil {
					return err
				}
			}
		}
		return nil
	}
	t.in.send(&relayv1.PassResponse{Message: &relayv1.PassResponse_Resume{
		Resume: &relayv1.OfferResume{Number: t.offer.GetNumber(), Offsets: offsets},
	}})
	for {
		var request *relayv1.PassRequest
		select {
		case request = <-t.chunks:
		case <-t.in.quit:
			return errGone
		case <-ctx.Done():
			return errGone
		}
		switch m := request.GetMessage().(type) {
		case *relayv1.PassRequest_End:
			return nil
		case *relayv1.PassRequest_Cancel:
			return errGone
		case *relayv1.PassRequest_Chunk:
			data := m.Chunk.GetData()
			if len(data) == 0 || len(data) > maxChunk || int(m.Chunk.GetPart()) >= len(c.Parts) {
				return envelope.Refuse(invalidField, "chunk of %d bytes for part %d of %d: 1 to %d bytes for a part of the header",
					len(data), m.Chunk.GetPart(), len(c.Parts), maxChunk)
			}
			if err := t.write(ctx, incoming, int(m.Chunk.GetPart()), m.Chunk.GetOffset(), data); err != nil {
				return err
			}
		}
	}
}

func (t *taking) write(ctx context.Context, incoming Incoming, part int, offset uint64, data []byte) error {
	if err := incoming.Write(ctx, part, offset, data); err != nil {
		return fmt.Errorf("write part %d at %d: %w", part, offset, err)
	}
	t.in.f.telemetry.received(ctx, t.in.peer, len(data))
	return nil
}
