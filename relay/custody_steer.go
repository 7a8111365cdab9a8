package relay

import (
	"context"
	"fmt"
	"unicode/utf8"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

const (
	// maxReason is the longest reason of an operator, in characters.
	maxReason = 500
	// steeredInboxes bounds how many inbox entries of one envelope are counted.
	steeredInboxes = 20_000
)

// SteerQueue holds, releases, retries or gives up what this relay has of one
// envelope. It is durable on return and harmless when repeated. NOT_FOUND where
// the envelope is not known here; no entries where it is, and nothing of it is
// concerned.
func (c *custodyService) SteerQueue(ctx context.Context, req *adminv1.SteerQueueRequest) (*adminv1.SteerQueueResponse, error) {
	id, err := envelope.IDFromBytes(req.GetEnvelopeId())
	if err != nil {
		return nil, refuseField("envelope_id", "%v", err)
	}
	if n := utf8.RuneCountInString(req.GetReason()); n > maxReason {
		return nil, refuseField("reason", "has %d characters, at most %d are allowed", n, maxReason)
	}
	record, err := c.spool.Record(id)
	if err != nil {
		return nil, refusalOf(err)
	}
	identity, _ := tls.FromContext(ctx)
	s := steering{custodyService: c, record: record, note: noteOf(identity, req.GetReason())}
	var entries int
	switch req.GetOperation() {
	case adminv1.SteerOperation_STEER_OPERATION_HOLD:
		entries, err = s.hold(ctx, true)
	case adminv1.SteerOperation_STEER_OPERATION_RELEASE:
		entries, err = s.hold(ctx, false)
	case adminv1.SteerOperation_STEER_OPERATION_RETRY:
		entries, err = s.retry(ctx)
	case adminv1.SteerOperation_STEER_OPERATION_EXPIRE:
		entries, err = s.expire(ctx)
	default:
		return nil, refuseField("operation", "is none that this relay knows")
	}
	if err != nil {
		return nil, fmt.Errorf("steer %s: %w", id, refusalOf(err))
	}
	c.relay.config.Logger.Info("operator steered", "envelope", id.String(), "operation", req.GetOperation().String(),
		"operator", identity.Name, "entries", entries)
	return &adminv1.SteerQueueResponse{Entries: uint32(entries)}, nil
}

// noteOf says in the trace who did it and why.
func noteOf(identity tls.Identity, reason string) string {
	if reason == "" {
		return "by " + identity.Name
	}
	return "by " + identity.Name + ": " + reason
}

// steering is one operation on one envelope.
type steering struct {
	*custodyService
	record *envelope.Record
	note   string
}

// waiting counts the entries that wait here.
func (s *steering) waiting() int { return len(s.record.Onward) + len(s.record.Inboxes) }

// hold keeps an envelope where it is, or lets it go on. One that is on its way is
// held here also while nothing of it waits here: it may come back.
func (s *steering) hold(ctx context.Context, held bool) (entries int, err error) {
	switch {
	case held && s.ended(), !held && !s.record.Held:
		return 0, nil
	case held == s.record.Held:
		return max(s.waiting(), 1), nil
	}
	err = s.spool.Hold(ctx, envelope.Hold{ID: s.record.ID, Held: held, Note: s.note, At: s.relay.config.Clock()})
	if err == nil && !held {
		s.again()
	}
	return max(s.waiting(), 1), err
}

// again has the queues looked at in which the envelope waits.
func (s *steering) again() {
	for _, duty := range s.record.Onward {
		s.queues.Again(duty.Relay)
	}
}

// ended reports whether every delivery that this relay knows of has ended.
func (s *steering) ended() bool {
	for _, d := range s.record.Deliveries {
		if d.Place != envelope.Settled {
			return false
		}
	}
	return s.waiting() == 0
}

// retry has what waits here tried now, and what was given up made a duty again.
// What waits in an inbox waits for its recipient, and is tried all the time.
func (s *steering) retry(ctx context.Context) (entries int, err error) {
	dead := deadLettersOf(s.record)
	if s.record.Held && s.waiting()+len(dead) > 0 {
		return 0, wrongState("envelope %s is held at relay %s; release it", s.record.ID, s.relay.config.ID)
	}
	queue, _, err := s.spool.Entries(s.record.ID, steeredInboxes)
	if err != nil {
		return 0, err
	}
	now := s.relay.config.Clock()
	for _, e := range queue {
		entries++
		if e.Tries == 0 && !e.NextTry.After(now) {
			continue // it has not been tried yet, and nothing holds it up
		}
		// The count of tries begins anew, and with it the pauses between them.
		if err := s.spool.Defer(ctx, e.ID, e.Onward.Relay, 1, now, "tried again "+s.note); err != nil {
			return 0, err
		}
	}
	if entries > 0 {
		s.again()
	}
	if len(dead) > 0 {
		revived, err := s.revive(ctx, dead)
		return entries + revived, err
	}
	if entries == 0 && s.record.FromSender && s.ended() {
		if s.failed() > 0 {
			return 0, wrongState("envelope %s was given up, and its content is no longer kept; its sender has to send it anew", s.record.ID)
		}
		return 0, wrongState("nothing to do: every delivery of envelope %s has ended well, or was recalled", s.record.ID)
	}
	return entries, nil
}

// failed counts the deliveries that were given up and not recalled.
func (s *steering) failed() (n int) {
	for _, d := range s.record.Deliveries {
		if d.Transport == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL && d.Reason != exchangev1.ErrorReason_ERROR_REASON_RECALLED {
			n++
		}
	}
	return n
}

// revive makes duties again of dead letters, by the directory of now and with a
// lifetime that begins now.
func (s *steering) revive(ctx context.Context, dead []envelope.Delivery) (revived int, err error) {
	config := &s.relay.config
	view, now := config.Directory.View(), config.Clock()
	var codes []routing.AgencyCode
	for _, d := range dead {
		if _, known := view.Agency(d.Agency); known {
			codes = append(codes, d.Agency)
		}
	}
	if len(codes) == 0 {
		return 0, wrongState("none of the %d recipients that envelope %s was given up for is in the directory any more", len(dead), s.record.ID)
	}
	lifetime := config.Lifetime
	if lifetime == 0 {
		lifetime = envelope.DefaultLifetime
	}
	f := envelope.Revive{ID: s.record.ID, ExpiresAt: latest(now.Add(lifetime), s.record.ExpiresAt.Add(1)), Note: s.note, At: now}
	for home, there := range view.Spread(codes) {
		if home == config.ID {
			f.Inboxes = there
		} else {
			f.Onward = append(f.Onward, envelope.Onward{Relay: home, Agencies: there})
		}
	}
	return len(codes), s.spool.Revive(ctx, f)
}

// expire gives up what waits here, with a report to the ingress relay.
func (s *steering) expire(ctx context.Context) (entries int, err error) {
	if s.record.Report {
		return 0, wrongState("%s is a relay's report to another; it ends by itself", s.record.ID)
	}
	codes := append([]routing.AgencyCode(nil), s.record.Inboxes...)
	for _, duty := range s.record.Onward {
		codes = append(codes, duty.Agencies...)
	}
	now := s.relay.config.Clock()
	batch := make([]envelope.Settlement, 0, len(codes))
	for _, code := range codes {
		settlement := envelope.Settlement{
			ID: s.record.ID, Agency: code, Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL,
			Reason: exchangev1.ErrorReason_ERROR_REASON_EXPIRED, Note: "given up " + s.note, At: now,
		}
		if !s.record.FromSender {
			if settlement.Report, err = envelope.ReportFor(s.record, s.relay.config.ID, settlement); err != nil {
				return 0, err
			}
		}
		batch = append(batch, settlement)
	}
	return s.spool.Settle(ctx, batch)
}

func wrongState(format string, args ...any) error {
	return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, format, args...)
}
