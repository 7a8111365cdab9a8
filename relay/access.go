package relay

import (
	"context"
	"slices"
	"strings"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
)

// access is who may call which service. What does not stand here may not be
// called by anyone.
var access = map[string][]tls.Kind{
	exchangev1.ExchangeService_ServiceDesc.ServiceName:     {tls.KindAgency, tls.KindGateway},
	relayv1.PeerService_ServiceDesc.ServiceName:            {tls.KindRelay},
	directoryv1.ReplicationService_ServiceDesc.ServiceName: {tls.KindRelay},
	adminv1.RaftService_ServiceDesc.ServiceName:            {tls.KindOperator},
	adminv1.DirectoryService_ServiceDesc.ServiceName:       {tls.KindOperator},
	adminv1.CustodyService_ServiceDesc.ServiceName:         {tls.KindOperator},
	healthv1.Health_ServiceDesc.ServiceName:                {tls.KindAgency, tls.KindGateway, tls.KindRelay, tls.KindOperator},
	reflectionv1.ServerReflection_ServiceDesc.ServiceName:  {tls.KindAgency, tls.KindGateway, tls.KindOperator},
	// Deprecated, and still the only one that older tools speak.
	reflectionv1alpha.ServerReflection_ServiceDesc.ServiceName: {tls.KindAgency, tls.KindGateway, tls.KindOperator},
}

// permit refuses a call that the table does not allow, and counts it until the
// returned function is called. Whether an agency may do what it asks is decided
// by the service.
func (r *Relay) permit(ctx context.Context, method string) (leave func(), err error) {
	identity, ok := tls.FromContext(ctx)
	if !ok {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_IDENTITY,
			"the connection carries no identity of the mesh; call with a certificate that names one")
	}
	service := serviceOf(method)
	kinds := access[service]
	if !slices.Contains(kinds, identity.Kind) {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY,
			"%s may not call %s, which is for %s; use the right certificate", identity, service, names(kinds))
	}
	switch identity.Kind {
	case tls.KindRelay:
		err = r.permitRelay(identity, method)
	case tls.KindOperator:
		err = r.permitDomain(identity)
	}
	if err != nil {
		return nil, err
	}
	return r.enter(identity)
}

// handingOver is what a relay that was taken out of the mesh may still call. One
// that was given up as lost, and came back with its disk, has envelopes in
// custody, and nobody else may have them: it hands them to the homes of now and
// tells what became of the others. Nothing is asked of it and nothing given to
// it any more. One that must not even do that has its certificate revoked.
var handingOver = map[string]bool{
	relayv1.PeerService_Pass_FullMethodName:      true,
	relayv1.PeerService_Probe_FullMethodName:     true,
	relayv1.PeerService_Inquire_FullMethodName:   true,
	relayv1.PeerService_Reconcile_FullMethodName: true,
}

// permitRelay holds a relay against the directory. A relay that the directory
// does not have yet registers itself, so Propose alone is open to it; the
// refusal is temporary, because a copy of the directory may be behind.
func (r *Relay) permitRelay(identity tls.Identity, method string) error {
	if err := r.permitDomain(identity); err != nil {
		return err
	}
	if serviceOf(method) == healthv1.Health_ServiceDesc.ServiceName {
		return nil
	}
	entry, ok := r.config.Directory.View().Relay(routing.RelayID(identity.Name))
	if gone(entry) && !handingOver[method] {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY,
			"relay %[1]s was taken out of the mesh; `relayctl relay activate %[1]s` brings it back", identity.Name)
	}
	if !ok && method != directoryv1.ReplicationService_Propose_FullMethodName {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING,
			"relay %s is not in the directory of relay %s (yet)", identity.Name, r.config.ID)
	}
	return nil
}

// permitRequest refuses what a call that is permitted may not ask for. A relay
// that is not in the directory proposes nothing but its own entry: until an
// operator sees it there, a certificate alone must not change the directory.
func (r *Relay) permitRequest(ctx context.Context, req any) error {
	proposal, ok := req.(*directoryv1.ProposeRequest)
	if !ok {
		return nil
	}
	identity, _ := tls.FromContext(ctx)
	if _, registered := r.config.Directory.View().Relay(routing.RelayID(identity.Name)); registered {
		return nil
	}
	command := new(directoryv1.Command)
	if err := proto.Unmarshal(proposal.GetCommand(), command); err != nil || command.GetPutRelay().GetRelay().GetId() != identity.Name {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY,
			"relay %s is not in the directory yet and may propose its own entry only", identity.Name)
	}
	return nil
}

// permitDomain refuses relays and operators of another trust domain, also where
// the trust file believes its authority: names are unique within a domain only,
// and the directory names the relays of this one.
func (r *Relay) permitDomain(identity tls.Identity) error {
	if own := r.config.Endpoint.Identity().TrustDomain; identity.TrustDomain != own {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY,
			"%s is not of trust domain %s", identity, own)
	}
	return nil
}

// serviceOf returns the service of a method "/service/method".
func serviceOf(method string) string {
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	return service
}

func names(kinds []tls.Kind) string {
	if len(kinds) == 0 {
		return "nobody"
	}
	var all []string
	for _, kind := range kinds {
		all = append(all, kind.String())
	}
	return strings.Join(all, ", ")
}
