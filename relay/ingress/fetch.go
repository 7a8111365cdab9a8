package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// fetchChunk is how many bytes of content one stream holds in memory.
const fetchChunk = 256 << 10

// Fetch streams bytes of one part to a recipient, from here or from its home.
func (s *Service) Fetch(req *exchangev1.FetchRequest, stream grpc.ServerStreamingServer[exchangev1.FetchResponse]) error {
	err := s.fetch(stream.Context(), req, stream.Send)
	if err != nil {
		s.metrics.refusal(stream.Context(), "fetch", err)
	}
	return err
}

func (s *Service) fetch(ctx context.Context, req *exchangev1.FetchRequest, send func(*exchangev1.FetchResponse) error) error {
	owner, err := s.inboxOwner(ctx, s.config.Directory.View(), req.GetAgencyCode())
	if err != nil {
		return err
	}
	if home := routing.RelayID(owner.GetHomeRelayId()); home != s.config.Self {
		return s.fetchFromHome(ctx, home, named(req, owner.GetCode()), send)
	}
	return s.serveContent(ctx, routing.AgencyCode(owner.GetCode()), req, send)
}

// serveContent streams content that this relay holds for an agency it is home
// of; what is damaged here comes from another holder.
func (s *Service) serveContent(ctx context.Context, agency routing.AgencyCode, req *exchangev1.FetchRequest, send func(*exchangev1.FetchResponse) error) error {
	id, err := envelope.IDFromBytes(req.GetEnvelopeId())
	if err != nil {
		return refuseField(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "envelope_id", "%v", err)
	}
	record, err := s.config.Spool.Record(id)
	if isReason(err, exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND) || err == nil && !isRecipient(record, agency) {
		if err := s.config.Ledger.Away(ctx, agency, id); err != nil {
			return err
		}
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND,
			"no envelope %s was ever in the inbox of %s", id, agency)
	}
	if err != nil {
		return err
	}
	if record.ContentReleased {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND,
			"the content of %s was released after every recipient had confirmed it; ask the sender to send it again", id)
	}
	offset, left, err := byteRange(req, record.Parts)
	if err != nil || left == 0 {
		return err
	}

	r := &stretch{record: record, part: req.GetPart(), offset: offset, left: left, send: send}
	err = s.fromHere(ctx, r)
	if isReason(err, exchangev1.ErrorReason_ERROR_REASON_DAMAGED) {
		err = s.fromOthers(ctx, r, err)
	}
	if err != nil {
		return fmt.Errorf("fetch part %d of %s at %d: %w", r.part, id, r.offset, err)
	}
	return nil
}

// fromHere sends what this relay holds, up to where it is damaged.
func (s *Service) fromHere(ctx context.Context, r *stretch) error {
	content, err := s.config.Spool.Content(r.record.ID, int(r.part), r.offset)
	if err != nil {
		return err
	}
	defer content.Close()
	buf := make([]byte, min(r.left, fetchChunk))
	for r.left > 0 {
		n, err := io.ReadFull(content, buf[:min(r.left, uint64(len(buf)))])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DAMAGED, "the stored copy is shorter than its size; try again later")
		}
		if err != nil {
			return err
		}
		if err := r.forward(buf[:n]); err != nil {
			return err
		}
		s.metrics.bytes.Add(ctx, int64(n), s.metrics.sent)
	}
	return nil
}

// byteRange holds the wanted bytes against the part.
func byteRange(req *exchangev1.FetchRequest, parts []envelope.PartSum) (offset, length uint64, err error) {
	invalid := exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	if uint64(req.GetPart()) >= uint64(len(parts)) {
		return 0, 0, refuseField(invalid, "part", "part %d; the envelope has %d parts, counted from 0", req.GetPart(), len(parts))
	}
	size := parts[req.GetPart()].Size
	if req.GetOffset() > size {
		return 0, 0, refuseField(invalid, "offset", "offset %d; part %d has %d bytes", req.GetOffset(), req.GetPart(), size)
	}
	rest := size - req.GetOffset()
	switch {
	case req.GetLength() == 0:
		return req.GetOffset(), rest, nil
	case req.GetLength() > rest:
		return 0, 0, refuseField(invalid, "length", "%d bytes from %d; part %d has %d bytes",
			req.GetLength(), req.GetOffset(), req.GetPart(), size)
	}
	return req.GetOffset(), req.GetLength(), nil
}

// isRecipient reports whether the envelope is, or was, in the agency's inbox
// here.
func isRecipient(record *envelope.Record, agency routing.AgencyCode) bool {
	return slices.Contains(record.Inboxes, agency) ||
		slices.ContainsFunc(record.Deliveries, func(d envelope.Delivery) bool { return d.Agency == agency })
}
