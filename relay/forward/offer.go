package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/timestamppb"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// attempt is one try to hand one envelope on.
type attempt struct {
	destination *destination
	entry       envelope.QueueEntry
	outlet      *outlet
	pass        pass
	large       bool // its content travels in chunks

	record   *envelope.Record
	agencies []routing.AgencyCode // recipients it is offered for; none of a report or a copy
	kept     []routing.AgencyCode // recipients that a copy stands for
	keeps    bool                 // the peer is asked to keep it for all who wait here
	offered  time.Time
}

// errContent marks a failure to read this relay's own copy.
var errContent = errors.New("content cannot be read")

// handOn offers one envelope and records what became of it. It reports whether
// the duty left the queue; if it did not, the spool or the breaker has been
// told when to try again.
func (f *Forwarder) handOn(ctx context.Context, a *attempt) (gone bool) {
	var err error
	if a.record, err = f.Holdings.Record(a.entry.ID); err != nil {
		a.unused()
		return f.postpone(ctx, a, 0, fmt.Errorf("record: %w", err))
	}
	if !a.record.ExpiresAt.IsZero() && !f.Clock().Before(a.record.ExpiresAt) {
		a.unused()
		return f.giveUp(ctx, a, a.entry.Onward.Agencies, expired, "its lifetime is over")
	}
	if a.agencies, err = f.rehome(ctx, a.destination.relay, a.entry.ID, a.entry.Onward.Agencies); err != nil {
		return f.peerFailed(ctx, a, err, 0)
	}
	if len(a.agencies) == 0 && len(a.entry.Onward.Agencies) > 0 {
		a.unused()
		return true
	}
	if a.outlet.peer == f.Self {
		a.unused()
		return f.deliverHere(ctx, a)
	}
	if isCopy(a) {
		if a.kept = unsettled(a.record); len(a.kept) == 0 {
			a.unused()
			return f.giveUp(ctx, a, nil, 0, "every delivery has ended; no copy is needed")
		}
	}

	parent := ctx
	ctx, span := f.telemetry.startForward(ctx, a)
	defer span.End()
	f.telemetry.inFlight(ctx, a.outlet, 1)
	defer f.telemetry.inFlight(ctx, a.outlet, -1)
	answer, err := f.offerOnce(ctx, parent, a)
	if err == nil {
		err = f.checkAnswer(a, answer)
	}
	switch {
	case ctx.Err() != nil:
		a.unused()
		return false // stopping; the duty is in the spool
	case errors.Is(err, errContent):
		span.RecordError(err)
		a.answered()
		return f.postpone(ctx, a, 0, err)
	case err != nil:
		span.RecordError(err)
		return f.peerFailed(ctx, a, err, 0)
	}
	switch m := answer.GetMessage().(type) {
	case *relayv1.PassResponse_Accepted:
		return f.accepted(ctx, a, m.Accepted)
	case *relayv1.PassResponse_Refused:
		span.SetAttributes(attribute.String("truc.refused", m.Refused.GetReason().String()))
		return f.refused(ctx, a, m.Refused)
	}
	return f.peerFailed(ctx, a, errProtocol, 0)
}

func (a *attempt) unused()   { a.destination.breaker.unused(a.pass) }
func (a *attempt) answered() { a.destination.breaker.answered(a.pass) }

// offerOnce brings one offer to its last answer. The session outlives ctx,
// which belongs to the offer's span: it is opened with parent.
func (f *Forwarder) offerOnce(ctx, parent context.Context, a *attempt) (*relayv1.PassResponse, error) {
	offer := f.makeOffer(ctx, a)
	if !a.large {
		room := int64(a.entry.Size)
		if err := a.outlet.inline.Acquire(ctx, room); err != nil {
			return nil, err
		}
		defer a.outlet.inline.Release(room)
		// What cannot be read here is offered all the same: a peer that has had it
		// needs no content to say so, and one that asks for it is told then.
		if content, err := f.readAll(a.record); err == nil {
			offer.Content, offer.HasContent = content, true
		}
	}
	s, err := a.outlet.session(parent)
	if err != nil {
		return nil, err
	}
	a.offered = f.Clock()
	start, content := time.Now(), uint64(0) // content that was sent
	answers, err := s.offer(offer)
	if err != nil {
		return nil, err
	}
	defer s.forget(offer.Number)
	if offer.HasContent {
		content = a.record.Size()
		f.telemetry.sent(ctx, a.outlet, content)
	}
	offer.Content = nil // sent; room for others
	for resumed := false; ; resumed = true {
		answer, err := s.answer(answers)
		if err != nil {
			a.outlet.slow.cut(offer.HasContent, err)
			return nil, err
		}
		resume, ok := answer.GetMessage().(*relayv1.PassResponse_Resume)
		if !ok {
			if answer.GetAccepted() != nil {
				a.outlet.slow.through(content, time.Since(start))
			}
			return answer, nil
		}
		if resumed || offer.HasContent {
			err = fmt.Errorf("%w: resume for an offer that was sent whole", errProtocol)
			s.end(err)
			return nil, err
		}
		a.answered() // else a large file would keep the others waiting
		content = a.record.Size()
		for _, have := range resume.Resume.GetOffsets() {
			content -= min(have, content)
		}
		if err := f.sendParts(ctx, s, a, offer.Number, resume.Resume.GetOffsets(), answers); err != nil {
			if errors.Is(err, errContent) {
				return nil, errors.Join(err, s.send(&relayv1.PassRequest{Message: &relayv1.PassRequest_Cancel{
					Cancel: &relayv1.OfferCancel{Number: offer.Number},
				}}))
			}
			return nil, err
		}
	}
}

func (f *Forwarder) makeOffer(ctx context.Context, a *attempt) *relayv1.Offer {
	r := a.record
	offer := &relayv1.Offer{
		EnvelopeId:         r.ID[:],
		Header:             r.Header,
		IngressRelayId:     string(r.Ingress),
		AcceptedAt:         timestamppb.New(r.AcceptedAt),
		DestinationRelayId: string(a.destination.relay),
		Purpose:            relayv1.Purpose_PURPOSE_DELIVER,
	}
	if !r.ExpiresAt.IsZero() {
		offer.ExpiresAt = timestamppb.New(r.ExpiresAt)
	}
	switch {
	case r.Report:
		offer.Purpose = relayv1.Purpose_PURPOSE_REPORT
	case isCopy(a):
		offer.Purpose = relayv1.Purpose_PURPOSE_COPY
	}
	for _, code := range append(a.agencies, a.kept...) {
		offer.AgencyCodes = append(offer.AgencyCodes, string(code))
	}
	for _, code := range f.keptBeside(a) {
		offer.KeptAgencyCodes = append(offer.KeptAgencyCodes, string(code))
	}
	a.keeps = len(offer.KeptAgencyCodes) > 0
	for _, relay := range withRelay(r.Visited, f.Self) {
		offer.VisitedRelayIds = append(offer.VisitedRelayIds, string(relay))
	}
	offer.Traceparent, offer.Tracestate = inject(ctx)
	if offer.Traceparent == "" {
		offer.Traceparent, offer.Tracestate = r.TraceParent, r.TraceState
	}
	return offer
}

// isCopy reports whether a duty is to have a second copy made: it names nobody,
// and the envelope is no report.
func isCopy(a *attempt) bool { return len(a.entry.Onward.Agencies) == 0 && !a.record.Report }

// unsettled lists the recipients whose deliveries have not ended.
func unsettled(r *envelope.Record) (agencies []routing.AgencyCode) {
	for _, d := range r.Deliveries {
		if d.Place != envelope.Settled {
			agencies = append(agencies, d.Agency)
		}
	}
	return agencies
}

// keptBeside lists the recipients whose deliveries wait here, apart from those of
// the offer: the first relay that takes the envelope from its ingress keeps its
// copy for them. Else two relays would have it, and the loss of this one would be
// the end of their deliveries all the same, for the other would not know of them.
// First is the first of those in the queues that has none before it among the
// holders; of several offers under way it is one, and where it is tried again
// after another was taken it still keeps.
func (f *Forwarder) keptBeside(a *attempt) (agencies []routing.AgencyCode) {
	r, first := a.record, a.destination.relay
	if !r.FromSender || len(a.agencies) == 0 ||
		slices.ContainsFunc(r.Holders, func(h routing.RelayID) bool { return h < first }) ||
		slices.ContainsFunc(r.Onward, func(o envelope.Onward) bool { return len(o.Agencies) > 0 && o.Relay < first && f.reaches(o.Relay) }) {
		return nil
	}
	for _, d := range r.Deliveries {
		if (d.Place == envelope.InInbox || d.Place == envelope.InQueue) && !slices.Contains(a.agencies, d.Agency) {
			agencies = append(agencies, d.Agency)
		}
	}
	return agencies
}

// reaches reports whether a relay is reached directly and takes envelopes.
func (f *Forwarder) reaches(relay routing.RelayID) bool {
	_, ok := f.links.usable(relay)
	return ok
}

// withRelay appends a relay to those that had custody, once.
func withRelay(visited []routing.RelayID, relay routing.RelayID) []routing.RelayID {
	if slices.Contains(visited, relay) {
		return visited
	}
	return append(slices.Clip(visited), relay)
}

// readAll reads the content of a small envelope; it fails with errContent only.
func (f *Forwarder) readAll(r *envelope.Record) ([][]byte, error) {
	content := make([][]byte, len(r.Parts))
	for i, p := range r.Parts {
		content[i] = make([]byte, p.Size)
		if p.Size == 0 {
			continue
		}
		if err := f.readPart(r.ID, i, 0, func(reader io.Reader) error {
			_, err := io.ReadFull(reader, content[i])
			return err
		}); err != nil {
			return nil, err
		}
	}
	return content, nil
}

// readPart opens a part of this relay's copy for read; what it returns is
// marked as errContent.
func (f *Forwarder) readPart(id envelope.ID, part int, offset uint64, read func(io.Reader) error) error {
	reader, err := f.Holdings.Content(id, part, offset)
	if err == nil {
		err = errors.Join(read(reader), reader.Close())
	}
	if err != nil {
		return fmt.Errorf("%w: part %d from %d: %w", errContent, part, offset, err)
	}
	return nil
}

// sendParts sends what the peer lacks, then the end. Transfers of one session
// take turns chunk by chunk, in session.send.
func (f *Forwarder) sendParts(ctx context.Context, s *session, a *attempt, number uint64, offsets []uint64, answers <-chan *relayv1.PassResponse) error {
	parts := a.record.Parts
	if len(offsets) != len(parts) {
		err := fmt.Errorf("%w: resume has %d offsets for %d parts", errProtocol, len(offsets), len(parts))
		s.end(err)
		return err
	}
	for i, p := range parts {
		if offsets[i] > p.Size {
			err := fmt.Errorf("%w: resume of part %d at %d of %d bytes", errProtocol, i, offsets[i], p.Size)
			s.end(err)
			return err
		}
		if offsets[i] == p.Size {
			continue
		}
		var sendErr error
		var size chunkSize
		err := f.readPart(a.entry.ID, i, offsets[i], func(reader io.Reader) error {
			for at := offsets[i]; at < p.Size; {
				if len(answers) > 0 || ctx.Err() != nil {
					return nil // refused before the end, or stopping
				}
				// A fresh buffer each: grpc may look at a message after Send.
				data := make([]byte, min(uint64(size.next(f.ChunkSize)), p.Size-at))
				start := time.Now()
				if _, err := io.ReadFull(reader, data); err != nil {
					return err
				}
				if sendErr = s.send(&relayv1.PassRequest{Message: &relayv1.PassRequest_Chunk{
					Chunk: &relayv1.OfferChunk{Number: number, Part: uint32(i), Offset: at, Data: data},
				}}); sendErr != nil {
					return nil
				}
				// Few chunks fit between the two unread: those before have got
				// through.
				f.links.heard(s.peer)
				size.took(time.Since(start))
				f.telemetry.sent(ctx, a.outlet, uint64(len(data)))
				at += uint64(len(data))
			}
			return nil
		})
		switch {
		case err != nil:
			return err
		case sendErr != nil:
			return sendErr
		case ctx.Err() != nil:
			return ctx.Err()
		case len(answers) > 0:
			return nil
		}
	}
	return s.send(&relayv1.PassRequest{Message: &relayv1.PassRequest_End{End: &relayv1.OfferEnd{Number: number}}})
}

// checkAnswer proves that an acceptance is about what was offered: custody must
// not end here by a mix-up there.
func (f *Forwarder) checkAnswer(a *attempt, answer *relayv1.PassResponse) error {
	m, ok := answer.GetMessage().(*relayv1.PassResponse_Accepted)
	if !ok {
		return nil
	}
	got, want := m.Accepted.GetReceipt(), a.record.Receipt(a.outlet.peer)
	if string(got.GetEnvelopeId()) != string(want.GetEnvelopeId()) ||
		string(got.GetHeaderSha256()) != string(want.GetHeaderSha256()) || got.GetRelayId() != want.GetRelayId() {
		return fmt.Errorf("%w: its receipt is for something else", errProtocol)
	}
	return nil
}

// traceID is the trace of an envelope, for logs.
func traceID(ctx context.Context) string {
	if c := trace.SpanContextFromContext(ctx); c.HasTraceID() {
		return c.TraceID().String()
	}
	return ""
}
