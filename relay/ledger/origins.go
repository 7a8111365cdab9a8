package ledger

import (
	"context"
	"fmt"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// origins looks whether the relays that accepted what is here remember it. An
// ingress makes an envelope durable before it hands it on, so one that does not
// know it has lost it.
func (a *audit) origins(ctx context.Context, books Books) error {
	relays, err := books.Origins()
	if err != nil {
		return fmt.Errorf("list the ingress relays of what is here: %w", err)
	}
	for _, ingress := range relays {
		if ingress == a.ledger.config.Self || !inService(a.ledger.config.Directory.View(), ingress) {
			continue // what a relay that left accepted, another one remembers in its place
		}
		if err := a.origin(ctx, books, ingress); err != nil {
			return fmt.Errorf("what relay %s accepted: %w", ingress, err)
		}
	}
	return nil
}

// origin asks one ingress about everything of it that is here.
func (a *audit) origin(ctx context.Context, books Books, ingress routing.RelayID) error {
	var suspects []envelope.ID
	more := 0
	for after, ended := (envelope.ID{}), false; !ended && !a.silent[ingress]; {
		ids, err := books.Origin(ingress, after, askItems)
		if err != nil {
			return err
		}
		if ended = len(ids) < askItems; len(ids) > 0 {
			after = ids[len(ids)-1]
		}
		unknown, err := a.forgotten(ctx, ingress, ids)
		if err != nil {
			return err
		}
		room := max(maxSuspects-len(suspects), 0)
		more += max(len(unknown)-room, 0)
		suspects = append(suspects, unknown[:min(len(unknown), room)]...)
	}
	for n := 1; n < looks && len(suspects) > 0; n++ {
		if err := pause(ctx); err != nil {
			return err
		}
		var still []envelope.ID
		for start := 0; start < len(suspects); start += askItems {
			unknown, err := a.forgotten(ctx, ingress, suspects[start:min(start+askItems, len(suspects))])
			if err != nil {
				return err
			}
			still = append(still, unknown...)
		}
		suspects = still
	}
	for _, id := range suspects {
		a.miss(id, "", "is here, and relay %s, which accepted it, does not remember it", ingress)
	}
	if more > 0 {
		a.find(envelope.ID{}, "", "%d more envelopes are here that relay %s does not remember", more, ingress)
	}
	return nil
}

// forgotten returns those of the envelopes that are still here and that their
// ingress does not remember; none where it does not answer.
func (a *audit) forgotten(ctx context.Context, ingress routing.RelayID, ids []envelope.ID) ([]envelope.ID, error) {
	request := new(relayv1.ReconcileRequest)
	for _, id := range ids {
		record, err := a.ledger.config.Spool.Record(id)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", id, err)
		}
		if record.Report || record.FromSender || record.Ingress != ingress || record.AcceptedAt.Before(a.since) || !unsettled(record) {
			continue
		}
		// One recipient is named so that the answer is not about all of them.
		request.Items = append(request.Items, &relayv1.ReconcileItem{EnvelopeId: id[:], AgencyCodes: []string{string(record.Deliveries[0].Agency)}})
	}
	if len(request.Items) == 0 {
		return nil, nil
	}
	answers, err := a.reconcile(ctx, ingress, request)
	if err != nil {
		return nil, err
	}
	var unknown []envelope.ID
	for i, answer := range answers {
		if !answer.GetKnown() || !answer.GetIngress() {
			unknown = append(unknown, envelope.ID(request.Items[i].GetEnvelopeId()))
		}
	}
	return unknown, nil
}

// unsettled reports whether something of an envelope waits or is kept here.
func unsettled(r *envelope.Record) bool {
	for _, d := range r.Deliveries {
		switch d.Place {
		case envelope.InInbox, envelope.InQueue, envelope.Kept:
			return true
		}
	}
	return false
}
