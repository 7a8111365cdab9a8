package ledger

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// auditTimeout bounds the audit of one relay as another waits for it: all
// records are read, and what is pending is asked about. A relay that is gone is
// noticed much earlier, by its connection.
const auditTimeout = 30 * time.Minute

// Account is this relay's part of an audit that another relay was asked for.
func (l *Ledger) Account(ctx context.Context, books Books, req *relayv1.AccountRequest) (*relayv1.AccountResponse, error) {
	since, err := auditSince(req.GetRequest())
	if err != nil {
		return nil, err
	}
	response, err := l.audit(ctx, books, since)
	return &relayv1.AccountResponse{Response: response}, err
}

// Audit proves that what was accepted in the mesh since is all accounted for, or
// names what is not: it takes the audits of all relays in service together. A
// relay that does not answer this one, or that does not answer another, is
// named. With local it is the audit of this relay alone.
func (l *Ledger) Audit(ctx context.Context, books Books, req *adminv1.AuditRequest) (*adminv1.AuditResponse, error) {
	since, err := auditSince(req)
	if err != nil {
		return nil, err
	}
	if req.GetLocal() {
		return l.audit(ctx, books, since)
	}
	limited, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	relays := l.relaysInService()
	answers, err := askAll(l, "its audit", relays,
		func() (*adminv1.AuditResponse, error) { return l.audit(limited, books, since) },
		func(relay routing.RelayID) (*adminv1.AuditResponse, error) { return l.accountOf(limited, relay, req) })
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return together(relays, answers), nil
}

// askAll asks relays all at once, by own where this one is among them, and returns
// what each answers: nil where it is silent. A relay that refuses what it is asked
// for is not silent: all is refused.
func askAll[T any](l *Ledger, what string, relays []routing.RelayID, own func() (*T, error), other func(routing.RelayID) (*T, error)) ([]*T, error) {
	answers, failures := make([]*T, len(relays)), make([]error, len(relays))
	var asking sync.WaitGroup
	for i, relay := range relays {
		asking.Go(func() {
			if relay == l.config.Self {
				answers[i], failures[i] = own()
				return
			}
			answer, err := other(relay)
			if r, refused := envelope.AsRefusal(err); refused && r.Has(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD) {
				failures[i] = err
				return
			}
			if err != nil {
				l.config.Logger.Info("relay is silent about "+what, "relay", string(relay), "error", err)
				return
			}
			answers[i] = answer
		})
	}
	asking.Wait()
	for _, err := range failures {
		if err != nil {
			return nil, err
		}
	}
	return answers, nil
}

func auditSince(req *adminv1.AuditRequest) (time.Time, error) {
	if req.GetSince() == nil {
		return time.Time{}, nil
	}
	if err := req.GetSince().CheckValid(); err != nil {
		return time.Time{}, refuseField("since", "%v", err)
	}
	return req.GetSince().AsTime(), nil
}

// relays lists all relays of the directory, and this one.
func (l *Ledger) relays() []routing.RelayID {
	relays := []routing.RelayID{l.config.Self}
	for _, relay := range l.config.Directory.View().Relays() {
		if id := routing.RelayID(relay.GetId()); id != l.config.Self {
			relays = append(relays, id)
		}
	}
	slices.Sort(relays)
	return relays
}

func (l *Ledger) relaysInService() []routing.RelayID {
	return slices.DeleteFunc(l.relays(), func(id routing.RelayID) bool { return !inService(l.config.Directory.View(), id) })
}

func (l *Ledger) accountOf(ctx context.Context, relay routing.RelayID, req *adminv1.AuditRequest) (*adminv1.AuditResponse, error) {
	peer, err := l.config.Peers.Peer(relay)
	if err != nil {
		return nil, err
	}
	if err := greet(ctx, peer); err != nil {
		return nil, err
	}
	answer, err := peer.Account(ctx, &relayv1.AccountRequest{Request: &adminv1.AuditRequest{Since: req.GetSince(), Local: true}})
	if err != nil {
		return nil, err
	}
	// A relay speaks for itself alone.
	rows := answer.GetResponse().GetRows()
	if len(rows) != 1 || rows[0].GetRelayId() != string(relay) {
		return nil, fmt.Errorf("relay %s answers with %d rows, want its own", relay, len(rows))
	}
	for _, f := range answer.GetResponse().GetFindings() {
		f.RelayId = string(relay)
	}
	return answer.GetResponse(), nil
}

// greet sees that a relay answers at all: its audit may take long, and one that
// hangs is not worth the wait.
func greet(ctx context.Context, peer relayv1.PeerServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	nobody := [16]byte{1}
	_, err := peer.Reconcile(ctx, &relayv1.ReconcileRequest{Items: []*relayv1.ReconcileItem{{EnvelopeId: nobody[:]}}})
	return err
}

// together joins the audits of relays; those without one are silent.
func together(relays []routing.RelayID, answers []*adminv1.AuditResponse) *adminv1.AuditResponse {
	all := new(adminv1.AuditResponse)
	for i, answer := range answers {
		if answer == nil {
			all.SilentRelayIds = append(all.SilentRelayIds, string(relays[i]))
			continue
		}
		all.Rows = append(all.Rows, answer.GetRows()...)
		all.MissingEnvelopeIds = append(all.MissingEnvelopeIds, answer.GetMissingEnvelopeIds()...)
		all.Findings = append(all.Findings, answer.GetFindings()...)
		all.SilentRelayIds = append(all.SilentRelayIds, answer.GetSilentRelayIds()...)
	}
	slices.SortFunc(all.MissingEnvelopeIds, slices.Compare)
	all.MissingEnvelopeIds = slices.CompactFunc(all.MissingEnvelopeIds, slices.Equal)
	all.MissingEnvelopeIds = all.MissingEnvelopeIds[:min(len(all.MissingEnvelopeIds), maxMissing)]
	all.Findings = all.Findings[:min(len(all.Findings), maxFindings)]
	slices.Sort(all.SilentRelayIds)
	all.SilentRelayIds = slices.Compact(all.SilentRelayIds)
	return all
}
