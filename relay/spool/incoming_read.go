package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// Content reads what a part has so far, from its first byte, before the commit: for
// who decides by it whether to commit. It is not proven to be what the header
// declares; Commit does that. Close it, and write nothing to the part meanwhile.
func (in *Incoming) Content(ctx context.Context, part int) (io.ReadCloser, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.usable(ctx); err != nil {
		return nil, err
	}
	if part < 0 || part >= len(in.parts) {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD,
			"part %d: the header declares %d parts", part, len(in.parts))
	}
	if in.present || in.repeat != nil {
		content, err := in.s.Content(in.c.ID, part, 0)
		if err != nil {
			return nil, in.unlessReleased(err)
		}
		return present{content, in}, nil
	}
	if in.generation == 0 && in.c.Size() <= inlineContent {
		return io.NopCloser(bytes.NewReader(in.parts[part].inline)), nil
	}
	if err := in.flush(ctx); err != nil {
		in.closed = true // as after a Write that failed
		return nil, fmt.Errorf("part %d: %w", part, err)
	}
	return &source{s: in.s, id: in.c.ID, generation: in.generation, part: part, end: in.parts[part].written}, nil
}

// present reads content that was here when the transfer began.
type present struct {
	io.ReadCloser
	in *Incoming
}

func (p present) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	return n, p.in.unlessReleased(err)
}

func (in *Incoming) unlessReleased(err error) error {
	if errors.Is(err, ErrReleased) || errors.Is(err, ErrNotFound) {
		return in.released()
	}
	return err
}

// Abandon gives up what was written: it is not kept for a resume, and its room is
// recycled. The envelope can be sent again from the first byte.
func (in *Incoming) Abandon(ctx context.Context) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.usable(ctx); err != nil {
		return err
	}
	in.closed = true
	for i := range in.parts {
		in.parts[i].inline = nil
	}
	in.gathered = nil
	return in.abandon(ctx)
}
