package spool

import (
	"bytes"
	"context"
	"fmt"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// registerAll writes into the register what is marked, and returns when it is
// durable there.
func (s *Spool) registerAll(ctx context.Context) error {
	if err := s.registerLives(ctx); err != nil {
		return fmt.Errorf("register what was said: %w", err)
	}
	for {
		marks, err := s.registerSome(ctx)
		if err != nil {
			return fmt.Errorf("register what was released: %w", err)
		}
		if len(marks) == 0 {
			return nil
		}
		err = s.change(ctx, func(st *step) error {
			for id, revision := range marks {
				now, err := envelopeAt(st.v, id)
				if err != nil {
					return err
				}
				if now == nil || !now.released() || now.Revision == revision {
					st.b.Delete(index.UnregisteredKey(id))
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// registerLives registers what was said, since its release, of an envelope with
// many recipients.
func (s *Spool) registerLives(ctx context.Context) error {
	for {
		var entries []journal.Entry
		var keys [][]byte
		var was []int
		err := func() error {
			v := s.store.View()
			defer v.Close()
			it := v.Iterator(index.UnregisteredLives(nil))
			defer it.Close()
			for ; it.Valid() && len(keys) < maxMarks; it.Next() {
				id, agency := index.ParseRecipient(it.Key())
				keys, was = append(keys, bytes.Clone(it.Key())), append(was, 0)
				st, err := envelopeAt(v, id)
				if err != nil || st == nil {
					return err
				}
				life, err := lifeAt(v, id, &delivery{Delivery: envelope.Delivery{Agency: agency}, Spoken: true})
				if err != nil {
					return err
				}
				was[len(was)-1] = len(life.Said) + int(life.Dropped)
				entries = append(entries, entryOf(&lifeRecord{ID: id, Agency: agency, Life: life, Revision: st.Revision, Until: st.DueAt}))
			}
			return it.Err()
		}()
		if err != nil || len(keys) == 0 {
			return err
		}
		if err := s.appendToRegister(ctx, entries); err != nil {
			return err
		}
		err = s.change(ctx, func(st *step) error {
			for i, key := range keys {
				id, agency := index.ParseRecipient(key)
				life, err := lifeAt(st.v, id, &delivery{Delivery: envelope.Delivery{Agency: agency}, Spoken: true})
				if err != nil {
					return err
				}
				if len(life.Said)+int(life.Dropped) == was[i] {
					st.b.Delete(key)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

func (s *Spool) appendToRegister(ctx context.Context, entries []journal.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	t, err := s.register.Append(ctx, true, entries...)
	if err == nil {
		_, err = t.Wait(ctx)
	}
	return err
}

// registerSome registers some of what is marked, and says with which revision.
func (s *Spool) registerSome(ctx context.Context) (map[envelope.ID]uint64, error) {
	v := s.store.View()
	defer v.Close()
	it := v.Iterator(index.Unregistered())
	defer it.Close()
	marks := make(map[envelope.ID]uint64)
	var entries []journal.Entry
	size := int64(0)
	for ; it.Valid() && len(marks) < maxMarks && size < registerBatch; it.Next() {
		id := index.ParseID(it.Key())
		marks[id] = 0
		st, err := envelopeAt(v, id)
		if err != nil {
			return nil, err
		}
		if st == nil || !st.released() {
			continue // it came again, or was forgotten
		}
		r, err := stateAt(v, id, st)
		if err != nil {
			return nil, err
		}
		st.Shares, st.Origins = nil, nil // of the journal
		lives, err := livesAt(v, id, st)
		if err != nil {
			return nil, err
		}
		e := entryOf(r)
		entries = append(entries, e)
		size += sizeOf(e)
		for _, l := range lives {
			e := entryOf(l)
			entries = append(entries, e)
			size += sizeOf(e)
		}
		marks[id] = st.Revision
	}
	if err := it.Err(); err != nil {
		return nil, err
	}
	return marks, s.appendToRegister(ctx, entries)
}
