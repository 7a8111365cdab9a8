package relay

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// The times of keepalive: a dead peer is noticed within 30 s, and a peer may
// ask as often as every 5 s.
const (
	keepaliveTime    = 20 * time.Second
	keepaliveTimeout = 10 * time.Second
	keepaliveMinimum = 5 * time.Second
)

// maxMessage is the largest message taken: the largest header, or the content
// inside an offer with its header, and room for what is around it.
func (c *Config) maxMessage() int { return c.Limits.MaxHeaderSize + 2<<20 }

// server builds the gRPC server with all services of this relay.
func (r *Relay) server(parts *parts) *grpc.Server {
	c := &r.config
	s := grpc.NewServer(
		grpc.Creds(c.Endpoint.ServerCredentials()),
		grpc.ForceServerCodecV2(newDecoder()),
		grpc.MaxRecvMsgSize(c.maxMessage()),
		grpc.MaxConcurrentStreams(c.CallsPerConnection),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinimum, PermitWithoutStream: true}),
		grpc.StatsHandler(otelgrpc.NewServerHandler(
			otelgrpc.WithMeterProvider(c.Meters), otelgrpc.WithTracerProvider(c.Tracers),
			otelgrpc.WithPropagators(propagation.TraceContext{}))),
		grpc.ChainUnaryInterceptor(r.unary),
		grpc.ChainStreamInterceptor(r.stream),
	)
	exchangev1.RegisterExchangeServiceServer(s, parts.ingress)
	relayv1.RegisterPeerServiceServer(s, peerService{forward: parts.forward, ingress: parts.ingress, ledger: parts.ledger, books: books{parts.spool}})
	adminv1.RegisterDirectoryServiceServer(s, &directoryService{relay: r, links: parts.forward})
	adminv1.RegisterCustodyServiceServer(s, &custodyService{relay: r, ledger: parts.ledger, spool: parts.spool, remainder: parts.keeper, queues: parts.forward})
	healthv1.RegisterHealthServer(s, parts.health)
	for _, register := range c.Services {
		register(s)
	}
	reflection.Register(s)
	return s
}

// unary is what happens around every unary call, outermost first: a panic ends
// the call and not the relay; who may not call is refused; an error leaves in
// its wire form.
func (r *Relay) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (response any, err error) {
	defer r.recovered(ctx, info.FullMethod, &err)
	leave, err := r.permit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := undecoded(req); err != nil {
		return nil, err
	}
	if err := r.permitRequest(ctx, req); err != nil {
		return nil, err
	}
	defer r.finite.enter()()
	response, err = handler(ctx, req)
	return response, r.wire(ctx, info.FullMethod, err)
}

// stream is the same for streams.
func (r *Relay) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx := stream.Context()
	defer r.recovered(ctx, info.FullMethod, &err)
	leave, err := r.permit(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	defer leave()
	if endless[info.FullMethod] {
		var release func()
		ctx, release = r.ending(ctx)
		defer release()
	} else {
		defer r.finite.enter()()
	}
	return r.wire(ctx, info.FullMethod, handler(srv, decodedStream{ServerStream: stream, ctx: ctx}))
}

// endless are the calls that last as long as the caller likes. They end when
// the relay stops; the others are given time to finish.
var endless = map[string]bool{
	exchangev1.ExchangeService_Receive_FullMethodName: true,
	relayv1.PeerService_ProxyReceive_FullMethodName:   true,
	healthv1.Health_Watch_FullMethodName:              true,
}

// recovered turns a panic into an error of the call.
func (r *Relay) recovered(ctx context.Context, method string, err *error) {
	if cause := recover(); cause != nil {
		r.config.Logger.ErrorContext(ctx, "panic in a call", "method", method, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "the relay failed to serve this call; it has been logged")
	}
}

// wire gives an error its wire form. Typed refusals and statuses go as they
// are; what has no type is logged, and says no more to the caller than that it
// may try again.
func (r *Relay) wire(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := envelope.AsRefusal(err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	r.config.Logger.ErrorContext(ctx, "call failed", "method", method, "error", err)
	return status.Error(codes.Unavailable, "the relay could not do this just now; try again")
}

// newHealth returns the standard health service, not serving to begin with.
func newHealth() *health.Server {
	h := health.NewServer()
	h.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	return h
}
