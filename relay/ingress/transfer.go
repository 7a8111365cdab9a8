package ingress

import (
	"context"
	"slices"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// transfer takes the bytes of the parts up to the sender's commit message.
//
// The sender goes on from the offsets it is told. An eager one did not wait for
// them and begins at zero; what a cut stream left here before is then dropped
// from what comes, for the offsets told are zero as the contract promises.
func (s *Service) transfer(ctx context.Context, sub *submission, parts []envelope.PartSum, incoming Incoming) error {
	have := incoming.Offsets()
	next := make([]uint64, len(parts))
	if !sub.eager {
		copy(next, have)
	}
	resume := &exchangev1.SubmitResume{EnvelopeId: sub.id[:], Offsets: slices.Clone(next)}
	if err := sub.stream.Send(&exchangev1.SubmitResponse{Message: &exchangev1.SubmitResponse_Resume{Resume: resume}}); err != nil {
		return cut(err)
	}
	for {
		message, err := sub.messages.next()
		if err != nil {
			return cut(err)
		}
		switch m := message.GetMessage().(type) {
		case *exchangev1.SubmitRequest_Commit:
			return nil
		case *exchangev1.SubmitRequest_Chunk:
			if err := checkChunk(m.Chunk, parts, next); err != nil {
				return err
			}
			part, offset, data := m.Chunk.GetPart(), m.Chunk.GetOffset(), m.Chunk.GetData()
			if err := s.pace(ctx, sub.sender, len(data)); err != nil {
				return err
			}
			next[part] += uint64(len(data))
			s.metrics.bytes.Add(ctx, int64(len(data)), s.metrics.received)
			if offset < have[part] {
				known := min(have[part]-offset, uint64(len(data)))
				offset, data = offset+known, data[known:]
			}
			if len(data) == 0 {
				continue
			}
			if err := incoming.Write(ctx, int(part), offset, data); err != nil {
				return err
			}
			have[part] = offset + uint64(len(data))
		default:
			return refuseField(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "message",
				"after start come chunks and then one commit")
		}
	}
}

// checkChunk holds a chunk against the contract: a known part, exactly where
// the last one ended, 1 to 1,048,576 bytes, not beyond the declared size.
func checkChunk(chunk *exchangev1.Chunk, parts []envelope.PartSum, next []uint64) error {
	part, size := chunk.GetPart(), uint64(len(chunk.GetData()))
	invalid := exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	switch {
	case uint64(part) >= uint64(len(parts)):
		return refuseField(invalid, "chunk.part", "part %d; the header declares %d parts, counted from 0", part, len(parts))
	case chunk.GetOffset() != next[part]:
		return refuseField(invalid, "chunk.offset", "offset %d of part %d; the next byte wanted is %d",
			chunk.GetOffset(), part, next[part])
	case size == 0:
		return refuseField(invalid, "chunk.data", "a chunk carries at least one byte")
	case size > maxChunk:
		return refuseField(exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE, "chunk.data",
			"%d bytes in one chunk, at most %d are allowed", size, maxChunk)
	case size > parts[part].Size-next[part]:
		return refuseField(exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH, "chunk.data",
			"part %d goes beyond its declared size of %d bytes; check the file and send it with its true size", part, parts[part].Size)
	}
	return nil
}
