package spool

import (
	"context"
	"fmt"
	"slices"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

// Facts that change who answers for an envelope. They are durable on return,
// change nothing the second time, and nothing where the envelope is not known.

// Copy makes it a duty to have a second copy made at a relay, and ends the same
// duty at others. Nothing is added where that relay has the envelope, where
// every delivery has ended, or where the content is not here.
func (s *Spool) Copy(ctx context.Context, f envelope.Copy) error {
	f.At = s.instant(f.At)
	err := s.decided(ctx, f.ID, false, func(v *index.View, st *state, _ bool) (record, error) {
		if needed, err := copyNeeded(v, st, s.cfg.Self, f); !needed || err != nil {
			return nil, err
		}
		return &copyWanted{Copy: f, Sequence: s.nextSequence(), Now: s.now()}, nil
	})
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w", f.ID, f.Relay, err)
	}
	return nil
}

// copyNeeded reports whether f would change something.
func copyNeeded(v *index.View, st *state, self routing.RelayID, f envelope.Copy) (bool, error) {
	if st == nil || st.Report {
		return false, nil
	}
	if st.lacksCopy(self, f.Relay) {
		if known, err := bareDuty(v, st, f.Relay); !known || err != nil {
			return err == nil, err
		}
	}
	for _, relay := range f.Instead {
		if waits, err := bareDuty(v, st, relay); waits && relay != f.Relay || err != nil {
			return err == nil, err
		}
	}
	return false, nil
}

// lacksCopy reports whether there is a copy to be made at a relay. Nobody needs
// one of a report, or of what is settled.
func (st *state) lacksCopy(self, relay routing.RelayID) bool {
	return st.holdsContent() && !st.Report && st.Unsettled > 0 && relay != "" && relay != self && st.lacksCopyAt(relay)
}

// lacksCopyAt reports whether a copy at a relay would add anything: it has none,
// or has one only for some, while others depend on this relay alone.
func (st *state) lacksCopyAt(relay routing.RelayID) bool {
	if st.sole() {
		return !slices.Contains(st.Keepers, relay)
	}
	return !slices.Contains(st.Holders, relay)
}

// Forget has a relay no longer count as a holder of an envelope: it lost it.
// Deliveries that it had custody of are to be rerouted first. Where one is still
// with it, nothing is forgotten: one may have been handed on to it since it was
// found not to have the envelope, and nobody would ask it after that one again.
func (s *Spool) Forget(ctx context.Context, id envelope.ID, holder routing.RelayID) error {
	err := s.decided(ctx, id, false, func(v *index.View, st *state, _ bool) (record, error) {
		if st == nil || !slices.Contains(st.Holders, holder) {
			return nil, nil
		}
		if needed, err := hasCustody(v, id, st, holder); needed || err != nil {
			return nil, err
		}
		return &forgotten{ID: id, Holder: holder, Sequence: s.nextSequence(), Now: s.now()}, nil
	})
	if err != nil {
		return fmt.Errorf("forget that %s has %s: %w", holder, id, err)
	}
	return nil
}

// hasCustody reports whether a delivery is believed to be at a relay.
func hasCustody(v *index.View, id envelope.ID, st *state, relay routing.RelayID) (bool, error) {
	all, err := deliveriesAt(v, id, st)
	return slices.ContainsFunc(all, func(d *delivery) bool { return d.Place == handedOn && d.Home == relay }), err
}

// Hold has an envelope stay where it is, or go on. The parts that hand on and
// deliver see to it; the spool only remembers, until nothing is left to do.
func (s *Spool) Hold(ctx context.Context, f envelope.Hold) error {
	f.At, f.Note = s.instant(f.At), shortened(f.Note)
	err := s.decided(ctx, f.ID, false, func(_ *index.View, st *state, _ bool) (record, error) {
		if st == nil || st.Held == f.Held || st.done() {
			return nil, nil
		}
		return &holding{Hold: f, Now: s.now()}, nil
	})
	if err != nil {
		return fmt.Errorf("hold %s: %w", f.ID, err)
	}
	return nil
}

// Reroute moves recipients of one duty to others. Those who were handed on to
// From are handed on anew, for From may have lost them; those who left From in
// another way, or are settled, stay. An envelope whose content was released
// stays as it is.
func (s *Spool) Reroute(ctx context.Context, f envelope.Reroute) error {
	f.At = s.instant(f.At)
	f.Elsewhere = slices.DeleteFunc(slices.Clone(f.Elsewhere), func(o envelope.Onward) bool { return o.Relay == s.cfg.Self })
	err := s.decided(ctx, f.ID, len(f.Inboxes) > 0, func(_ *index.View, st *state, keyed bool) (record, error) {
		if st == nil {
			return nil, nil
		}
		return &rerouted{Reroute: f, Sequence: s.nextSequence(), Now: s.now(), Keyed: keyed}, nil
	})
	if err != nil {
		return fmt.Errorf("reroute %s: %w", f.ID, err)
	}
	return nil
}

// TakeOver makes this relay the ingress of an envelope that is here: it
// remembers it from now on, and counts what becomes of each recipient. Copies
// that were kept for the recipients named become duties.
func (s *Spool) TakeOver(ctx context.Context, f envelope.TakeOver) error {
	f.At = s.instant(f.At)
	err := s.decided(ctx, f.ID, true, func(v *index.View, st *state, keyed bool) (record, error) {
		if needed, err := takeOverNeeded(v, st, f); !needed || err != nil {
			return nil, err
		}
		return &takenOver{TakeOver: f, Sequence: s.nextSequence(), Now: s.now(), Keyed: keyed}, nil
	})
	if err != nil {
		return fmt.Errorf("take over %s: %w", f.ID, err)
	}
	return nil
}

// takeOverNeeded reports whether f would change something.
func takeOverNeeded(v *index.View, st *state, f envelope.TakeOver) (bool, error) {
	if st == nil || st.released() || st.Report {
		return false, nil
	}
	if !st.FromSender {
		return true, nil
	}
	return anyDelivery(v, f.ID, st, f.Inboxes, f.Onward, func(d *delivery) bool { return d.Place == kept })
}

// anyDelivery reports whether one of the recipients of duties stands as told.
func anyDelivery(v *index.View, id envelope.ID, st *state,
	inboxes []routing.AgencyCode, onward []envelope.Onward, so func(*delivery) bool,
) (bool, error) {
	lists := [][]routing.AgencyCode{inboxes}
	for _, o := range onward {
		lists = append(lists, o.Agencies)
	}
	for _, agencies := range lists {
		for _, a := range agencies {
			if d, err := deliveryAt(v, id, st, a); err != nil || d != nil && so(d) {
				return err == nil, err
			}
		}
	}
	return false, nil
}

// Revive makes duties again of deliveries that were given up, at the ingress,
// with more time than they had. What its sender took back stays settled.
//
// The refusals are NOT_FOUND; WRONG_STATE where this relay is not the ingress,
// the content was released, or none of the recipients named was given up; and
// INVALID_FIELD where there would not be more time.
func (s *Spool) Revive(ctx context.Context, f envelope.Revive) error {
	f.At, f.Note = s.instant(f.At), shortened(f.Note)
	err := s.decided(ctx, f.ID, len(f.Inboxes) > 0, func(v *index.View, st *state, keyed bool) (record, error) {
		if err := revivable(v, st, f); err != nil {
			return nil, err
		}
		return &revived{Revive: f, Sequence: s.nextSequence(), Now: s.now(), Keyed: keyed}, nil
	})
	if err != nil {
		return fmt.Errorf("revive %s: %w", f.ID, err)
	}
	return nil
}

func revivable(v *index.View, st *state, f envelope.Revive) error {
	wrong := func(format string, args ...any) error {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, format, args...)
	}
	switch {
	case st == nil:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "envelope %s is not known here", f.ID)
	case !st.FromSender:
		return wrong("envelope %s was accepted by relay %s: revive it there", f.ID, st.Ingress)
	case !st.holdsContent():
		return wrong("content of envelope %s was released: have its sender send it again", f.ID)
	case !f.ExpiresAt.After(st.ExpiresAt) && !st.ExpiresAt.IsZero():
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD,
			"envelope %s already has until %s: give it more time", f.ID, st.ExpiresAt)
	}
	given, err := anyDelivery(v, f.ID, st, f.Inboxes, f.Onward, (*delivery).dead)
	if err == nil && !given {
		err = wrong("no delivery of envelope %s to these recipients was given up", f.ID)
	}
	return err
}

// decided appends the record that decide makes while nothing else happens to the
// envelope, whose state is nil if it is not known; no record: there is nothing to
// do. If the sender's document id is to be claimed, keyed tells whether it was
// free; a fact is not refused because it was not.
func (s *Spool) decided(ctx context.Context, id envelope.ID, claim bool,
	decide func(v *index.View, st *state, keyed bool) (record, error),
) error {
	if err := s.takeFor(ctx, id); err != nil {
		return err
	}
	g, err := func() (g *group, err error) {
		var claimed [][]byte
		defer func() {
			if g == nil {
				s.claims.drop(claimed)
			}
		}()
		if claim {
			if claimed, err = s.claimDocument(id); err != nil {
				return nil, err
			}
		}
		v := s.store.View()
		defer v.Close()
		st, err := envelopeAt(v, id)
		if err != nil {
			return nil, err
		}
		r, err := decide(v, st, claimed != nil)
		if r == nil || err != nil {
			return nil, err
		}
		return s.append(ctx, true, claimed, r)
	}()
	s.give()
	if g == nil || err != nil {
		return err
	}
	return s.wait(g)
}

// claimDocument claims the sender's document id of an envelope that is here, if
// nobody has it; nil: somebody has, or it needs none. As in Incoming.commit the
// claim is made before looking.
func (s *Spool) claimDocument(id envelope.ID) ([][]byte, error) {
	key, err := s.unclaimed(id)
	if key == nil || err != nil {
		return nil, err
	}
	if _, free := s.claims.claim(key, id); !free {
		return nil, nil
	}
	v := s.store.View()
	defer v.Close()
	if taken, err := v.Has(key); taken || err != nil {
		s.claims.drop([][]byte{key})
		return nil, err
	}
	return [][]byte{key}, nil
}

// unclaimed returns the key of the document id of an envelope that has not
// claimed it.
func (s *Spool) unclaimed(id envelope.ID) ([]byte, error) {
	v := s.store.View()
	defer v.Close()
	st, err := envelopeAt(v, id)
	if err != nil || st == nil || st.Keyed || st.Report || st.released() {
		return nil, err
	}
	c, err := headerAt(v, id)
	if err != nil {
		return nil, err
	}
	return index.DocumentKey(c.Sender, c.DocumentID), nil
}
