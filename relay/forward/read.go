package forward

import (
	"errors"
	"fmt"
	"io"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// Read streams bytes of a part that this relay holds to a relay whose own copy
// is damaged.
func (f *Forwarder) Read(req *relayv1.ReadRequest, stream relayv1.PeerService_ReadServer) error {
	peer, err := f.caller(stream.Context())
	if err != nil {
		return err
	}
	id, err := envelope.IDFromBytes(req.GetEnvelopeId())
	if err != nil {
		return envelope.Refuse(invalidField, "envelope_id: %v", err)
	}
	record, err := f.Holdings.Record(id)
	if err != nil || record.ContentReleased {
		return envelope.Refuse(notFound, "the content of %s is not held here", id)
	}
	part, offset := int(req.GetPart()), req.GetOffset()
	if part >= len(record.Parts) {
		return envelope.Refuse(invalidField, "part: %d, the envelope has %d", part, len(record.Parts))
	}
	size := record.Parts[part].Size
	if offset > size {
		return envelope.Refuse(invalidField, "offset: %d, the part has %d bytes", offset, size)
	}
	left := size - offset
	if req.GetLength() > 0 {
		left = min(left, req.GetLength())
	}
	if left == 0 {
		return nil
	}
	var sendErr error
	err = f.readPart(id, part, offset, func(reader io.Reader) error {
		for left > 0 {
			data := make([]byte, min(uint64(f.ChunkSize), left))
			if _, err := io.ReadFull(reader, data); err != nil {
				return err
			}
			if sendErr = stream.Send(&relayv1.ReadResponse{Offset: offset, Data: data}); sendErr != nil {
				return nil
			}
			offset += uint64(len(data))
			left -= uint64(len(data))
		}
		return nil
	})
	switch {
	case sendErr != nil:
		return fmt.Errorf("read %s for %s: %w", id, peer, sendErr)
	case errors.Is(err, errContent):
		f.Logger.ErrorContext(stream.Context(), "content cannot be read for a peer", "envelope", id.String(), "peer", peer, "error", err)
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DAMAGED, "part %d of %s cannot be read here; ask another holder", part, id)
	}
	return err
}
