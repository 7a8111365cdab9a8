package relay

import (
	"context"
	"errors"
	"io"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/relay/ingress"
	"github.com/truclienthong/truc/relay/keeper"
	"github.com/truclienthong/truc/relay/ledger"
	"github.com/truclienthong/truc/relay/spool"
)

// store is the spool as the other parts see it: its errors are refusals, which
// is what they and the wire understand.
type store struct {
	*spool.Spool
	levels *levels
}

var (
	_ ingress.Spool    = store{}
	_ ingress.Inboxes  = store{}
	_ ingress.Copies   = store{}
	_ ingress.Usage    = store{}
	_ ledger.Spool     = store{}
	_ forward.Holdings = store{}
	_ forward.Queues   = store{}
	_ forward.Inboxes  = store{}
	_ forward.Facts    = store{}
	_ keeper.Spool     = store{}
)

// Begin opens a transfer for ingress.
func (s store) Begin(ctx context.Context, c *envelope.Custody) (ingress.Incoming, error) {
	in, err := s.begin(ctx, c)
	if err != nil {
		return nil, err
	}
	return in, nil
}

// beginForward opens a transfer for forward.
func (s store) beginForward(ctx context.Context, c *envelope.Custody) (forward.Incoming, error) {
	in, err := s.begin(ctx, c)
	if err != nil {
		return nil, err
	}
	return in, nil
}

func (s store) begin(ctx context.Context, c *envelope.Custody) (*filling, error) {
	in, err := s.Spool.Begin(ctx, c)
	if err != nil {
		return nil, refusalOf(err)
	}
	return &filling{Incoming: in, levels: s.levels}, nil
}

// report takes custody of a report, which has no content.
func (s store) report(ctx context.Context, c *envelope.Custody) error {
	in, err := s.begin(ctx, c)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, repeat := in.Repeat(); repeat {
		return nil
	}
	_, err = in.Commit(ctx)
	return err
}

// Say keeps what an envelope says of a document.
func (s store) Say(ctx context.Context, said envelope.Said) error {
	return refusalOf(s.Spool.Say(ctx, said))
}

func (s store) Record(id envelope.ID) (*envelope.Record, error) {
	record, err := s.Spool.Record(id)
	return record, refusalOf(err)
}

func (s store) Events(id envelope.ID) ([]envelope.Event, error) {
	events, err := s.Spool.Events(id)
	return events, refusalOf(err)
}

func (s store) Content(id envelope.ID, part int, offset uint64) (io.ReadCloser, error) {
	content, err := s.Spool.Content(id, part, offset)
	if err != nil {
		return nil, refusalOf(err)
	}
	return contentReader{content}, nil
}

// contentReader gives the errors of reading the same form.
type contentReader struct{ io.ReadCloser }

func (c contentReader) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = refusalOf(err)
	}
	return n, err
}

// spoolError is an error of the spool with its refusal.
type spoolError struct {
	error
	refusal *envelope.Refusal
}

// Unwrap lets both be found, and the wire form of the refusal.
func (e spoolError) Unwrap() []error { return []error{e.refusal, e.error} }

func refusalOf(err error) error {
	var reason exchangev1.ErrorReason
	switch {
	case errors.Is(err, spool.ErrNotFound), errors.Is(err, spool.ErrReleased):
		reason = exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
	case errors.Is(err, spool.ErrDamaged):
		reason = exchangev1.ErrorReason_ERROR_REASON_DAMAGED
	default:
		return err
	}
	return spoolError{error: err, refusal: envelope.Refuse(reason, "%v", err)}
}
