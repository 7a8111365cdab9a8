package ingress

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Limits bound what one call may ask for, and what one agency may do. Zero
// fields take the defaults.
type Limits struct {
	// Header holds the limits of the wire contract.
	Header envelope.Limits
	// Lifetime is how long an envelope lives whose sender names no end;
	// default 30 days.
	Lifetime time.Duration
	// StreamsPerAgency is how many Receive streams one agency may hold at one
	// relay; default 16.
	StreamsPerAgency int
	// RoomPerCaller is how many bytes the open submits of one caller may hold in
	// memory; default 64 MiB.
	RoomPerCaller int64
	// Idle is how long a submit may say nothing before its commit; default 60 s.
	Idle time.Duration

	// The following are for each sending agency at this relay, or for each
	// destination; where negative there is no limit.

	// Rate is how many submits a second an agency may begin, repeats included,
	// and Burst how many at once after a rest; defaults 200 and 2,000.
	Rate  float64
	Burst int
	// ByteRate is how many bytes of content a second are taken from an agency, all
	// its submits together; default: no limit.
	ByteRate int64
	// Quota and QuotaEnvelopes are how many bytes and envelopes of an agency may
	// be accepted here and not ended; defaults 64 GiB and 1,000,000.
	Quota, QuotaEnvelopes int64
	// Queue is how many envelopes may wait for one relay; default 5,000,000.
	Queue int64
	// Inbox is how many envelopes may wait in one inbox; default 2,000,000.
	Inbox int64
}

func (l *Limits) complete() error {
	if l.Lifetime < 0 || l.StreamsPerAgency < 0 || l.RoomPerCaller < 0 || l.Idle < 0 {
		return errors.New("lifetime, streams, room and idle time must not be negative")
	}
	orDefault(&l.Lifetime, envelope.DefaultLifetime)
	orDefault(&l.StreamsPerAgency, 16)
	orDefault(&l.RoomPerCaller, 64<<20)
	orDefault(&l.Idle, time.Minute)
	orDefault(&l.Rate, 200)
	orDefault(&l.Burst, 2_000)
	orDefault(&l.ByteRate, -1)
	orDefault(&l.Quota, 64<<30)
	orDefault(&l.QuotaEnvelopes, 1_000_000)
	orDefault(&l.Queue, 5_000_000)
	orDefault(&l.Inbox, 2_000_000)
	return nil
}

func orDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// When to try again: a queue or inbox that took months to fill does not empty
// in a second.
const (
	quotaRetry = 30 * time.Second
	fullRetry  = time.Minute
)

// limited refuses because of a limit, with when to try again.
func limited(reason exchangev1.ErrorReason, quota string, after time.Duration, format string, args ...any) error {
	r := envelope.Refuse(reason, format, args...)
	r.Quota, r.RetryAfter = quota, after
	return r
}

// refuseHasty counts a submit of the sender, or refuses it.
func (s *Service) refuseHasty(sender routing.AgencyCode) error {
	after := s.submits.take(sender, s.config.Clock())
	if after == 0 {
		return nil
	}
	return limited(exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED, "submits per agency", after,
		"%s begins more than %g submits a second here; send more slowly", sender, s.config.Limits.Rate)
}

// maxPace is the longest that one chunk is held back.
const maxPace = 10 * time.Second

// pace holds n bytes of the sender back for as long as its rate asks. The submits
// of a sender share it chunk by chunk, so that a large file slows a small one
// down and does not stop it.
func (s *Service) pace(ctx context.Context, sender routing.AgencyCode, n int) error {
	wait, ok := s.bytes.reserve(sender, s.config.Clock(), n, maxPace)
	if !ok {
		return limited(exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED, "bytes per agency", maxPace,
			"%s sends more than %d bytes a second here; send fewer documents at once, then call again to resume", sender, s.config.Limits.ByteRate)
	}
	if wait == 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return cut(ctx.Err())
	case <-s.config.Ending:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING,
			"relay %s stops; use another relay, or call again to resume", s.config.Self)
	}
}

// pledge refuses an envelope that goes beyond what its sender may have here, and
// else counts it until the returned function is called: by then it was accepted,
// and is counted by the spool, or was not.
func (s *Service) pledge(sender routing.AgencyCode, size uint64) (redeem func(), err error) {
	all, redeem := s.pledges.add(sender, int64(size))
	if err := s.refuseBeyond(sender, all); err != nil {
		redeem()
		return nil, err
	}
	return redeem, nil
}

// refuseBeyond holds what a sender has here, and hands over, against its quota.
func (s *Service) refuseBeyond(sender routing.AgencyCode, over pledged) error {
	limits := &s.config.Limits
	if limits.Quota < 0 && limits.QuotaEnvelopes < 0 {
		return nil
	}
	envelopes, bytes, err := s.config.Usage.Usage(sender)
	if err != nil {
		return fmt.Errorf("usage of %s: %w", sender, err)
	}
	exceeded := exchangev1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED
	switch {
	case limits.QuotaEnvelopes >= 0 && envelopes+over.envelopes > limits.QuotaEnvelopes:
		return limited(exceeded, "envelopes per agency", quotaRetry,
			"%d envelopes of %s wait here for recipients to confirm, as many as one agency may have; wait until some are confirmed, or use another relay",
			envelopes, sender)
	case limits.Quota >= 0 && bytes+over.bytes > limits.Quota:
		return limited(exceeded, "bytes per agency", quotaRetry,
			"%d bytes of %s wait here for recipients to confirm, and %d more would be above the %d that one agency may have; wait until some are confirmed, or use another relay",
			bytes, sender, over.bytes, limits.Quota)
	}
	return nil
}

// refuseFull refuses while a queue or an inbox that is needed has no room.
func (s *Service) refuseFull(inboxes []routing.AgencyCode, onward []envelope.Onward) error {
	if most := s.config.Limits.Queue; most >= 0 {
		for _, duty := range onward {
			if s.config.Queued(duty.Relay) >= most {
				return limited(exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED, "queue of relay "+string(duty.Relay), fullRetry,
					"%d envelopes wait here for relay %s, as many as may; try again later, or use another relay", most, duty.Relay)
			}
		}
	}
	return s.InboxRoom(inboxes)
}

// InboxRoom refuses while one of the inboxes at this relay has no room; also for
// those who take envelopes from other relays.
func (s *Service) InboxRoom(inboxes []routing.AgencyCode) error {
	most := s.config.Limits.Inbox
	if most < 0 {
		return nil
	}
	for _, agency := range inboxes {
		waiting, err := s.config.Usage.Waiting(agency)
		if err != nil {
			return fmt.Errorf("inbox of %s: %w", agency, err)
		}
		if waiting >= most {
			return limited(exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED, "inbox of "+string(agency), fullRetry,
				"%d envelopes wait in the inbox of %s, as many as may; it has to receive some first", waiting, agency)
		}
	}
	return nil
}

// pledges counts what senders are handing over, by sender.
type pledges struct {
	mu sync.Mutex
	of map[routing.AgencyCode]pledged
}

type pledged struct{ envelopes, bytes int64 }

func newPledges() *pledges { return &pledges{of: make(map[routing.AgencyCode]pledged)} }

// add counts one envelope until redeem is called, once or more; it returns all
// that the sender is handing over.
func (p *pledges) add(sender routing.AgencyCode, size int64) (all pledged, redeem func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all = p.of[sender]
	all.envelopes, all.bytes = all.envelopes+1, all.bytes+size
	p.of[sender] = all
	return all, sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		left := p.of[sender]
		if left.envelopes, left.bytes = left.envelopes-1, left.bytes-size; left.envelopes == 0 {
			delete(p.of, sender)
			return
		}
		p.of[sender] = left
	})
}
