package spool

import (
	"context"
	"errors"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Copy makes it a duty to have a second copy made at a relay, and ends the same
// duty at others. Nothing is added where the relay has the envelope, or its
// content is not here.
func (s *Spool) Copy(ctx context.Context, f envelope.Copy) error { return errors.ErrUnsupported }

// Forget has a relay no longer count as a holder.
func (s *Spool) Forget(ctx context.Context, id envelope.ID, holder routing.RelayID) error {
	return errors.ErrUnsupported
}

// TakeOver makes this relay the ingress of an envelope that is here.
func (s *Spool) TakeOver(ctx context.Context, f envelope.TakeOver) error {
	return errors.ErrUnsupported
}

// Hold has an envelope stay where it is, or go on.
func (s *Spool) Hold(ctx context.Context, f envelope.Hold) error { return errors.ErrUnsupported }

// Revive makes duties again of deliveries that were given up.
func (s *Spool) Revive(ctx context.Context, f envelope.Revive) error { return errors.ErrUnsupported }
