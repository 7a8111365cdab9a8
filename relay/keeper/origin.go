package keeper

import (
	"context"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// enoughCopies is on how many other relays an envelope has to be for the copy
// kept here not to be missed.
const enoughCopies = 2

// origin asks the relay as the ingress of envelopes that are here: whether the
// copies kept for it are needed, and whether it still knows what waits here.
func (r *review) origin(ctx context.Context) error {
	var batch []*envelope.Record
	asked := 0
	flush := func() error {
		err := r.askIngress(ctx, batch)
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
		age, kept := ageOf(r.k.Clock(), record.CommittedAt), len(keptIn(record))
		if kept == 0 && age < young || !r.due(id, age) {
			return nil // where nothing is kept, the ingress asks by itself
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

func (r *review) askIngress(ctx context.Context, batch []*envelope.Record) error {
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
			if stateOf(r.view, r.k.Self).inService() {
				r.k.takeOne(ctx, record)
			}
			continue
		}
		v := &verdict{matter: &matter{record: record}, answer: a}
		for _, d := range keptIn(record) {
			if a.place(d.Agency) == relayv1.Place_PLACE_SETTLED {
				v.settle(r.k, d, a)
			}
		}
		if r.told != nil && a.copies >= enoughCopies {
			r.told(record.ID, confirmed)
		}
		settlements = append(settlements, v.settlements...)
	}
	return r.k.settle(ctx, settlements, r.relay)
}
