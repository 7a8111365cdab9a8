package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Remaining counts, for who drains, the envelopes here that no other relay in
// service is known to have or to have settled: what has no copy, what waits
// here, what was handed on and not confirmed by those who took it, and copies
// that are kept here and would be missed. It asks the other relays, and so may take some seconds; what is
// silent has confirmed nothing.
func (k *Keeper) Remaining(ctx context.Context) (uint64, error) {
	t := tally{found: make(map[envelope.ID]findings)}
	if err := k.countSole(ctx, &t); err != nil {
		return 0, fmt.Errorf("count what has no second copy: %w", err)
	}
	if err := k.countOrigins(ctx, &t); err != nil {
		return 0, fmt.Errorf("count what is here for others: %w", err)
	}
	if err := k.countAway(ctx, &t); err != nil {
		return 0, fmt.Errorf("count what was handed on: %w", err)
	}
	return t.sum(), nil
}

// findings are a set of finding.
type findings uint8

// tally counts envelopes once each, however many relays have something to do
// with them; beyond mostCounted, memory matters more, and some count twice.
type tally struct {
	found map[envelope.ID]findings
	over  uint64
}

const mostCounted = 100_000

func (t *tally) add(id envelope.ID, what finding) {
	if _, seen := t.found[id]; !seen && len(t.found) >= mostCounted {
		if what != confirmed {
			t.over++
		}
		return
	}
	t.found[id] |= 1 << what
}

// sum counts what is lost, and what is doubted and confirmed by nobody.
func (t *tally) sum() uint64 {
	n := t.over
	for _, f := range t.found {
		if f&(1<<lost) != 0 || f == 1<<doubted {
			n++
		}
	}
	return n
}

func (k *Keeper) countSole(ctx context.Context, t *tally) error {
	var after uint64
	for ctx.Err() == nil {
		page, err := k.Spool.Sole(after, pageSize)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, e := range page {
			t.add(e.ID, lost)
		}
		after = page[len(page)-1].Sequence
	}
	return ctx.Err()
}

func (k *Keeper) countOrigins(ctx context.Context, t *tally) error {
	origins, err := k.Spool.Origins()
	if err != nil {
		return err
	}
	for _, ingress := range origins {
		err := pages(ctx, func(after envelope.ID, max int) ([]envelope.ID, error) {
			return k.Spool.Origin(ingress, after, max)
		}, func(id envelope.ID) error {
			record := k.record(ctx, id)
			switch {
			case record == nil, record.Report:
			case waits(record):
				t.add(id, lost)
			case len(keptIn(record)) > 0:
				t.add(id, doubted)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if !stateOf(k.Directory.View(), ingress).inService() {
			continue
		}
		r := k.review(ingress, func(envelope.ID, time.Duration) bool { return true })
		r.told = t.add
		if err := r.origin(ctx); err != nil && !errors.Is(err, errSilent) {
			return err
		}
	}
	return nil
}

// waits reports whether somebody's delivery waits here.
func waits(record *envelope.Record) bool {
	for i := range record.Deliveries {
		switch record.Deliveries[i].Place {
		case envelope.InInbox, envelope.InQueue:
			return true
		}
	}
	return false
}

// countAway looks at every envelope that was handed on, whatever its age.
func (k *Keeper) countAway(ctx context.Context, t *tally) error {
	holders, err := k.Spool.Holders()
	if err != nil {
		return err
	}
	for _, holder := range holders {
		inService := stateOf(k.Directory.View(), holder).inService()
		err := pages(ctx, func(after envelope.ID, max int) ([]envelope.ID, error) {
			return k.Spool.Away(holder, after, max)
		}, func(id envelope.ID) error {
			record := k.record(ctx, id)
			switch {
			case record == nil:
			case waits(record):
				t.add(id, lost)
			case !inService && len(concerned(record, holder)) > 0:
				t.add(id, lost)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if !inService {
			continue
		}
		r := k.review(holder, func(envelope.ID, time.Duration) bool { return true })
		r.told = t.add
		err = r.holder(ctx)
		if errors.Is(err, errSilent) {
			err = r.unanswered(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unanswered tells what is believed to be at a relay that is silent.
func (r *review) unanswered(ctx context.Context) error {
	return pages(ctx, func(after envelope.ID, max int) ([]envelope.ID, error) {
		return r.k.Spool.Away(r.relay, after, max)
	}, func(id envelope.ID) error {
		if record := r.k.record(ctx, id); record != nil {
			r.told(id, unconfirmed(record, r.relay))
		}
		return nil
	})
}

// unconfirmed is what is known of an envelope without the word of a holder.
func unconfirmed(record *envelope.Record, holder routing.RelayID) finding {
	what := confirmed
	for _, d := range concerned(record, holder) {
		if d.Home == holder {
			return lost
		}
		what = doubted
	}
	return what
}
