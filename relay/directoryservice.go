package relay

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// reach tells which relays can be reached.
type reach interface {
	// Reachable: directly or by way of others.
	Reachable(relay routing.RelayID) bool
	// Links are the links of the mesh as far as known.
	Links() []routing.Link
}

// directoryService is the directory as operators see it.
type directoryService struct {
	adminv1.UnimplementedDirectoryServiceServer
	relay *Relay
	links reach
}

var _ adminv1.DirectoryServiceServer = (*directoryService)(nil)

// The page sizes of the contract.
const (
	maxPage     = 1_000
	defaultPage = 100
)

// Change applies one command. Who asked, and when, is filled in here: it is
// what the audit will show. That the state machine refused stands in the
// answer.
func (d *directoryService) Change(ctx context.Context, req *adminv1.ChangeRequest) (*adminv1.ChangeResponse, error) {
	command, err := d.command(ctx, req)
	if err != nil {
		return nil, err
	}
	proposed, err := d.relay.config.Directory.Propose(ctx, [16]byte(req.GetRequestId()), command)
	if err != nil {
		return nil, fmt.Errorf("change the directory: %w", err)
	}
	d.relay.config.Logger.Info("directory change", "actor", command.GetActor(), "index", proposed.Index,
		"change", command.ProtoReflect().WhichOneof(command.ProtoReflect().Descriptor().Oneofs().ByName("change")).Name(),
		"reason", proposed.Result.GetReason().String(), "repeat", proposed.Repeat)
	return &adminv1.ChangeResponse{Result: proposed.Result, Index: proposed.Index, Repeat: proposed.Repeat}, nil
}

// command checks a request. A command that relays do not understand would stop
// every one of them, so it must not get into the log.
func (d *directoryService) command(ctx context.Context, req *adminv1.ChangeRequest) (*directoryv1.Command, error) {
	if n := len(req.GetRequestId()); n != 16 {
		return nil, refuseField("request_id", "has %d bytes, want 16", n)
	}
	if req.GetCommand().GetChange() == nil {
		return nil, refuseField("command", "names no change that this relay knows")
	}
	command := proto.CloneOf(req.GetCommand())
	if command.GetVersion() == 0 {
		command.Version = routing.CommandVersion
	}
	identity, _ := tls.FromContext(ctx)
	command.Actor, command.At = identity.String(), timestamppb.New(d.relay.config.Clock())
	encoded, err := proto.Marshal(command)
	if err == nil {
		err = routing.CheckCommand(encoded)
	}
	if err != nil {
		return nil, refuseField("command", "%v", err)
	}
	return command, nil
}

// view is the directory, as fresh as asked for.
func (d *directoryService) view(ctx context.Context, consistency adminv1.Consistency) (routing.View, error) {
	switch consistency {
	case adminv1.Consistency_CONSISTENCY_UNSPECIFIED, adminv1.Consistency_CONSISTENCY_LOCAL:
	case adminv1.Consistency_CONSISTENCY_LINEARIZABLE:
		if err := d.relay.config.Directory.ReadBarrier(ctx); err != nil {
			return routing.View{}, fmt.Errorf("read the directory: %w", err)
		}
	default:
		return routing.View{}, refuseField("consistency", "%d is not known", consistency)
	}
	return d.relay.config.Directory.View(), nil
}

func (d *directoryService) ListRelays(ctx context.Context, req *adminv1.ListRelaysRequest) (*adminv1.ListRelaysResponse, error) {
	view, err := d.view(ctx, req.GetConsistency())
	if err != nil {
		return nil, err
	}
	links := make(map[routing.RelayID]routing.Link)
	for _, link := range d.links.Links() {
		if link.From == d.relay.config.ID && link.Up {
			links[link.To] = link
		}
	}
	response := new(adminv1.ListRelaysResponse)
	for _, relay := range view.Relays() {
		id := routing.RelayID(relay.GetId())
		shown := &adminv1.RelayView{
			Relay: relay, Homes: view.Homes(id),
			Reachable: id == d.relay.config.ID || d.links.Reachable(id),
		}
		if link, ok := links[id]; ok {
			shown.RoundTrip = durationpb.New(link.RoundTrip)
		}
		response.Relays = append(response.Relays, shown)
	}
	return response, nil
}

func (d *directoryService) ListAgencies(ctx context.Context, req *adminv1.ListAgenciesRequest) (*adminv1.ListAgenciesResponse, error) {
	limit := int(req.GetPageSize())
	switch {
	case limit > maxPage:
		return nil, refuseField("page_size", "is %d, at most %d are allowed", limit, maxPage)
	case req.GetTier() > uint32(routing.TierCommune):
		return nil, refuseField("tier", "is %d, none of 1 to 4; 0 means all", req.GetTier())
	case limit == 0:
		limit = defaultPage
	}
	view, err := d.view(ctx, req.GetConsistency())
	if err != nil {
		return nil, err
	}
	page, next := view.Agencies(routing.Query{
		Code: routing.AgencyCode(req.GetCode()), Under: routing.AgencyCode(req.GetUnder()),
		Tier: routing.Tier(req.GetTier()), Search: req.GetSearch(), Limit: limit, After: req.GetPageToken(),
	})
	return &adminv1.ListAgenciesResponse{Agencies: page, NextPageToken: next}, nil
}

func (d *directoryService) ListGroups(ctx context.Context, req *adminv1.ListGroupsRequest) (*adminv1.ListGroupsResponse, error) {
	view, err := d.view(ctx, req.GetConsistency())
	if err != nil {
		return nil, err
	}
	return &adminv1.ListGroupsResponse{Groups: view.Groups()}, nil
}

func (d *directoryService) ListRules(ctx context.Context, req *adminv1.ListRulesRequest) (*adminv1.ListRulesResponse, error) {
	view, err := d.view(ctx, req.GetConsistency())
	if err != nil {
		return nil, err
	}
	return &adminv1.ListRulesResponse{Rules: view.Rules()}, nil
}

func (d *directoryService) ListGateways(ctx context.Context, req *adminv1.ListGatewaysRequest) (*adminv1.ListGatewaysResponse, error) {
	view, err := d.view(ctx, req.GetConsistency())
	if err != nil {
		return nil, err
	}
	return &adminv1.ListGatewaysResponse{Gateways: view.Gateways()}, nil
}

func (d *directoryService) ListTrust(ctx context.Context, req *adminv1.ListTrustRequest) (*adminv1.ListTrustResponse, error) {
	view, err := d.view(ctx, req.GetConsistency())
	if err != nil {
		return nil, err
	}
	return &adminv1.ListTrustResponse{Roots: view.TrustRoots(), Revocations: view.Revocations()}, nil
}

func (d *directoryService) ListImports(ctx context.Context, req *adminv1.ListImportsRequest) (*adminv1.ListImportsResponse, error) {
	view, err := d.view(ctx, req.GetConsistency())
	if err != nil {
		return nil, err
	}
	response := new(adminv1.ListImportsResponse)
	staged := view.Staged()
	for _, name := range slices.Sorted(maps.Keys(staged)) {
		response.Imports = append(response.Imports, &adminv1.StagedImport{Staging: name, Agencies: uint32(staged[name])})
	}
	return response, nil
}

func refuseField(field, format string, args ...any) error {
	r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, format, args...)
	r.Problems = []envelope.Problem{{Field: field, Reason: r.Reason, Description: r.Message}}
	return r
}
