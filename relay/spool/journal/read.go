package journal

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// readAhead is what Read fetches with the head: most records are shorter.
const readAhead = 8 << 10

// Read gives the record at pos, which Wait or Replay gave, in memory of its
// own. The error wraps ErrDamaged if it is not what was written, ErrGone if
// its segment was recycled, ErrAhead if nothing was written there yet.
func (j *Journal) Read(pos Position) (Record, error) { return j.ReadInto(pos, nil) }

// ReadInto is Read with the memory of buf, where that is enough; with a cap of
// the record's size on disk, or more, it takes one system call. The payload of
// the record is a part of buf then.
func (j *Journal) ReadInto(pos Position, buf []byte) (Record, error) {
	r, err := j.read(pos, buf)
	if err != nil {
		return Record{}, fmt.Errorf("read journal at %s: %w", pos, err)
	}
	return r, nil
}

func (j *Journal) read(pos Position, buf []byte) (Record, error) {
	s, err := j.find(pos.Segment)
	if err != nil {
		return Record{}, err
	}
	// Recycle waits for this lock before the file becomes another segment.
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.gone {
		return Record{}, ErrGone
	}
	room := s.end.Load() - pos.Offset
	if room < headLength {
		if pos.Segment < j.Tail().Segment {
			return Record{}, fmt.Errorf("%w: the segment ends before it", ErrDamaged)
		}
		return Record{}, ErrAhead
	}
	if pos.Offset < segmentHead || pos.Offset%alignment != 0 {
		return Record{}, fmt.Errorf("%w: no record can start here", ErrDamaged)
	}
	if cap(buf) < headLength {
		buf = make([]byte, readAhead)
	}
	buf = buf[:min(int64(cap(buf)), room)]
	got, err := s.file.ReadAt(buf, pos.Offset)
	if got < headLength {
		return Record{}, fmt.Errorf("%w: %w", ErrDamaged, noEOF(err))
	}
	h := glanceHead(buf)
	if !proveHead(buf, s.seed) || h.kind == typeSeal || h.kind == typeMark || h.size() > room {
		return Record{}, fmt.Errorf("%w: no record here", ErrDamaged)
	}
	whole := headLength + h.length
	if got < whole {
		if cap(buf) < whole {
			buf = append(make([]byte, 0, h.size()), buf[:got]...)
		}
		buf = buf[:whole]
		if _, err := readFull(s.file, buf[got:], pos.Offset+int64(got)); err != nil {
			return Record{}, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	payload := buf[headLength:whole:whole]
	if checkContent([][]byte{payload}) != h.content {
		return Record{}, fmt.Errorf("%w: payload does not match its check", ErrDamaged)
	}
	return Record{Position: pos, Type: h.kind, Sequence: h.sequence, Payload: payload, Size: h.size()}, nil
}

func noEOF(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Replay gives every record at or behind from to fn, in order, with bounded
// memory: a payload is good until fn returns. Damaged stretches are added to
// Damage before the record behind them is given. What was appended after the
// call is not seen. A from of a recycled segment means the start of the next
// one that is there; one beyond the end is ErrAhead. An error of fn ends it.
func (j *Journal) Replay(from Position, fn func(Record) error) error {
	if err := j.replay(from, fn); err != nil {
		return fmt.Errorf("replay journal %s: %w", j.dir, err)
	}
	return nil
}

func (j *Journal) replay(from Position, fn func(Record) error) error {
	if from.Compare(j.Tail()) > 0 {
		return fmt.Errorf("from %s: %w", from, ErrAhead)
	}
	j.mu.RLock()
	segments := slices.Clone(j.segments)
	j.mu.RUnlock()
	for _, s := range segments {
		if s.number < from.Segment {
			continue
		}
		w := &walker{s: s, off: segmentHead, limit: s.end.Load(), expect: s.first, ceiling: s.next.Load()}
		if s.number == from.Segment && from.Offset > segmentHead {
			// A file that was cut short before it is damage, which Open has found.
			if from.Offset > w.limit && !j.damagedAt(from) {
				return fmt.Errorf("from %s: %w", from, ErrAhead)
			}
			w.off, w.expect = from.Offset, 0
		}
		if err := j.replaySegment(w, fn); err != nil {
			return err
		}
	}
	return nil
}

// damagedAt reports whether a position lies in a stretch that is known to be
// damaged.
func (j *Journal) damagedAt(pos Position) bool {
	return slices.ContainsFunc(j.Damage(), func(d Damage) bool {
		return d.Segment == pos.Segment && pos.Offset >= d.Offset && pos.Offset < d.Offset+d.Length
	})
}

func (j *Journal) replaySegment(w *walker, fn func(Record) error) error {
	for {
		f, err := w.next()
		switch {
		case errors.Is(err, errRecycled):
			return nil
		case errors.Is(err, io.EOF):
			if w.off < w.limit {
				j.note(w.rest(err))
			}
			return nil
		case err != nil:
			return err
		}
		if f.bad {
			j.note(f.damage())
		} else if f.Type != typeMark {
			if err := fn(f.Record); err != nil {
				return err
			}
		}
	}
}

// rest words what is left of a segment that is known to have gone on.
func (w *walker) rest(cause error) Damage {
	f := found{cause: "no record here", first: w.expect}
	if w.ceiling != 0 {
		f.last = w.ceiling - 1
	}
	if cause != io.EOF {
		f.cause = cause.Error()
	}
	f.Position, f.Size = Position{w.s.number, w.off}, w.limit-w.off
	return f.damage()
}
