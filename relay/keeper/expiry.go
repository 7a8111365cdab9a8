package keeper

import (
	"context"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
)

const (
	// grace is how long after its end a delivery that another relay has custody
	// of may still be reported, so that the report of its home comes first; and
	// how much longer a copy is kept than the envelope lives.
	grace = time.Hour
	// wholeList is how often expiry begins at the beginning of the list: for
	// what is in its grace, what came here late, and after the clock was put back.
	wholeList = time.Minute
	// settleAtOnce is how many deliveries end in one call.
	settleAtOnce = 500
)

// endExpired ends deliveries whose lifetime is over, until ctx ends.
func (k *Keeper) endExpired(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var mark envelope.Due
	var whole time.Time // of the next walk from the beginning
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		start := k.Clock()
		fromStart := !start.Before(whole) || start.Add(wholeList*2).Before(whole) || start.Before(mark.At)
		if fromStart {
			mark = envelope.Due{}
		}
		mark = k.expireAfter(ctx, mark, start)
		took := k.Clock().Sub(start)
		if fromStart {
			whole = k.Clock().Add(max(wholeList, share*took))
		}
		timer.Reset(max(k.ExpireEvery, share*took))
	}
}

// expireAfter ends what expired up to now, behind a place in the list, and
// returns the last place.
func (k *Keeper) expireAfter(ctx context.Context, after envelope.Due, now time.Time) envelope.Due {
	for ctx.Err() == nil {
		page, err := k.Spool.Expired(now, after, pageSize)
		if err != nil {
			k.Logger.ErrorContext(ctx, "what has expired cannot be read", "error", err)
			return after
		}
		if len(page) == 0 {
			return after
		}
		for _, due := range page {
			if ctx.Err() != nil {
				return after
			}
			k.expire(ctx, due.ID, now)
			after = due
		}
	}
	return after
}

// expire ends one envelope: what waits here with a report to the ingress, what
// others have custody of, and copies, after a grace. A failure stops nothing
// but this envelope, which is tried again later.
func (k *Keeper) expire(ctx context.Context, id envelope.ID, now time.Time) {
	record := k.record(ctx, id)
	if record == nil || now.Before(record.ExpiresAt) {
		return
	}
	log := k.Logger.With("envelope", id.String())
	afterGrace := !now.Before(record.ExpiresAt.Add(grace))
	var batch []envelope.Settlement
	ended := 0
	settle := func() bool {
		if len(batch) == 0 {
			return true
		}
		n, err := k.Spool.Settle(ctx, batch)
		batch, ended = nil, ended+n
		if err != nil && ctx.Err() == nil {
			log.ErrorContext(ctx, "expired deliveries cannot be settled", "error", err)
		}
		return err == nil
	}
	for i := range record.Deliveries {
		d := &record.Deliveries[i]
		waits := d.Place == envelope.InInbox || d.Place == envelope.InQueue
		over := afterGrace && (d.Place == envelope.Kept || d.Place == envelope.Elsewhere && record.FromSender)
		if !waits && !over {
			continue
		}
		s := envelope.Settlement{
			ID: id, Agency: d.Agency, Transport: fail, Reason: expired,
			Note: "its lifetime is over", At: now,
		}
		if waits {
			var err error
			if s.Report, err = envelope.ReportFor(record, k.Self, s); err != nil {
				log.ErrorContext(ctx, "expiry cannot be reported", "agency", d.Agency, "error", err)
				continue
			}
		}
		if batch = append(batch, s); len(batch) == settleAtOnce && !settle() {
			return
		}
	}
	if !settle() {
		return
	}
	if ended > 0 {
		k.telemetry.expired.Add(ctx, int64(ended))
		log.WarnContext(ctx, "deliveries expired", "recipients", ended, "ingress", record.Ingress)
	}
	for _, duty := range record.Onward {
		if len(duty.Agencies) > 0 {
			continue
		}
		// A copy, or a report, that nobody took.
		if err := k.Spool.HandOn(ctx, envelope.HandedOn{ID: id, Destination: duty.Relay, Peer: k.Self, At: now}); err != nil && ctx.Err() == nil {
			log.ErrorContext(ctx, "duty of an expired envelope cannot be given up", "peer", duty.Relay, "error", err)
		}
	}
}
