package spool

import (
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
)

// here is the location of a record's content.
func (s *step) here(c *content) location {
	return location{Position: s.at, Skip: c.skip, Length: c.length, Record: uint32(s.size)}
}

// apply opens a transfer; with the generation of the one that is open it only
// takes the place of the record that did.
func (r *begin) apply(s *step) error {
	s.sequenced(r.Generation)
	if over, err := s.over(r.ID, r.Generation); over || err != nil {
		return err
	}
	t, err := transferAt(s.v, r.ID)
	if err != nil {
		return err
	}
	switch {
	case t != nil && t.Generation > r.Generation:
		return nil
	case t != nil && t.Generation == r.Generation:
		s.live(t.Begin.Segment, -t.Begin.Bytes)
	default:
		if t, err = s.open(r.ID, r.Generation, t, r.At); err != nil {
			return err
		}
	}
	for len(t.Ends) < r.Parts {
		t.Ends = append(t.Ends, 0)
	}
	t.Begin = share{s.at.Segment, s.size}
	s.live(s.at.Segment, s.size)
	s.b.Put(index.TransferKey(r.ID), encodeTransfer(t))
	return nil
}

// open starts a transfer in place of an earlier one.
func (s *step) open(id envelope.ID, generation uint64, earlier *transfer, at time.Time) (*transfer, error) {
	if earlier != nil {
		if err := s.closeTransfer(id, earlier, true); err != nil {
			return nil, err
		}
	}
	s.counters.Transfers++
	return &transfer{Generation: generation, TouchedAt: at, Begin: share{Segment: s.at.Segment}}, nil
}

// closeTransfer ends a transfer, and with it what it brought unless an envelope
// keeps that.
func (s *step) closeTransfer(id envelope.ID, t *transfer, discard bool) error {
	s.b.Delete(index.TransferKey(id))
	s.counters.Transfers--
	if !discard {
		return nil
	}
	s.live(t.Begin.Segment, -t.Begin.Bytes)
	return s.dropChunks(id, t.Generation)
}

func (s *step) dropChunks(id envelope.ID, generation uint64) error {
	it := s.v.Iterator(index.Chunks(id, generation))
	defer it.Close()
	for ; it.Valid(); it.Next() {
		l, err := decodeLocation(it.Value())
		if err != nil {
			return err
		}
		s.live(l.Segment, -int64(l.Record))
		s.b.Delete(it.Key())
	}
	return it.Err()
}

// apply adds bytes to a transfer. Where the record that opened it was lost, or
// stands in a state record that is still to come, the chunk opens it.
func (r *chunk) apply(s *step) error {
	if over, err := s.over(r.ID, r.Generation); over || err != nil {
		return err
	}
	t, err := transferAt(s.v, r.ID)
	if err != nil {
		return err
	}
	if t != nil && t.Generation > r.Generation {
		return nil
	}
	if t == nil || t.Generation < r.Generation {
		s.sequenced(r.Generation)
		if t, err = s.open(r.ID, r.Generation, t, r.At); err != nil {
			return err
		}
	}
	return s.addChunk(r, t)
}

func (s *step) addChunk(r *chunk, t *transfer) error {
	for len(t.Ends) <= r.Part {
		t.Ends = append(t.Ends, 0)
	}
	if r.Offset < t.Ends[r.Part] {
		return nil
	}
	s.b.Insert(index.ChunkKey(r.ID, r.Generation, r.Part, r.Offset), encodeLocation(s.here(&r.content)))
	s.live(s.at.Segment, s.size)
	t.Ends[r.Part] = r.Offset + uint64(r.length)
	t.TouchedAt = r.At
	s.b.Put(index.TransferKey(r.ID), encodeTransfer(t))
	return nil
}

// apply points a chunk to its new place. During a rebuild the old place, or the
// envelope, may not be known.
func (r *moved) apply(s *step) error {
	st, err := envelopeAt(s.v, r.ID)
	if err != nil {
		return err
	}
	t, err := transferAt(s.v, r.ID)
	if err != nil {
		return err
	}
	switch {
	case st != nil && !st.released() && st.Generation == r.Generation:
	case t != nil && t.Generation == r.Generation:
	case st != nil && r.Generation <= st.Last, t != nil && t.Generation > r.Generation:
		return nil
	default:
		return r.chunk.apply(s)
	}
	old, found, err := chunkAt(s.v, r.ID, r.Generation, r.Part, r.Offset)
	if err != nil {
		return err
	}
	if found {
		if old.Position != r.From {
			return nil
		}
		s.live(old.Segment, -int64(old.Record))
	}
	s.b.Put(index.ChunkKey(r.ID, r.Generation, r.Part, r.Offset), encodeLocation(s.here(&r.content)))
	s.live(s.at.Segment, s.size)
	return nil
}

func (r *abandoned) apply(s *step) error {
	t, err := transferAt(s.v, r.ID)
	if err != nil || t == nil || t.Generation > r.Generation {
		return err
	}
	return s.closeTransfer(r.ID, t, true)
}
