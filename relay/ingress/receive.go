package ingress

import (
	"context"
	"fmt"
	"io"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Receive streams the inbox of one agency, from here or from its home relay.
func (s *Service) Receive(req *exchangev1.ReceiveRequest, stream grpc.ServerStreamingServer[exchangev1.ReceiveResponse]) error {
	err := s.receive(stream.Context(), req, stream.Send)
	if err != nil {
		s.metrics.refusal(stream.Context(), "receive", err)
	}
	return err
}

func (s *Service) receive(ctx context.Context, req *exchangev1.ReceiveRequest, send func(*exchangev1.ReceiveResponse) error) error {
	owner, err := s.inboxOwner(ctx, s.config.Directory.View(), req.GetAgencyCode())
	if err != nil {
		return err
	}
	if err := checkReceive(req); err != nil {
		return err
	}
	home := routing.RelayID(owner.GetHomeRelayId())
	guarded, release := s.guard(ctx, func(view routing.View) error {
		agency, err := s.inboxOwner(ctx, view, req.GetAgencyCode())
		if err != nil {
			return err
		}
		return stillHome(agency, home)
	})
	defer release()
	if home != s.config.Self {
		return s.receiveFromHome(guarded, home, named(req, owner.GetCode()), send)
	}
	return s.serveInbox(guarded, routing.AgencyCode(owner.GetCode()), req, send)
}

func checkReceive(req *exchangev1.ReceiveRequest) error {
	var problems []envelope.Problem
	invalid := exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	if req.GetInlineLimit() > maxInline {
		problems = append(problems, envelope.Problem{Field: "inline_limit", Reason: invalid,
			Description: fmt.Sprintf("is %d, at most %d are allowed", req.GetInlineLimit(), maxInline)})
	}
	if req.GetMaxUnconfirmed() > maxUnconfirmed {
		problems = append(problems, envelope.Problem{Field: "max_unconfirmed", Reason: invalid,
			Description: fmt.Sprintf("is %d, at most %d are allowed", req.GetMaxUnconfirmed(), maxUnconfirmed)})
	}
	return envelope.RefuseProblems(problems)
}

// stillHome refuses once the agency moved away from the relay that serves it.
// The refusal is temporary: the next call finds the new home.
func stillHome(agency *directoryv1.Agency, home routing.RelayID) error {
	if agency.GetHomeRelayId() == string(home) {
		return nil
	}
	r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING,
		"agency %s moved from relay %s to %s; call again", agency.GetCode(), home, agency.GetHomeRelayId())
	r.RetryAfter = time.Second
	return r
}

// serveInbox streams an inbox of this relay until ctx ends, whose cause it
// returns, or, draining, until nothing is left to send.
func (s *Service) serveInbox(ctx context.Context, agency routing.AgencyCode, req *exchangev1.ReceiveRequest, send func(*exchangev1.ReceiveResponse) error) error {
	limit := int(req.GetMaxUnconfirmed())
	if limit == 0 {
		limit = defaultUnconfirmed
	}
	window, leave, err := s.streams.open(agency, limit)
	if err != nil {
		return err
	}
	defer leave()
	defer s.metrics.openStream(ctx, s.metrics.receiving)()

	inbox := newReader(s.config.Inboxes, agency, window)
	for {
		changed := s.config.Inboxes.InboxChanged(agency)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		now := s.config.Clock()
		room := window.room()
		if room <= 0 {
			if err := waitUntil(ctx, now, time.Time{}, nil, window.freed); err != nil {
				return err
			}
			continue
		}
		entries, err := inbox.next(now, min(room, inboxPage))
		if err != nil {
			return fmt.Errorf("read the inbox of %s: %w", agency, err)
		}
		if len(entries) == 0 {
			if req.GetDrain() {
				return nil
			}
			if err := waitUntil(ctx, now, inbox.hour(), changed, nil); err != nil {
				return err
			}
			continue
		}
		for _, entry := range entries {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			window.add(entry.ID)
			if err := s.deliver(ctx, entry, uint64(req.GetInlineLimit()), send); err != nil {
				return err
			}
		}
	}
}

// deliver sends one arrival. One whose record is gone since was settled
// meanwhile and is passed over.
func (s *Service) deliver(ctx context.Context, entry envelope.InboxEntry, inline uint64, send func(*exchangev1.ReceiveResponse) error) error {
	record, err := s.config.Spool.Record(entry.ID)
	switch {
	case isReason(err, exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND):
		return nil
	case isReason(err, exchangev1.ErrorReason_ERROR_REASON_DAMAGED):
		// Its own fault must not stop what waits behind it.
		s.log(ctx, entry.ID).Error("envelope cannot be delivered", "agency", entry.Agency, "error", err)
		return nil
	case err != nil:
		return fmt.Errorf("deliver %s to %s: %w", entry.ID, entry.Agency, err)
	}
	ctx, span := s.span(continueTrace(ctx, record.TraceParent, record.TraceState), "deliver", entry.ID)
	defer span.End()
	log := s.log(ctx, entry.ID)
	span.SetAttributes(attribute.String("truc.agency.code", string(entry.Agency)))

	response, err := arrival(record, entry)
	if err != nil {
		// Its own fault must not stop what waits behind it.
		log.Error("envelope cannot be delivered", "agency", entry.Agency, "error", err)
		return nil
	}
	if size := record.Size(); size <= inline {
		content, err := s.inline(record)
		if err != nil {
			// Fetch then says what is wrong with it, and to this envelope alone.
			log.Error("content not sent along", "agency", entry.Agency, "error", err)
		} else {
			response.Content, response.HasContent = content, true
		}
	}
	if err := send(response); err != nil {
		return fmt.Errorf("deliver %s to %s: %w", entry.ID, entry.Agency, err)
	}
	for _, part := range response.GetContent() {
		s.metrics.bytes.Add(ctx, int64(len(part)), s.metrics.sent)
	}
	log.Debug("envelope delivered", "agency", entry.Agency, "inline", response.GetHasContent())
	return nil
}

// arrival is what an agency is told of an envelope in its inbox.
func arrival(record *envelope.Record, entry envelope.InboxEntry) (*exchangev1.ReceiveResponse, error) {
	header, err := envelope.ParseCanonical(record.Header)
	if err != nil {
		return nil, err
	}
	return &exchangev1.ReceiveResponse{
		Envelope: &exchangev1.Envelope{
			Id: record.ID[:], Header: header,
			IngressRelayId: string(record.Ingress), AcceptedAt: timestamppb.New(record.AcceptedAt),
			Traceparent: record.TraceParent, Tracestate: record.TraceState,
		},
		AgencyCode: string(entry.Agency),
		Sequence:   entry.Sequence,
		ArrivedAt:  timestamppb.New(entry.ArrivedAt),
	}, nil
}

// inline reads all parts of a small envelope.
func (s *Service) inline(record *envelope.Record) ([][]byte, error) {
	content := make([][]byte, len(record.Parts))
	for i, part := range record.Parts {
		if part.Size == 0 {
			continue
		}
		r, err := s.config.Spool.Content(record.ID, i, 0)
		if err != nil {
			return nil, err
		}
		content[i] = make([]byte, part.Size)
		_, err = io.ReadFull(r, content[i])
		if closing := r.Close(); err == nil {
			err = closing
		}
		if err != nil {
			return nil, fmt.Errorf("part %d: %w", i, err)
		}
	}
	return content, nil
}
