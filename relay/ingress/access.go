package ingress

import (
	"context"
	"sync"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// speaker finds the agency for which the caller of ctx speaks. Code is what the
// request names, in either form; empty means the caller's own. Field is where
// it stands in the request, and mismatch the reason when an agency names
// another one.
func (s *Service) speaker(ctx context.Context, view routing.View, code, field string, mismatch exchangev1.ErrorReason) (*directoryv1.Agency, error) {
	identity, ok := s.config.Caller(ctx)
	if !ok {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_IDENTITY,
			"the connection carries no identity of the mesh; call with an agency's or gateway's certificate")
	}
	if _, ok := view.Relay(s.config.Self); !ok {
		// It has not heard of itself: what else it has not heard of means nothing.
		r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING,
			"relay %s does not have the directory yet; use another relay", s.config.Self)
		r.RetryAfter = time.Second
		return nil, r
	}
	switch identity.Kind {
	case tls.KindAgency:
		return agencyCaller(view, identity, code, field, mismatch)
	case tls.KindGateway:
		return gatewayCaller(view, identity, code, field)
	}
	return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY,
		"%s is no agency and no gateway; only these send and receive documents", identity)
}

func agencyCaller(view routing.View, identity tls.Identity, code, field string, mismatch exchangev1.ErrorReason) (*directoryv1.Agency, error) {
	own, ok := view.Agency(routing.AgencyCode(identity.Name))
	if !ok {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED,
			"agency %s is not in the directory; ask the operator to register it", identity.Name)
	}
	if code != "" {
		named, ok := view.Agency(routing.AgencyCode(code))
		if !ok || named.GetCode() != own.GetCode() {
			return nil, refuseField(mismatch, field,
				"the certificate is that of agency %s, which cannot speak for %q", own.GetCode(), code)
		}
	}
	return active(own)
}

func activeGateway(view routing.View, identity tls.Identity) error {
	gateway, ok := view.Gateway(identity.Name)
	if !ok {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_GATEWAY_NOT_AUTHORIZED,
			"gateway %s is not in the directory; ask the operator to register it", identity.Name)
	}
	if gateway.GetSuspended() {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED,
			"gateway %s is suspended; ask the operator", identity.Name)
	}
	return nil
}

func gatewayCaller(view routing.View, identity tls.Identity, code, field string) (*directoryv1.Agency, error) {
	if err := activeGateway(view, identity); err != nil {
		return nil, err
	}
	if code == "" {
		return nil, refuseField(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, field,
			"a gateway names the agency it speaks for")
	}
	named, ok := view.Agency(routing.AgencyCode(code))
	if !ok || !view.SpeaksFor(identity.Name, routing.AgencyCode(named.GetCode())) {
		return nil, refuseField(exchangev1.ErrorReason_ERROR_REASON_GATEWAY_NOT_AUTHORIZED, field,
			"gateway %s may not speak for %q; ask the operator to add the agency to the gateway", identity.Name, code)
	}
	return active(named)
}

func active(agency *directoryv1.Agency) (*directoryv1.Agency, error) {
	if agency.GetSuspended() {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED,
			"agency %s is suspended; ask the operator", agency.GetCode())
	}
	return agency, nil
}

// inboxOwner finds the agency of a call about an inbox.
func (s *Service) inboxOwner(ctx context.Context, view routing.View, code string) (*directoryv1.Agency, error) {
	return s.speaker(ctx, view, code, "agency_code", exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY)
}

// guard returns a context that ends, with the refusal as its cause, as soon as
// a change of the directory makes allowed fail. Release it when the call ends;
// that waits for the watcher.
func (s *Service) guard(ctx context.Context, allowed func(routing.View) error) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for {
			changed := s.config.Directory.Changed()
			if err := allowed(s.config.Directory.View()); err != nil {
				cancel(err)
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	return ctx, func() {
		cancel(context.Canceled)
		watcher.Wait()
	}
}

// refuseField refuses for one field.
func refuseField(reason exchangev1.ErrorReason, field, format string, args ...any) error {
	r := envelope.Refuse(reason, format, args...)
	r.Problems = []envelope.Problem{{Field: field, Reason: reason, Description: r.Message}}
	return r
}

// isReason reports whether err is a refusal with the reason.
func isReason(err error, reason exchangev1.ErrorReason) bool {
	r, ok := envelope.AsRefusal(err)
	return ok && r.Has(reason)
}
