package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// stretch is a run of bytes of one part on its way to a recipient.
type stretch struct {
	record *envelope.Record
	part   uint32
	// offset is where it goes on, left how much is still to be sent.
	offset, left uint64
	send         func(*exchangev1.FetchResponse) error
}

// forward sends the next bytes.
func (r *stretch) forward(data []byte) error {
	if err := r.send(&exchangev1.FetchResponse{Offset: r.offset, Data: data}); err != nil {
		return fmt.Errorf("%w: %w", errRecipient, err)
	}
	r.offset, r.left = r.offset+uint64(len(data)), r.left-uint64(len(data))
	return nil
}

// errRecipient says that it is the recipient who takes no more.
var errRecipient = errors.New("recipient was cut off")

// fromOthers goes on with what other relays hold, because the copy here is
// damaged. The ingress holds the whole envelope until every recipient has
// confirmed it; relays on the way may hold it still. What they send is proved
// by the recipient like everything else. It returns damaged, the error that led
// here, where nobody has the bytes.
func (s *Service) fromOthers(ctx context.Context, r *stretch, damaged error) error {
	for _, holder := range r.record.Beside(s.config.Self) {
		before := r.left
		err := s.fromOther(ctx, holder, r)
		switch {
		case err == nil:
			s.log(ctx, r.record.ID).Warn("content is damaged here, delivered from another relay",
				"part", r.part, "holder", holder, "bytes", before, "error", damaged)
			return nil
		case errors.Is(err, errRecipient), ctx.Err() != nil:
			return err
		}
		s.log(ctx, r.record.ID).Warn("content is damaged here, and not to be had from another relay",
			"part", r.part, "holder", holder, "error", err)
	}
	return damaged
}

func (s *Service) fromOther(ctx context.Context, holder routing.RelayID, r *stretch) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	peer, err := s.config.Peers.Peer(holder)
	if err != nil {
		return err
	}
	id := r.record.ID
	pieces, err := peer.Read(ctx, &relayv1.ReadRequest{EnvelopeId: id[:], Part: r.part, Offset: r.offset, Length: r.left})
	if err != nil {
		return err
	}
	for r.left > 0 {
		piece, err := pieces.Recv()
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		data := piece.GetData()
		if piece.GetOffset() != r.offset || len(data) == 0 || uint64(len(data)) > r.left {
			return fmt.Errorf("%d bytes at %d were sent, %d at %d were asked for", len(data), piece.GetOffset(), r.left, r.offset)
		}
		if err := r.forward(data); err != nil {
			return err
		}
		s.metrics.bytes.Add(ctx, int64(len(data)), s.metrics.sent)
	}
	return nil
}
