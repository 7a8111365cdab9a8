package relay

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/routing"
)

// The pauses between tries to register: there is no leader while a mesh comes
// up, and soon there is.
const (
	registerPause    = 200 * time.Millisecond
	registerMaxPause = 5 * time.Second
)

// register keeps the directory's entry of this relay in step with its
// configuration, until ctx ends.
func (r *Relay) register(ctx context.Context) {
	pause := registerPause
	request := uuid.New()
	for {
		changed := r.config.Directory.Changed()
		if r.registered(r.config.Directory.View()) {
			pause = registerPause
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return
			}
		}
		// The same request id until there is an answer: a try whose outcome is
		// not known may have been applied.
		if err := r.proposeSelf(ctx, request); err != nil {
			r.config.Logger.Info("not registered in the directory yet", "error", err)
		} else {
			request = uuid.New()
		}
		select {
		case <-changed:
		case <-time.After(pause + rand.N(pause)):
			pause = min(2*pause, registerMaxPause)
		case <-ctx.Done():
			return
		}
	}
}

// registered reports whether there is nothing to propose: the entry says what
// the configuration says, or the relay was taken out, which is for an operator
// to undo.
func (r *Relay) registered(view routing.View) bool {
	entry, ok := view.Relay(r.config.ID)
	return ok && (gone(entry) || entry.GetAddress() == r.config.Address && entry.GetRegion() == r.config.Region)
}

func (r *Relay) proposeSelf(ctx context.Context, request [16]byte) error {
	ctx, cancel := context.WithTimeout(ctx, registerMaxPause)
	defer cancel()
	proposed, err := r.config.Directory.Propose(ctx, request, &directoryv1.Command{
		Version: routing.CommandVersion,
		Actor:   r.config.Endpoint.Identity().String(),
		At:      timestamppb.New(r.config.Clock()),
		Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{Relay: &directoryv1.Relay{
			Id: string(r.config.ID), Region: r.config.Region, Address: r.config.Address,
		}}},
	})
	if err != nil {
		return err
	}
	if reason := proposed.Result.GetReason(); reason != exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		r.config.Logger.Error("the directory refuses this relay's entry", "reason", reason.String(), "message", proposed.Result.GetMessage())
	}
	return nil
}
