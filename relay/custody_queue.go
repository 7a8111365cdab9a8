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

// lateAfter is how long an envelope of each lane may wait at one relay before it
// is late: minutes where it is urgent, else a working day (QD28 Art. 21(2) wants
// receipts the same day).
var lateAfter = map[envelope.Lane]time.Duration{
	envelope.Lane(exchangev1.Priority_PRIORITY_THUONG):          8 * time.Hour,
	envelope.Lane(exchangev1.Priority_PRIORITY_KHAN):            time.Hour,
	envelope.Lane(exchangev1.Priority_PRIORITY_THUONG_KHAN):     15 * time.Minute,
	envelope.Lane(exchangev1.Priority_PRIORITY_HOA_TOC):         5 * time.Minute,
	envelope.Lane(exchangev1.Priority_PRIORITY_HOA_TOC_HEN_GIO): 5 * time.Minute,
}

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
	entry := &adminv1.QueueEntry{
		EnvelopeId: e.ID[:], RelayId: string(e.Onward.Relay), Priority: exchangev1.Priority(e.Lane),
		Since: timestamppb.New(e.QueuedAt), Tries: e.Tries, LastError: e.LastError, Held: e.Held, Size: e.Size,
		Recipients: uint32(len(e.Onward.Agencies)), Bare: len(e.Onward.Agencies) == 0,
		Late: late(e.Lane, e.QueuedAt, l.now),
	}
	if e.NextTry.After(l.now) {
		entry.NextTryAt = timestamppb.New(e.NextTry)
	}
	return l.send(entry)
}

func (l *listing) inboxed(e envelope.InboxEntry) error {
	entry := &adminv1.QueueEntry{
		EnvelopeId: e.ID[:], AgencyCode: string(e.Agency), Priority: exchangev1.Priority(e.Lane),
		Since: timestamppb.New(e.ArrivedAt), Held: e.Held, Size: e.Size, Recipients: 1,
		Late: late(e.Lane, latest(e.ArrivedAt, e.NotBefore), l.now),
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

func late(lane envelope.Lane, since, now time.Time) bool { return now.Sub(since) > lateAfter[lane] }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
