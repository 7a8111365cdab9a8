package keeper

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// leave sends again, without asking, what a relay that left the mesh had custody
// of, to the homes that the directory names now, and forgets it as a holder.
// Until then the recipients receive nothing, so many facts are recorded at once.
func (k *Keeper) leave(ctx context.Context, relay routing.RelayID) error {
	view := k.Directory.View()
	var group errgroup.Group
	group.SetLimit(facts)
	err := pages(ctx, func(after envelope.ID, max int) ([]envelope.ID, error) {
		return k.Spool.Away(relay, after, max)
	}, func(id envelope.ID) error {
		group.Go(func() error {
			record := k.record(ctx, id)
			if record == nil {
				return nil
			}
			var routes routes
			homeless := false
			for _, d := range concerned(record, relay) {
				home := homeOf(view, d.Agency)
				if home == "" {
					homeless = true // the copy of the directory may be behind
					continue
				}
				routes.again(d, home, home == k.Self)
			}
			k.resend(ctx, record, &routes, relay, !homeless)
			return nil
		})
		return nil
	})
	_ = group.Wait() // failures are logged one by one
	return err
}

// takeOver makes this relay the ingress of what a relay that left the mesh was
// the ingress of. A relay that left the mesh itself takes nothing over: others
// do, and have its recipients.
func (k *Keeper) takeOver(ctx context.Context, ingress routing.RelayID) error {
	if !stateOf(k.Directory.View(), k.Self).inService() {
		return nil
	}
	var group errgroup.Group
	group.SetLimit(facts)
	err := pages(ctx, func(after envelope.ID, max int) ([]envelope.ID, error) {
		return k.Spool.Origin(ingress, after, max)
	}, func(id envelope.ID) error {
		group.Go(func() error {
			if record := k.record(ctx, id); record != nil && !record.Report {
				k.takeOne(ctx, record)
			}
			return nil
		})
		return nil
	})
	_ = group.Wait() // failures are logged one by one
	return err
}

// takeOne makes this relay remember one envelope in place of its ingress.
// Recipients for whom a copy was kept become duties; what waits here anyway goes
// on as it is.
func (k *Keeper) takeOne(ctx context.Context, record *envelope.Record) {
	view := k.Directory.View()
	fact := envelope.TakeOver{ID: record.ID, At: k.Clock()}
	for _, d := range keptIn(record) {
		switch home := homeOf(view, d.Agency); home {
		case k.Self:
			fact.Inboxes = append(fact.Inboxes, d.Agency)
		case "":
			// The copy stays, until the directory knows the recipient; see reclaim.
		default:
			fact.Onward = join(fact.Onward, home, d.Agency)
		}
	}
	if err := k.Spool.TakeOver(ctx, fact); err != nil {
		k.Logger.ErrorContext(ctx, "envelope cannot be taken over", "envelope", record.ID.String(), "ingress", record.Ingress, "error", err)
		return
	}
	k.telemetry.takenOver.Add(ctx, 1)
	k.Logger.WarnContext(ctx, "envelope taken over from its ingress", "envelope", record.ID.String(), "ingress", record.Ingress,
		"inboxes", len(fact.Inboxes), "onward", len(fact.Onward))
}

// reclaim makes duties of copies in an envelope that was taken over whose
// recipients the directory did not have then, and has now.
func (k *Keeper) reclaim(ctx context.Context, record *envelope.Record, view routing.View) {
	if slices.ContainsFunc(keptIn(record), func(d *envelope.Delivery) bool { return homeOf(view, d.Agency) != "" }) {
		k.takeOne(ctx, record)
	}
}

// keptIn lists the deliveries for which a copy is kept here.
func keptIn(record *envelope.Record) []*envelope.Delivery {
	var list []*envelope.Delivery
	for i := range record.Deliveries {
		if d := &record.Deliveries[i]; d.Place == envelope.Kept {
			list = append(list, d)
		}
	}
	return list
}
