package spool

import (
	"fmt"
	"slices"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

// headerPage is how much of a header one value of the index holds.
const headerPage = 256 << 10

// held is one envelope in a step: what the index says, and what the record
// changes.
type held struct {
	id envelope.ID
	// known: the envelope exists.
	known bool
	st    *state
	// touched are the deliveries looked at, changed those to be written.
	touched map[routing.AgencyCode]*delivery
	changed map[routing.AgencyCode]bool
	// entries are the queue entries looked at, by relay.
	entries map[routing.RelayID]*queued
	events  uint64
	// fresh: no key of the envelope existed before this record; dropped: they
	// existed and were all deleted.
	fresh, dropped bool
	// listed is in which tables the envelope stands.
	listed membership
	// sequence is that of the record, for a new place in the table sole.
	sequence uint64
	// renewed: the time until the release begins again.
	renewed bool
	// registered: the register has what the state says.
	registered bool
}

func (s *step) load(id envelope.ID) (*held, error) {
	st, err := envelopeAt(s.v, id)
	if err != nil {
		return nil, err
	}
	h := &held{id: id, known: st != nil, st: st}
	if st == nil {
		h.st = new(state)
	}
	h.listed = h.st.membership()
	return h, nil
}

// create makes a new envelope of c.
func (s *step) create(h *held, c *envelope.Custody, at time.Time) {
	h.fresh = !h.known
	h.known = true
	h.st = &state{
		Origins: h.st.Origins, Last: h.st.Last,
		CommittedAt: at, Lane: c.Lane, Size: c.Size(), NotBefore: c.NotBefore, ExpiresAt: c.ExpiresAt, Report: c.Report,
		Sender: c.Sender, Ingress: c.Ingress,
	}
	s.writeHeader(h.id, c)
	s.counters.Envelopes++
	s.counters.Bytes += int64(h.st.Size)
}

func (s *step) writeHeader(id envelope.ID, c *envelope.Custody) {
	b := appendHeader([]byte{layoutVersion}, c)
	for page := 0; ; page++ {
		n := min(len(b), headerPage)
		s.b.Put(index.HeaderKey(id, page), b[:n:n])
		if b = b[n:]; n < headerPage {
			return
		}
	}
}

// delivery returns what is known of a recipient, nil if nothing is.
func (s *step) delivery(h *held, agency routing.AgencyCode) (*delivery, error) {
	if d, ok := h.touched[agency]; ok {
		return d, nil
	}
	if h.fresh || h.dropped {
		return nil, nil // what the view has, if anything, is of an earlier life
	}
	d, err := deliveryAt(s.v, h.id, h.st, agency)
	if err != nil || d == nil {
		return nil, err
	}
	h.touch(d)
	return d, nil
}

func (h *held) touch(d *delivery) {
	if h.touched == nil {
		h.touched = make(map[routing.AgencyCode]*delivery)
		h.changed = make(map[routing.AgencyCode]bool)
	}
	h.touched[d.Agency] = d
}

// touchAll has every delivery in touched.
func (s *step) touchAll(h *held) error {
	if h.fresh || h.dropped {
		return nil
	}
	all, err := deliveriesAt(s.v, h.id, h.st)
	if err != nil {
		return err
	}
	for _, d := range all {
		if h.touched[d.Agency] == nil {
			h.touch(d)
		}
	}
	return nil
}

func (h *held) change(d *delivery) {
	h.touch(d)
	h.changed[d.Agency] = true
}

// addDelivery makes a recipient known.
func (s *step) addDelivery(h *held, d *delivery) {
	h.st.Count++
	h.st.Unsettled++
	if h.st.FromSender {
		s.counters.Accepted++
	}
	if !h.st.Paged {
		h.st.Deliveries = append(h.st.Deliveries, d)
		if len(h.st.Deliveries) > inlineDeliveries {
			for _, d := range h.st.Deliveries {
				h.change(d)
			}
			h.st.Paged, h.st.Deliveries = true, nil
		}
	}
	h.change(d)
}

// entry returns the queue entry of a duty.
func (s *step) entry(h *held, d duty) (*queued, error) {
	if q, ok := h.entries[d.Relay]; ok {
		return q, nil
	}
	b, found, err := s.v.Get(index.QueueKey(d.Relay, h.st.Lane, d.Sequence))
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("envelope %s: its entry in the queue of %s is missing", h.id, d.Relay)
	}
	q, err := decodeQueued(b)
	if err != nil {
		return nil, err
	}
	h.keep(d.Relay, q)
	return q, nil
}

func (h *held) keep(relay routing.RelayID, q *queued) {
	if h.entries == nil {
		h.entries = make(map[routing.RelayID]*queued)
	}
	h.entries[relay] = q
}

// enqueue adds recipients, or a duty without recipients, to the entry for one
// destination.
func (s *step) enqueue(h *held, relay routing.RelayID, agencies []routing.AgencyCode, sequence uint64, at time.Time) error {
	d, exists := h.st.duty(relay)
	q := &queued{ID: h.id, QueuedAt: at, Size: h.st.Size}
	if exists {
		var err error
		if q, err = s.entry(h, d); err != nil {
			return err
		}
	} else {
		d = duty{relay, sequence}
		h.st.Duties = append(h.st.Duties, d)
		h.keep(relay, q)
		if s.lengths[relay] == 0 {
			s.woken.newRelay = true
		}
		s.lengths[relay]++
		s.dirtyLengths[relay] = true
		s.counters.Queued++
	}
	if len(agencies) == 0 {
		if !q.Bare {
			q.Bare = true
			h.st.Bare++
			h.st.Open++
		}
	} else {
		q.Agencies = append(q.Agencies, agencies...)
		h.st.Open += uint32(len(agencies))
	}
	key := index.QueueKey(relay, h.st.Lane, d.Sequence)
	if exists {
		s.b.Put(key, encodeQueued(q))
	} else {
		s.b.Insert(key, encodeQueued(q))
	}
	s.woken.relays = append(s.woken.relays, relay)
	return nil
}

// dequeue takes recipients, and the duty without recipient if bare, out of the
// entry for one destination, and says which of them were there.
func (s *step) dequeue(h *held, relay routing.RelayID, agencies []routing.AgencyCode, bare bool) (taken []routing.AgencyCode, tookBare bool, err error) {
	d, exists := h.st.duty(relay)
	if !exists {
		return nil, false, nil
	}
	q, err := s.entry(h, d)
	if err != nil {
		return nil, false, err
	}
	leaving := make(map[routing.AgencyCode]bool, len(agencies))
	for _, a := range agencies {
		leaving[a] = true
	}
	rest := q.Agencies[:0]
	for _, a := range q.Agencies {
		if leaving[a] {
			taken = append(taken, a)
		} else {
			rest = append(rest, a)
		}
	}
	q.Agencies = rest
	tookBare = bare && q.Bare
	if len(taken) == 0 && !tookBare {
		return nil, false, nil
	}
	h.st.Open -= uint32(len(taken))
	if tookBare {
		q.Bare = false
		h.st.Bare--
		h.st.Open--
	}
	key := index.QueueKey(relay, h.st.Lane, d.Sequence)
	if len(q.Agencies) > 0 || q.Bare {
		s.b.Put(key, encodeQueued(q))
		return taken, tookBare, nil
	}
	s.b.Delete(key)
	delete(h.entries, relay)
	h.st.Duties = slices.DeleteFunc(h.st.Duties, func(o duty) bool { return o == d })
	s.lengths[relay]--
	s.dirtyLengths[relay] = true
	s.counters.Queued--
	return taken, tookBare, nil
}

// toInbox puts the envelope into the inbox of a recipient.
func (s *step) toInbox(h *held, d *delivery, sequence uint64, at time.Time) {
	d.Place, d.Sequence, d.Home, d.UpdatedAt = inInbox, sequence, s.self, at
	d.Transport = exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING
	h.change(d)
	h.st.Open++
	s.inboxed(d.Agency, 1)
	s.b.Insert(index.InboxKey(d.Agency, h.st.Lane, sequence), encodeInboxed(inboxed{
		ID: h.id, ArrivedAt: at, NotBefore: h.st.NotBefore, Size: h.st.Size,
	}))
	s.woken.agencies = append(s.woken.agencies, d.Agency)
}

// leaveInbox takes the envelope out of the inbox of a recipient.
func (s *step) leaveInbox(h *held, d *delivery) {
	s.b.Delete(index.InboxKey(d.Agency, h.st.Lane, d.Sequence))
	h.st.Open--
	s.inboxed(d.Agency, -1)
}

// save writes back what the record changed; effective facts count up the
// revision. A hold ends with the last duty.
func (s *step) save(h *held, now time.Time) {
	h.st.Revision++
	h.st.Held = h.st.Held && !h.st.done()
	for agency := range h.changed {
		if h.st.Paged {
			d := h.touched[agency]
			s.b.Put(index.DeliveryKey(h.id, agency), encodeDelivery(d))
		}
	}
	s.schedule(h, now)
	s.write(h)
}

// write puts the state; what was recycled cannot bring the envelope back.
func (s *step) write(h *held) {
	s.enlist(h)
	h.st.Origins = slices.DeleteFunc(h.st.Origins, func(n uint64) bool { return s.segments[n] == nil })
	if h.st.released() && !h.st.Report && !h.registered {
		s.b.Put(index.UnregisteredKey(h.id), nil)
	}
	if h.fresh {
		s.b.Insert(index.EnvelopeKey(h.id), encodeState(h.st))
	} else {
		s.b.Put(index.EnvelopeKey(h.id), encodeState(h.st))
	}
}
