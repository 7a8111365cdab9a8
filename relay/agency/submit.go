package agency

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// Document is what Submit hands over.
type Document struct {
	// Header says who sends what to whom. Submit leaves it as it is and works
	// on a copy, in which it completes only
	//   - sender.code, where empty: Config.Agency;
	//   - kind, where unspecified: status with a status in it, else document;
	//   - parts: where none is described, from the sources, the first as main
	//     document; name, media type, size and SHA-256 where a part lacks them.
	// A size or SHA-256 that is there already must be that of the source.
	//
	// The envelope id is computed from all of it, so handing a document over
	// again is a repeat only with every field the same: times such as
	// created_at must come from the document's own record, not from the clock.
	Header *exchangev1.Header
	// Parts are the files, one per part of the header.
	Parts []Source
	// Progress is called now and then from the calling goroutine; may be nil.
	Progress func(Progress)
}

// Progress tells how far a Submit or a Save has come.
type Progress struct {
	// Sending: bytes go to the relay; before that they are hashed. Never in a
	// Save.
	Sending bool
	// Done of Total bytes of all parts. Done falls back when another relay has
	// to start anew. Total is known once Sending, and in a Save.
	Done, Total uint64
}

// Receipt is a relay's word that it made the envelope durable.
type Receipt struct {
	// ID of the envelope, for Track.
	ID envelope.ID
	// DocumentID is the sender's own.
	DocumentID string
	// Relay that states it.
	Relay string
	// AcceptedAt is when the relay made it durable, by the relay's clock.
	AcceptedAt time.Time
	// Copies is on how many relays it was durable. Keep the files until this,
	// or Track, says 2 or more.
	Copies uint32
	// Recipients after groups were resolved.
	Recipients uint32
	// ContentSize is the bytes of all parts together.
	ContentSize uint64
	// Repeat: the envelope had been accepted before, and this is the receipt
	// of then.
	Repeat bool
	// Warnings name what was accepted though the standard says otherwise.
	Warnings []*exchangev1.Warning
}

// maxEager is the largest content sent without waiting for the relay's answer
// to the header (exchange.proto SubmitStart.eager).
const maxEager = 256 << 10

// Submit hands over one document and returns when a relay made it durable, on
// two relays where a second one can be reached. What a relay refuses comes back
// as *envelope.Refusal with every field at fault.
func (c *Client) Submit(ctx context.Context, document Document) (*Receipt, error) {
	s, err := c.prepare(ctx, document)
	if err != nil {
		return nil, err
	}
	return s.submit(ctx)
}

// submit is Submit of what is prepared.
func (s *submission) submit(ctx context.Context) (*Receipt, error) {
	c := s.client
	ctx, span := c.tracer.Start(ctx, "submit", trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("truc.envelope.id", s.id.String()), attribute.Int64("truc.envelope.size", int64(s.total))))
	defer span.End()
	receipt, err := s.run(ctx)
	if err != nil {
		span.SetStatus(codes.Error, "not accepted")
		return nil, err
	}
	c.logger.InfoContext(ctx, "envelope accepted", "envelope", s.id, "relay", receipt.Relay, "copies", receipt.Copies, "repeat", receipt.Repeat)
	return receipt, nil
}

// maxMismatches is how often a relay may find other bytes than were declared
// while the files are unchanged, before the document is given up.
const maxMismatches = 3

// run tries until the envelope is accepted, refused, or patience ends. Each byte
// that a relay takes is progress, once per relay: the patience with a large file
// begins when the line breaks, and with a relay that takes everything and never
// accepts it, it ends.
func (s *submission) run(ctx context.Context) (*Receipt, error) {
	c := s.client
	p := c.patience("submit "+s.id.String(), s.id, c.config.Patience)
	furthest, held := map[*relay]uint64{}, map[*relay]uint64{}
	mismatches := 0
	// holder has more of the content than before the last try: it is tried once
	// more before another, where everything would begin anew.
	var holder *relay
	for {
		r, err := holder, error(nil)
		if holder == nil {
			r, err = p.nearest(ctx)
		} else if err = sleep(ctx, c.config.timing.backoff(1)); err != nil {
			r = nil
		}
		holder = nil
		if err == nil {
			var receipt *Receipt
			before, again := held[r]
			receipt, err = s.attempt(ctx, r, func(bytes uint64) { held[r] = bytes }, func(done uint64) {
				if done > furthest[r] {
					furthest[r] = done
					p.progressed()
				}
			})
			if err == nil {
				c.mesh.worked(r)
				return receipt, nil
			}
			if now, begun := held[r]; begun && wasCut(err) && (!again || now > before) {
				holder = r
				c.mesh.worked(r) // each try brings more: no reason to wait ever longer
			}
			if mismatches, err = s.mismatch(ctx, mismatches, err); err == nil {
				continue
			}
		}
		if err := p.failed(ctx, r, err); err != nil {
			return nil, err
		}
	}
}

// wasCut reports whether an attempt ended without an answer of the relay.
func wasCut(err error) bool {
	refusal, answered := envelope.AsRefusal(err)
	return !answered || refusal.Has(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT)
}

// mismatch looks at a refusal because of other bytes than declared: either the
// file changed since it was hashed, and sending it again helps nobody, or bytes
// were damaged on the way, and it does.
func (s *submission) mismatch(ctx context.Context, before int, err error) (int, error) {
	refusal, ok := envelope.AsRefusal(err)
	if !ok || !refusal.Has(exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH) && !refusal.Has(exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH) {
		return before, err
	}
	for i, part := range s.header.GetParts() {
		size, sum, err := digest(ctx, s.sources[i], io.Discard, func(int) {})
		if err != nil {
			return before, err
		}
		if size != part.GetSize() || !bytes.Equal(sum[:], part.GetSha256()) {
			return before, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH,
				"file %s changed while it was being sent; send it again once it is complete", part.GetName())
		}
	}
	if before+1 >= maxMismatches {
		return before, err
	}
	s.client.logger.WarnContext(ctx, "content damaged on the way, sending again", "envelope", s.id)
	return before + 1, nil
}

// attempt is one Submit call at one relay. Held is told how many bytes of a
// large content the relay has from before, sent how many it has, or is about to
// have.
func (s *submission) attempt(ctx context.Context, r *relay, held, sent func(bytes uint64)) (*Receipt, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.exchange.Submit(ctx)
	if err != nil {
		return nil, err
	}
	// We go on after a cut, where the relay has got to. gRPC need not keep what is
	// sent to try it again by itself; asking for the context stops that.
	_ = stream.Context()
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	eager := s.total <= maxEager
	t := &transfer{submission: s, stream: stream, chunk: s.client.mesh.chunkSize(r), sent: sent}
	offsets := make([]uint64, len(s.sources))

	err = stream.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Start{Start: &exchangev1.SubmitStart{
		Header: s.header, Traceparent: carrier.Get("traceparent"), Tracestate: carrier.Get("tracestate"), Eager: eager,
	}}})
	if err == nil && eager {
		err = t.send(ctx, offsets)
	}
	// EOF says that the relay ended the call; why is in what it answers.
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, unended(err)
	}
	if accepted := first.GetAccepted(); accepted != nil {
		return s.receipt(accepted)
	}
	resume := first.GetResume()
	if resume == nil || len(resume.GetOffsets()) != len(offsets) || !bytes.Equal(resume.GetEnvelopeId(), s.id[:]) {
		return nil, fmt.Errorf("relay %s does not say from where to send", r.address)
	}
	if !eager {
		begin := uint64(0)
		for i, offset := range resume.GetOffsets() {
			if offset > s.header.GetParts()[i].GetSize() {
				return nil, fmt.Errorf("relay %s holds more of part %d than there is", r.address, i)
			}
			begin += offset
		}
		held(begin)
		if err := t.send(ctx, resume.GetOffsets()); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	last, err := stream.Recv()
	if err != nil {
		return nil, unended(err)
	}
	return s.receipt(last.GetAccepted())
}

// unended makes the end of a call without a receipt an error.
func unended(err error) error {
	if errors.Is(err, io.EOF) {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT, "the relay ended the call without a receipt")
	}
	return err
}

type submitStream interface {
	Send(*exchangev1.SubmitRequest) error
	CloseSend() error
}

// transfer is the content of one submission on its way to one relay.
type transfer struct {
	*submission
	stream submitStream
	// chunk is the size of a chunk in bytes, done what of all parts was sent.
	chunk int
	done  uint64
	sent  func(done uint64)
}

// send sends the parts from the offsets, then commit. io.EOF means that the
// relay ended the call.
func (t *transfer) send(ctx context.Context, offsets []uint64) error {
	for _, offset := range offsets {
		t.done += offset
	}
	if t.done > 0 {
		t.sent(t.done)
	}
	for i, offset := range offsets {
		if err := t.sendPart(ctx, i, offset); err != nil {
			return err
		}
	}
	commit := &exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Commit{Commit: &exchangev1.SubmitCommit{}}}
	if err := t.stream.Send(commit); err != nil {
		return err
	}
	return t.stream.CloseSend()
}

func (t *transfer) sendPart(ctx context.Context, i int, offset uint64) error {
	size := t.header.GetParts()[i].GetSize()
	if offset == size {
		return nil
	}
	content, err := t.sources[i].Open()
	if err != nil {
		return permanent(fmt.Errorf("file %s: %w", t.sources[i].Name(), err))
	}
	defer content.Close()
	if _, err := content.Seek(int64(offset), io.SeekStart); err != nil {
		return permanent(fmt.Errorf("file %s: %w", t.sources[i].Name(), err))
	}
	buffer := make([]byte, min(uint64(t.chunk), size-offset))
	for offset < size {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(content, buffer[:min(uint64(len(buffer)), size-offset)])
		if err != nil {
			return permanent(fmt.Errorf("file %s became shorter or unreadable while it was being sent: %w", t.sources[i].Name(), err))
		}
		// The library has encoded the message when Send returns, so the buffer
		// is free again.
		err = t.stream.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Chunk{Chunk: &exchangev1.Chunk{
			Part: uint32(i), Offset: offset, Data: buffer[:n],
		}}})
		if err != nil {
			return err
		}
		offset += uint64(n)
		t.done += uint64(n)
		t.sent(t.done)
		t.progress(Progress{Sending: true, Done: t.done, Total: t.total})
	}
	return nil
}

// permanent marks a failure on this machine, which another try at a relay does
// not mend.
func permanent(err error) error {
	return &envelope.Refusal{Reason: exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, Message: err.Error()}
}

// receipt proves that the relay speaks of this envelope.
func (s *submission) receipt(accepted *exchangev1.SubmitAccepted) (*Receipt, error) {
	r := accepted.GetReceipt()
	if r == nil {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT, "the relay answered without a receipt")
	}
	if !bytes.Equal(r.GetEnvelopeId(), s.id[:]) || !bytes.Equal(r.GetHeaderSha256(), s.canonical[:]) {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_CONFLICT,
			"relay %s gave a receipt for another envelope (%x) than was handed over (%s); nothing is known to be accepted",
			r.GetRelayId(), r.GetEnvelopeId(), s.id)
	}
	return &Receipt{
		ID: s.id, DocumentID: s.header.GetDocumentId(), Relay: r.GetRelayId(), AcceptedAt: r.GetAcceptedAt().AsTime(),
		Copies: r.GetCopies(), Recipients: r.GetRecipients(), ContentSize: r.GetContentSize(),
		Repeat: accepted.GetRepeat(), Warnings: accepted.GetWarnings(),
	}, nil
}
