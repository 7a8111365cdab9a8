package relay

import (
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

const (
	// custodyPage is how many entries are read from the spool at once.
	custodyPage = 512
	// defaultList is how many entries ListQueue gives where nothing is said.
	defaultList = 1_000
)

// ListQueue lists what waits here: what is to be handed on, by destination, then
// what is in inboxes, each with the urgent lanes first; or, if asked for, what
// was given up and is kept. It reads in pages, while the queues move.
func (c *custodyService) ListQueue(req *adminv1.ListQueueRequest, stream grpc.ServerStreamingServer[adminv1.ListQueueResponse]) error {
	l := &listing{custodyService: c, req: req, stream: stream, left: int(req.GetLimit()), now: c.relay.config.Clock()}
	if l.left == 0 {
		l.left = defaultList
	}
	if code := req.GetAgencyCode(); code != "" {
		l.agency = routing.AgencyCode(code)
		if agency, ok := c.relay.config.Directory.View().Agency(l.agency); ok {
			l.agency = routing.AgencyCode(agency.GetCode())
		}
	}
	err := l.list()
	if errors.Is(err, errListed) {
		return nil
	}
	return err
}

// errListed ends a listing at its limit.
var errListed = errors.New("listed as many as were asked for")

// listing is one ListQueue on its way.
type listing struct {
	*custodyService
	req    *adminv1.ListQueueRequest
	stream grpc.ServerStreamingServer[adminv1.ListQueueResponse]
	agency routing.AgencyCode
	left   int
	now    time.Time
}

func (l *listing) list() error {
	switch {
	case len(l.req.GetEnvelopeId()) > 0:
		return l.one()
	case l.req.GetExpired():
		return l.deadLetters()
	case l.req.GetHeld() && l.spool.Stats().Held == 0:
		return nil
	case l.agency != "":
		return l.inbox(l.agency)
	case l.req.GetRelayId() != "":
		return l.queue(routing.RelayID(l.req.GetRelayId()))
	}
	relays, err := l.spool.Destinations()
	if err != nil {
		return err
	}
	for _, relay := range relays {
		if err := l.queue(relay); err != nil {
			return err
		}
	}
	return eachInbox(l.spool, l.inbox)
}

// eachInbox calls fn for every agency with something in its inbox.
func eachInbox(s *spool.Spool, fn func(routing.AgencyCode) error) error {
	for after := routing.AgencyCode(""); ; {
		agencies, err := s.InboxAgencies(after, custodyPage)
		if err != nil {
			return err
		}
		for _, agency := range agencies {
			if err := fn(agency); err != nil {
				return err
			}
			after = agency
		}
		if len(agencies) < custodyPage {
			return nil
		}
	}
}

// one lists what concerns one envelope.
func (l *listing) one() error {
	id, err := envelope.IDFromBytes(l.req.GetEnvelopeId())
	if err != nil {
		return refuseField("envelope_id", "%v", err)
	}
	record, err := l.spool.Record(id)
	if err != nil {
		return refusalOf(err)
	}
	queue, inboxes, err := l.spool.Entries(id, l.left)
	if err != nil {
		return refusalOf(err)
	}
	for _, e := range queue {
		if err := l.queued(e); err != nil {
			return err
		}
	}
	for _, e := range inboxes {
		if err := l.inboxed(e); err != nil {
			return err
		}
	}
	return l.givenUp(record)
}

func (l *listing) queue(relay routing.RelayID) error {
	return eachQueued(l.stream.Context(), l.spool, relay, l.queued)
}

func (l *listing) inbox(agency routing.AgencyCode) error {
	return eachInboxed(l.stream.Context(), l.spool, agency, l.inboxed)
}

func (l *listing) queued(e envelope.QueueEntry) error {
	late, err := l.late(e.ID, e.Lane, e.QueuedAt)
	if err != nil {
		return err
	}
	entry := &adminv1.QueueEntry{
		EnvelopeId: e.ID[:], RelayId: string(e.Onward.Relay), Priority: exchangev1.Priority(e.Lane),
		Since: timestamppb.New(e.QueuedAt), Tries: e.Tries, LastError: e.LastError, Held: e.Held, Size: e.Size,
		Recipients: uint32(len(e.Onward.Agencies)), Bare: len(e.Onward.Agencies) == 0,
		Late: late,
	}
	if e.NextTry.After(l.now) {
		entry.NextTryAt = timestamppb.New(e.NextTry)
	}
	return l.send(entry)
}

func (l *listing) inboxed(e envelope.InboxEntry) error {
	late, err := l.late(e.ID, e.Lane, e.ArrivedAt)
	if err != nil {
		return err
	}
	entry := &adminv1.QueueEntry{
		EnvelopeId: e.ID[:], AgencyCode: string(e.Agency), Priority: exchangev1.Priority(e.Lane),
		Since: timestamppb.New(e.ArrivedAt), Held: e.Held, Size: e.Size, Recipients: 1,
		Late: late,
	}
	if e.NotBefore.After(l.now) {
		entry.NextTryAt = timestamppb.New(e.NotBefore)
	}
	return l.send(entry)
}

// send gives one entry out, if it is asked for.
func (l *listing) send(e *adminv1.QueueEntry) error {
	switch {
	case l.req.GetRelayId() != "" && e.GetRelayId() != l.req.GetRelayId(),
		l.req.GetLate() && !e.GetLate(), l.req.GetHeld() && !e.GetHeld(), l.req.GetExpired() && !e.GetExpired():
		return nil
	}
	e.AtRelayId = string(l.relay.config.ID)
	if err := l.stream.Send(&adminv1.ListQueueResponse{Entry: e}); err != nil {
		return err
	}
	if l.left--; l.left == 0 {
		return errListed
	}
	return nil
}

// late reports whether the target of an entry's lane is missed. It runs since the
// acceptance at the ingress, which the record tells: the entry may have come here
// long after.
func (l *listing) late(id envelope.ID, lane envelope.Lane, here time.Time) (bool, error) {
	targets, hour := &l.relay.config.Targets, lane == envelope.Lane(exchangev1.Priority_PRIORITY_HOA_TOC_HEN_GIO)
	if !hour && targets.late(lane, here, l.now) {
		return true, nil
	}
	record, err := l.spool.Record(id)
	if errors.Is(err, spool.ErrNotFound) {
		return false, nil // it has left meanwhile
	}
	if err != nil {
		return false, refusalOf(err)
	}
	return targets.late(lane, latest(record.AcceptedAt, record.NotBefore), l.now), nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
