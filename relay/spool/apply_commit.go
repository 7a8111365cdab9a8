package spool

import (
	"errors"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

// holdsContent reports whether every byte is here, as far as the index knows.
func (st *state) holdsContent() bool {
	return !st.released() && (st.Size == 0 || st.Whole != nil || st.Generation != 0)
}

func (r *commit) apply(s *step) error {
	h, err := s.load(r.Custody.ID)
	if err != nil {
		return err
	}
	return s.commit(h, r, r.Born, s.size)
}

// commitReport takes custody of a report that came with a settlement. Whoever
// settled did not ask whether the report is known.
func (s *step) commitReport(r *commit, size int64) error {
	h, err := s.load(r.Custody.ID)
	if err != nil {
		return err
	}
	return s.commit(h, r, h.st.Born, size)
}

// commit makes an envelope exist, or gives one that exists, and was born then,
// what is new about it.
func (s *step) commit(h *held, r *commit, born uint64, size int64) error {
	s.sequenced(max(r.Sequence, r.Generation))
	if h.outlived(r) {
		return s.discard(h)
	}
	c := r.Custody
	stored := c // as disclaim finds it
	switch {
	case born == 0:
		if h.known { // only in a rebuild: left over from an earlier life
			if err := errors.Join(s.drop(h, false), s.dropLives(h.id)); err != nil {
				return err
			}
		}
		s.create(h, c, r.At)
		h.st.Born = r.Sequence
	case !h.known || h.st.Born != born || r.Prior != nil && !h.st.released():
		// Only in a rebuild: records before this one were recycled. Either it
		// brings what they said, or a state record follows that does.
		if r.Prior == nil {
			return nil
		}
		r.Prior.Header = c
		if err := s.install(h, r.Prior); err != nil {
			return err
		}
	case c.FromSender && !h.st.FromSender:
		header, err := headerAt(s.v, h.id)
		if err != nil {
			return err
		}
		stored = header
	}
	h.sequence = r.Sequence
	if h.st.released() {
		h.st.ReleasedAt, h.st.Born = time.Time{}, r.Sequence
		s.counters.Envelopes++
		s.counters.Bytes += int64(h.st.Size)
	}
	h.st.originate(s.at.Segment)
	s.needs(h, size)
	if err := s.takeContent(h, r); err != nil {
		return err
	}
	lacking, err := missing(s.v, h.st, c, func(a routing.AgencyCode) (*delivery, error) { return s.delivery(h, a) })
	if err != nil {
		return err
	}
	if prolongs(c, h.st) {
		h.st.ExpiresAt = c.ExpiresAt
	}
	if claimsDocument(c) {
		s.claim(h, c)
	}
	accepted := c.FromSender && !h.st.FromSender
	if accepted {
		h.st.TookOver = born > 0
		if err := s.becomeIngress(h, c.Ingress); err != nil {
			return err
		}
		if err := s.number(h, stored); err != nil {
			return err
		}
	}
	if lacking.delivers() {
		h.st.Keepers = nil // they know nothing of these
	}
	if err := s.add(h, lacking, r.Sequence, r.At); err != nil {
		return err
	}
	if err := s.endCopies(h); err != nil {
		return err
	}
	if born > 0 && (accepted || !lacking.none()) {
		s.event(h, envelope.Event{At: r.At, Action: takenAction(c.FromSender)})
		if len(lacking.inboxes) > 0 {
			s.event(h, envelope.Event{At: r.At, Action: exchangev1.TraceAction_TRACE_ACTION_ARRIVED})
		}
	}
	s.save(h, r.At)
	return nil
}

func takenAction(fromSender bool) exchangev1.TraceAction {
	if fromSender {
		return exchangev1.TraceAction_TRACE_ACTION_ACCEPTED
	}
	return exchangev1.TraceAction_TRACE_ACTION_TAKEN
}

// takeContent makes the content that came with a commit that of the envelope.
func (s *step) takeContent(h *held, r *commit) error {
	switch r.Mode {
	case contentInline:
		if err := s.dropContent(h); err != nil {
			return err
		}
		whole := s.here(&r.content)
		h.st.Whole, h.st.Last = &whole, max(h.st.Last, r.Sequence)
	case contentChunks:
		if h.st.Generation != r.Generation {
			if err := s.dropContent(h); err != nil {
				return err
			}
		}
		h.st.Whole, h.st.Generation, h.st.Last = nil, r.Generation, max(h.st.Last, r.Generation)
		t, err := transferAt(s.v, h.id)
		if err != nil {
			return err
		}
		if t != nil && t.Generation == r.Generation {
			if t.Begin.Bytes > 0 {
				h.st.hold(t.Begin.Segment, t.Begin.Bytes)
			}
			return s.closeTransfer(h.id, t, false)
		}
	}
	return nil
}

// dropContent lets the content go; what is in one record goes with its share.
func (s *step) dropContent(h *held) error {
	generation := h.st.Generation
	h.st.Whole, h.st.Generation = nil, 0
	if generation == 0 {
		return nil
	}
	return s.dropChunks(h.id, generation)
}

// drop removes everything about an envelope but its header and trace, and its
// chunks if they are to stay.
func (s *step) drop(h *held, keepChunks bool) error {
	st := h.st
	all, err := deliveriesAt(s.v, h.id, st)
	if err != nil {
		return err
	}
	for _, d := range all {
		if d.Place == inInbox {
			s.leaveInbox(h, d)
		}
		if st.Paged {
			s.b.Delete(index.DeliveryKey(h.id, d.Agency))
		}
		if st.FromSender {
			s.counters.add(d, -1)
		}
	}
	for _, d := range st.Duties {
		s.b.Delete(index.QueueKey(d.Relay, st.Lane, d.Sequence))
		s.lengths[d.Relay]--
		s.dirtyLengths[d.Relay] = true
		s.counters.Queued--
	}
	if err := s.disclaim(h); err != nil {
		return err
	}
	s.dropShares(st)
	if !keepChunks {
		if err := s.dropContent(h); err != nil {
			return err
		}
	}
	if st.Due != 0 {
		s.b.Delete(index.ExpiryKey(st.DueAt, st.Due, h.id))
	}
	if !st.released() {
		s.counters.Envelopes--
		s.counters.Bytes -= int64(st.Size)
	}
	h.st = &state{Origins: st.Origins, Last: st.Last}
	h.dropped = true
	h.touched, h.changed, h.entries = nil, nil, nil
	return nil
}

func (s *step) dropShares(st *state) {
	for _, part := range st.Shares {
		s.live(part.Segment, -part.Bytes)
	}
	st.Shares = nil
}
