package spool

import (
	"slices"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

// duties are what a custody asks of this relay.
type duties struct {
	inboxes []routing.AgencyCode
	onward  []envelope.Onward
	kept    []routing.AgencyCode
}

func (d *duties) none() bool { return len(d.inboxes)+len(d.onward)+len(d.kept) == 0 }

// delivers reports whether a recipient is among them whose delivery waits here.
func (d *duties) delivers() bool {
	return len(d.inboxes) > 0 || slices.ContainsFunc(d.onward, func(o envelope.Onward) bool { return len(o.Agencies) > 0 })
}

// wants reports whether a duty that c names for a recipient, to be at place to,
// is not known here yet, given what is (nil: nothing).
//
//   - Waiting in an inbox, or settled: never a second time. But what was given
//     up is wanted again once the ingress revived it, and so gave it more time;
//     what its sender took back is not.
//   - Kept: nobody here has custody, so any duty is wanted; a copy to be kept
//     comes never on top of something known.
//   - Waiting in a queue: known, but an inbox takes it out of the queue, for
//     this relay is home now.
//   - Handed on: custody is elsewhere. Whoever offers it again means that the
//     next hop has lost it, or did not hear our answer; the next hop drops
//     repeats. To the sender at its ingress it is known all the same.
func wants(c *envelope.Custody, st *state, d *delivery, to envelope.Place) bool {
	switch {
	case d == nil:
		return true
	case d.Place == kept:
		return to != kept
	case c.FromSender && st.FromSender:
		return false
	case d.dead():
		return prolongs(c, st)
	case to == kept:
		return false
	case d.Place == inQueue:
		return to == inInbox
	}
	return d.Place == handedOn
}

// prolongs reports whether c gives the envelope more time than it has. A sender
// who comes again does not.
func prolongs(c *envelope.Custody, st *state) bool {
	return c.ExpiresAt.After(st.ExpiresAt) && !st.ExpiresAt.IsZero() && !(c.FromSender && st.FromSender)
}

// missing returns the duties of c that are not known here yet; find tells what
// is known of a recipient.
func missing(v *index.View, st *state, c *envelope.Custody, find func(routing.AgencyCode) (*delivery, error)) (out duties, err error) {
	pick := func(agencies []routing.AgencyCode, to envelope.Place) (picked []routing.AgencyCode, err error) {
		for _, a := range agencies {
			d, err := find(a)
			if err != nil {
				return nil, err
			}
			if wants(c, st, d, to) {
				picked = append(picked, a)
			}
		}
		return picked, nil
	}
	if out.inboxes, err = pick(c.Inboxes, inInbox); err != nil {
		return duties{}, err
	}
	if out.kept, err = pick(c.Kept, kept); err != nil {
		return duties{}, err
	}
	for _, o := range c.Onward {
		if len(o.Agencies) == 0 {
			known, err := bareKnown(v, st, c, o.Relay)
			if err != nil {
				return duties{}, err
			}
			if !known {
				out.onward = append(out.onward, o)
			}
			continue
		}
		agencies, err := pick(o.Agencies, inQueue)
		if err != nil {
			return duties{}, err
		}
		if len(agencies) > 0 {
			out.onward = append(out.onward, envelope.Onward{Relay: o.Relay, Agencies: agencies})
		}
	}
	return out, nil
}

// bareKnown reports whether a duty without recipient, which c names for a
// destination, waits already, or is a copy that need not be made.
func bareKnown(v *index.View, st *state, c *envelope.Custody, relay routing.RelayID) (bool, error) {
	if !c.Report && (c.FromSender && st.FromSender || !st.lacksCopyAt(relay)) {
		return true, nil
	}
	return bareDuty(v, st, relay)
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

// claimsDocument reports whether the sender's document id is to lead to c here:
// at its ingress, and at a recipient's home, so that two documents with one id
// never meet in an inbox.
func claimsDocument(c *envelope.Custody) bool {
	return !c.Report && (c.FromSender || len(c.Inboxes) > 0)
}

// claim has the sender's document id lead to the envelope. That it is free was
// decided before the record was written; a rebuild may still have an earlier
// envelope that was forgotten meanwhile.
func (s *step) claim(h *held, header *envelope.Custody) {
	h.st.Keyed = true
	s.b.Put(index.DocumentKey(header.Sender, header.DocumentID), h.id[:])
}

// claimHere is claim for an envelope that is here.
func (s *step) claimHere(h *held) error {
	c, err := headerAt(s.v, h.id)
	if err != nil {
		return err
	}
	s.claim(h, c)
	return nil
}

// disclaim gives the sender's document id back, and the document's number.
func (s *step) disclaim(h *held) error {
	if h.st.claimed() == 0 {
		return nil
	}
	c, err := headerAt(s.v, h.id)
	if err != nil {
		return err
	}
	if h.st.Numbered {
		if err := s.unnumber(h, c); err != nil {
			return err
		}
	}
	if !h.st.Keyed {
		return nil
	}
	h.st.Keyed = false
	key := index.DocumentKey(c.Sender, c.DocumentID)
	if holder, found, err := s.v.Get(key); err != nil {
		return err
	} else if found && envelope.ID(holder) == h.id {
		s.b.Delete(key)
	}
	return nil
}

// becomeIngress makes this relay remember the envelope for its sender.
func (s *step) becomeIngress(h *held, ingress routing.RelayID) error {
	h.st.FromSender, h.st.Ingress = true, ingress
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
		} else {
			s.reopen(h, d)
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
		} else {
			s.reopen(h, d)
		}
		d.Place, d.Home, d.UpdatedAt = inQueue, o.Relay, at
		d.Transport = exchangev1.TransportStatus_TRANSPORT_STATUS_INITIAL
		h.change(d)
	}
	return s.enqueue(h, o.Relay, o.Agencies, sequence, at)
}

// add makes duties what is missing.
func (s *step) add(h *held, d duties, sequence uint64, at time.Time) error {
	if err := s.addInboxes(h, d.inboxes, sequence, at); err != nil {
		return err
	}
	for _, o := range d.onward {
		if err := s.addOnward(h, o, sequence, at); err != nil {
			return err
		}
	}
	return s.addKept(h, d.kept, at)
}

func (s *step) addKept(h *held, agencies []routing.AgencyCode, at time.Time) error {
	for _, a := range agencies {
		d, err := s.delivery(h, a)
		if err != nil {
			return err
		}
		if d == nil {
			d = &delivery{}
			d.Agency = a
			s.addDelivery(h, d)
		} else {
			s.reopen(h, d)
		}
		d.Place, d.Home, d.UpdatedAt = kept, "", at
		d.Transport = exchangev1.TransportStatus_TRANSPORT_STATUS_INITIAL
		h.change(d)
		h.st.Open++
	}
	return nil
}

// reopen takes a delivery that is kept or settled out of its place, before it
// gets another; in an inbox or a queue it is not.
func (s *step) reopen(h *held, d *delivery) {
	switch d.Place {
	case kept:
		h.st.Open--
	case settled:
		if h.st.FromSender {
			*s.counters.outcome(d)--
		}
		h.st.countDead(d, -1)
		h.st.Unsettled++
		d.Reason, d.Note = 0, ""
	}
}

// countDead counts a delivery that is dead now, or no longer will be.
func (st *state) countDead(d *delivery, more int) {
	switch {
	case !d.dead():
	case more > 0:
		if st.Failed++; st.Failed == 1 {
			st.FailedAt = d.UpdatedAt
		}
	default:
		if st.Failed--; st.Failed == 0 {
			st.FailedAt = time.Time{}
		}
	}
}

// holder notes that another relay has made the envelope durable, and perhaps
// keeps it for everybody who waits here. A copy that was to be made there is not
// any more; should it be needed for others, it is wanted anew.
func (s *step) holder(h *held, relay routing.RelayID, keeps bool) error {
	if !slices.Contains(h.st.Holders, relay) {
		h.st.Holders = append(h.st.Holders, relay)
		s.woken.copies = append(s.woken.copies, h.id)
	}
	if keeps && !slices.Contains(h.st.Keepers, relay) {
		h.st.Keepers = append(h.st.Keepers, relay)
	}
	if h.st.Report {
		return nil
	}
	_, _, err := s.dequeue(h, relay, nil, true)
	return err
}
