package relay

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
)

// Targets are the delivery targets by lane: how long after its acceptance at the
// ingress, hỏa tốc hẹn giờ after its hour, every recipient has confirmed an
// envelope. Beyond that it is late. The law wants urgent documents sent and
// presented at once and gives no number (QD28 Art. 6); these are the operator's.
type Targets [len(envelope.LaneOrder)]time.Duration

// defaultTargets take the place of zeros.
var defaultTargets = Targets{
	exchangev1.Priority_PRIORITY_THUONG:          24 * time.Hour,
	exchangev1.Priority_PRIORITY_KHAN:            15 * time.Minute,
	exchangev1.Priority_PRIORITY_THUONG_KHAN:     5 * time.Minute,
	exchangev1.Priority_PRIORITY_HOA_TOC:         time.Minute,
	exchangev1.Priority_PRIORITY_HOA_TOC_HEN_GIO: time.Minute,
}

func (t *Targets) complete() error {
	for lane, target := range t {
		if target < 0 {
			return fmt.Errorf("delivery target of lane %d is negative", lane)
		}
		if target == 0 {
			t[lane] = defaultTargets[lane]
		}
	}
	return nil
}

// late reports whether the target of what runs since then is missed.
func (t *Targets) late(lane envelope.Lane, since, now time.Time) bool {
	return now.Sub(since) > t[lane]
}

const (
	// latePage bounds how many envelopes of a lane are told as late in one look;
	// the others are in the next.
	latePage = 512
	// maxLate is how far the metric counts in each lane.
	maxLate = 10_000
)

// lateness is the alarm for what was accepted here and is not confirmed by every
// recipient in time, wherever it waits: the ingress knows. It reads only what is
// late, from a list by lane and time.
type lateness struct {
	relay *Relay
	spool interface {
		Undelivered(lane envelope.Lane, after envelope.Due, end time.Time, max int) ([]envelope.Due, error)
	}
	// told is the last envelope of each lane that was told. One that comes to be
	// undelivered again behind it, revived or taken over from a lost ingress, is
	// counted and not told: an operator brought it back.
	told   [len(envelope.LaneOrder)]envelope.Due
	missed metric.Int64Counter
	with   [len(envelope.LaneOrder)]metric.MeasurementOption
}

// watchLate tells of what becomes late until ctx ends.
func (r *Relay) watchLate(ctx context.Context, s *spool.Spool) error {
	l, stop, err := r.newLateness(s)
	if err != nil {
		return err
	}
	defer stop()
	tick := time.NewTicker(r.config.LookEvery)
	defer tick.Stop()
	for {
		if err := l.look(ctx); err != nil && ctx.Err() == nil {
			r.config.Logger.Error("late deliveries are not known", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Relay) newLateness(s *spool.Spool) (_ *lateness, stop func(), err error) {
	l := &lateness{relay: r, spool: s}
	meter := r.config.Meters.Meter("truc/relay")
	if l.missed, err = meter.Int64Counter("truc.delivery.missed", metric.WithUnit("{envelope}"),
		metric.WithDescription("Envelopes accepted here that became late: not every recipient had confirmed them within the target of their lane.")); err != nil {
		return nil, nil, fmt.Errorf("late deliveries: %w", err)
	}
	late, err := meter.Int64ObservableGauge("truc.delivery.late", metric.WithUnit("{envelope}"),
		metric.WithDescription("Envelopes accepted here that are late, by lane; counted to 10000."))
	if err != nil {
		return nil, nil, fmt.Errorf("late deliveries: %w", err)
	}
	now := r.config.Clock()
	for lane := range l.told {
		l.with[lane] = metric.WithAttributeSet(attribute.NewSet(attribute.Int("lane", lane)))
		// What was late before the start is not told one by one again.
		l.told[lane].At = now.Add(-r.config.Targets[lane])
		n, err := l.count(envelope.Lane(lane), now)
		if err != nil {
			return nil, nil, fmt.Errorf("late deliveries: %w", err)
		}
		if n > 0 {
			r.config.Logger.Warn("deliveries were late before this start", "lane", lane, "envelopes", n)
		}
	}
	registered, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for lane := range l.with {
			n, err := l.count(envelope.Lane(lane), r.config.Clock())
			if err != nil {
				return err
			}
			o.ObserveInt64(late, int64(n), l.with[lane])
		}
		return nil
	}, late)
	if err != nil {
		return nil, nil, fmt.Errorf("late deliveries: %w", err)
	}
	return l, func() { _ = registered.Unregister() }, nil
}

// count is how many envelopes of a lane are late.
func (l *lateness) count(lane envelope.Lane, now time.Time) (int, error) {
	page, err := l.spool.Undelivered(lane, envelope.Due{}, now.Add(-l.relay.config.Targets[lane]), maxLate)
	return len(page), err
}

// look tells once of each envelope that has become late since the last look.
func (l *lateness) look(ctx context.Context) error {
	now, c := l.relay.config.Clock(), &l.relay.config
	for lane := range l.told {
		page, err := l.spool.Undelivered(envelope.Lane(lane), l.told[lane], now.Add(-c.Targets[lane]), latePage)
		if err != nil {
			return err
		}
		for _, e := range page {
			l.told[lane] = e
			l.missed.Add(ctx, 1, l.with[lane])
			c.Logger.Warn("delivery is late", "envelope", e.ID.String(), "lane", lane, "since", e.At, "target", c.Targets[lane].String())
		}
	}
	return nil
}
