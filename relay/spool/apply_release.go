package spool

import (
	"slices"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
)

// apply lets content go: nothing in the journal is needed for these envelopes
// any more, except this statement, as long as older records exist that would
// bring them back.
func (r *released) apply(s *step) error {
	gone := make(map[envelope.ID]bool, len(r.Items))
	for _, g := range r.Items {
		for _, origin := range g.Origins {
			if origin != s.at.Segment && s.segments[origin] != nil {
				s.segments[s.at.Segment].outlive(origin)
				s.dirtySegments[s.at.Segment] = true
			}
		}
		s.sequenced(g.Before - 1)
		h, err := s.load(g.ID)
		if err != nil {
			return err
		}
		if !h.known || h.st.released() || h.st.Born >= g.Before || gone[g.ID] {
			continue // the view does not show what this record has released
		}
		gone[g.ID] = true
		if !h.st.done() {
			// Only in a rebuild: some of its later records are gone, and with
			// them what became of it.
			if err := s.drop(h, false); err != nil {
				return err
			}
			if err := s.erase(h); err != nil {
				return err
			}
			continue
		}
		if err := s.dropContent(h); err != nil {
			return err
		}
		s.dropShares(h.st)
		s.counters.Envelopes--
		s.counters.Bytes -= int64(h.st.Size)
		h.st.ReleasedAt = r.Now
		s.save(h, r.Now)
	}
	return nil
}

// erase removes what drop leaves of an envelope, or forget.
func (s *step) erase(h *held) error {
	if err := s.disclaim(h); err != nil {
		return err
	}
	h.st = new(state)
	s.enlist(h)
	s.b.Delete(index.EnvelopeKey(h.id))
	s.b.Delete(index.UnregisteredKey(h.id))
	if err := s.dropLives(h.id); err != nil {
		return err
	}
	for page := 0; ; page++ {
		found, err := s.v.Has(index.HeaderKey(h.id, page))
		if err != nil {
			return err
		}
		if !found {
			break
		}
		s.b.Delete(index.HeaderKey(h.id, page))
	}
	it := s.v.Iterator(index.Events(h.id))
	defer it.Close()
	for ; it.Valid(); it.Next() {
		s.b.Delete(it.Key())
	}
	return it.Err()
}

// apply puts the record in place of all earlier ones about the envelope. In a
// running relay it says what the index says. In a rebuild it may know more, and
// nothing that was rebuilt can be compared with it: without some of its records
// an envelope may even seem to have had more of them.
func (r *stateRecord) apply(s *step) error {
	h, err := s.load(r.Header.ID)
	if err != nil {
		return err
	}
	if h.known && (h.st.Born > r.State.Born || h.st.Born == r.State.Born && h.st.released()) {
		return nil
	}
	if err := s.install(h, r); err != nil {
		return err
	}
	if r.length > 0 {
		whole := s.here(&r.content)
		h.st.Whole = &whole
	}
	s.needs(h, s.size)
	h.st.originate(s.at.Segment)
	s.write(h)
	return nil
}

// install makes the envelope what the record says.
func (s *step) install(h *held, r *stateRecord) error {
	st := *r.State
	if h.known {
		if err := s.drop(h, h.st.Generation == st.Generation); err != nil {
			return err
		}
	}
	h.fresh, h.known = !h.known, true
	st.Origins = slices.Concat(h.st.Origins, st.Origins)
	slices.Sort(st.Origins)
	st.Origins = slices.Compact(st.Origins)
	st.Shares, st.Whole = nil, nil
	h.st = &st
	s.sequenced(max(st.Last, st.Born, st.Alone))
	s.writeHeader(h.id, r.Header)
	if !st.released() {
		s.counters.Envelopes++
		s.counters.Bytes += int64(st.Size)
	}
	for _, d := range slices.Concat(st.Deliveries, r.Deliveries) {
		h.touch(d)
		if st.Paged {
			s.b.Put(index.DeliveryKey(h.id, d.Agency), encodeDelivery(d))
		}
		if st.FromSender {
			s.counters.add(d, 1)
		}
		if d.Place == inInbox {
			s.inboxed(d.Agency, 1)
			s.sequenced(d.Sequence)
			s.b.Put(index.InboxKey(d.Agency, st.Lane, d.Sequence), encodeInboxed(inboxed{
				ID: h.id, ArrivedAt: d.UpdatedAt, NotBefore: st.NotBefore, Size: st.Size,
			}))
		}
	}
	for _, q := range r.Queues {
		s.sequenced(q.Duty.Sequence)
		s.lengths[q.Duty.Relay]++
		s.dirtyLengths[q.Duty.Relay] = true
		s.counters.Queued++
		h.keep(q.Duty.Relay, q.Entry)
		s.b.Put(index.QueueKey(q.Duty.Relay, st.Lane, q.Duty.Sequence), encodeQueued(q.Entry))
	}
	if st.Keyed {
		s.claim(h, r.Header)
	}
	if st.Numbered {
		if err := s.number(h, r.Header); err != nil {
			return err
		}
	}
	if st.Due != 0 {
		s.b.Put(index.ExpiryKey(st.DueAt, st.Due, h.id), nil)
	}
	return s.adopt(h)
}

// adopt takes over a transfer that brought the content of this envelope.
func (s *step) adopt(h *held) error {
	t, err := transferAt(s.v, h.id)
	if err != nil || t == nil || t.Generation > h.st.Generation {
		return err
	}
	if t.Generation < h.st.Generation {
		return s.closeTransfer(h.id, t, true)
	}
	s.live(t.Begin.Segment, -t.Begin.Bytes)
	return s.closeTransfer(h.id, t, false)
}

// forget removes what is left of a released envelope once its time is over. It
// is no record of the journal, where nothing is left to be forgotten.
func (s *step) forget(id envelope.ID) error {
	h, err := s.load(id)
	if err != nil || !h.known || !h.st.released() || h.st.Due != index.Forget {
		return err
	}
	s.b.Delete(index.ExpiryKey(h.st.DueAt, h.st.Due, id))
	all, err := deliveriesAt(s.v, id, h.st)
	if err != nil {
		return err
	}
	for _, d := range all {
		if h.st.Paged {
			s.b.Delete(index.DeliveryKey(id, d.Agency))
		}
		if h.st.FromSender {
			s.forgotten.add(d, 1)
		}
	}
	return s.erase(h)
}
