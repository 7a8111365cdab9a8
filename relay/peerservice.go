package relay

import (
	"context"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/relay/ingress"
	"github.com/truclienthong/truc/relay/ledger"
)

// peerService is the relay as other relays see it, joined of three parts.
type peerService struct {
	relayv1.UnimplementedPeerServiceServer
	forward *forward.Forwarder
	ingress *ingress.Service
	ledger  *ledger.Ledger
	books   ledger.Books
}

var _ relayv1.PeerServiceServer = peerService{}

func (p peerService) Pass(stream relayv1.PeerService_PassServer) error { return p.forward.Pass(stream) }

func (p peerService) Read(req *relayv1.ReadRequest, stream relayv1.PeerService_ReadServer) error {
	return p.forward.Read(req, stream)
}

func (p peerService) Probe(ctx context.Context, req *relayv1.ProbeRequest) (*relayv1.ProbeResponse, error) {
	return p.forward.Probe(ctx, req)
}

func (p peerService) Inquire(ctx context.Context, req *relayv1.InquireRequest) (*relayv1.InquireResponse, error) {
	return p.ledger.Inquire(ctx, req)
}

func (p peerService) Reconcile(ctx context.Context, req *relayv1.ReconcileRequest) (*relayv1.ReconcileResponse, error) {
	return p.ledger.Reconcile(ctx, req)
}

func (p peerService) Account(ctx context.Context, req *relayv1.AccountRequest) (*relayv1.AccountResponse, error) {
	return p.ledger.Account(ctx, p.books, req)
}

func (p peerService) Count(ctx context.Context, req *relayv1.CountRequest) (*relayv1.CountResponse, error) {
	return p.ledger.Count(ctx, p.books, req)
}

func (p peerService) ProxyReceive(req *relayv1.ProxyReceiveRequest, stream relayv1.PeerService_ProxyReceiveServer) error {
	return p.ingress.ProxyReceive(req, stream)
}

func (p peerService) ProxyFetch(req *relayv1.ProxyFetchRequest, stream relayv1.PeerService_ProxyFetchServer) error {
	return p.ingress.ProxyFetch(req, stream)
}

func (p peerService) ProxyConfirm(ctx context.Context, req *relayv1.ProxyConfirmRequest) (*relayv1.ProxyConfirmResponse, error) {
	return p.ingress.ProxyConfirm(ctx, req)
}
