package spool

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// copyOut writes again what one envelope, or its transfer, needs of a segment.
func (c *cleaner) copyOut(ctx context.Context, id envelope.ID, segment uint64) error {
	v := c.store.View()
	defer v.Close()
	st, err := envelopeAt(v, id)
	if err != nil {
		return err
	}
	t, err := transferAt(v, id)
	if err != nil {
		return err
	}
	var bad error // what can be read is moved all the same
	if st != nil && st.Generation != 0 {
		err := c.moveChunks(ctx, v, id, st.Generation, segment)
		if err != nil && !errors.Is(err, ErrDamaged) {
			return err
		}
		bad = err
	}
	if t != nil {
		err := c.moveChunks(ctx, v, id, t.Generation, segment)
		if err != nil && !errors.Is(err, ErrDamaged) {
			return err
		}
		bad = errors.Join(bad, err)
		if t.Begin.Segment == segment && t.Begin.Bytes > 0 {
			if err := c.moveBegin(ctx, id, segment); err != nil {
				return err
			}
		}
	}
	if st != nil && slices.ContainsFunc(st.Shares, func(s share) bool { return s.Segment == segment }) {
		if err := c.moveState(ctx, id); err != nil {
			return err
		}
	}
	return bad
}

// moveChunks writes the chunks in a segment again. Those that cannot be read stay
// where they are, until the mender takes them in hand.
func (c *cleaner) moveChunks(ctx context.Context, v *index.View, id envelope.ID, generation, segment uint64) error {
	it := v.Iterator(index.Chunks(id, generation))
	defer it.Close()
	var buf []byte
	var bad error
	for ; it.Valid(); it.Next() {
		l, err := decodeLocation(it.Value())
		if err != nil {
			return err
		}
		if l.Segment != segment {
			continue
		}
		part, offset := index.ParseChunkKey(it.Key())
		if cap(buf) < int(l.Record) {
			buf = make([]byte, 0, l.Record)
		}
		rec, err := c.journal.ReadInto(l.Position, buf)
		if err != nil {
			if bad = c.unreadable(id, part, l.Position, err); errors.Is(bad, ErrDamaged) {
				continue
			}
			return bad
		}
		r := &moved{From: l.Position, chunk: chunk{
			ID: id, Generation: generation, Part: part, Offset: offset, At: c.now(),
			content: content{data: [][]byte{rec.Payload[l.Skip : l.Skip+l.Length]}},
		}}
		if err := c.limit.WaitN(ctx, int(l.Record)); err != nil {
			return err
		}
		err = c.decide(ctx, id, func(v *index.View) (record, error) {
			now, found, err := chunkAt(v, id, generation, part, offset)
			if err != nil || !found || now.Position != l.Position {
				return nil, err
			}
			return r, nil
		})
		if err != nil {
			return err
		}
	}
	return errors.Join(bad, it.Err())
}

// unreadable tells damage from a journal that has ended. Nobody but the cleaner
// recycles: what is gone now was gone at the start.
func (c *cleaner) unreadable(id envelope.ID, part int, at journal.Position, err error) error {
	if errors.Is(err, journal.ErrDamaged) || errors.Is(err, journal.ErrGone) {
		return c.damaged(id, part, at, err)
	}
	return err
}

// decide appends one record about an envelope while nothing else happens to it.
func (s *Spool) decide(ctx context.Context, id envelope.ID, fn func(*index.View) (record, error)) error {
	return s.decideAll(ctx, id, func(v *index.View) ([]record, error) {
		r, err := fn(v)
		if r == nil || err != nil {
			return nil, err
		}
		return []record{r}, nil
	})
}

// decideAll is decide for records that belong together.
func (s *Spool) decideAll(ctx context.Context, id envelope.ID, fn func(*index.View) ([]record, error)) error {
	if err := s.takeFor(ctx, id); err != nil {
		return err
	}
	g, err := func() (*group, error) {
		v := s.store.View()
		defer v.Close()
		all, err := fn(v)
		if err != nil || len(all) == 0 {
			return nil, err
		}
		return s.append(ctx, false, nil, all...)
	}()
	s.give()
	if err != nil || g == nil {
		return err
	}
	return s.wait(g)
}

func (c *cleaner) moveBegin(ctx context.Context, id envelope.ID, segment uint64) error {
	return c.decide(ctx, id, func(v *index.View) (record, error) {
		t, err := transferAt(v, id)
		if err != nil || t == nil || t.Begin.Segment != segment {
			return nil, err
		}
		return &begin{ID: id, Generation: t.Generation, At: t.TouchedAt, Parts: len(t.Ends)}, nil
	})
}

// moveState writes one record in place of all earlier ones of the envelope, and
// one for each recipient at whom something was said.
func (c *cleaner) moveState(ctx context.Context, id envelope.ID) error {
	whole, err := c.readWhole(id)
	if err != nil {
		return err
	}
	if err := c.limit.WaitN(ctx, min(len(whole)+4096, c.limit.Burst())); err != nil {
		return err
	}
	return c.decideAll(ctx, id, func(v *index.View) ([]record, error) {
		st, err := envelopeAt(v, id)
		if err != nil || st == nil || st.released() || (st.Whole != nil) != (len(whole) > 0) {
			return nil, err
		}
		r, err := stateAt(v, id, st)
		if err != nil {
			return nil, err
		}
		if len(whole) > 0 {
			r.data = [][]byte{whole}
		}
		lives, err := livesAt(v, id, st)
		all := []record{r}
		for _, l := range lives {
			all = append(all, l)
		}
		return all, err
	})
}

// readWhole reads the content of an envelope that lies in one record.
func (c *cleaner) readWhole(id envelope.ID) ([]byte, error) {
	v := c.store.View()
	defer v.Close()
	st, err := envelopeAt(v, id)
	if err != nil || st == nil || st.released() || st.Whole == nil {
		return nil, err
	}
	rec, err := c.journal.Read(st.Whole.Position)
	if err != nil {
		return nil, c.unreadable(id, 0, st.Whole.Position, err)
	}
	if end := uint64(st.Whole.Skip) + uint64(st.Whole.Length); end > uint64(len(rec.Payload)) {
		return nil, c.damaged(id, 0, st.Whole.Position, io.ErrUnexpectedEOF)
	}
	return rec.Payload[st.Whole.Skip:][:st.Whole.Length], nil
}

// stateAt gathers all that is known of an envelope.
func stateAt(v *index.View, id envelope.ID, st *state) (*stateRecord, error) {
	header, err := headerAt(v, id)
	if err != nil {
		return nil, err
	}
	r := &stateRecord{Header: header, State: st}
	if st.Paged {
		if r.Deliveries, err = deliveriesAt(v, id, st); err != nil {
			return nil, err
		}
	}
	for _, d := range st.Duties {
		b, found, err := v.Get(index.QueueKey(d.Relay, st.Lane, d.Sequence))
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		q, err := decodeQueued(b)
		if err != nil {
			return nil, err
		}
		q.Deferred = share{}
		r.Queues = append(r.Queues, queueState{d, q})
	}
	if len(r.Deliveries)*maxNote > journal.MaxPayload/4 {
		for _, d := range r.Deliveries {
			d.Note = "" // would not fit; the index still has them
		}
	}
	return r, nil
}
