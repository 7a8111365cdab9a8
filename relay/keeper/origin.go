package keeper

import (
	"context"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// enoughCopies is on how many other relays an envelope has to be before a relay
// that drains gives up its copy.
const enoughCopies = 2

// origin asks the relay as the ingress of envelopes that are here: whether the
// copies kept for it are needed, and whether it still knows what waits here.
func (r *review) origin(ctx context.Context) error {
	self := stateOf(r.view, r.k.Self)
	var batch []*envelope.Record
	asked := 0
	flush := func() error {
		err := r.askIngress(ctx, batch, self)
		batch, asked = nil, 0
		return err
	}
	err := pages(ctx, func(after envelope.ID, max int) ([]envelope.ID, error) {
		return r.k.Spool.Origin(r.relay, after, max)
	}, func(id envelope.ID) error {
		record := r.k.record(ctx, id)
		if record == nil || record.Report || record.FromSender || len(record.Deliveries) == 0 {
			return nil
		}
		age, kept := r.k.Clock().Sub(record.CommittedAt), len(keptIn(record))
		switch {
		case kept == 0 && age < young:
			return nil // the ingress asks by itself
		case kept > 0 && self == draining:
			// A relay that leaves wants to know of every copy.
		case !r.due(id, age):
			return nil
		}
		batch, asked = append(batch, record), asked+max(kept, 1)
		if len(batch) < maxItems && asked < maxAsked {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

func (r *review) askIngress(ctx context.Context, batch []*envelope.Record, self state) error {
	if len(batch) == 0 {
		return nil
	}
	questions := make([]question, len(batch))
	for i, record := range batch {
		questions[i].id = record.ID
		for _, d := range keptIn(record) {
			questions[i].agencies = append(questions[i].agencies, d.Agency)
		}
		if len(questions[i].agencies) == 0 {
			questions[i].agencies = []routing.AgencyCode{record.Deliveries[0].Agency}
		}
	}
	answers, err := r.k.ask(ctx, r.relay, questions)
	if err != nil {
		return err
	}
	var settlements []envelope.Settlement
	for i, record := range batch {
		a := &answers[i]
		if !a.known || !a.ingress {
			// It is in service and has lost what it accepted.
			if self.inService() {
				r.k.takeOne(ctx, record)
			}
			continue
		}
		v := &verdict{matter: &matter{record: record}, answer: a}
		for _, d := range keptIn(record) {
			switch {
			case a.place(d.Agency) == relayv1.Place_PLACE_SETTLED:
				v.settle(r.k, d, a)
			case self == draining && a.copies >= enoughCopies:
				v.settlements = append(v.settlements, r.giveUp(record, d))
			}
		}
		settlements = append(settlements, v.settlements...)
	}
	return r.k.settle(ctx, settlements, r.relay)
}

// giveUp ends the keeping of a copy, not the delivery: nobody is told, and at
// the ingress the delivery goes on.
func (r *review) giveUp(record *envelope.Record, d *envelope.Delivery) envelope.Settlement {
	return envelope.Settlement{
		ID: record.ID, Agency: d.Agency, Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL,
		Reason: noRoute, Note: "copy given up while draining", At: r.k.Clock(),
	}
}
