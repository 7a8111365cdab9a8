package forward

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// sweepShare bounds what sweeping may cost: after a sweep comes a rest so many
// times as long.
const sweepShare = 10

// sweepFacts is how many facts of a sweep are recorded at once.
const sweepFacts = 32

// sweep goes through the whole queue after a change of the directory and
// reroutes the recipients that have another home now; those that flow would be
// rerouted at their offer, but not those that wait. What is under way meanwhile
// may come back to wait: then it sweeps again. It returns when to sweep next.
func (fd *feeder) sweep(ctx context.Context) (next time.Time) {
	if !fd.sweepWanted {
		return time.Time{}
	}
	start := fd.f.Clock()
	if start.Before(fd.sweepAfter) {
		return fd.sweepAfter
	}
	fd.sweepWanted, fd.passedOver = false, false
	abandoned := fd.abandoned()
	for _, lane := range fd.lanes {
		at := before(lane)
		for ctx.Err() == nil {
			page, err := fd.f.Queues.Queue(fd.d.relay, at, pageSize)
			if err != nil {
				fd.f.Logger.ErrorContext(ctx, "queue cannot be read", "peer", fd.d.relay, "error", err)
				break
			}
			page = slices.DeleteFunc(page, func(e envelope.QueueEntry) bool { return e.Lane != lane })
			if len(page) == 0 {
				break
			}
			at = envelope.Position{Lane: lane, Sequence: page[len(page)-1].Sequence}
			fd.sweepPage(ctx, page, abandoned)
		}
	}
	now := fd.f.Clock()
	fd.sweepAfter = now.Add(sweepShare * now.Sub(start))
	return time.Time{}
}

func (fd *feeder) sweepPage(ctx context.Context, page []envelope.QueueEntry, abandoned bool) {
	var facts errgroup.Group
	facts.SetLimit(sweepFacts)
	for _, e := range page {
		if fd.underWay[e.ID] {
			fd.passedOver = true
			continue
		}
		facts.Go(func() error {
			var err error
			if abandoned && len(e.Onward.Agencies) == 0 {
				err = fd.f.giveUpBare(ctx, fd.d.relay, e.ID, "its destination left the mesh")
			} else {
				_, err = fd.f.rehome(ctx, fd.d.relay, e.ID, e.Onward.Agencies)
			}
			if err != nil {
				fd.f.Logger.ErrorContext(ctx, "duty cannot be rerouted", "envelope", e.ID.String(), "peer", fd.d.relay, "error", err)
			}
			return nil
		})
	}
	_ = facts.Wait() // errors are logged one by one
}

// abandoned reports whether the destination has left the mesh for good.
func (fd *feeder) abandoned() bool {
	r, ok := fd.f.Directory.View().Relay(fd.d.relay)
	return ok && !serves(r)
}

// rehome reroutes those recipients of a duty whose home is no longer the
// destination, and returns those that stay. A recipient that the directory does
// not know stays: this copy of the directory may be behind.
func (f *Forwarder) rehome(ctx context.Context, destination routing.RelayID, id envelope.ID, agencies []routing.AgencyCode) (stay []routing.AgencyCode, err error) {
	view := f.Directory.View()
	moved := make(map[routing.RelayID][]routing.AgencyCode)
	for _, code := range agencies {
		home := destination
		if agency, ok := view.Agency(code); ok && agency.GetHomeRelayId() != "" {
			home = routing.RelayID(agency.GetHomeRelayId())
		} else if destination == f.Self {
			stay = append(stay, code)
			continue
		}
		if home == destination && destination != f.Self {
			stay = append(stay, code)
			continue
		}
		moved[home] = append(moved[home], code)
	}
	if len(moved) == 0 {
		return stay, nil
	}
	fact := envelope.Reroute{ID: id, From: destination, At: f.Clock()}
	for home, codes := range moved {
		fact.Agencies = append(fact.Agencies, codes...)
		if home == f.Self {
			fact.Inboxes = codes
		} else {
			fact.Onward = append(fact.Onward, envelope.Onward{Relay: home, Agencies: codes})
		}
	}
	slices.Sort(fact.Agencies)
	slices.SortFunc(fact.Onward, func(a, b envelope.Onward) int {
		if a.Relay < b.Relay {
			return -1
		}
		return 1
	})
	if err := f.Facts.Reroute(ctx, fact); err != nil {
		return stay, fmt.Errorf("reroute %s from %s: %w", id, destination, err)
	}
	f.Logger.InfoContext(ctx, "recipients rerouted", "envelope", id.String(), "from", destination, "recipients", len(fact.Agencies))
	return stay, nil
}

// giveUpBare ends a duty without recipients that nobody will take: a report, or
// a copy, which the relay that accepted the envelope has made elsewhere. There
// is no delivery to settle.
func (f *Forwarder) giveUpBare(ctx context.Context, destination routing.RelayID, id envelope.ID, why string) error {
	f.Logger.WarnContext(ctx, "report or copy is given up", "envelope", id.String(), "peer", destination, "why", why)
	err := f.Facts.HandOn(ctx, envelope.HandedOn{ID: id, Destination: destination, Peer: f.Self, At: f.Clock()})
	if err != nil {
		return fmt.Errorf("give up report or copy %s to %s: %w", id, destination, err)
	}
	return nil
}
