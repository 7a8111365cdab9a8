package spool

import (
	"slices"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// apply moves recipients to other duties. Those handed on to a relay that lost
// them are queued again; those that have moved on meanwhile stay where they are.
func (r *rerouted) apply(s *step) error {
	s.sequenced(r.Sequence)
	h, err := s.load(r.ID)
	if err != nil || !h.known || !h.st.holdsContent() {
		return err
	}
	h.sequence = r.Sequence
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
	pickEach := func(list []envelope.Onward) (out []envelope.Onward) {
		for _, o := range list {
			if agencies := pick(o.Agencies); len(agencies) > 0 {
				out = append(out, envelope.Onward{Relay: o.Relay, Agencies: agencies})
			}
		}
		return out
	}
	onward, elsewhere := pickEach(r.Onward), pickEach(r.Elsewhere)
	all := slices.Clone(inboxes)
	for _, o := range slices.Concat(onward, elsewhere) {
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
		default:
			// It was elsewhere when others were asked to keep the envelope.
			h.st.Keepers = nil
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
	for _, o := range elsewhere {
		if err := s.relocate(h, o, r.At); err != nil {
			return err
		}
	}
	if len(inboxes) > 0 {
		if r.Keyed {
			if err := s.claimHere(h); err != nil {
				return err
			}
		}
		s.event(h, envelope.Event{At: r.At, Action: exchangev1.TraceAction_TRACE_ACTION_REROUTED, Peer: s.self})
	}
	s.needs(h, s.size)
	s.save(h, r.Now)
	return nil
}

// relocate notes that recipients are in the custody of another relay.
func (s *step) relocate(h *held, o envelope.Onward, at time.Time) error {
	for _, a := range o.Agencies {
		d, err := s.delivery(h, a)
		if err != nil {
			return err
		}
		d.Place, d.Home, d.UpdatedAt = handedOn, o.Relay, at
		d.Transport = exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING
		h.change(d)
	}
	s.event(h, envelope.Event{At: at, Action: exchangev1.TraceAction_TRACE_ACTION_REROUTED, Peer: o.Relay})
	return s.holder(h, o.Relay, false)
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
		case d == nil, d.Place == settled, d.Place == kept:
		case d.Place == inInbox:
			moving[a] = r.From == s.self && !slices.Contains(r.Inboxes, a)
		case d.Home == r.From:
			staying := d.Place == inQueue && names(r.Onward, r.From, a) ||
				d.Place == handedOn && names(r.Elsewhere, r.From, a) && slices.Contains(h.st.Holders, r.From)
			moving[a] = !staying
		}
		if !moving[a] {
			delete(moving, a)
		}
	}
	return moving, nil
}

func names(list []envelope.Onward, relay routing.RelayID, agency routing.AgencyCode) bool {
	return slices.ContainsFunc(list, func(o envelope.Onward) bool {
		return o.Relay == relay && slices.Contains(o.Agencies, agency)
	})
}
