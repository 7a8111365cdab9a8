package relay

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// shapeAges are the upper ends of the columns of ShapeQueue.
var shapeAges = []time.Duration{
	time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour,
}

// shapeInboxes is how many inboxes get a row of their own.
const shapeInboxes = 100

// ShapeQueue counts what waits here by destination and age. The fullest inboxes
// have a row each; one row without relay and agency is all the others together,
// and one is what was given up and is kept.
func (c *custodyService) ShapeQueue(ctx context.Context, _ *adminv1.ShapeQueueRequest) (*adminv1.ShapeQueueResponse, error) {
	s := shape{now: c.relay.config.Clock()}
	relays, err := c.spool.Destinations()
	if err != nil {
		return nil, err
	}
	var rows []*adminv1.ShapeRow
	for _, relay := range relays {
		row := s.row()
		row.RelayId = string(relay)
		err := eachQueued(ctx, c.spool, relay, func(e envelope.QueueEntry) error { return s.count(row, e.QueuedAt, e.Size) })
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	inboxes, rest := []*adminv1.ShapeRow(nil), s.row()
	err = eachInbox(c.spool, func(agency routing.AgencyCode) error {
		row := s.row()
		row.AgencyCode = string(agency)
		err := eachInboxed(ctx, c.spool, agency, func(e envelope.InboxEntry) error { return s.count(row, e.ArrivedAt, e.Size) })
		if inboxes = append(inboxes, row); len(inboxes) >= 2*shapeInboxes {
			inboxes = fold(inboxes, rest)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	rows = append(rows, append(fold(inboxes, rest), rest)...)
	dead := s.row()
	dead.Expired = true
	err = eachDeadLetter(ctx, c.spool, func(record *envelope.Record) error {
		letters := deadLettersOf(record)
		if len(letters) == 0 {
			return nil
		}
		since := letters[0].UpdatedAt
		for _, d := range letters {
			if d.UpdatedAt.Before(since) {
				since = d.UpdatedAt
			}
		}
		return s.count(dead, since, record.Size())
	})
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(append(rows, dead), func(r *adminv1.ShapeRow) bool { return total(r) == 0 })
	byTotal(rows)
	response := &adminv1.ShapeQueueResponse{Rows: rows}
	for _, age := range shapeAges {
		response.Ages = append(response.Ages, durationpb.New(age))
	}
	return response, nil
}

type shape struct{ now time.Time }

func (s shape) row() *adminv1.ShapeRow {
	return &adminv1.ShapeRow{Counts: make([]uint64, len(shapeAges)+1)}
}

func (s shape) count(row *adminv1.ShapeRow, since time.Time, size uint64) error {
	age := s.now.Sub(since)
	column := slices.IndexFunc(shapeAges, func(end time.Duration) bool { return age <= end })
	if column < 0 {
		column = len(shapeAges)
	}
	row.Counts[column]++
	row.Size += size
	return nil
}

// fold keeps the rows with the most entries, and adds the others to rest.
func fold(rows []*adminv1.ShapeRow, rest *adminv1.ShapeRow) []*adminv1.ShapeRow {
	byTotal(rows)
	for _, row := range rows[min(len(rows), shapeInboxes):] {
		for i, n := range row.GetCounts() {
			rest.Counts[i] += n
		}
		rest.Size += row.GetSize()
	}
	return rows[:min(len(rows), shapeInboxes)]
}

func byTotal(rows []*adminv1.ShapeRow) {
	slices.SortStableFunc(rows, func(a, b *adminv1.ShapeRow) int {
		switch x, y := total(a), total(b); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
}

func total(r *adminv1.ShapeRow) (n uint64) {
	for _, count := range r.GetCounts() {
		n += count
	}
	return n
}

// eachQueued calls fn for every entry of the queue for one destination.
func eachQueued(ctx context.Context, s *spool.Spool, relay routing.RelayID, fn func(envelope.QueueEntry) error) error {
	return eachEntry(ctx, func(after envelope.Position) ([]envelope.QueueEntry, error) {
		return s.Queue(relay, after, custodyPage)
	},
		func(e envelope.QueueEntry) envelope.Position {
			return envelope.Position{Lane: e.Lane, Sequence: e.Sequence}
		}, fn)
}

// eachInboxed calls fn for every entry of an inbox.
func eachInboxed(ctx context.Context, s *spool.Spool, agency routing.AgencyCode, fn func(envelope.InboxEntry) error) error {
	return eachEntry(ctx, func(after envelope.Position) ([]envelope.InboxEntry, error) {
		return s.Inbox(agency, after, custodyPage)
	},
		func(e envelope.InboxEntry) envelope.Position {
			return envelope.Position{Lane: e.Lane, Sequence: e.Sequence}
		}, fn)
}

// eachEntry reads a list of entries page by page.
func eachEntry[E any](ctx context.Context, read func(after envelope.Position) ([]E, error), at func(E) envelope.Position, fn func(E) error) error {
	for after := (envelope.Position{}); ; {
		page, err := read(after)
		if err != nil {
			return err
		}
		for _, e := range page {
			after = at(e)
			if err := fn(e); err != nil {
				return err
			}
		}
		if len(page) < custodyPage {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
