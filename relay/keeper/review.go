package keeper

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// facts is how many envelopes are recorded about at once; they share syncs.
const facts = 128

// review is one look at what another relay in service has to do with the
// envelopes here.
type review struct {
	k     *Keeper
	relay routing.RelayID
	view  routing.View
	// due chooses by id and age what is asked after.
	due func(envelope.ID, time.Duration) bool
	// silent are homes that did not answer in this review.
	silent map[routing.RelayID]bool
	// wanted counts copies that are on their way because of this review.
	wanted int
	// told, where it is set, hears of each envelope asked after whether all its
	// deliveries are known to be in custody somewhere.
	told func(id envelope.ID, what finding)
}

// finding is what a review found out about an envelope.
type finding uint8

const (
	// confirmed: the relay has what it is believed to have.
	confirmed finding = iota + 1
	// doubted: it has not, but perhaps another holder has.
	doubted
	// lost: it has not, and nobody else is believed to.
	lost
)

func (k *Keeper) review(relay routing.RelayID, due func(envelope.ID, time.Duration) bool) *review {
	return &review{k: k, relay: relay, view: k.Directory.View(), due: due, silent: make(map[routing.RelayID]bool)}
}

// holder asks the relay as one that holds copies of envelopes accepted here,
// and acts on what it says.
func (r *review) holder(ctx context.Context) error {
	leaving := stateOf(r.view, r.relay) == draining
	var batch []*matter
	asked := 0
	flush := func() error {
		err := r.settleMatters(ctx, batch)
		batch, asked = nil, 0
		return err
	}
	err := pages(ctx, func(after envelope.ID, max int) ([]envelope.ID, error) {
		return r.k.Spool.Away(r.relay, after, max)
	}, func(id envelope.ID) error {
		record := r.k.record(ctx, id)
		if record == nil || !record.FromSender {
			return nil
		}
		r.k.reclaim(ctx, record, r.view)
		if leaving {
			r.secure(ctx, record)
		}
		m := r.matterOf(record)
		if !r.due(id, r.k.Clock().Sub(m.since)) {
			return nil
		}
		batch, asked = append(batch, m), asked+len(m.concerned)
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

// matter is one envelope and what the relay is believed to have of it.
type matter struct {
	record *envelope.Record
	// concerned are deliveries of which the relay may have custody: it is where
	// they went, or they went to a relay that is not known to have them, perhaps
	// by way of this one.
	concerned []*envelope.Delivery
	// since is when the newest of them went there.
	since time.Time
}

func (r *review) matterOf(record *envelope.Record) *matter {
	m := &matter{record: record, concerned: concerned(record, r.relay), since: record.AcceptedAt}
	for _, d := range m.concerned {
		if d.UpdatedAt.After(m.since) {
			m.since = d.UpdatedAt
		}
	}
	return m
}

// concerned lists the deliveries of which a holder may have custody.
func concerned(record *envelope.Record, holder routing.RelayID) []*envelope.Delivery {
	holders := make(map[routing.RelayID]bool, len(record.Holders))
	for _, h := range record.Holders {
		holders[h] = true
	}
	var list []*envelope.Delivery
	for i := range record.Deliveries {
		d := &record.Deliveries[i]
		if d.Place == envelope.Elsewhere && (d.Home == holder || !holders[d.Home]) {
			list = append(list, d)
		}
	}
	return list
}

// question asks about the deliveries concerned; where there are none, whether
// the relay still has the envelope.
func (m *matter) question() question {
	q := question{id: m.record.ID}
	for _, d := range m.concerned {
		q.agencies = append(q.agencies, d.Agency)
	}
	if len(q.agencies) == 0 && len(m.record.Deliveries) > 0 {
		q.agencies = append(q.agencies, m.record.Deliveries[0].Agency)
	}
	return q
}

// settleMatters asks about a batch, asks the homes of what the relay handed on,
// and records what follows: first how deliveries ended, then for each envelope
// where the others go, and only then that the relay does not have it.
func (r *review) settleMatters(ctx context.Context, batch []*matter) error {
	if len(batch) == 0 {
		return nil
	}
	questions := make([]question, len(batch))
	for i, m := range batch {
		questions[i] = m.question()
	}
	answers, err := r.k.ask(ctx, r.relay, questions)
	if err != nil {
		return err
	}
	verdicts := make([]*verdict, len(batch))
	for i, m := range batch {
		verdicts[i] = r.judge(m, &answers[i])
	}
	r.askHomes(ctx, verdicts)
	return r.act(ctx, verdicts)
}

// act makes the verdicts durable.
func (r *review) act(ctx context.Context, verdicts []*verdict) error {
	var settlements []envelope.Settlement
	for _, v := range verdicts {
		settlements = append(settlements, v.settlements...)
	}
	if err := r.k.settle(ctx, settlements, r.relay); err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(facts)
	for _, v := range verdicts {
		if r.told != nil {
			r.told(v.record.ID, v.finding(r.relay))
		}
		forget := v.forget() && slices.Contains(v.record.Holders, r.relay)
		if v.routes.empty() && !forget {
			continue
		}
		group.Go(func() error {
			r.k.resend(ctx, v.record, &v.routes, r.relay, forget)
			return nil
		})
	}
	_ = group.Wait() // failures are logged one by one
	return ctx.Err()
}

// settle records how deliveries ended, by the word of a relay.
func (k *Keeper) settle(ctx context.Context, settlements []envelope.Settlement, word routing.RelayID) error {
	if len(settlements) == 0 {
		return nil
	}
	settled, err := k.Spool.Settle(ctx, settlements)
	k.telemetry.settled.Add(ctx, int64(settled))
	if err != nil {
		return err
	}
	for _, s := range settlements {
		k.Logger.InfoContext(ctx, "delivery settled by review", "envelope", s.ID.String(), "agency", s.Agency,
			"transport", s.Transport.String(), "relay", word)
	}
	return nil
}

// resend records new duties of an envelope, and then, if it is to be forgotten,
// that a holder is none any more. A crash between the two loses nothing; in the
// other order, nobody would be asked after the deliveries again. What cannot be
// recorded is looked at again in a later pass.
func (k *Keeper) resend(ctx context.Context, record *envelope.Record, routes *routes, holder routing.RelayID, forget bool) {
	log := k.Logger.With("envelope", record.ID.String(), "holder", holder)
	for _, fact := range routes.facts(record.ID, k.Clock()) {
		if err := k.Spool.Reroute(ctx, fact); err != nil {
			log.ErrorContext(ctx, "deliveries cannot be rerouted", "error", err)
			return
		}
	}
	if routes.resent > 0 {
		k.telemetry.resent.Add(ctx, int64(routes.resent))
		log.WarnContext(ctx, "deliveries are sent again", "recipients", routes.resent)
	}
	if routes.found > 0 {
		k.telemetry.found.Add(ctx, int64(routes.found))
		log.InfoContext(ctx, "deliveries found elsewhere", "recipients", routes.found)
	}
	if !forget {
		return
	}
	log.InfoContext(ctx, "relay holds the envelope no more")
	if err := k.Spool.Forget(ctx, record.ID, holder); err != nil {
		log.ErrorContext(ctx, "holder cannot be forgotten", "error", err)
	}
}

// record reads one envelope; nil where it is not known any more, or cannot be
// read: that stops nothing but itself.
func (k *Keeper) record(ctx context.Context, id envelope.ID) *envelope.Record {
	record, err := k.Spool.Record(id)
	if err == nil {
		return record
	}
	if refusal, ok := envelope.AsRefusal(err); !ok || refusal.Reason != notFound {
		k.Logger.ErrorContext(ctx, "envelope cannot be read", "envelope", id.String(), "error", err)
	}
	return nil
}
