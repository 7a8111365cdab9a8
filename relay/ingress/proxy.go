package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// This file holds both ends of the calls that the relay to which an agency is
// attached passes on to the relay that is its home.

// inboxRequest is a request about one agency's inbox.
type inboxRequest interface {
	*exchangev1.ReceiveRequest | *exchangev1.FetchRequest | *exchangev1.ConfirmRequest
	proto.Message
}

// named returns the request with the agency's resolved code filled in, as the
// home relay wants it.
func named[R inboxRequest](req R, code string) R {
	clone := proto.CloneOf(req)
	switch r := any(clone).(type) {
	case *exchangev1.ReceiveRequest:
		r.AgencyCode = code
	case *exchangev1.FetchRequest:
		r.AgencyCode = code
	case *exchangev1.ConfirmRequest:
		r.AgencyCode = code
	}
	return clone
}

func (s *Service) receiveFromHome(ctx context.Context, home routing.RelayID, req *exchangev1.ReceiveRequest, send func(*exchangev1.ReceiveResponse) error) error {
	defer s.metrics.openStream(ctx, s.metrics.proxied)()
	peer, err := s.home(home)
	if err != nil {
		return fmt.Errorf("receive from home %s: %w", home, err)
	}
	arrivals, err := peer.ProxyReceive(ctx, &relayv1.ProxyReceiveRequest{Request: req})
	if err != nil {
		return fromHome(ctx, home, err)
	}
	for {
		arrival, err := arrivals.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fromHome(ctx, home, err)
		}
		if err := send(arrival.GetResponse()); err != nil {
			return fmt.Errorf("receive from home %s: %w", home, err)
		}
	}
}

func (s *Service) fetchFromHome(ctx context.Context, home routing.RelayID, req *exchangev1.FetchRequest, send func(*exchangev1.FetchResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	peer, err := s.home(home)
	if err != nil {
		return fmt.Errorf("fetch from home %s: %w", home, err)
	}
	pieces, err := peer.ProxyFetch(ctx, &relayv1.ProxyFetchRequest{Request: req})
	if err != nil {
		return fromHome(ctx, home, err)
	}
	for {
		piece, err := pieces.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fromHome(ctx, home, err)
		}
		if err := send(piece.GetResponse()); err != nil {
			return fmt.Errorf("fetch from home %s: %w", home, err)
		}
	}
}

func (s *Service) confirmAtHome(ctx context.Context, home routing.RelayID, req *exchangev1.ConfirmRequest) (*exchangev1.ConfirmResponse, error) {
	peer, err := s.home(home)
	if err != nil {
		return nil, fmt.Errorf("confirm at home %s: %w", home, err)
	}
	answer, err := peer.ProxyConfirm(ctx, &relayv1.ProxyConfirmRequest{Request: req})
	if err != nil {
		return nil, fromHome(ctx, home, err)
	}
	return answer.GetResponse(), nil
}

// home is the connection to a home relay. A relay that was taken out of the mesh
// has none: others let it hand over what it has, and pass nothing on for it.
func (s *Service) home(relay routing.RelayID) (relayv1.PeerServiceClient, error) {
	if own, ok := s.config.Directory.View().Relay(s.config.Self); ok && isGone(own) {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING,
			"relay %s was taken out of the mesh; use another relay", s.config.Self)
	}
	return s.config.Peers.Peer(relay)
}

// fromHome makes an error of the home relay one that the agency can act on.
// When the context ended, its cause says more. A home that says it is not, or
// does not know this relay, has another version of the directory: that passes.
func fromHome(ctx context.Context, home routing.RelayID, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	refusal, ok := envelope.AsRefusal(err)
	switch {
	case !ok || refusal.Reason == exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE,
			"home relay %s cannot be reached just now; call again", home)
	case refusal.Reason == exchangev1.ErrorReason_ERROR_REASON_NOT_HOME,
		refusal.Reason == exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING,
			"the directory is changing, relay %s does not serve the inbox yet or any more; call again", home)
	}
	return refusal
}

// ProxyReceive is the home side of Receive.
func (s *Service) ProxyReceive(req *relayv1.ProxyReceiveRequest, stream grpc.ServerStreamingServer[relayv1.ProxyReceiveResponse]) error {
	owner, err := s.proxied(stream.Context(), s.config.Directory.View(), req.GetRequest().GetAgencyCode())
	if err != nil {
		return err
	}
	if err := checkReceive(req.GetRequest()); err != nil {
		return err
	}
	ctx, release := s.guard(stream.Context(), func(view routing.View) error {
		agency, ok := view.Agency(routing.AgencyCode(owner.GetCode()))
		if !ok {
			agency = &directoryv1.Agency{Code: owner.GetCode(), Suspended: true}
		}
		if _, err := active(agency); err != nil {
			return err
		}
		return stillHome(agency, s.config.Self)
	})
	defer release()
	return s.serveInbox(ctx, routing.AgencyCode(owner.GetCode()), req.GetRequest(), func(r *exchangev1.ReceiveResponse) error {
		return stream.Send(&relayv1.ProxyReceiveResponse{Response: r})
	})
}

// ProxyFetch is the home side of Fetch.
func (s *Service) ProxyFetch(req *relayv1.ProxyFetchRequest, stream grpc.ServerStreamingServer[relayv1.ProxyFetchResponse]) error {
	owner, err := s.proxied(stream.Context(), s.config.Directory.View(), req.GetRequest().GetAgencyCode())
	if err != nil {
		return err
	}
	return s.serveContent(stream.Context(), routing.AgencyCode(owner.GetCode()), req.GetRequest(), func(r *exchangev1.FetchResponse) error {
		return stream.Send(&relayv1.ProxyFetchResponse{Response: r})
	})
}

// ProxyConfirm is the home side of Confirm.
func (s *Service) ProxyConfirm(ctx context.Context, req *relayv1.ProxyConfirmRequest) (*relayv1.ProxyConfirmResponse, error) {
	owner, err := s.proxied(ctx, s.config.Directory.View(), req.GetRequest().GetAgencyCode())
	if err != nil {
		return nil, err
	}
	response, err := s.settle(ctx, routing.AgencyCode(owner.GetCode()), req.GetRequest())
	if err != nil {
		return nil, err
	}
	return &relayv1.ProxyConfirmResponse{Response: response}, nil
}

// proxied proves that the caller is a relay and this one home of the agency.
// Whether the agency made the call, the relay it is attached to has verified.
func (s *Service) proxied(ctx context.Context, view routing.View, code string) (*directoryv1.Agency, error) {
	identity, ok := s.config.Caller(ctx)
	if !ok {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_IDENTITY,
			"the connection carries no identity of the mesh")
	}
	if identity.Kind != tls.KindRelay {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY,
			"%s is no relay; only relays pass calls on", identity)
	}
	agency, ok := view.Agency(routing.AgencyCode(code))
	if !ok || agency.GetHomeRelayId() != string(s.config.Self) {
		return nil, refuseField(exchangev1.ErrorReason_ERROR_REASON_NOT_HOME, "request.agency_code",
			"relay %s is not home of %q", s.config.Self, code)
	}
	return active(agency)
}
