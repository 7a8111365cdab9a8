package ingress

import (
	"context"
	"time"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// The second copy. An envelope that goes to another relay has it there once that
// relay took it. One that goes to none, because sender and recipients are at home
// here, or to none that can be used just now, is given the duty of a copy at
// another relay when it is accepted. Either way the receipt is sent when two
// relays have the envelope, or when waiting for that is over:
//
//   - after CopyWait, whatever happens;
//   - at the next look, every copyLook, at which no relay can be used: without
//     neighbours a submit takes that long, and no longer;
//   - when the call, or the relay, ends.
//
// The receipt then states one copy. The envelope is accepted all the same, and
// others see to its second copy.
const (
	defaultCopyWait = 5 * time.Second
	copyLook        = 500 * time.Millisecond
)

// withCopy adds the duty of a second copy where the others make none just now,
// and a relay can be used that would.
func (s *Service) withCopy(view routing.View, recipients []routing.AgencyCode, onward []envelope.Onward) []envelope.Onward {
	not := make(map[routing.RelayID]bool, len(onward))
	for _, duty := range onward {
		if _, ok := s.config.Usable(duty.Relay); ok {
			return onward
		}
		not[duty.Relay] = true
	}
	if holder, ok := view.CopyHolder(s.config.Self, recipients, not, s.config.Usable); ok {
		return append(onward, envelope.Onward{Relay: holder})
	}
	return onward
}

// isAlone reports whether no other relay is known to have the envelope, and one
// should: a delivery has not ended.
func isAlone(record *envelope.Record) bool {
	if record.Copies >= 2 || record.ContentReleased {
		return false
	}
	for _, delivery := range record.Deliveries {
		switch delivery.Transport {
		case exchangev1.TransportStatus_TRANSPORT_STATUS_DONE, exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL:
		default:
			return true
		}
	}
	return false
}

// awaitCopy waits until another relay has the envelope too, and returns the
// receipt of then.
func (s *Service) awaitCopy(ctx context.Context, sub *submission, receipt *exchangev1.Receipt) *exchangev1.Receipt {
	if !s.hasNeighbours() {
		return receipt
	}
	began := time.Now()
	defer func() { s.metrics.copyWait.Record(ctx, time.Since(began).Seconds()) }()
	limit, look := time.NewTimer(s.config.CopyWait), time.NewTicker(copyLook)
	defer limit.Stop()
	defer look.Stop()
	for over := false; ; {
		changed := s.config.Copies.CopiesChanged(sub.id)
		record, err := s.config.Spool.Record(sub.id)
		if err != nil {
			sub.log.Warn("copies are not known", "error", err)
			return receipt // what it says was durable is durable
		}
		if over || !isAlone(record) {
			return record.Receipt(s.config.Self)
		}
		select {
		case <-changed:
		case <-look.C:
			over = !s.hasUsable()
		case <-limit.C:
			over = true
		case <-ctx.Done():
			over = true
		case <-s.config.Ending:
			over = true
		}
	}
}

// hasNeighbours reports whether another relay could take a copy from here.
func (s *Service) hasNeighbours() bool {
	if own, ok := s.config.Directory.View().Relay(s.config.Self); ok && isGone(own) {
		return false // others look after what it has
	}
	return s.anyOther(func(routing.RelayID) bool { return true })
}

func (s *Service) hasUsable() bool {
	return s.anyOther(func(relay routing.RelayID) bool {
		_, ok := s.config.Usable(relay)
		return ok
	})
}

// anyOther reports whether one of the other relays in service is so.
func (s *Service) anyOther(is func(routing.RelayID) bool) bool {
	for _, relay := range s.config.Directory.View().Relays() {
		if id := routing.RelayID(relay.GetId()); id != s.config.Self && !isGone(relay) && is(id) {
			return true
		}
	}
	return false
}

// isGone reports whether a relay has left the mesh for good.
func isGone(relay *directoryv1.Relay) bool {
	switch relay.GetState() {
	case directoryv1.RelayState_RELAY_STATE_RETIRED, directoryv1.RelayState_RELAY_STATE_LOST:
		return true
	}
	return false
}
