package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/codes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

type submitStream = grpc.BidiStreamingServer[exchangev1.SubmitRequest, exchangev1.SubmitResponse]

// Submit takes one envelope. What it does stands in submit, in order.
func (s *Service) Submit(stream submitStream) error {
	began := s.config.Clock()
	answer, err := s.submit(stream)
	if err != nil {
		s.metrics.refusal(stream.Context(), "submit", err)
		return err
	}
	outcome := s.metrics.fresh
	if answer.GetRepeat() {
		outcome = s.metrics.repeat
	}
	s.metrics.accepted.Add(stream.Context(), 1, outcome)
	s.metrics.receipt.Record(stream.Context(), s.config.Clock().Sub(began).Seconds(), outcome)
	s.metrics.answered(stream.Context(), answer.GetReceipt().GetCopies())
	return stream.Send(&exchangev1.SubmitResponse{Message: &exchangev1.SubmitResponse_Accepted{Accepted: answer}})
}

// submission is one submit whose first message came in.
type submission struct {
	stream   submitStream
	messages *messages
	eager    bool
	// header is let go before the transfer: it takes a multiple of canonical.
	header *exchangev1.Header
	// senderCode is the sender as the header writes it.
	senderCode string
	lane       envelope.Lane
	kind       exchangev1.Kind
	canonical  []byte
	id         envelope.ID
	sender     routing.AgencyCode
	// kept and sentAfter hold the way from signature to acceptance against the law.
	kept      lifecycle.Keeping
	sentAfter time.Duration
	log       *slog.Logger
}

// submit finds out who hands over what, then whether it is accepted, and then
// waits for the second copy. Nothing of the envelope is in memory by then, and
// the call has no goroutine but its own.
func (s *Service) submit(stream submitStream) (*exchangev1.SubmitAccepted, error) {
	ctx := stream.Context()
	messages := readMessages(stream, s.config.Limits.Idle)
	defer messages.stop()
	start, err := receiveStart(messages)
	if err != nil {
		return nil, err
	}
	sub := submission{
		stream: stream, messages: messages, eager: start.GetEager(), header: start.GetHeader(),
		senderCode: start.GetHeader().GetSender().GetCode(), lane: envelope.LaneOf(start.GetHeader()),
		kind: start.GetHeader().GetKind(),
	}
	start.Header = nil
	if sub.sender, err = s.sender(ctx, s.config.Directory.View(), sub.senderCode); err != nil {
		return nil, err
	}
	if err := s.refuseHasty(sub.sender); err != nil {
		return nil, err
	}
	if sub.id, sub.canonical, err = envelope.HeaderID(sub.header); err != nil {
		return nil, refuseField(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "header", "%v", err)
	}
	ctx, span := s.span(continueTrace(ctx, start.GetTraceparent(), start.GetTracestate()), "accept", sub.id)
	defer span.End()
	sub.log = s.log(ctx, sub.id).With("sender", string(sub.sender))

	answer, alone, err := s.takeCustody(ctx, &sub)
	if err != nil {
		span.SetStatus(codes.Error, reasonOf(err))
		sub.log.Info("envelope not accepted", "reason", reasonOf(err), "fields", fieldsOf(err))
		return nil, err
	}
	if !answer.GetRepeat() && sub.kind == exchangev1.Kind_KIND_DOCUMENT {
		s.metrics.sentAfter(ctx, sub.lane, sub.kept, sub.sentAfter)
	}
	if alone {
		answer.Receipt = s.awaitCopy(ctx, &sub, answer.GetReceipt())
	}
	sub.log.Info("envelope accepted", "recipients", answer.GetReceipt().GetRecipients(),
		"bytes", answer.GetReceipt().GetContentSize(), "lane", sub.lane, "repeat", answer.GetRepeat(),
		"copies", answer.GetReceipt().GetCopies())
	return answer, nil
}

// takeCustody accepts within the memory that the caller has left, and reports
// whether this relay alone is known to have the envelope and it matters still.
func (s *Service) takeCustody(ctx context.Context, sub *submission) (_ *exchangev1.SubmitAccepted, alone bool, err error) {
	leave, err := s.takeRoom(ctx, sub)
	if err != nil {
		return nil, false, err
	}
	defer leave()
	record, repeat, warnings, err := s.accept(ctx, sub)
	sub.messages.stop()
	sub.header, sub.canonical = nil, nil
	if err != nil {
		return nil, false, err
	}
	if !repeat {
		warnings = append(warnings, s.numberedBefore(ctx, sub, record)...)
	}
	// What is durable. A repeat gets the receipt of the first time; only its
	// number of copies is that of now.
	return &exchangev1.SubmitAccepted{Receipt: record.Receipt(s.config.Self), Repeat: repeat, Warnings: warnings}, isAlone(record), nil
}

// accept is step 2 of DESIGN §6, once the caller is known to speak for the
// sender: is the header sound, was it accepted before, are envelopes accepted,
// may it be sent, to whom, over which relays, is there room for it; only then
// bytes are taken, only what bears no mark of a secret is committed, and only after
// the commit there is a record to show.
func (s *Service) accept(ctx context.Context, sub *submission) (_ *envelope.Record, repeat bool, _ []*exchangev1.Warning, _ error) {
	problems, warnings := envelope.Check(sub.header, s.config.Limits.Header)
	if len(problems) == 0 {
		// Before anything that the directory, the clock, or what lies here
		// decides: a repeat is answered with the original receipt even if a
		// recipient was suspended, the document expired, or the relay drains,
		// since.
		if record, ok, err := s.accepted(sub); err != nil || ok {
			if err == nil && record.Damaged && record.Copies < 2 && isAlone(record) {
				return nil, false, nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DAMAGED,
					"envelope %s is accepted here, and its content is damaged; hand it in at another relay, from which it is mended", sub.id)
			}
			return s.heard(ctx, sub, record, ok, warnings, err)
		}
	}
	if err := s.config.Accepting(); err != nil {
		return nil, false, nil, err
	}
	judged, err := s.judge(ctx, sub, problems)
	if err != nil {
		return nil, false, nil, err
	}
	problems, warnings = append(problems, judged.Problems...), append(warnings, judged.Warnings...)
	custody, err := s.plan(ctx, sub, problems)
	if err != nil {
		return nil, false, nil, err
	}
	sub.kept, sub.sentAfter = s.config.Calendar.Sent(sub.header, custody.AcceptedAt)
	sub.header = nil
	incoming, err := s.config.Spool.Begin(ctx, custody)
	if err != nil {
		return nil, false, nil, err
	}
	defer s.release(sub, incoming)
	if record, ok := incoming.Repeat(); ok {
		return record, true, warnings, judged.Hear(ctx, record)
	}
	redeem, err := s.pledge(sub.sender, custody.Size())
	if err != nil {
		return nil, false, nil, err
	}
	defer redeem()
	if err := s.transfer(ctx, sub, custody.Parts, incoming); err != nil {
		return nil, false, nil, err
	}
	unread, err := s.refuseMarked(ctx, custody.Parts, incoming)
	if err != nil {
		return nil, false, nil, err
	}
	warnings = append(warnings, unread...)
	// The transfer of a large file takes minutes, in which the sender may have
	// been suspended.
	if _, err := s.sender(ctx, s.config.Directory.View(), sub.senderCode); err != nil {
		return nil, false, nil, err
	}
	record, err := incoming.Commit(ctx)
	if err == nil {
		err = judged.Hear(ctx, record)
	}
	return record, false, warnings, err
}

// judge asks the ledger about an envelope that says something of a document,
// unless its header is wrong anyway.
func (s *Service) judge(ctx context.Context, sub *submission, problems []envelope.Problem) (envelope.Judgement, error) {
	if len(problems) > 0 || !lifecycle.Speaks(sub.header) {
		return envelope.Judgement{Hear: func(context.Context, *envelope.Record) error { return nil }}, nil
	}
	return s.config.Ledger.Judge(ctx, sub.sender, sub.header)
}

// heard sees to it that what an envelope says that was accepted before is kept:
// its sender may not have been answered the first time because it was not.
func (s *Service) heard(ctx context.Context, sub *submission, record *envelope.Record, ok bool, warnings []*exchangev1.Warning, err error) (
	*envelope.Record, bool, []*exchangev1.Warning, error,
) {
	if err != nil || !lifecycle.Speaks(sub.header) {
		return record, ok, warnings, err
	}
	judged, err := s.config.Ledger.Judge(ctx, sub.sender, sub.header)
	if err == nil {
		err = judged.Hear(ctx, record)
	}
	return record, ok, warnings, err
}

// release lets go of a transfer. What was accepted is durable by then, and
// what was not can be sent again, so a failure is only worth a line.
func (s *Service) release(sub *submission, incoming Incoming) {
	if err := incoming.Close(); err != nil {
		sub.log.Warn("transfer not released", "error", err)
	}
}

// receiveStart reads the first message.
func receiveStart(messages *messages) (*exchangev1.SubmitStart, error) {
	first, err := messages.next()
	if err != nil {
		return nil, cut(err)
	}
	start := first.GetStart()
	if start == nil {
		return nil, refuseField(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "start",
			"the first message of a submit is start")
	}
	if start.GetHeader() == nil {
		return nil, refuseField(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "header",
			"start carries no header")
	}
	return start, nil
}

// sender finds the agency that sends, and proves that the caller may.
func (s *Service) sender(ctx context.Context, view routing.View, code string) (routing.AgencyCode, error) {
	agency, err := s.speaker(ctx, view, code, "header.sender.code",
		exchangev1.ErrorReason_ERROR_REASON_SENDER_NOT_CALLER)
	return routing.AgencyCode(agency.GetCode()), err
}

// accepted returns the record of an envelope that this relay accepted from its
// sender before. One that only passed through here is not meant; nor one that was
// taken over from its ingress, if there are recipients that only that one knew:
// then this time they are accepted.
func (s *Service) accepted(sub *submission) (*envelope.Record, bool, error) {
	record, err := s.config.Spool.Record(sub.id)
	if isReason(err, exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if !record.FromSender || len(record.Visited) == 0 {
		return record, record.FromSender, nil
	}
	known := make(map[routing.AgencyCode]bool, len(record.Deliveries))
	for i := range record.Deliveries {
		known[record.Deliveries[i].Agency] = true
	}
	codes, _ := s.config.Directory.View().Resolve(sub.header.GetRecipients())
	return record, !slices.ContainsFunc(codes, func(code routing.AgencyCode) bool { return !known[code] }), nil
}

// plan decides what this relay takes on: who gets it, and by way of which relay.
// Problems are those found in the header alone; with what is wrong with its
// time and its recipients they are refused together.
func (s *Service) plan(ctx context.Context, sub *submission, problems []envelope.Problem) (*envelope.Custody, error) {
	now, view, header := s.config.Clock(), s.config.Directory.View(), sub.header
	expires, late := s.expiry(now, header)
	recipients, faults := s.recipients(view, header, problems)
	if err := refuseAll(slices.Concat(problems, late, faults)); err != nil {
		return nil, err
	}
	if err := s.refuseTooMany(recipients); err != nil {
		return nil, err
	}
	if err := refuseForbidden(view, sub.sender, header, recipients); err != nil {
		return nil, err
	}
	inboxes, onward, err := spread(view, s.config.Self, recipients)
	if err != nil {
		return nil, err
	}
	if err := s.refuseFull(inboxes, onward); err != nil {
		return nil, err
	}
	parent, state := traceOf(ctx)
	return envelope.NewCustody(header, sub.canonical, envelope.Acceptance{
		Sender: sub.sender, Ingress: s.config.Self, AcceptedAt: now, ExpiresAt: expires,
		TraceParent: parent, TraceState: state, FromSender: true,
		Inboxes: inboxes, Onward: s.withCopy(view, recipients, onward),
	})
}

// refuseAll refuses for all problems at once. A state secret stands first: it
// is the one for which another channel is needed.
func refuseAll(problems []envelope.Problem) error {
	slices.SortStableFunc(problems, func(a, b envelope.Problem) int {
		return secretFirst(a) - secretFirst(b)
	})
	return envelope.RefuseProblems(bounded(problems))
}

func secretFirst(p envelope.Problem) int {
	if p.Reason == exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET {
		return 0
	}
	return 1
}

// expiry is when the mesh gives the envelope up, or what is wrong with that.
func (s *Service) expiry(now time.Time, header *exchangev1.Header) (time.Time, []envelope.Problem) {
	if header.GetExpiresAt() == nil {
		expires := now.Add(s.config.Limits.Lifetime)
		if hour := header.GetNotBefore(); hour != nil && !expires.After(hour.AsTime()) {
			return expires, []envelope.Problem{{
				Field: "header.not_before", Reason: exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD,
				Description: fmt.Sprintf("is after the relay gives the document up, %s; name a later header.expires_at", expires.UTC().Format(time.RFC3339)),
			}}
		}
		return expires, nil
	}
	expires := header.GetExpiresAt().AsTime()
	if expires.After(now) {
		return expires, nil
	}
	return expires, []envelope.Problem{{
		Field: "header.expires_at", Reason: exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD,
		Description: fmt.Sprintf("%s is not in the future; the relay's clock shows %s",
			expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)),
	}}
}

// cut turns the end of a stream before the commit into its refusal. Where the
// line broke, or the sender gave up, nobody may be there to read it.
func cut(err error) error {
	if refusal := (*envelope.Refusal)(nil); errors.As(err, &refusal) {
		return err // of a message that came, but made no sense
	}
	why := "the stream ended"
	if !errors.Is(err, io.EOF) {
		why = "the stream broke: " + status.Convert(err).Message()
	}
	return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT,
		"%s before the commit; nothing was accepted, call again to resume", why)
}
