package spool

import (
	"context"
	"errors"
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

// span is a time from an instant on, before another; zero: without that end.
type span struct{ from, to time.Time }

// has reports whether the envelope was accepted here from its sender, or taken over
// from a lost ingress, within the span: what audit and statistics count.
func (p span) has(st *state) bool {
	return st.FromSender && !st.CommittedAt.Before(p.from) && (p.to.IsZero() || st.CommittedAt.Before(p.to))
}

// oneInstant gives fn what is known of every envelope at one instant, to count; note
// is told of the counters at the same. Other work goes on meanwhile.
func (s *Spool) oneInstant(ctx context.Context, note func(*step), report func(Finding), fn func(*checker) error) error {
	var v *index.View
	err := s.change(ctx, func(st *step) error {
		// Everything applied so far is counted, and nothing else is seen.
		v = s.store.View()
		note(st)
		return nil
	})
	if v != nil {
		defer v.Close()
	}
	if err != nil {
		return err
	}
	c := newChecker(v, report)
	c.interrupted = func() error {
		select {
		case <-s.ended:
			return errEnded
		default:
			return context.Cause(ctx)
		}
	}
	return fn(c)
}

// Recount counts again, from what is known of every envelope at one instant,
// what became of the recipients accepted since another (zero: ever), and gives
// each whose outcome is not known to each. At the same time it checks that
// whatever is to be done stands in its queue, inbox or list, and nothing else
// does. Other work goes on meanwhile.
func (s *Spool) Recount(ctx context.Context, since time.Time, each func(Pending) error) (*Recount, error) {
	out := new(Recount)
	err := s.oneInstant(ctx, func(st *step) {
		if out.Kept = st.counters.Tally; since.IsZero() {
			out.Counted = st.forgotten
		}
	}, func(f Finding) {
		if len(out.Findings) < maxFindings {
			out.Findings = append(out.Findings, f)
		}
	}, func(c *checker) error {
		c.visit = func(id envelope.ID, st *state, all []*delivery) error {
			if !(span{from: since}).has(st) {
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
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("recount: %w", err)
	}
	return out, nil
}

// Accepted gives each, in no order, what is known at one instant of every envelope
// that this relay has been ingress of from an instant on, before another: those
// whose deliveries Recount counts. Other work goes on meanwhile.
func (s *Spool) Accepted(ctx context.Context, from, to time.Time, each func(*envelope.Record) error) error {
	var found []error
	err := s.oneInstant(ctx, func(*step) {}, func(f Finding) {
		if len(found) < maxFindings {
			found = append(found, errors.New(f.String()))
		}
	}, func(c *checker) error {
		return c.states(func(id envelope.ID, st *state) error {
			if !(span{from, to}).has(st) {
				return nil
			}
			r, err := recordAt(c.v, id, st)
			if err != nil {
				return fmt.Errorf("envelope %s: %w", id, err)
			}
			return each(r)
		})
	})
	if err := errors.Join(append(found, err)...); err != nil {
		return fmt.Errorf("count what was accepted: %w", err)
	}
	return nil
}

// Remembers is for how long, from its acceptance on, an envelope is certain to be
// known here: what Accepted counts of earlier ones is not all.
func (s *Spool) Remembers() time.Duration { return s.cfg.Retention.Record }
