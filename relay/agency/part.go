package agency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// ErrDamaged is what reading a part ends with where the bytes are not those the
// sender hashed. Reading again may bring good ones, from another copy.
var ErrDamaged = errors.New("content is not what the sender sent (SHA-256 differs)")

// Part opens the bytes of the part with index i of Header.parts. The reader
// goes on after failures of the line, at another relay where need be. The
// bytes are proven only when Read returned io.EOF; where they are not the
// sender's, it returns ErrDamaged instead.
func (a *Arrival) Part(ctx context.Context, i int) (io.ReadCloser, error) {
	part, err := a.part(i)
	if err != nil {
		return nil, err
	}
	return &verified{ReadCloser: a.open(ctx, i, 0), sum: sha256.New(), want: part.GetSha256(), id: a.ID, part: i}, nil
}

func (a *Arrival) part(i int) (*exchangev1.Part, error) {
	parts := a.Envelope.GetHeader().GetParts()
	if i < 0 || i >= len(parts) {
		return nil, fmt.Errorf("envelope %s has %d parts, there is no part %d", a.ID, len(parts), i)
	}
	return parts[i], nil
}

// open reads a part from an offset, unproven.
func (a *Arrival) open(ctx context.Context, i int, offset uint64) io.ReadCloser {
	part := a.Envelope.GetHeader().GetParts()[i]
	if a.content != nil && uint64(len(a.content[i])) == part.GetSize() {
		return io.NopCloser(bytes.NewReader(a.content[i][offset:]))
	}
	ctx, cancel := context.WithCancel(ctx)
	return &fetch{
		arrival: a, ctx: ctx, cancel: cancel, index: uint32(i), offset: offset, size: part.GetSize(),
		patience: a.client.patience(fmt.Sprintf("fetch part %d of %s", i, a.ID), a.ID, a.client.config.Patience),
	}
}

// verified compares what was read with the sender's hash at the end.
type verified struct {
	io.ReadCloser
	sum  hash.Hash
	want []byte
	id   envelope.ID
	part int
}

func (v *verified) Read(b []byte) (int, error) {
	n, err := v.ReadCloser.Read(b)
	v.sum.Write(b[:n])
	if errors.Is(err, io.EOF) && !bytes.Equal(v.sum.Sum(nil), v.want) {
		return n, fmt.Errorf("envelope %s, part %d: %w", v.id, v.part, ErrDamaged)
	}
	return n, err
}

// fetch reads a part by Fetch calls, each from where the one before ended.
type fetch struct {
	arrival  *Arrival
	ctx      context.Context
	cancel   context.CancelFunc
	index    uint32
	size     uint64
	patience *patience

	// offset is that of the next byte to come from a relay.
	offset uint64
	// rest is what came and was not read yet.
	rest   []byte
	relay  *relay
	stream interface {
		Recv() (*exchangev1.FetchResponse, error)
	}
	endStream context.CancelFunc
}

func (f *fetch) Read(b []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.offset == f.size {
			return 0, io.EOF
		}
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (f *fetch) Close() error {
	f.cancel()
	return nil
}

// next gets the next piece.
func (f *fetch) next() error {
	for {
		err := f.try()
		if err == nil {
			f.patience.progressed()
			return nil
		}
		failing := f.relay
		f.drop()
		if err := f.patience.failed(f.ctx, failing, err); err != nil {
			return err
		}
	}
}

func (f *fetch) drop() {
	if f.endStream != nil {
		f.endStream()
	}
	f.stream, f.relay, f.endStream = nil, nil, nil
}

func (f *fetch) try() error {
	c := f.arrival.client
	if f.stream == nil {
		r, err := f.patience.nearest(f.ctx)
		if err != nil {
			return err
		}
		f.relay = r
		ctx, cancel := context.WithCancel(f.ctx)
		f.endStream = cancel
		stream, err := r.exchange.Fetch(ctx, &exchangev1.FetchRequest{
			AgencyCode: c.config.Agency, EnvelopeId: f.arrival.ID[:], Part: f.index, Offset: f.offset,
		})
		if err != nil {
			return err
		}
		f.stream = stream
	}
	piece, err := f.stream.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT, "the relay sent %d of %d bytes", f.offset, f.size)
	case err != nil:
		return err
	case piece.GetOffset() != f.offset || uint64(len(piece.GetData())) > f.size-f.offset:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT,
			"the relay sent %d bytes at %d, want those at %d of %d", len(piece.GetData()), piece.GetOffset(), f.offset, f.size)
	}
	c.mesh.worked(f.relay)
	f.rest = piece.GetData()
	f.offset += uint64(len(f.rest))
	return nil
}
