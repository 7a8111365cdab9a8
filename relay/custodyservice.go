package relay

import (
	"context"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/ledger"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// custodyService is what operators ask about envelopes and about this relay.
type custodyService struct {
	adminv1.UnimplementedCustodyServiceServer
	relay  *Relay
	ledger *ledger.Ledger
	spool  *spool.Spool
	// remainder tells what is left here while this relay drains.
	remainder remainder
	queues    queues
}

// queues are those of the relays that this one hands on to.
type queues interface {
	// Again has a queue read from its beginning at once.
	Again(relay routing.RelayID)
}

var _ adminv1.CustodyServiceServer = (*custodyService)(nil)

// Trace finds one envelope anywhere in the mesh.
func (c *custodyService) Trace(ctx context.Context, req *adminv1.TraceRequest) (*adminv1.TraceResponse, error) {
	return c.ledger.Trace(ctx, req)
}

// Health tells how this relay is; it answers also while it does not serve.
func (c *custodyService) Health(context.Context, *adminv1.HealthRequest) (*adminv1.HealthResponse, error) {
	config := &c.relay.config
	reasons := c.relay.unready(config.Directory.View())
	stats := c.spool.Stats()
	free, reserve, err := c.spool.Space()
	if err != nil {
		c.relay.config.Logger.Warn("free space of the disk is not known", "error", err)
	}
	return &adminv1.HealthResponse{
		Relay:     &exchangev1.RelayInfo{Id: string(config.ID), Region: config.Region, Address: config.Address, Reachable: true},
		Serving:   len(reasons) == 0,
		Reason:    strings.Join(reasons, "; "),
		Version:   config.Version,
		StartedAt: timestamppb.New(c.relay.startedAt),
		InCustody: uint64(max(stats.Envelopes, 0)),
		StoreSize: uint64(max(stats.JournalBytes+stats.IndexBytes, 0)),
		DiskFree:  free, DiskReserve: reserve,
		Damaged: uint64(stats.Damaged), Repaired: uint64(stats.Repaired), Quarantined: uint64(stats.Quarantined),
		DeadLetters: uint64(max(stats.DeadLetters, 0)), SoleCopies: uint64(max(stats.Sole, 0)),
	}, nil
}
