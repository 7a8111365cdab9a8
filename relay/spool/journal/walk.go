package journal

import (
	"errors"
	"fmt"
	"io"
)

// walker goes through the records of one segment, in order and with bounded
// memory, and past what is damaged.
type walker struct {
	s       *segment
	off     int64
	limit   int64  // records end here
	expect  uint64 // sequence of the record at off; 0 not known
	ceiling uint64 // first sequence of a later segment; 0 not known
	pace    func(bytes int) error
	fresh   bool // read from the disk, and leave nothing behind in memory

	window    []byte
	windowOff int64
	holes     []hole // of the window: pages that could not be read
}

type hole struct {
	off int64
	err error
}

// found is one step of a walk: a good record, or a bad stretch.
type found struct {
	Record // if bad: where the stretch starts, and its length as Size
	bad    bool
	cause  string
	// first and last are the sequences that a bad stretch cost. Its first is
	// 0 if even the record before it is not known.
	first, last uint64
	synced      uint64 // what the record knew to be durable
	unreadable  error  // the stretch is bad because the disk would not read it
}

const windowSize = 1 << 20

// forgetter is a file that can have the system's memory let go of what was
// read, so that the next time it comes from the disk.
type forgetter interface {
	forget(off, n int64)
}

var errRecycled = errors.New("segment was recycled meanwhile")

// bytes gives n bytes at off, out of the window. What the disk cannot read is
// zeros, with the error that it gave.
func (w *walker) bytes(off int64, n int) ([]byte, error) {
	if off < w.windowOff || off+int64(n) > w.windowOff+int64(len(w.window)) {
		if err := w.fill(off, n); err != nil {
			return nil, err
		}
	}
	at := off - w.windowOff
	return w.window[at : at+int64(n)], nil
}

func (w *walker) fill(off int64, n int) error {
	size := int(min(max(windowSize, int64(n)), w.limit-off))
	if w.pace != nil {
		if err := w.pace(size); err != nil {
			return err
		}
	}
	w.s.mu.RLock()
	defer w.s.mu.RUnlock()
	if w.s.gone {
		return errRecycled
	}
	if f, ok := w.s.file.(forgetter); ok && w.fresh {
		defer f.forget(off, int64(size))
	}
	if cap(w.window) < size {
		w.window = make([]byte, size)
	}
	w.window, w.windowOff, w.holes = w.window[:size], off, w.holes[:0]
	if _, err := readFull(w.s.file, w.window, off); err == nil {
		return nil
	}
	// One page at a time, around those that the disk has lost.
	for at := 0; at < size; at += pageSize {
		page := w.window[at:min(at+pageSize, size)]
		if _, err := readFull(w.s.file, page, off+int64(at)); err != nil {
			clear(page)
			w.holes = append(w.holes, hole{off: off + int64(at), err: err})
		}
	}
	return nil
}

// readFull reads all of b; the end of the file is an error like any other.
func readFull(f File, b []byte, off int64) (int, error) {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (w *walker) hole(from, to int64) error {
	for _, h := range w.holes {
		if h.off < to && from < h.off+pageSize {
			return h.err
		}
	}
	return nil
}

// next gives the next record or bad stretch; io.EOF when there is none up to
// the limit. The payload is good until the next call.
func (w *walker) next() (found, error) {
	from := w.off
	at, h, unreadable, err := w.search(from)
	if err != nil {
		return found{}, err
	}
	if at > from || (w.expect != 0 && h.sequence != w.expect) {
		bad := found{bad: true, cause: "no record here", first: w.expect, last: h.sequence - 1, unreadable: unreadable}
		bad.Position, bad.Size = Position{w.s.number, from}, at-from
		if bad.first == 0 {
			bad.first = bad.last
		}
		w.off, w.expect = at, h.sequence
		return bad, nil
	}
	size := h.size()
	whole, err := w.bytes(from, int(size))
	if err != nil {
		return found{}, err
	}
	unreadable = w.hole(from, from+size)
	w.off, w.expect = from+size, h.sequence+1
	out := found{synced: h.synced, first: h.sequence, last: h.sequence, unreadable: unreadable}
	out.Record = Record{
		Position: Position{w.s.number, from},
		Type:     h.kind,
		Sequence: h.sequence,
		Payload:  whole[headLength : headLength+h.length],
		Size:     size,
	}
	if checkContent([][]byte{out.Payload}) != h.content {
		out.bad, out.cause = true, "payload does not match its check"
	}
	return out, nil
}

// search looks for the next head at or behind off that can follow there.
func (w *walker) search(off int64) (at int64, h head, unreadable error, err error) {
	for at = off; at+headLength <= w.limit; at += alignment {
		b, err := w.bytes(at, headLength)
		if err != nil {
			return 0, head{}, nil, err
		}
		h := glanceHead(b)
		if !w.fits(h, off, at) || !proveHead(b, w.s.seed) {
			if unreadable == nil {
				unreadable = w.hole(at, at+headLength)
			}
			continue
		}
		return at, h, unreadable, nil
	}
	if unreadable != nil {
		return 0, head{}, nil, fmt.Errorf("%w: %w", io.EOF, unreadable)
	}
	return 0, head{}, nil, io.EOF
}

// fits is the cheap part of the proof: most of what is not a head is found
// out here.
func (w *walker) fits(h head, from, at int64) bool {
	if h.length > MaxPayload || h.sequence == 0 || h.synced >= h.sequence || h.kind == typeSeal ||
		at+h.size() > w.limit {
		return false
	}
	if w.expect == 0 {
		return true
	}
	// Between from and at there was room for so many records and no more.
	return h.sequence >= w.expect && h.sequence-w.expect <= uint64(at-from)/headLength
}

// damage words a bad stretch.
func (f found) damage() Damage {
	d := Damage{Position: f.Position, Length: f.Size, First: f.first, Last: f.last, Cause: f.cause}
	if f.unreadable != nil {
		d.Cause = f.unreadable.Error()
	}
	if d.Last < d.First {
		d.First, d.Last = 0, 0
	}
	return d
}
