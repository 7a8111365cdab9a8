package keeper

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

const (
	// mostCopies is how many copies may be on their way because of the keeper at
	// once, so that an outage is no storm.
	mostCopies = 64
	// large is the size in bytes from which an envelope that is on its way gets
	// longTransfer before it is copied to another relay as well.
	large        = 64 << 20
	longTransfer = time.Minute
	// copyPatience is how long a relay in reach may take to make a copy before
	// another one is asked too.
	copyPatience = 30 * time.Second
	// soleWindow is how many records one look at the list reads.
	soleWindow = 1000
	// crowdedPause is between two looks while copies are on their way.
	crowdedPause = 250 * time.Millisecond
)

// makeCopies has second copies made of what no other relay has, until ctx ends.
func (k *Keeper) makeCopies(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	c := copying{
		k: k, issued: make(map[envelope.ID]issue), refused: make(map[envelope.ID][]routing.RelayID),
		asked: make(map[envelope.ID]time.Time), silent: make(map[routing.RelayID]bool),
	}
	for ctx.Err() == nil {
		changed, added := k.Directory.Changed(), k.Spool.SoleChanged()
		start := k.Clock()
		wait, listen := c.look(ctx, start)
		rest := share * k.Clock().Sub(start)
		if !listen {
			added = nil
		}
		timer.Reset(max(wait, rest, time.Millisecond))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			continue
		case <-changed:
		case <-added:
		}
		// Additions come in swarms.
		timer.Reset(max(rest, k.CopyAfter/10, time.Millisecond))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
	}
}

// copying is the state between looks; a crash may lose it.
type copying struct {
	k *Keeper
	// after is where the last look ended.
	after uint64
	// issued are copies that were wanted and are not made yet.
	issued map[envelope.ID]issue
	// refused are relays that gave back the duty to make a copy: they do not take
	// this envelope, and would be asked without end.
	refused map[envelope.ID][]routing.RelayID
	// asked is when the relays of stray deliveries were asked after them; silent
	// are those that did not answer in this look.
	asked  map[envelope.ID]time.Time
	silent map[routing.RelayID]bool
}

// issue is when a copy was wanted, and where.
type issue struct {
	at    time.Time
	relay routing.RelayID
}

// maxRemembered bounds how many envelopes are remembered as refused somewhere, or
// asked after; beyond, all of them are tried again.
const maxRemembered = 10_000

// look goes through a part of the list, and says how long to wait for the next
// look, and whether an addition is a reason to look earlier.
func (c *copying) look(ctx context.Context, now time.Time) (wait time.Duration, listen bool) {
	k := c.k
	view := k.Directory.View()
	others, reach := 0, 0
	for _, r := range view.Relays() {
		if id := routing.RelayID(r.GetId()); id != k.Self && stateOf(view, id) == active {
			others++
			if k.usable(view, id) {
				reach++
			}
		}
	}
	switch {
	case others == 0:
		return time.Hour, false // alone; the directory tells of others
	case reach == 0:
		return k.CopyAfter, false
	}
	for id, i := range c.issued {
		// One that takes long, or whose relay went out of reach, lets others have
		// a turn, and is considered again.
		if now.Sub(i.at) >= copyPatience || !k.usable(view, i.relay) || !c.underWay(ctx, id, i.relay) {
			delete(c.issued, id)
		}
	}
	clear(c.silent)
	wait, listen = k.ReviewEvery, true
	first := c.after == 0
	for read := 0; read < soleWindow && ctx.Err() == nil; {
		page, err := k.Spool.Sole(c.after, pageSize)
		if err != nil {
			k.Logger.ErrorContext(ctx, "envelopes without a second copy cannot be read", "error", err)
			return k.ReviewEvery, false
		}
		if len(page) == 0 {
			c.after = 0
			if !first {
				wait = min(wait, k.CopyAfter)
			}
			return wait, listen
		}
		for _, e := range page {
			if len(c.issued) >= mostCopies {
				return min(wait, crowdedPause), false
			}
			if age := ageOf(now, e.Since); age < k.CopyAfter && reach == others {
				// Those behind are younger still.
				c.after = 0
				return min(wait, k.CopyAfter-age), false
			}
			read++
			wait = min(wait, k.CopyAfter)
			c.consider(ctx, view, e, now)
			c.after = e.Sequence
		}
	}
	return min(wait, k.CopyAfter), false
}

// usable reports whether a relay keeps copies just now.
func (k *Keeper) usable(view routing.View, relay routing.RelayID) bool {
	if stateOf(view, relay) != active {
		return false
	}
	_, ok := k.Usable(relay)
	return ok
}

// underWay reports whether a copy that was wanted still waits to be made. Where
// it is not made and nobody waits to make it, it was refused.
func (c *copying) underWay(ctx context.Context, id envelope.ID, relay routing.RelayID) bool {
	record := c.k.record(ctx, id)
	if record == nil || record.Copies > 1 {
		delete(c.refused, id)
		return false
	}
	if slices.Contains(bare(record), relay) {
		return true
	}
	if len(c.refused) >= maxRemembered {
		clear(c.refused)
	}
	c.refused[id] = append(c.refused[id], relay)
	return false
}

// bare lists the relays at which it is a duty to have a copy made.
func bare(record *envelope.Record) (relays []routing.RelayID) {
	for _, duty := range record.Onward {
		if len(duty.Agencies) == 0 {
			relays = append(relays, duty.Relay)
		}
	}
	return relays
}

// consider wants a copy of one envelope, if none is on its way already.
func (c *copying) consider(ctx context.Context, view routing.View, e envelope.SoleEntry, now time.Time) {
	if _, underWay := c.issued[e.ID]; underWay {
		return
	}
	k := c.k
	record := k.record(ctx, e.ID)
	if record == nil || record.ContentReleased || record.Copies > 1 {
		return
	}
	age := ageOf(now, e.Since)
	k.reclaim(ctx, record, view)
	if c.adopt(ctx, record, view, now) {
		return
	}
	delivering := false
	for _, duty := range record.Onward {
		delivering = delivering || len(duty.Agencies) > 0 && k.usable(view, duty.Relay)
	}
	if delivering && (age < k.CopyAfter || e.Size > large && age < longTransfer) {
		return
	}
	relay, underWay := k.wantCopy(ctx, view, record, age < copyPatience, c.refused[e.ID])
	if underWay && !record.Held {
		// What an operator holds waits for him, and is no storm.
		c.issued[e.ID] = issue{now, relay}
	}
}

// wantCopy makes it a duty to have a copy made at a relay in reach, unless it is
// one already and patience is due to that relay; never at more than two, and
// not at those that refused. It reports whether a copy is on its way, and where.
func (k *Keeper) wantCopy(ctx context.Context, view routing.View, record *envelope.Record, patient bool, refused []routing.RelayID) (at routing.RelayID, underWay bool) {
	not := make(map[routing.RelayID]bool)
	for _, relay := range refused {
		not[relay] = true
	}
	keepers := record.Holders
	if record.Copies < 2 {
		// Who has it for some recipients may keep it for the others, too.
		keepers = record.Keepers
	}
	for _, h := range keepers {
		not[h] = true
	}
	for _, duty := range record.Onward {
		// Where it is offered in any case, nothing is won.
		not[duty.Relay] = not[duty.Relay] || k.usable(view, duty.Relay)
	}
	waiting := 0
	fact := envelope.Copy{ID: record.ID, At: k.Clock()}
	for _, relay := range bare(record) {
		if k.usable(view, relay) {
			at = relay
			waiting++
		} else {
			fact.Instead = append(fact.Instead, relay)
		}
	}
	if waiting > 1 || waiting == 1 && patient {
		return at, true
	}
	recipients := make([]routing.AgencyCode, 0, len(record.Deliveries))
	for _, d := range record.Deliveries {
		if d.Place != envelope.Settled {
			recipients = append(recipients, d.Agency)
		}
	}
	var ok bool
	fact.Relay, ok = view.CopyHolder(k.Self, recipients, not, func(relay routing.RelayID) (time.Duration, bool) {
		if !k.usable(view, relay) {
			return 0, false
		}
		return k.Usable(relay)
	})
	if !ok {
		return at, waiting > 0
	}
	if err := k.Spool.Copy(ctx, fact); err != nil {
		k.Logger.ErrorContext(ctx, "second copy cannot be made a duty", "envelope", record.ID.String(), "relay", fact.Relay, "error", err)
		return "", false
	}
	k.telemetry.copies.Add(ctx, 1)
	k.Logger.InfoContext(ctx, "second copy wanted", "envelope", record.ID.String(), "relay", fact.Relay, "instead", len(fact.Instead))
	return fact.Relay, true
}

// adopt looks after deliveries that are elsewhere, of an envelope that no other
// relay has. Where they went it is asked first: it may have had the envelope
// before, from another ingress, and have let it go because they had ended. What
// is in custody of nobody who is known is sent again. It reports whether
// anything has changed.
func (c *copying) adopt(ctx context.Context, record *envelope.Record, view routing.View, now time.Time) bool {
	k := c.k
	strays := make(map[routing.RelayID]*matter)
	for i := range record.Deliveries {
		if d := &record.Deliveries[i]; d.Place == envelope.Elsewhere {
			if strays[d.Home] == nil {
				strays[d.Home] = &matter{record: record}
			}
			strays[d.Home].concerned = append(strays[d.Home].concerned, d)
		}
	}
	if len(strays) == 0 || now.Sub(c.asked[record.ID]).Abs() < young {
		return false
	}
	if len(c.asked) >= maxRemembered {
		clear(c.asked)
	}
	c.asked[record.ID] = now
	changed := false
	var routes routes
	for _, relay := range slices.Sorted(maps.Keys(strays)) {
		r := k.review(relay, nil)
		if relay != k.Self && stateOf(view, relay).inService() && !c.silent[relay] {
			err := r.settleMatters(ctx, []*matter{strays[relay]})
			if err == nil {
				changed = true
				continue
			}
			c.silent[relay] = true
			k.Logger.InfoContext(ctx, "relay is silent about an envelope", "envelope", record.ID.String(), "relay", relay, "error", err)
		}
		for _, d := range strays[relay].concerned {
			if home := homeOf(view, d.Agency); home != "" && ageOf(now, d.UpdatedAt) >= young {
				routes.again(d, home, home == k.Self)
			}
		}
	}
	if routes.empty() {
		return changed
	}
	k.resend(ctx, record, &routes, "", false)
	return true
}

// secure has another copy made of an envelope that only relays have that are
// leaving: copies there do not count.
func (r *review) secure(ctx context.Context, record *envelope.Record) {
	for _, h := range record.Holders {
		if stateOf(r.view, h) == active {
			return
		}
	}
	if r.wanted >= mostCopies {
		return
	}
	for _, duty := range record.Onward {
		if len(duty.Agencies) > 0 && r.k.usable(r.view, duty.Relay) {
			return // on its way to a relay that stays
		}
	}
	if _, underWay := r.k.wantCopy(ctx, r.view, record, true, nil); underWay {
		r.wanted++
	}
}
