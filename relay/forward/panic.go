package forward

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// Envelopes are worked on in goroutines of their own, where a panic would end
// the relay, and again after each start: one bad envelope would stop them all.
// A panic about one envelope is logged, and that envelope waits.

// errPanic is what became of the try.
var errPanic = errors.New("the relay failed to work on it; it has been logged")

// survive runs work on one envelope and reports whether it came to its end.
func (f *Forwarder) survive(ctx context.Context, id envelope.ID, work func()) (ended bool) {
	defer func() {
		if cause := recover(); cause != nil {
			f.Logger.ErrorContext(ctx, "panic about an envelope", "envelope", id.String(),
				"panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
		}
	}()
	work()
	return true
}

// trying is handOn, which a panic turns into a failure of this envelope alone.
func (f *Forwarder) trying(ctx context.Context, a *attempt) (gone bool) {
	if !f.survive(ctx, a.entry.ID, func() { gone = f.handOn(ctx, a) }) {
		a.unused()
		return f.postpone(ctx, a, 0, errPanic)
	}
	return gone
}

// taken is run, which a panic turns into a refusal for now.
func (t *taking) taken(ctx context.Context) {
	id, _ := envelope.IDFromBytes(t.offer.GetEnvelopeId())
	if !t.in.f.survive(ctx, id, func() { t.run(ctx) }) {
		t.in.refuse(ctx, t.offer, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT, "%v", errPanic))
	}
}
