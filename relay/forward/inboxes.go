package forward

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// moveInboxes hands what waits in inboxes here to the new home of agencies that
// have moved, until ctx ends. It looks after each change of the directory, and
// now and then without one: an envelope may enter an inbox on the word of a
// directory that changes at the same moment.
func (f *Forwarder) moveInboxes(ctx context.Context) {
	for {
		changed := f.Directory.Changed()
		start := f.Clock()
		f.emptyInboxes(ctx)
		rest := sweepShare * f.Clock().Sub(start)
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(rest, time.Millisecond)):
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(f.jitter.around(f.Rescan)):
		}
	}
}

// emptyInboxes goes once through the inboxes of all agencies that have another
// home.
func (f *Forwarder) emptyInboxes(ctx context.Context) {
	var last routing.AgencyCode
	for ctx.Err() == nil {
		agencies, err := f.Inboxes.InboxAgencies(last, pageSize)
		if err != nil {
			f.Logger.ErrorContext(ctx, "inboxes cannot be read", "error", err)
			return
		}
		if len(agencies) == 0 {
			return
		}
		for _, code := range agencies {
			agency, known := f.Directory.View().Agency(code)
			if !known || agency.GetHomeRelayId() == "" || agency.GetHomeRelayId() == string(f.Self) {
				continue
			}
			f.emptyInbox(ctx, code)
		}
		last = agencies[len(agencies)-1]
	}
}

func (f *Forwarder) emptyInbox(ctx context.Context, agency routing.AgencyCode) {
	var at envelope.Position
	for ctx.Err() == nil {
		page, err := f.Inboxes.Inbox(agency, at, pageSize)
		if err != nil {
			f.Logger.ErrorContext(ctx, "inbox cannot be read", "agency", agency, "error", err)
			return
		}
		if len(page) == 0 {
			return
		}
		var facts errgroup.Group
		facts.SetLimit(sweepFacts)
		for _, e := range page {
			facts.Go(func() error {
				if _, err := f.rehome(ctx, f.Self, e.ID, []routing.AgencyCode{agency}); err != nil {
					f.Logger.ErrorContext(ctx, "inbox entry cannot be rerouted", "envelope", e.ID.String(), "agency", agency, "error", err)
				}
				return nil
			})
		}
		_ = facts.Wait() // errors are logged one by one
		at = envelope.Position{Lane: page[len(page)-1].Lane, Sequence: page[len(page)-1].Sequence}
	}
}
