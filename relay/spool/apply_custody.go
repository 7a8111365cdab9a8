package spool

import (
	"slices"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// apply makes a second copy a duty.
func (r *copyWanted) apply(s *step) error {
	s.sequenced(r.Sequence)
	h, err := s.load(r.ID)
	if err != nil || !h.known || h.st.Report {
		return err
	}
	changed := false
	for _, relay := range r.Instead {
		if relay == r.Relay {
			continue
		}
		_, ended, err := s.dequeue(h, relay, nil, true)
		if err != nil {
			return err
		}
		changed = changed || ended
	}
	wanted := h.st.lacksCopy(s.self, r.Relay)
	if wanted {
		known, err := s.waitsBare(h, r.Relay)
		if err != nil {
			return err
		}
		wanted = !known
	}
	if wanted {
		if err := s.enqueue(h, r.Relay, nil, r.Sequence, r.At); err != nil {
			return err
		}
	}
	if changed || wanted {
		s.needs(h, s.size)
		s.save(h, r.Now)
	}
	return nil
}

// waitsBare is bareDuty in a step.
func (s *step) waitsBare(h *held, relay routing.RelayID) (bool, error) {
	d, open := h.st.duty(relay)
	if !open {
		return false, nil
	}
	q, err := s.entry(h, d)
	return err == nil && q.Bare, err
}

// apply has a relay no longer count as a holder.
func (r *forgotten) apply(s *step) error {
	s.sequenced(r.Sequence)
	h, err := s.load(r.ID)
	if err != nil || !h.known || !slices.Contains(h.st.Holders, r.Holder) {
		return err
	}
	holder := func(relay routing.RelayID) bool { return relay == r.Holder }
	h.st.Holders = slices.DeleteFunc(h.st.Holders, holder)
	h.st.Keepers = slices.DeleteFunc(h.st.Keepers, holder)
	h.sequence = r.Sequence
	s.needs(h, s.size)
	s.save(h, r.Now)
	return nil
}

// apply makes this relay the ingress, and duties of what was kept.
func (r *takenOver) apply(s *step) error {
	s.sequenced(r.Sequence)
	h, err := s.load(r.ID)
	if err != nil || !h.known || h.st.released() || h.st.Report {
		return err
	}
	h.sequence = r.Sequence
	changed := !h.st.FromSender
	if changed {
		e := envelope.Event{At: r.At, Action: exchangev1.TraceAction_TRACE_ACTION_REROUTED, Peer: s.self}
		e.Note = shortened("taken over from " + string(h.st.Ingress))
		s.event(h, e)
		h.st.TookOver = true
		if err := s.becomeIngress(h, s.self); err != nil {
			return err
		}
	}
	if r.Keyed && !h.st.Keyed {
		if err := s.claimHere(h); err != nil {
			return err
		}
		changed = true
	}
	onward, inboxes, err := s.standing(h, r.Onward, r.Inboxes, func(d *delivery) bool { return d.Place == kept })
	if err != nil {
		return err
	}
	d := duties{inboxes: inboxes, onward: onward}
	if !changed && d.none() {
		return nil
	}
	if d.delivers() {
		h.st.Keepers = nil // they know nothing of these
	}
	if err := s.add(h, d, r.Sequence, r.At); err != nil {
		return err
	}
	if err := s.endCopies(h); err != nil {
		return err
	}
	s.needs(h, s.size)
	s.save(h, r.Now)
	return nil
}

// standing returns those of the duties that are for recipients who stand as
// told, each once.
func (s *step) standing(h *held, onward []envelope.Onward, inboxes []routing.AgencyCode, so func(*delivery) bool) (
	[]envelope.Onward, []routing.AgencyCode, error,
) {
	seen := make(map[routing.AgencyCode]bool)
	pick := func(agencies []routing.AgencyCode) (out []routing.AgencyCode, err error) {
		for _, a := range agencies {
			d, err := s.delivery(h, a)
			if err != nil {
				return nil, err
			}
			if d != nil && so(d) && !seen[a] {
				seen[a] = true
				out = append(out, a)
			}
		}
		return out, nil
	}
	inHere, err := pick(inboxes)
	if err != nil {
		return nil, nil, err
	}
	var out []envelope.Onward
	for _, o := range onward {
		agencies, err := pick(o.Agencies)
		if err != nil {
			return nil, nil, err
		}
		if len(agencies) > 0 && o.Relay != s.self {
			out = append(out, envelope.Onward{Relay: o.Relay, Agencies: agencies})
		}
	}
	return out, inHere, nil
}

// apply holds an envelope, or has it go on; who waits for it looks again.
func (r *holding) apply(s *step) error {
	h, err := s.load(r.ID)
	if err != nil || !h.known || h.st.Held == r.Held || r.Held && h.st.done() {
		return err
	}
	h.st.Held = r.Held
	e := envelope.Event{At: r.At, Action: exchangev1.TraceAction_TRACE_ACTION_HELD, Note: r.Note}
	if !r.Held {
		e.Action = exchangev1.TraceAction_TRACE_ACTION_RELEASED
		if err := s.wake(h); err != nil {
			return err
		}
	}
	s.event(h, e)
	s.needs(h, s.size)
	s.save(h, r.Now)
	return nil
}

// wake wakes everybody who waits for a duty of the envelope.
func (s *step) wake(h *held) error {
	for _, d := range h.st.Duties {
		s.woken.relays = append(s.woken.relays, d.Relay)
	}
	if err := s.touchAll(h); err != nil {
		return err
	}
	for _, d := range h.touched {
		if d.Place == inInbox {
			s.woken.agencies = append(s.woken.agencies, d.Agency)
		}
	}
	return nil
}

// apply makes duties again of what was given up. Where everything had ended, the
// others may have let their content go: none counts as a holder any more.
func (r *revived) apply(s *step) error {
	s.sequenced(r.Sequence)
	h, err := s.load(r.ID)
	if err != nil || !h.known || !h.st.FromSender || !h.st.holdsContent() {
		return err
	}
	onward, inboxes, err := s.standing(h, r.Onward, r.Inboxes, (*delivery).dead)
	if err != nil {
		return err
	}
	d := duties{inboxes: inboxes, onward: onward}
	if d.none() {
		return nil
	}
	h.st.Keepers = nil // they kept it for others
	if h.st.Unsettled == 0 {
		h.st.Holders = nil
	}
	h.sequence = r.Sequence
	h.st.ExpiresAt = r.ExpiresAt
	if r.Keyed {
		if err := s.claimHere(h); err != nil {
			return err
		}
	}
	e := envelope.Event{At: r.At, Action: exchangev1.TraceAction_TRACE_ACTION_RETRY, Note: r.Note}
	s.event(h, e)
	if err := s.add(h, d, r.Sequence, r.At); err != nil {
		return err
	}
	s.needs(h, s.size)
	s.save(h, r.Now)
	return nil
}
