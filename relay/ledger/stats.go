package ledger

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

// Statistics (QD28 Art. 11) are counted when they are asked for, at every relay
// from the records of what it accepted, which are those that the audit counts, and
// joined by key at the relay that was asked. So they add up: the deliveries of all
// keys are those of all relays, which are those of the audit. There is no counter
// that could run apart from the records.

// What statistics can be by.
const (
	ByAgency = "agency"
	ByTier   = "tier"
	ByKind   = "kind"
)

// period is what is asked for, checked.
type period struct {
	lifecycle.Month
	by string
}

// periodOf checks what is asked for: this relay has to remember all of the month.
func (l *Ledger) periodOf(req *adminv1.StatsRequest) (period, error) {
	now := l.config.Clock()
	p := period{Month: lifecycle.MonthOf(now), by: req.GetBy()}
	if req.GetMonth() != "" {
		var err error
		if p.Month, err = lifecycle.ParseMonth(req.GetMonth()); err != nil {
			return period{}, refuseField("month", "%v", err)
		}
	}
	switch p.by {
	case "", ByAgency, ByTier, ByKind:
	default:
		return period{}, refuseField("by", "is %q; statistics are by %s, %s or %s", p.by, ByAgency, ByTier, ByKind)
	}
	if known := now.Add(-l.config.Remembers); !p.Begin().After(known) {
		return period{}, refuseField("month", "%s began before %s, and relay %s does not remember all of what was accepted before then (retention_record)",
			p.Month, known.In(p.Begin().Location()).Format(time.DateOnly), l.config.Self)
	}
	return p, nil
}

// stats counts what this relay accepted in a month: the rows by key, and itself.
func (l *Ledger) stats(ctx context.Context, books Books, p period) (*adminv1.StatsResponse, error) {
	began := time.Now()
	c := &counting{
		by: p.by, calendar: l.config.Calendar, now: l.config.Clock(), view: l.config.Directory.View(),
		own: newRow(string(l.config.Self)), rows: make(map[string]*adminv1.StatsRow), tiers: make(map[routing.AgencyCode]string),
	}
	if err := books.Accepted(ctx, p.Begin(), p.End(), c.envelope); err != nil {
		return nil, fmt.Errorf("statistics of %s: %w", p.Month, err)
	}
	out := &adminv1.StatsResponse{Month: p.String(), Relays: []*adminv1.StatsRow{c.own}}
	for _, row := range c.rows {
		out.Rows = append(out.Rows, row)
	}
	sorted(p.by, out.Rows)
	l.config.Logger.Info("statistics", "month", p.String(), "by", p.by, "sent", c.own.GetSent(),
		"deliveries", c.own.GetDeliveries()+c.own.GetStatuses().GetDeliveries(), "keys", len(out.Rows), "took", time.Since(began))
	return out, nil
}

// counting is one count on its way.
type counting struct {
	by       string
	calendar lifecycle.Calendar
	now      time.Time
	view     routing.View
	// own counts everything, rows what each key sent and what is addressed to it;
	// no rows where nothing is asked for.
	own  *adminv1.StatsRow
	rows map[string]*adminv1.StatsRow
	// tiers are those of the agencies met so far.
	tiers map[routing.AgencyCode]string
}

// envelope counts one envelope and its deliveries.
func (c *counting) envelope(r *envelope.Record) error {
	h := new(exchangev1.Header)
	if err := proto.Unmarshal(r.Header, h); err != nil {
		return fmt.Errorf("header of envelope %s: %w", r.ID, err)
	}
	kind := keyOfKind(h)
	for _, row := range c.rowsOf(r.Sender, kind) {
		c.sent(row, h, r)
	}
	for i := range r.Deliveries {
		d := &r.Deliveries[i]
		for _, row := range c.rowsOf(r.Sender, kind) {
			delivered(row, h, d)
		}
		for _, row := range c.rowsOf(d.Agency, kind) {
			c.addressed(row, h, d)
		}
	}
	return nil
}

// rowsOf are the rows in which counts what an agency did.
func (c *counting) rowsOf(agency routing.AgencyCode, kind string) []*adminv1.StatsRow {
	var key string
	switch c.by {
	case ByAgency:
		key = string(agency)
	case ByTier:
		key = c.tierOf(agency)
	case ByKind:
		key = kind
	default:
		return []*adminv1.StatsRow{c.own}
	}
	row := c.rows[key]
	if row == nil {
		row = newRow(key)
		c.rows[key] = row
	}
	return []*adminv1.StatsRow{c.own, row}
}

func (c *counting) tierOf(code routing.AgencyCode) string {
	if tier, known := c.tiers[code]; known {
		return tier
	}
	tier := KeyUnknown
	if agency, known := c.view.Agency(code); known {
		tier = strconv.FormatUint(uint64(agency.GetTier()), 10)
	}
	c.tiers[code] = tier
	return tier
}

func isDocument(h *exchangev1.Header) bool { return h.GetKind() == exchangev1.Kind_KIND_DOCUMENT }

func keyOfKind(h *exchangev1.Header) string {
	if !isDocument(h) {
		return KeyStatus
	}
	if name := envelope.KindOf(h.GetDocument()).Name(); name != "" {
		return name
	}
	return KeyOther
}

func (c *counting) sent(row *adminv1.StatsRow, h *exchangev1.Header, r *envelope.Record) {
	if !isDocument(h) {
		row.Statuses.Sent++
		return
	}
	row.Sent++
	row.ByPriority[r.Lane]++
	if envelope.Signed(h) {
		row.DigitallySigned++
	}
	switch kept, _ := c.calendar.Sent(h, r.AcceptedAt); kept {
	case lifecycle.OnTime:
		row.OnTime++
	case lifecycle.TooLate:
		row.Late++
	}
}

func delivered(row *adminv1.StatsRow, h *exchangev1.Header, d *envelope.Delivery) {
	if isDocument(h) {
		row.Deliveries++
	} else {
		row.Statuses.Deliveries++
	}
	*outcomeOf(row, isDocument(h), d.Outcome())++
}

func (c *counting) addressed(row *adminv1.StatsRow, h *exchangev1.Header, d *envelope.Delivery) {
	received := d.Outcome() == envelope.Delivered
	if !isDocument(h) {
		row.Statuses.Addressed++
		if received {
			row.Statuses.Received++
		}
		return
	}
	row.Addressed++
	row.ByPhase[d.State().Phase]++
	if received {
		row.Received++
	}
	switch kept, _ := d.Accepted(c.calendar, c.now); kept {
	case lifecycle.OnTime:
		row.AcceptedOnTime++
	case lifecycle.TooLate:
		row.AcceptedLate++
	}
}
