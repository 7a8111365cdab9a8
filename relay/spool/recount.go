package spool

import (
	"context"
	"fmt"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

// Pending is a recipient, of an envelope that this relay is ingress of, whose
// outcome is not known.
type Pending struct {
	ID     envelope.ID
	Agency routing.AgencyCode
	Place  envelope.Place
	// Home is the relay that delivers, as far as this one knows.
	Home routing.RelayID
}

// Recount is what Spool.Recount found.
type Recount struct {
	// Counted is recounted from the records of the envelopes that this relay
	// has been ingress of since the instant asked for; since ever, those that
	// are forgotten are counted in. Kept is the tally that runs since ever, at
	// the same instant: equal to Counted if that is since ever too.
	Counted, Kept Tally
	// Findings are what breaks the crash rule, the first 1,000 of it.
	Findings []Finding
}

// maxFindings bounds Recount.Findings.
const maxFindings = 1000

// Recount counts again, from what is known of every envelope at one instant,
// what became of the recipients accepted since another (zero: ever), and gives
// each whose outcome is not known to each. At the same time it checks that
// whatever is to be done stands in its queue, inbox or list, and nothing else
// does. Other work goes on meanwhile.
func (s *Spool) Recount(ctx context.Context, since time.Time, each func(Pending) error) (*Recount, error) {
	out := new(Recount)
	var v *index.View
	err := s.change(ctx, func(st *step) error {
		// Everything applied so far is counted, and nothing else is seen.
		v, out.Kept = s.store.View(), st.counters.Tally
		if since.IsZero() {
			out.Counted = st.forgotten
		}
		return nil
	})
	if v != nil {
		defer v.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("recount: %w", err)
	}
	c := newChecker(v, func(f Finding) {
		if len(out.Findings) < maxFindings {
			out.Findings = append(out.Findings, f)
		}
	})
	c.interrupted = func() error {
		select {
		case <-s.ended:
			return errEnded
		default:
			return context.Cause(ctx)
		}
	}
	c.visit = func(id envelope.ID, st *state, all []*delivery) error {
		if !st.FromSender || st.CommittedAt.Before(since) {
			return nil
		}
		for _, d := range all {
			out.Counted.add(d, 1)
			if d.Place == settled || each == nil {
				continue
			}
			if err := each(Pending{ID: id, Agency: d.Agency, Place: d.Place, Home: d.Home}); err != nil {
				return err
			}
		}
		return nil
	}
	for _, pass := range []func() error{c.envelopes, c.queues, c.inboxes, c.waitings, c.aways, c.origins, c.soles, c.dead, c.held, c.undelivered} {
		if err := pass(); err != nil {
			return nil, fmt.Errorf("recount: %w", err)
		}
	}
	return out, nil
}
