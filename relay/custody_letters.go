package relay

import (
	"context"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// Dead letters are deliveries that were given up, of envelopes accepted here and
// kept with their content for an operator.

// deadLetters lists all of them, those that were given up first in front.
func (l *listing) deadLetters() error {
	return eachDeadLetter(l.stream.Context(), l.spool, l.givenUp)
}

// eachDeadLetter calls fn for every envelope with dead letters.
func eachDeadLetter(ctx context.Context, s *spool.Spool, fn func(*envelope.Record) error) error {
	for after := (envelope.Due{}); ; {
		page, err := s.DeadLetters(after, custodyPage)
		if err != nil {
			return err
		}
		for _, due := range page {
			after = due
			record, err := s.Record(due.ID)
			if notFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			if err := fn(record); err != nil {
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

// givenUp lists the dead letters of one envelope, one entry per home relay.
func (l *listing) givenUp(record *envelope.Record) error {
	entries := make(map[routing.RelayID]*adminv1.QueueEntry)
	var homes []routing.RelayID
	for _, d := range deadLettersOf(record) {
		if l.agency != "" && d.Agency != l.agency {
			continue
		}
		e := entries[d.Home]
		if e == nil {
			e = &adminv1.QueueEntry{
				EnvelopeId: record.ID[:], RelayId: string(d.Home), AgencyCode: string(d.Agency),
				Priority: exchangev1.Priority(record.Lane), Since: timestamppb.New(d.UpdatedAt),
				Expired: true, Size: record.Size(), LastError: whyGivenUp(d),
			}
			entries[d.Home] = e
			homes = append(homes, d.Home)
		} else {
			e.AgencyCode = ""
		}
		e.Recipients++
		if d.UpdatedAt.Before(e.GetSince().AsTime()) {
			e.Since = timestamppb.New(d.UpdatedAt)
		}
	}
	for _, home := range homes {
		if err := l.send(entries[home]); err != nil {
			return err
		}
	}
	return nil
}

// deadLettersOf returns the deliveries of an envelope that were given up and can
// be made duties again.
func deadLettersOf(record *envelope.Record) []envelope.Delivery {
	if !record.FromSender || record.ContentReleased {
		return nil
	}
	var dead []envelope.Delivery
	for _, d := range record.Deliveries {
		if d.Place == envelope.Settled && d.Transport == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL &&
			d.Reason != exchangev1.ErrorReason_ERROR_REASON_RECALLED {
			dead = append(dead, d)
		}
	}
	return dead
}

func whyGivenUp(d envelope.Delivery) string {
	reason := strings.TrimPrefix(d.Reason.String(), "ERROR_REASON_")
	if d.Note == "" {
		return reason
	}
	return reason + ": " + d.Note
}

func notFound(err error) bool {
	r, ok := envelope.AsRefusal(refusalOf(err))
	return ok && r.Reason == exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
}
