package relay

import (
	"context"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/ledger"
	"github.com/truclienthong/truc/relay/spool"
)

// Audit proves conservation in the mesh, or at this relay alone.
func (c *custodyService) Audit(ctx context.Context, req *adminv1.AuditRequest) (*adminv1.AuditResponse, error) {
	return c.ledger.Audit(ctx, books{c.spool}, req)
}

// Stats counts the documents of a month in the mesh, or at one relay.
func (c *custodyService) Stats(ctx context.Context, req *adminv1.StatsRequest) (*adminv1.StatsResponse, error) {
	return c.ledger.Stats(ctx, books{c.spool}, req)
}

// books is the spool as audit and statistics read it.
type books struct{ *spool.Spool }

var _ ledger.Books = books{}

// Recount counts again what became of the deliveries accepted here.
func (b books) Recount(ctx context.Context, since time.Time, pending func(ledger.Pending) error) (*ledger.Recount, error) {
	counted, err := b.Spool.Recount(ctx, since, func(p spool.Pending) error {
		return pending(ledger.Pending{ID: p.ID, Agency: p.Agency, Place: p.Place, Home: p.Home})
	})
	if err != nil {
		return nil, err
	}
	result := &ledger.Recount{Counted: tallyOf(counted.Counted), Kept: tallyOf(counted.Kept)}
	for _, f := range counted.Findings {
		result.Findings = append(result.Findings, ledger.Finding{ID: f.ID, Agency: f.Agency, Problem: f.Problem})
	}
	return result, nil
}

func tallyOf(t spool.Tally) ledger.Tally {
	return ledger.Tally{Accepted: t.Accepted, Delivered: t.Delivered, Expired: t.Expired, Refused: t.Refused, Recalled: t.Recalled}
}
