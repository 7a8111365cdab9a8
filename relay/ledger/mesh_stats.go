package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

const (
	// statsTimeout bounds the count of one relay as another waits for it: all
	// records are read.
	statsTimeout = 10 * time.Minute
	// maxStats bounds the answer, in bytes: a row for each of 111,339 agencies
	// takes about 25 MB, most of it names, which only the called relay adds.
	maxStats = 64 << 20
)

// Count is this relay's part of statistics that another relay was asked for.
func (l *Ledger) Count(ctx context.Context, books Books, req *relayv1.CountRequest) (*relayv1.CountResponse, error) {
	p, err := l.periodOf(req.GetRequest())
	if err != nil {
		return nil, err
	}
	response, err := l.stats(ctx, books, p)
	return &relayv1.CountResponse{Response: response}, err
}

// Stats counts the documents that the relays in service accepted in a month, by
// agency, tier or kind. A relay that does not answer is named: what it accepted is
// not counted. With local, or a relay named, it is the books of that one alone.
func (l *Ledger) Stats(ctx context.Context, books Books, req *adminv1.StatsRequest) (*adminv1.StatsResponse, error) {
	p, err := l.periodOf(req)
	if err != nil {
		return nil, err
	}
	if p.Begin().After(l.config.Clock()) {
		return nil, refuseField("month", "%s is still to come", p.Month)
	}
	relays, err := l.countedFor(req)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	answers, err := askAll(l, "its statistics", relays,
		func() (*adminv1.StatsResponse, error) { return l.stats(limited, books, p) },
		func(relay routing.RelayID) (*adminv1.StatsResponse, error) { return l.countOf(limited, relay, p) })
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all := joined(p.by, relays, answers)
	all.Month = p.String()
	if p.by == ByAgency {
		view := l.config.Directory.View()
		for _, row := range all.Rows {
			if agency, known := view.Agency(routing.AgencyCode(row.GetKey())); known {
				row.Name = agency.GetName()
			}
		}
	}
	if proto.Size(all) > maxStats {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE, "the answer is larger than %d bytes; ask by tier or kind", maxStats)
	}
	return all, nil
}

// countedFor are the relays whose books are asked for.
func (l *Ledger) countedFor(req *adminv1.StatsRequest) ([]routing.RelayID, error) {
	one := routing.RelayID(req.GetRelayId())
	switch {
	case req.GetLocal() && one != "" && one != l.config.Self:
		return nil, refuseField("relay_id", "is %s, and only relay %s is to count", one, l.config.Self)
	case req.GetLocal(), one == l.config.Self:
		return []routing.RelayID{l.config.Self}, nil
	case one == "":
		return l.relaysInService(), nil
	}
	switch _, known := l.config.Directory.View().Relay(one); {
	case !known:
		return nil, refuseField("relay_id", "no relay %s is in the directory", one)
	case !inService(l.config.Directory.View(), one):
		return nil, refuseField("relay_id", "relay %s was taken out of the mesh, and its books with it", one)
	}
	return []routing.RelayID{one}, nil
}

func (l *Ledger) countOf(ctx context.Context, relay routing.RelayID, p period) (*adminv1.StatsResponse, error) {
	peer, err := l.config.Peers.Peer(relay)
	if err != nil {
		return nil, err
	}
	if err := greet(ctx, peer); err != nil {
		return nil, err
	}
	answer, err := peer.Count(ctx, &relayv1.CountRequest{Request: &adminv1.StatsRequest{Month: p.String(), By: p.by, Local: true}},
		grpc.MaxCallRecvMsgSize(maxStats))
	if err != nil {
		return nil, err
	}
	// A relay speaks for itself alone.
	response := answer.GetResponse()
	if own := response.GetRelays(); len(own) != 1 || own[0].GetKey() != string(relay) || response.GetMonth() != p.String() {
		return nil, fmt.Errorf("relay %s answers with %d relays about %q, want itself about %s", relay, len(own), response.GetMonth(), p)
	}
	return response, nil
}

// joined adds up by key what relays counted; those without a count are silent.
// The total is that of the relays, apart from the rows.
func joined(by string, relays []routing.RelayID, answers []*adminv1.StatsResponse) *adminv1.StatsResponse {
	all := &adminv1.StatsResponse{Total: newRow("")}
	rows := make(map[string]*adminv1.StatsRow)
	for i, answer := range answers {
		if answer == nil {
			all.SilentRelayIds = append(all.SilentRelayIds, string(relays[i]))
			continue
		}
		all.Relays = append(all.Relays, answer.GetRelays()...)
		for _, r := range answer.GetRelays() {
			addRow(all.Total, r)
		}
		for _, r := range answer.GetRows() {
			if rows[r.GetKey()] == nil {
				rows[r.GetKey()] = newRow(r.GetKey())
			}
			addRow(rows[r.GetKey()], r)
		}
	}
	for _, row := range rows {
		all.Rows = append(all.Rows, row)
	}
	sorted(by, all.Rows)
	if by == "" {
		everything := newRow("")
		addRow(everything, all.Total)
		all.Rows = append(all.Rows, everything)
	}
	slices.Sort(all.SilentRelayIds)
	return all
}
