package spool

import (
	"slices"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

// The lists of what is to be looked after. They come in pages: each begins
// behind the last entry of the one before, and shows the instant of its own call.

// Destinations lists the relays that something is queued for, in order.
func (s *Spool) Destinations() ([]routing.RelayID, error) {
	m := s.machine
	m.mu.Lock()
	defer m.mu.Unlock()
	var relays []routing.RelayID
	for relay, n := range m.lengths {
		if n > 0 {
			relays = append(relays, relay)
		}
	}
	slices.Sort(relays)
	return relays, s.refusal()
}

// InboxAgencies lists at most max agencies with something in their inbox here, behind
// one of them, in an order of their own; it begins with the empty code.
func (s *Spool) InboxAgencies(after routing.AgencyCode, max int) ([]routing.AgencyCode, error) {
	v := s.store.View()
	defer v.Close()
	it := v.Iterator(index.Inboxes())
	defer it.Close()
	var agencies []routing.AgencyCode
	for behind := after; len(agencies) < max; {
		if behind != "" {
			it.Seek(append(index.Inbox(behind), 0xff)) // no lane ranks so low
		}
		if !it.Valid() {
			break
		}
		code, _, _ := index.ParsePlace(it.Key())
		behind = routing.AgencyCode(code)
		agencies = append(agencies, behind)
	}
	return agencies, it.Err()
}

// Sole lists at most max envelopes behind a sequence that were accepted here,
// are not settled, and that no other relay is known to have. What comes to be
// alone later stands behind what was before.
func (s *Spool) Sole(after uint64, max int) ([]envelope.SoleEntry, error) {
	v := s.store.View()
	defer v.Close()
	it := v.Iterator(index.Soles())
	defer it.Close()
	var out []envelope.SoleEntry
	for it.Seek(index.SoleFrom(after + 1)); it.Valid() && len(out) < max; it.Next() {
		sequence, id := index.ParseSoleKey(it.Key())
		since, size, err := decodeAlone(it.Value())
		if err != nil {
			return nil, err
		}
		out = append(out, envelope.SoleEntry{ID: id, Sequence: sequence, Since: since, Size: size})
	}
	return out, it.Err()
}

// Holders lists the relays that are known to have envelopes which were accepted
// here and are not settled, in an order of their own.
func (s *Spool) Holders() ([]routing.RelayID, error) { return s.relaysIn(index.Aways()) }

// Away lists at most max envelopes behind one of them that were accepted here,
// are not settled, and that a holder is known to have.
func (s *Spool) Away(holder routing.RelayID, after envelope.ID, max int) ([]envelope.ID, error) {
	return s.idsBehind(index.Away(holder), after, max)
}

// Origins lists the ingress relays of envelopes that are in custody or kept
// here, reports apart, in an order of their own.
func (s *Spool) Origins() ([]routing.RelayID, error) { return s.relaysIn(index.Origins()) }

// Origin lists at most max such envelopes of one ingress behind one of them.
func (s *Spool) Origin(ingress routing.RelayID, after envelope.ID, max int) ([]envelope.ID, error) {
	return s.idsBehind(index.Origin(ingress), after, max)
}

// relaysIn lists the first columns of a table.
func (s *Spool) relaysIn(table []byte) ([]routing.RelayID, error) {
	v := s.store.View()
	defer v.Close()
	it := v.Iterator(table)
	defer it.Close()
	var relays []routing.RelayID
	for it.Valid() {
		relay, _ := index.ParseRelayAndID(it.Key())
		relays = append(relays, relay)
		it.Seek(index.Behind(it.Key()[:len(it.Key())-16]))
	}
	return relays, it.Err()
}

// idsBehind lists the ids that follow a prefix.
func (s *Spool) idsBehind(prefix []byte, after envelope.ID, max int) ([]envelope.ID, error) {
	v := s.store.View()
	defer v.Close()
	it := v.Iterator(prefix)
	defer it.Close()
	if !after.IsZero() {
		it.Seek(append(append(slices.Clone(prefix), after[:]...), 0))
	}
	var ids []envelope.ID
	for ; it.Valid() && len(ids) < max; it.Next() {
		_, id := index.ParseRelayAndID(it.Key())
		ids = append(ids, id)
	}
	return ids, it.Err()
}

// DeadLetters lists at most max envelopes behind a place in the list that were
// accepted here, given up for some recipient, and still have their content, so
// that they can be revived; by when the first recipient was given up.
func (s *Spool) DeadLetters(after envelope.Due, max int) ([]envelope.Due, error) {
	v := s.store.View()
	defer v.Close()
	it := v.Iterator(index.Dead())
	defer it.Close()
	if !after.At.IsZero() {
		it.Seek(index.DeadFrom(after.At))
	}
	var out []envelope.Due
	for ; it.Valid() && len(out) < max; it.Next() {
		if at, id := index.ParseDeadKey(it.Key()); comesBehind(at, id, after) {
			out = append(out, envelope.Due{At: at, ID: id})
		}
	}
	return out, it.Err()
}

// Undelivered lists at most max envelopes of a lane, behind a place in the list,
// that were accepted here and are not settled, and whose delivery target runs
// since an instant before end: in that order.
func (s *Spool) Undelivered(lane envelope.Lane, after envelope.Due, end time.Time, max int) ([]envelope.Due, error) {
	v := s.store.View()
	defer v.Close()
	it := v.Iterator(index.UndeliveredIn(lane))
	defer it.Close()
	if !after.At.IsZero() {
		it.Seek(index.UndeliveredFrom(lane, after.At))
	}
	var out []envelope.Due
	for ; it.Valid() && len(out) < max; it.Next() {
		_, since, id := index.ParseUndelivered(it.Key())
		if !since.Before(end) {
			break
		}
		if comesBehind(since, id, after) {
			out = append(out, envelope.Due{At: since, ID: id})
		}
	}
	return out, it.Err()
}

// Usage returns how many envelopes of a sender were accepted here and are not
// settled, and the bytes of their parts.
func (s *Spool) Usage(sender routing.AgencyCode) (envelopes, bytes int64, err error) {
	v := s.store.View()
	defer v.Close()
	u, err := usageAt(v, sender)
	return u.Envelopes, u.Bytes, err
}

// Waiting returns how many envelopes are in an inbox here.
func (s *Spool) Waiting(agency routing.AgencyCode) (int64, error) {
	v := s.store.View()
	defer v.Close()
	return waitingAt(v, agency)
}

// heldAt tells whether an operator holds an envelope. Mostly nothing is held,
// and nothing is looked up.
func (s *Spool) heldAt(v *index.View) func(envelope.ID) (bool, error) {
	if s.machine.held.Load() == 0 { // asked after the view was taken
		return func(envelope.ID) (bool, error) { return false, nil }
	}
	return func(id envelope.ID) (bool, error) { return v.Has(index.HeldKey(id)) }
}
