package spool

import (
	"slices"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

// wants reports whether a duty that c names for a recipient is not known here
// yet, given what is (nil: nothing).
//
//   - Waiting in an inbox, or settled: never a second time.
//   - Waiting in a queue: known, but an inbox takes it out of the queue, for
//     this relay is home now.
//   - Handed on: custody is elsewhere. Whoever offers it again means that the
//     next hop has lost it, or did not hear our answer; the next hop drops
//     repeats. To the sender at its ingress it is known all the same.
func wants(c *envelope.Custody, st *state, d *delivery, inbox bool) bool {
	switch {
	case d == nil:
		return true
	case c.FromSender && st.FromSender:
		return false
	case d.Place == inQueue:
		return inbox
	}
	return d.Place == handedOn
}

// missing returns the duties of c that are not known here yet; find tells what
// is known of a recipient.
func missing(v *index.View, st *state, c *envelope.Custody, find func(routing.AgencyCode) (*delivery, error)) (
	inboxes []routing.AgencyCode, onward []envelope.Onward, err error,
) {
	pick := func(agencies []routing.AgencyCode, inbox bool) (out []routing.AgencyCode, err error) {
		for _, a := range agencies {
			d, err := find(a)
			if err != nil {
				return nil, err
			}
			if wants(c, st, d, inbox) {
				out = append(out, a)
			}
		}
		return out, nil
	}
	if inboxes, err = pick(c.Inboxes, true); err != nil {
		return nil, nil, err
	}
	for _, o := range c.Onward {
		if len(o.Agencies) == 0 {
			known, err := bareDuty(v, st, o.Relay)
			if err != nil {
				return nil, nil, err
			}
			if !known {
				onward = append(onward, o)
			}
			continue
		}
		agencies, err := pick(o.Agencies, false)
		if err != nil {
			return nil, nil, err
		}
		if len(agencies) > 0 {
			onward = append(onward, envelope.Onward{Relay: o.Relay, Agencies: agencies})
		}
	}
	return inboxes, onward, nil
}

// bareDuty reports whether a duty without recipient waits for a destination.
func bareDuty(v *index.View, st *state, relay routing.RelayID) (bool, error) {
	d, open := st.duty(relay)
	if !open {
		return false, nil
	}
	b, found, err := v.Get(index.QueueKey(relay, st.Lane, d.Sequence))
	if err != nil || !found {
		return false, err
	}
	q, err := decodeQueued(b)
	if err != nil {
		return false, err
	}
	return q.Bare, nil
}

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
	c := r.Custody
	switch {
	case born == 0:
		if h.known { // only in a rebuild: left over from an earlier life
			if err := s.drop(h, false); err != nil {
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
	}
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
	inboxes, onward, err := missing(s.v, h.st, c, func(a routing.AgencyCode) (*delivery, error) { return s.delivery(h, a) })
	if err != nil {
		return err
	}
	if c.FromSender && !h.st.FromSender {
		if err := s.becomeIngress(h, c); err != nil {
			return err
		}
	}
	if err := s.addInboxes(h, inboxes, r.Sequence, r.At); err != nil {
		return err
	}
	for _, o := range onward {
		if err := s.addOnward(h, o, r.Sequence, r.At); err != nil {
			return err
		}
	}
	if born > 0 {
		s.event(h, envelope.Event{At: r.At, Action: takenAction(c.FromSender)})
		if len(inboxes) > 0 {
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

// becomeIngress makes this relay remember the envelope for its sender.
func (s *step) becomeIngress(h *held, c *envelope.Custody) error {
	h.st.FromSender = true
	s.b.Put(index.DocumentKey(c.Sender, c.DocumentID), c.ID[:])
	if h.st.Count == 0 {
		return nil
	}
	if err := s.touchAll(h); err != nil {
		return err
	}
	for _, d := range h.touched {
		s.counters.add(d, 1)
	}
	return nil
}

func (s *step) addInboxes(h *held, agencies []routing.AgencyCode, sequence uint64, at time.Time) error {
	leave := make(map[routing.RelayID][]routing.AgencyCode)
	for _, a := range agencies {
		d, err := s.delivery(h, a)
		if err != nil {
			return err
		}
		if d == nil {
			d = &delivery{}
			d.Agency = a
			s.addDelivery(h, d)
		} else if d.Place == inQueue {
			leave[d.Home] = append(leave[d.Home], a)
		}
		s.toInbox(h, d, sequence, at)
	}
	for _, relay := range sortedRelays(leave) {
		if _, _, err := s.dequeue(h, relay, leave[relay], false); err != nil {
			return err
		}
	}
	return nil
}

func sortedRelays(m map[routing.RelayID][]routing.AgencyCode) []routing.RelayID {
	relays := make([]routing.RelayID, 0, len(m))
	for r := range m {
		relays = append(relays, r)
	}
	slices.Sort(relays)
	return relays
}

func (s *step) addOnward(h *held, o envelope.Onward, sequence uint64, at time.Time) error {
	for _, a := range o.Agencies {
		d, err := s.delivery(h, a)
		if err != nil {
			return err
		}
		if d == nil {
			d = &delivery{}
			d.Agency = a
			s.addDelivery(h, d)
		}
		d.Place, d.Home, d.UpdatedAt = inQueue, o.Relay, at
		d.Transport = exchangev1.TransportStatus_TRANSPORT_STATUS_INITIAL
		h.change(d)
	}
	return s.enqueue(h, o.Relay, o.Agencies, sequence, at)
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
