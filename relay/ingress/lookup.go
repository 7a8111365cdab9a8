package ingress

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// The page sizes of the contract.
const (
	maxPage     = 1_000
	defaultPage = 100
)

// Attach tells a connector about this relay and the mesh. A gateway may attach
// without naming an agency.
func (s *Service) Attach(ctx context.Context, req *exchangev1.AttachRequest) (*exchangev1.AttachResponse, error) {
	view := s.config.Directory.View()
	limits := s.config.Limits.Header.OrDefaults()
	response := &exchangev1.AttachResponse{
		Relay: &exchangev1.RelayInfo{
			Id: string(s.config.Self), Region: s.config.Region, Address: s.config.Address, Reachable: true,
		},
		Now:           timestamppb.New(s.config.Clock()),
		MaxPartSize:   limits.MaxPartSize,
		MaxRecipients: uint32(limits.MaxRecipients),
		MaxChunkSize:  maxChunk,
		TrustDomain:   s.config.TrustDomain,
	}
	home, err := s.attachedHome(ctx, view, req.GetAgencyCode())
	if err != nil {
		s.metrics.refusal(ctx, "attach", err)
		return nil, err
	}
	response.HomeRelayId = home
	for _, relay := range view.Relays() {
		switch relay.GetState() {
		case directoryv1.RelayState_RELAY_STATE_RETIRED, directoryv1.RelayState_RELAY_STATE_LOST:
			continue
		}
		id := routing.RelayID(relay.GetId())
		response.Relays = append(response.Relays, &exchangev1.RelayInfo{
			Id: relay.GetId(), Region: relay.GetRegion(), Address: relay.GetAddress(),
			Reachable: id == s.config.Self || s.config.Peers.Reachable(id),
		})
	}
	return response, nil
}

// attachedHome is the home of the agency that attaches; none where a gateway
// attaches for itself.
func (s *Service) attachedHome(ctx context.Context, view routing.View, code string) (string, error) {
	if identity, ok := s.config.Caller(ctx); ok && identity.Kind == tls.KindGateway && code == "" {
		return "", activeGateway(view, identity)
	}
	agency, err := s.inboxOwner(ctx, view, code)
	return agency.GetHomeRelayId(), err
}

// Track tells what became of an envelope.
func (s *Service) Track(ctx context.Context, req *exchangev1.TrackRequest) (*exchangev1.TrackResponse, error) {
	agency, err := s.inboxOwner(ctx, s.config.Directory.View(), req.GetAgencyCode())
	if err == nil {
		var response *exchangev1.TrackResponse
		if response, err = s.config.Ledger.Track(ctx, routing.AgencyCode(agency.GetCode()), req); err == nil {
			return response, nil
		}
	}
	s.metrics.refusal(ctx, "track", err)
	return nil, err
}

// Lookup finds agencies in the local copy of the directory.
func (s *Service) Lookup(ctx context.Context, req *exchangev1.LookupRequest) (*exchangev1.LookupResponse, error) {
	view := s.config.Directory.View()
	if _, err := s.attachedHome(ctx, view, ""); err != nil {
		s.metrics.refusal(ctx, "lookup", err)
		return nil, err
	}
	invalid := exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	var problems []envelope.Problem
	if req.GetPageSize() > maxPage {
		problems = append(problems, envelope.Problem{Field: "page_size", Reason: invalid, Description: "is more than 1,000"})
	}
	if req.GetTier() > uint32(routing.TierCommune) {
		problems = append(problems, envelope.Problem{Field: "tier", Reason: invalid, Description: "is none of 1 to 4; 0 means all"})
	}
	if err := envelope.RefuseProblems(problems); err != nil {
		return nil, err
	}
	limit := int(req.GetPageSize())
	if limit == 0 {
		limit = defaultPage
	}
	page, next := view.Agencies(routing.Query{
		Code: routing.AgencyCode(req.GetCode()), Under: routing.AgencyCode(req.GetUnder()),
		Tier: routing.Tier(req.GetTier()), Search: req.GetSearch(), Limit: limit, After: req.GetPageToken(),
	})
	response := &exchangev1.LookupResponse{NextPageToken: next, DirectoryIndex: view.Version()}
	for _, agency := range page {
		response.Agencies = append(response.Agencies, &exchangev1.AgencyInfo{
			Code: agency.GetCode(), Aliases: agency.GetAliases(), Name: agency.GetName(), Tier: agency.GetTier(),
			ParentCode: agency.GetParentCode(), HomeRelayId: agency.GetHomeRelayId(), Suspended: agency.GetSuspended(),
		})
	}
	return response, nil
}
