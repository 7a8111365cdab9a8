package spool

import (
	"context"
	"errors"
	"fmt"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// composition is what an envelope's content consists of here.
type composition struct {
	id         envelope.ID
	header     *envelope.Custody
	record     *envelope.Record
	generation uint64
	// parts holds the pieces of each part, in order and without gaps.
	parts [][]piece
}

// piece is a stretch of a part: one chunk, or what is missing between two. The
// first skip bytes of a chunk are those of the one before it.
type piece struct {
	offset, length, skip uint64
	missing              bool
	at                   location
}

func (c *composition) missing() (n uint64) {
	for _, pieces := range c.parts {
		for _, p := range pieces {
			if p.missing {
				n += p.length
			}
		}
	}
	return n
}

// examine reads all content of an envelope and forgets where what cannot be read
// was. It returns nothing if no content is needed here.
func (m *mender) examine(ctx context.Context, id envelope.ID) (*composition, error) {
	c, st, err := m.compose(id)
	for tried := (journal.Position{}); err == nil && st != nil && st.Whole != nil; c, st, err = m.compose(id) {
		_, err := m.readAt(ctx, *st.Whole)
		switch {
		case err == nil:
			return c, nil
		case unreadable(err), errors.Is(err, journal.ErrGone) && tried == st.Whole.Position:
			if err := m.displace(ctx, id, *st.Whole); err != nil {
				return nil, err
			}
		case !errors.Is(err, journal.ErrGone): // gone: perhaps it was moved
			return nil, err
		}
		tried = st.Whole.Position
	}
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, m.giveUpTransfer(ctx, id)
	}
	bad := false
	for part, pieces := range c.parts {
		for _, p := range pieces {
			if p.missing {
				continue
			}
			_, err := m.readPiece(ctx, c, part, p)
			if errors.Is(err, ErrDamaged) {
				bad = true
				err = m.lose(ctx, c, part, p)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	if bad {
		c, _, err = m.compose(id)
	}
	return c, err
}

// compose says what the index knows of an envelope's content; nothing if none is
// needed here.
func (m *mender) compose(id envelope.ID) (*composition, *state, error) {
	v := m.store.View()
	defer v.Close()
	st, err := envelopeAt(v, id)
	if err != nil || st == nil || !st.holdsContent() {
		return nil, nil, err
	}
	header, err := headerAt(v, id)
	if err != nil {
		return nil, nil, err
	}
	c := &composition{id: id, header: header, generation: st.Generation, parts: make([][]piece, len(header.Parts))}
	if st.Whole != nil {
		return c, st, nil
	}
	for part, declared := range header.Parts {
		var end uint64
		err := v.Each(index.PartChunks(id, st.Generation, part), func(key, value []byte) error {
			l, err := decodeLocation(value)
			if err != nil {
				return err
			}
			_, offset := index.ParseChunkKey(key)
			last := offset + uint64(l.Length)
			if last > declared.Size {
				return fmt.Errorf("part %d of %s is longer than declared: %w", part, id, errFormat)
			}
			if offset > end {
				c.parts[part] = append(c.parts[part], piece{offset: end, length: offset - end, missing: true})
			}
			if last > end { // a rebuild may find again what was mended in other pieces
				c.parts[part] = append(c.parts[part], piece{offset: offset, length: last - offset, skip: end - min(end, offset), at: l})
				end = last
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
		if end < declared.Size {
			c.parts[part] = append(c.parts[part], piece{offset: end, length: declared.Size - end, missing: true})
		}
	}
	return c, st, nil
}

// unreadable tells what another try will not read either from the end of the
// journal, and from a segment that was emptied meanwhile.
func unreadable(err error) bool {
	return errors.Is(err, journal.ErrDamaged) || errors.Is(err, errFormat) || errors.Is(err, journal.ErrAhead)
}

func (m *mender) readAt(ctx context.Context, at location) ([]byte, error) {
	if err := m.limit.WaitN(ctx, min(int(at.Record), m.limit.Burst())); err != nil {
		return nil, err
	}
	rec, err := m.journal.ReadInto(at.Position, make([]byte, 0, at.Record))
	if err != nil {
		return nil, err
	}
	if end := uint64(at.Skip) + uint64(at.Length); end > uint64(len(rec.Payload)) {
		return nil, fmt.Errorf("record at %s is shorter than its content: %w", at.Position, errFormat)
	}
	return rec.Payload[at.Skip:][:at.Length], nil
}

// readPiece reads a chunk, also if it is moved meanwhile. ErrDamaged says that it
// cannot be read where it is now.
func (m *mender) readPiece(ctx context.Context, c *composition, part int, p piece) ([]byte, error) {
	for {
		b, err := m.readAt(ctx, p.at)
		if err == nil {
			return b, nil
		}
		now, found, lookup := m.whereIs(c, part, p.offset)
		switch {
		case lookup != nil:
			return nil, lookup
		case !found:
			return nil, unmended{fmt.Errorf("chunk at %d was taken away meanwhile", p.offset)}
		case now.Position != p.at.Position:
			p.at = now
		case unreadable(err), errors.Is(err, journal.ErrGone):
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		default:
			return nil, err
		}
	}
}

func (m *mender) whereIs(c *composition, part int, offset uint64) (location, bool, error) {
	v := m.store.View()
	defer v.Close()
	return chunkAt(v, c.id, c.generation, part, offset)
}

// lose forgets where a chunk is that cannot be read.
func (m *mender) lose(ctx context.Context, c *composition, part int, p piece) error {
	now, found, err := m.whereIs(c, part, p.offset)
	if err != nil || !found {
		return err
	}
	return m.fact(ctx, false, &lost{ID: c.id, Generation: c.generation, Part: part, Offset: p.offset, From: now.Position})
}

// displace writes what is known of an envelope whose one record is damaged, with
// all content missing.
func (m *mender) displace(ctx context.Context, id envelope.ID, from location) error {
	return m.decide(ctx, id, func(v *index.View) (record, error) {
		st, err := envelopeAt(v, id)
		if err != nil || st == nil || st.released() || st.Whole == nil || st.Whole.Position != from.Position {
			return nil, err
		}
		r, err := stateAt(v, id, st)
		if err != nil {
			return nil, err
		}
		st.Whole, st.Generation = nil, m.nextSequence()
		st.Last = st.Generation
		return r, nil
	})
}

// giveUpTransfer has a damaged transfer begin anew. One that is under way is let
// be: whoever sends it is told when the content is checked.
func (m *mender) giveUpTransfer(ctx context.Context, id envelope.ID) error {
	v := m.store.View()
	t, err := transferAt(v, id)
	v.Close()
	if err != nil || t == nil {
		return err
	}
	if m.underWay(id) {
		return errBusy
	}
	return m.fact(ctx, false, &abandoned{ID: id, Generation: t.Generation})
}
