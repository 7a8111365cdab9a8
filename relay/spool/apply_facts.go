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
// hop is from now on known to hold the envelope. A duty without recipients that
// is handed on to this relay itself was given up.
func (r *handedOnRecord) apply(s *step) error {
	h, err := s.load(r.ID)
	if err != nil || !h.known {
		return err
	}
	givenUp := r.Peer == s.self
	agencies := r.Agencies
	if givenUp {
		agencies = nil
	}
	taken, bare, err := s.dequeue(h, r.Destination, agencies, len(r.Agencies) == 0)
	if err != nil {
		return err
	}
	if len(taken) == 0 && !bare {
		return nil
	}
	// Back at its ingress, because the recipient moved there, it would be on one
	// relay again: the copy here is kept until the ingress says how it ended.
	back := r.Peer == h.st.Ingress && !h.st.FromSender && !h.st.Report && !r.Released && !h.st.released()
	for _, a := range taken {
		d, err := s.delivery(h, a)
		if err != nil {
			return err
		}
		d.Place, d.UpdatedAt = handedOn, r.At
		if back {
			d.Place = kept
			h.st.Open++
		}
		if r.Peer == r.Destination {
			d.Transport = exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING
		}
		h.change(d)
	}
	e := envelope.Event{At: r.At, Action: exchangev1.TraceAction_TRACE_ACTION_HANDED_ON, Peer: r.Peer}
	switch {
	case givenUp:
		e.Action, e.Peer = exchangev1.TraceAction_TRACE_ACTION_FAILED, r.Destination
	case r.Released:
		e.Note = "which had it before and holds it no more"
	case bare && !h.st.Report:
		e.Action = exchangev1.TraceAction_TRACE_ACTION_COPIED
	case r.Peer != r.Destination:
		e.Note = "for " + string(r.Destination)
	}
	if !givenUp && !r.Released {
		if err := s.holder(h, r.Peer, h.st.FromSender && (r.Keeps || bare)); err != nil {
			return err
		}
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
			// Only in a rebuild: the delivery is long forgotten, its report not.
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
		if s.rebuilding && h.st.released() && r.Report != nil {
			// The register has the delivery, and not its report.
			return s.commitReport(r.Report, s.size-size)
		}
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
	h.renewed = d.Place == settled
	s.reopen(h, d)
	h.st.Unsettled--
	d.Place, d.Transport, d.Reason, d.Note, d.UpdatedAt = settled, r.Transport, r.Reason, r.Note, r.At
	h.st.countDead(d, 1)
	if h.st.FromSender {
		*s.counters.outcome(d)++
	}
	h.change(d)
	if err := s.endCopies(h); err != nil {
		return err
	}
	s.needs(h, size)
	s.save(h, r.Now)
	if r.Report == nil {
		return nil
	}
	return s.commitReport(r.Report, s.size-size)
}

// endCopies ends the duties to have copies made, once nothing is under way; who
// waits for them need not wait any more.
func (s *step) endCopies(h *held) error {
	if !h.st.FromSender || h.st.Report || h.st.Unsettled > 0 {
		return nil
	}
	s.woken.copies = append(s.woken.copies, h.id)
	for _, d := range slices.Clone(h.st.Duties) {
		if _, _, err := s.dequeue(h, d.Relay, nil, true); err != nil {
			return err
		}
	}
	return nil
}

// settles reports whether a settlement would change a delivery.
func settles(d *delivery, transport exchangev1.TransportStatus) bool {
	return d != nil && (d.Place != settled ||
		d.Transport == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL &&
			transport == exchangev1.TransportStatus_TRANSPORT_STATUS_DONE)
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
