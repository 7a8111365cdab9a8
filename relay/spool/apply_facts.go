package spool

import (
	"math/bits"
	"slices"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

// apply moves custody of the recipients that were still in the queue; the next
// hop is from now on known to hold the envelope.
func (r *handedOnRecord) apply(s *step) error {
	h, err := s.load(r.ID)
	if err != nil || !h.known {
		return err
	}
	taken, bare, err := s.dequeue(h, r.Destination, r.Agencies, len(r.Agencies) == 0)
	if err != nil {
		return err
	}
	if len(taken) == 0 && !bare {
		return nil
	}
	for _, a := range taken {
		d, err := s.delivery(h, a)
		if err != nil {
			return err
		}
		d.Place, d.UpdatedAt = handedOn, r.At
		if r.Peer == r.Destination {
			d.Transport = exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING
		}
		h.change(d)
	}
	if !slices.Contains(h.st.Holders, r.Peer) {
		h.st.Holders = append(h.st.Holders, r.Peer)
	}
	e := envelope.Event{At: r.At, Action: exchangev1.TraceAction_TRACE_ACTION_HANDED_ON, Peer: r.Peer}
	if r.Peer != r.Destination {
		e.Note = "for " + string(r.Destination)
	}
	s.event(h, e)
	s.needs(h, s.size)
	s.save(h, r.Now)
	return nil
}

// apply ends a delivery. Done is final; given up may still turn out to be done.
func (r *settlement) apply(s *step) error {
	h, err := s.load(r.ID)
	if err != nil {
		return err
	}
	size := s.size
	if r.Report != nil {
		// The record is shared: each envelope answers for its part.
		size = int64(len(r.Report.appendStatement(nil)))
		if !h.known {
			// Only in a rebuild: the delivery is long released, its report not.
			r.effective = true
			return s.commitReport(r.Report, size)
		}
		size = s.size - size
	}
	if !h.known {
		return nil
	}
	d, err := s.delivery(h, r.Agency)
	if err != nil {
		return err
	}
	if !settles(d, r.Transport) {
		return nil
	}
	r.effective = true
	switch d.Place {
	case inInbox:
		s.leaveInbox(h, d)
	case inQueue:
		if _, _, err := s.dequeue(h, d.Home, []routing.AgencyCode{r.Agency}, false); err != nil {
			return err
		}
	}
	if d.Place == settled {
		if h.st.FromSender {
			*s.counters.outcome(d)--
		}
	} else {
		h.st.Unsettled--
	}
	d.Place, d.Transport, d.Reason, d.Note, d.UpdatedAt = settled, r.Transport, r.Reason, r.Note, r.At
	if h.st.FromSender {
		*s.counters.outcome(d)++
	}
	h.change(d)
	s.needs(h, size)
	s.save(h, r.Now)
	if r.Report == nil {
		return nil
	}
	return s.commitReport(r.Report, s.size-size)
}

// settles reports whether a settlement would change a delivery.
func settles(d *delivery, transport exchangev1.TransportStatus) bool {
	return d != nil && (d.Place != settled ||
		d.Transport == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL &&
			transport == exchangev1.TransportStatus_TRANSPORT_STATUS_DONE)
}

// apply moves recipients to other duties. Those handed on to a relay that lost
// them are queued again; those that have moved on meanwhile stay where they are.
func (r *rerouted) apply(s *step) error {
	s.sequenced(r.Sequence)
	h, err := s.load(r.ID)
	if err != nil || !h.known || !h.st.holdsContent() {
		return err
	}
	moving, err := s.leaving(h, r)
	if err != nil || len(moving) == 0 {
		return err
	}
	pick := func(agencies []routing.AgencyCode) (out []routing.AgencyCode) {
		for _, a := range agencies {
			if moving[a] {
				out = append(out, a)
				delete(moving, a) // each to one duty
			}
		}
		return out
	}
	var inQueueHere []routing.AgencyCode
	inboxes := pick(r.Inboxes)
	var onward []envelope.Onward
	for _, o := range r.Onward {
		if agencies := pick(o.Agencies); len(agencies) > 0 {
			onward = append(onward, envelope.Onward{Relay: o.Relay, Agencies: agencies})
		}
	}
	all := slices.Clone(inboxes)
	for _, o := range onward {
		all = append(all, o.Agencies...)
	}
	for _, a := range all {
		d, err := s.delivery(h, a)
		if err != nil {
			return err
		}
		switch d.Place {
		case inQueue:
			inQueueHere = append(inQueueHere, a)
		case inInbox:
			s.leaveInbox(h, d)
		}
		d.Place = handedOn // out of every queue and inbox for a moment
	}
	if len(all) == 0 {
		return nil
	}
	if _, _, err := s.dequeue(h, r.From, inQueueHere, false); err != nil {
		return err
	}
	if err := s.addInboxes(h, inboxes, r.Sequence, r.At); err != nil {
		return err
	}
	for _, o := range onward {
		if err := s.addOnward(h, o, r.Sequence, r.At); err != nil {
			return err
		}
		s.event(h, envelope.Event{At: r.At, Action: exchangev1.TraceAction_TRACE_ACTION_REROUTED, Peer: o.Relay})
	}
	if len(inboxes) > 0 {
		s.event(h, envelope.Event{At: r.At, Action: exchangev1.TraceAction_TRACE_ACTION_REROUTED, Peer: s.self})
	}
	s.needs(h, s.size)
	s.save(h, r.Now)
	return nil
}

// leaving returns which recipients stand where the record says they leave from,
// and would come to another place.
func (s *step) leaving(h *held, r *rerouted) (map[routing.AgencyCode]bool, error) {
	moving := make(map[routing.AgencyCode]bool)
	for _, a := range r.Agencies {
		d, err := s.delivery(h, a)
		if err != nil {
			return nil, err
		}
		switch {
		case d == nil, d.Place == settled:
		case d.Place == inInbox:
			moving[a] = r.From == s.self && !slices.Contains(r.Inboxes, a)
		case d.Home == r.From:
			staying := d.Place == inQueue && slices.ContainsFunc(r.Onward, func(o envelope.Onward) bool {
				return o.Relay == r.From && slices.Contains(o.Agencies, a)
			})
			moving[a] = !staying
		}
		if !moving[a] {
			delete(moving, a)
		}
	}
	return moving, nil
}

// apply notes a failed try; only the last one about a queue entry is needed.
func (r *deferred) apply(s *step) error {
	h, err := s.load(r.ID)
	if err != nil || !h.known {
		return err
	}
	d, open := h.st.duty(r.Destination)
	if !open {
		return nil
	}
	q, err := s.entry(h, d)
	if err != nil {
		return err
	}
	if q.Deferred.Bytes > 0 {
		h.st.hold(q.Deferred.Segment, -q.Deferred.Bytes)
		s.live(q.Deferred.Segment, -q.Deferred.Bytes)
	}
	q.Tries, q.NextTry, q.LastError = r.Tries, r.Next, r.LastError
	q.Deferred = share{s.at.Segment, s.size}
	s.needs(h, s.size)
	s.b.Put(index.QueueKey(d.Relay, h.st.Lane, d.Sequence), encodeQueued(q))
	// Every try would fill the trace of an envelope for a dead destination.
	if bits.OnesCount32(r.Tries) == 1 {
		s.event(h, envelope.Event{
			At: r.Now, Action: exchangev1.TraceAction_TRACE_ACTION_RETRY, Peer: r.Destination, Note: r.LastError,
		})
	}
	s.save(h, r.Now)
	return nil
}
