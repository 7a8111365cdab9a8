package spool

import (
	"context"
	"fmt"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/relay/spool/index"
)

// What is said of a document is kept where its deliveries are counted, at its
// ingress, one life for each recipient at whom something was said (table life),
// for as long as its record is: most of it is said after the content was
// released. It is no duty, and holds nothing back.

// Say keeps what an envelope says of a document. It is durable on return and
// changes nothing the second time, nor where the document is not known.
// Recipients that the document never had are left out.
func (s *Spool) Say(ctx context.Context, f envelope.Said) error {
	f.Note = shortened(f.Note)
	err := s.decided(ctx, f.ID, false, func(v *index.View, st *state, _ bool) (record, error) {
		if st == nil {
			return nil, nil
		}
		for _, a := range f.Agencies {
			d, err := deliveryAt(v, f.ID, st, a)
			if err != nil {
				return nil, err
			}
			if d == nil {
				continue
			}
			life, err := lifeAt(v, f.ID, d)
			if err != nil {
				return nil, err
			}
			if life.Clone().Hear(heard(f)) {
				return &said{Said: f, Now: s.now()}, nil
			}
		}
		return nil, nil
	})
	if err != nil {
		return fmt.Errorf("keep what %s says of %s: %w", f.Source, f.ID, err)
	}
	return nil
}

func heard(f envelope.Said) lifecycle.Heard {
	return lifecycle.Heard{Statement: f.Statement, Source: f.Source}
}

// lifeAt reads what was said at one recipient, which may be nothing.
func lifeAt(v *index.View, id envelope.ID, d *delivery) (*lifecycle.Life, error) {
	if !d.Spoken {
		return new(lifecycle.Life), nil
	}
	b, found, err := v.Get(index.LifeKey(id, d.Agency))
	if err != nil || !found {
		return new(lifecycle.Life), err
	}
	return decodeLife(b)
}

// apply has each recipient's life go on.
func (r *said) apply(s *step) error {
	h, err := s.load(r.ID)
	if err != nil || !h.known {
		return err
	}
	changed := false
	for _, a := range r.Agencies {
		d, err := s.delivery(h, a)
		if err != nil {
			return err
		}
		if d == nil {
			continue
		}
		life, err := lifeAt(s.v, r.ID, d)
		if err != nil {
			return err
		}
		if !life.Hear(heard(r.Said)) {
			continue
		}
		changed = true
		s.setLife(h, d, life)
		s.event(h, envelope.Event{
			At: r.Heard, Action: exchangev1.TraceAction_TRACE_ACTION_STATUS, Agency: a, Note: r.told(life),
		})
	}
	if changed {
		s.needs(h, s.size)
		s.save(h, r.Now)
	}
	return nil
}

// told is what the trace says of a statement: never its note.
func (r *said) told(life *lifecycle.Life) string {
	what := r.Code
	if what == "" {
		what = r.Act.String()
	}
	outcome, _ := life.OutcomeOf(r.Source)
	if outcome == lifecycle.Moved {
		return what
	}
	return what + ", " + outcome.String()
}

// setLife puts the life at one recipient. Of an envelope with many that was
// released, the register gets this life alone.
func (s *step) setLife(h *held, d *delivery, life *lifecycle.Life) {
	d.Spoken = true
	h.change(d)
	s.b.Put(index.LifeKey(h.id, d.Agency), encodeLife(life))
	if h.st.released() && h.st.Paged {
		h.registered = true
		s.b.Put(index.UnregisteredLifeKey(h.id, d.Agency), nil)
	}
}

// apply puts the record in place of all that said so before.
func (r *lifeRecord) apply(s *step) error { return r.put(s, true) }

func (r *lifeRecord) put(s *step, journaled bool) error {
	h, err := s.load(r.ID)
	if err != nil || !h.known {
		return err
	}
	d, err := s.delivery(h, r.Agency)
	if err != nil || d == nil {
		return err
	}
	before, err := lifeAt(s.v, r.ID, d)
	if err != nil {
		return err
	}
	d.Spoken = true
	if h.st.Paged {
		s.b.Put(index.DeliveryKey(h.id, d.Agency), encodeDelivery(d))
	}
	if len(before.Said)+int(before.Dropped) <= len(r.Life.Said)+int(r.Life.Dropped) {
		s.b.Put(index.LifeKey(h.id, d.Agency), encodeLife(r.Life))
	}
	if journaled {
		s.needs(h, s.size)
	} else {
		h.registered = true
		h.st.Revision = max(h.st.Revision, r.Revision)
	}
	s.write(h)
	return nil
}

// dropLives forgets what was said.
func (s *step) dropLives(id envelope.ID) error {
	for _, prefix := range [][]byte{index.Lives(id), index.UnregisteredLives(&id)} {
		it := s.v.Iterator(prefix)
		for ; it.Valid(); it.Next() {
			s.b.Delete(it.Key())
		}
		it.Close()
		if err := it.Err(); err != nil {
			return err
		}
	}
	return nil
}

// livesAt are the records of what was said of an envelope.
func livesAt(v *index.View, id envelope.ID, st *state) ([]*lifeRecord, error) {
	all, err := deliveriesAt(v, id, st)
	if err != nil {
		return nil, err
	}
	var lives []*lifeRecord
	for _, d := range all {
		if !d.Spoken {
			continue
		}
		life, err := lifeAt(v, id, d)
		if err != nil {
			return nil, err
		}
		lives = append(lives, &lifeRecord{ID: id, Agency: d.Agency, Life: life, Revision: st.Revision, Until: st.DueAt})
	}
	return lives, nil
}

// lived adds to a delivery what was said at it.
func lived(v *index.View, id envelope.ID, d *delivery) (envelope.Delivery, error) {
	if !d.Spoken {
		return d.Delivery, nil
	}
	life, err := lifeAt(v, id, d)
	out := d.Delivery
	out.Life = life
	return out, err
}
