package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// mending gets bytes of a part that are damaged here from another relay: first
// from those that should have it, then from any relay in service, because a
// home may have moved since. Each call begins with another one than the call
// before, so that a holder whose bytes are wrong is not asked for ever. What
// comes is proved by the spool.
type mending struct {
	relay *Relay
	peers *peers
	calls atomic.Uint64
}

// fetch is spool.Config.Mend.
func (m *mending) fetch(ctx context.Context, record *envelope.Record, part int, offset, length uint64) (io.ReadCloser, error) {
	holders := m.holders(record)
	if len(holders) == 0 {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE, "no other relay is in service")
	}
	first := int(m.calls.Add(1)-1) % len(holders)
	var failed []error
	for i := range holders {
		holder := holders[(first+i)%len(holders)]
		r, err := m.read(ctx, holder, record.ID, part, offset, length)
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		failed = append(failed, fmt.Errorf("relay %s: %w", holder, err))
	}
	return nil, errors.Join(failed...)
}

func (m *mending) holders(record *envelope.Record) []routing.RelayID {
	view := m.relay.config.Directory.View()
	holders := slices.DeleteFunc(record.Beside(m.relay.config.ID), func(id routing.RelayID) bool {
		entry, ok := view.Relay(id)
		return !ok || gone(entry)
	})
	for _, entry := range view.Relays() {
		id := routing.RelayID(entry.GetId())
		if id != m.relay.config.ID && !gone(entry) && !slices.Contains(holders, id) {
			holders = append(holders, id)
		}
	}
	return holders
}

// read opens the bytes at one holder; it succeeds once the first piece is here.
func (m *mending) read(ctx context.Context, holder routing.RelayID, id envelope.ID, part int, offset, length uint64) (io.ReadCloser, error) {
	peer, err := m.peers.Peer(holder)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := peer.Read(ctx, &relayv1.ReadRequest{EnvelopeId: id[:], Part: uint32(part), Offset: offset, Length: length})
	if err != nil {
		cancel()
		return nil, err
	}
	r := &pieces{stream: stream, cancel: cancel, offset: offset}
	if err := r.next(); err != nil {
		cancel()
		return nil, err
	}
	return r, nil
}

// pieces reads what a holder sends.
type pieces struct {
	stream relayv1.PeerService_ReadClient
	cancel context.CancelFunc
	// offset is where the next piece has to begin.
	offset uint64
	rest   []byte
}

func (r *pieces) next() error {
	piece, err := r.stream.Recv()
	if err != nil {
		return err
	}
	if piece.GetOffset() != r.offset || len(piece.GetData()) == 0 {
		return fmt.Errorf("%d bytes at %d were sent, %d is where it goes on", len(piece.GetData()), piece.GetOffset(), r.offset)
	}
	r.rest = piece.GetData()
	r.offset += uint64(len(r.rest))
	return nil
}

// Read implements io.Reader.
func (r *pieces) Read(b []byte) (int, error) {
	if len(r.rest) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close ends the call.
func (r *pieces) Close() error {
	r.cancel()
	return nil
}
