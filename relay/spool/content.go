package spool

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// Content returns the bytes of a part from offset on. They are read record by
// record, each proved by its checksum; a Read fails with ErrDamaged where that
// fails, and with ErrReleased if the content is let go meanwhile. Close it.
func (s *Spool) Content(id envelope.ID, part int, offset uint64) (io.ReadCloser, error) {
	v := s.store.View()
	defer v.Close()
	st, err := envelopeAt(v, id)
	switch {
	case err != nil:
		return nil, err
	case st == nil:
		return nil, fmt.Errorf("content of %s: %w", id, ErrNotFound)
	case st.released():
		return nil, fmt.Errorf("content of %s: %w", id, ErrReleased)
	}
	c, err := headerAt(v, id)
	if err != nil {
		return nil, err
	}
	if part < 0 || part >= len(c.Parts) {
		return nil, fmt.Errorf("content of %s: part %d of %d: %w", id, part, len(c.Parts), ErrNotFound)
	}
	src := &source{s: s, id: id, part: part, offset: min(offset, c.Parts[part].Size), end: c.Parts[part].Size}
	for _, p := range c.Parts[:part] {
		src.before += p.Size
	}
	return src, nil
}

// source reads a part, of an envelope or of a transfer.
type source struct {
	s    *Spool
	id   envelope.ID
	part int
	// generation is that of the transfer, 0 for an envelope.
	generation uint64
	// before is the size of the parts before it.
	before      uint64
	offset, end uint64
	buf         *[]byte
	rest        []byte
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

var errSourceClosed = errors.New("content was closed")

// Read implements io.Reader.
func (r *source) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo.
func (r *source) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		err := r.fill()
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(r.rest)
		total += int64(n)
		r.rest = r.rest[n:]
		if err != nil {
			return total, err
		}
	}
}

// Close gives the memory back.
func (r *source) Close() error {
	if r.buf != nil {
		buffers.Put(r.buf)
		r.buf, r.rest = nil, nil
	}
	r.s = nil
	return nil
}

// fill has something in rest, or fails; io.EOF at the end.
func (r *source) fill() error {
	if r.s == nil {
		return errSourceClosed
	}
	if len(r.rest) > 0 {
		return nil
	}
	if r.offset >= r.end {
		return io.EOF
	}
	if r.buf == nil {
		r.buf = buffers.Get().(*[]byte)
	}
	var tried journal.Position
	for {
		at, inner, err := r.locate()
		if err != nil {
			return err
		}
		rest, err := r.read(at, inner)
		if err == nil {
			r.rest = rest
			r.offset += uint64(len(rest))
			return nil
		}
		// It may have been moved, and its segment recycled, since it was located.
		if at.Position == tried {
			return r.s.damaged(r.id, r.part, at.Position, err)
		}
		tried = at.Position
	}
}

// read gives the content at a location from its byte inner on.
func (r *source) read(at location, inner uint64) ([]byte, error) {
	if cap(*r.buf) < int(at.Record) {
		*r.buf = make([]byte, 0, at.Record)
	}
	rec, err := r.s.journal.ReadInto(at.Position, *r.buf)
	if err != nil {
		return nil, err
	}
	first, last := uint64(at.Skip)+inner, uint64(at.Skip)+uint64(at.Length)
	if last > uint64(len(rec.Payload)) || first >= last {
		return nil, fmt.Errorf("record at %s is shorter than its content: %w", at.Position, errFormat)
	}
	return rec.Payload[first:min(last, first+r.end-r.offset)], nil
}

// locate finds the record that holds the byte at offset, and which byte of its
// content that is.
func (r *source) locate() (location, uint64, error) {
	v := r.s.store.View()
	defer v.Close()
	generation := r.generation
	if generation == 0 {
		st, err := envelopeAt(v, r.id)
		switch {
		case err != nil:
			return location{}, 0, err
		case st == nil || st.released():
			return location{}, 0, fmt.Errorf("content of %s: %w", r.id, ErrReleased)
		case st.Whole != nil:
			return *st.Whole, r.before + r.offset, nil
		}
		generation = st.Generation
	}
	// Mostly a chunk begins where the one before it ended.
	if l, found, err := chunkAt(v, r.id, generation, r.part, r.offset); found || err != nil {
		return l, 0, err
	}
	it := v.Iterator(index.PartChunks(r.id, generation, r.part))
	defer it.Close()
	for ; it.Valid(); it.Next() {
		l, err := decodeLocation(it.Value())
		if err != nil {
			return location{}, 0, err
		}
		if _, start := index.ParseChunkKey(it.Key()); start <= r.offset && r.offset < start+uint64(l.Length) {
			return l, r.offset - start, nil
		}
	}
	if it.Err() != nil {
		return location{}, 0, it.Err()
	}
	return location{}, 0, r.s.damaged(r.id, r.part, journal.Position{}, errMissing)
}

var errMissing = errors.New("bytes are missing in the journal")
