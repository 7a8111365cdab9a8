package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
)

func endOfWalk(err error) bool { return errors.Is(err, io.EOF) }

// verdict is what a look at the last segment came to.
type verdict struct {
	kept    int64  // behind the last record that stays
	tail    int64  // where the segment ends: kept, or behind damage after it
	next    uint64 // sequence of the next record
	records uint64 // of the callers, that stay
	known   uint64 // every record up to this sequence is known to be durable
	secure  int64  // first record that is not, or kept
	wipe    int64  // behind the last thing that would parse, or tail
	cut     int    // records that parse, behind the tail
	torn    bool   // a bad record was cut off
	damaged bool
}

// recover finds the end of the journal in its last segment and makes what it
// found durable. It says whether the segment is as good as new, to be written
// to; otherwise the segment is sealed. Sequences go on at floor at the least.
//
// The rule. Records carry the sequence up to which everything was durable when
// they were written, so the records themselves say which of them must be here.
// A bad record up to that sequence is damage: it is reported, and the records
// behind it stay. The first bad record beyond it was never acknowledged; it is
// cut off with everything behind it, because a crash keeps any selection of the
// sectors that were not synced, and what stays must have no gaps.
func (j *Journal) recover(l *loaded, floor uint64) (fresh bool, err error) {
	v, sealed, err := j.judge(l, floor)
	if err != nil {
		return false, err
	}
	l.end.Store(v.tail)
	l.records.Store(v.records)
	if v.torn {
		j.meters.cut.Add(context.Background(), v.wipe-v.tail)
		j.log.Warn("journal: cut off an unacknowledged write", "segment", l.number, "offset", v.tail,
			"sequence", v.next, "records", v.cut)
	}
	if v.tail == segmentHead && v.wipe == v.tail && !sealed && !v.damaged && !l.hurt && !l.truncated && l.first != 0 {
		return true, nil
	}
	l.next.Store(v.next)
	if j.readOnly {
		return false, nil
	}
	return false, j.secure(l, v)
}

func (j *Journal) judge(l *loaded, floor uint64) (v verdict, sealed bool, err error) {
	limit := min(l.limit(), l.actual)
	last, sealed := parseSeal(l.trailer, l.seed)
	if sealed && last.end <= limit {
		limit = last.end
		v.known = last.synced
	} else {
		sealed = false
	}
	if l.first > 0 {
		v.known = max(v.known, l.first-1)
	}
	start := walker{s: l.segment, off: segmentHead, limit: limit, expect: l.first}
	w := start
	_, known, err := j.walkAll(&w, false)
	if err != nil {
		return v, false, err
	}
	v.known = max(v.known, known)

	w = start
	v.tail, v.next = segmentHead, max(l.first, floor, 1)
	v.secure = -1
	for {
		f, err := w.next()
		if endOfWalk(err) {
			err := j.judgeEnd(l, &v, &w, sealed && v.known+1 >= last.next, last.next, err)
			return v, sealed, err
		}
		if err != nil {
			return v, false, err
		}
		switch {
		case v.torn:
			v.wipe = f.Offset + f.Size
			if !f.bad {
				v.cut++
			}
			continue
		case f.bad && f.first > v.known && !l.truncated:
			if f.unreadable != nil {
				// Nobody can say what is there: better not to start than to
				// cut off what a working disk would have shown.
				return v, false, fmt.Errorf("the end is not readable at offset %d: %w", f.Offset, f.unreadable)
			}
			v.torn, v.wipe = true, f.Offset+f.Size
			continue
		case f.bad:
			v.damaged = true
			j.note(f.damage())
		default:
			if v.secure < 0 && f.Sequence > v.known {
				v.secure = f.Offset
			}
			if f.Type != typeMark {
				v.records++
			}
		}
		v.tail, v.next = w.off, w.expect
	}
}

// judgeEnd decides about what lies between the last record and the limit.
func (j *Journal) judgeEnd(l *loaded, v *verdict, w *walker, complete bool, sealNext uint64, end error) error {
	v.kept = v.tail
	if v.secure < 0 {
		v.secure = v.kept
	}
	switch {
	case v.torn:
	case l.truncated:
		// Nobody knows how many records were there, but not more than these;
		// their sequences are not used again.
		v.damaged = true
		j.note(Damage{Position: Position{l.number, v.kept}, Length: l.size - v.kept, Cause: "file was cut short"})
		v.tail = max(l.limit(), v.kept)
		v.next += uint64(v.tail-v.kept) / headLength
	case complete && v.tail < w.limit:
		// The seal was written when everything before it was durable.
		v.damaged = true
		w.ceiling = sealNext
		j.note(w.rest(end))
		v.tail, v.next = w.limit, sealNext
	case end != io.EOF:
		return fmt.Errorf("the end is not readable behind offset %d: %w", v.tail, end)
	}
	v.wipe = max(v.wipe, v.tail)
	return nil
}

// secure makes durable what recovery is about to hand out, and seals the
// segment behind it.
//
// What was written but never synced is in the kernel's memory at best, and
// after a sync that failed the kernel may hold it as if it were on the disk. So
// it is written once more. What was cut off and would still parse is
// overwritten with zeros. Both are synced before the seal is written: a kill at
// any point before the seal's sync leads the next start to the same decision,
// or to a shorter journal that nobody has been shown.
func (j *Journal) secure(l *loaded, v verdict) error {
	buf := make([]byte, min(windowSize, max(v.kept-v.secure, v.wipe-v.tail)))
	for off := v.secure; off < v.kept; {
		b := buf[:min(int64(len(buf)), v.kept-off)]
		if _, err := readFull(l.file, b, off); err != nil {
			return err
		}
		if err := l.file.WriteAt([][]byte{b}, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	clear(buf)
	for off := v.tail; off < v.wipe; {
		b := buf[:min(int64(len(buf)), v.wipe-off)]
		if err := l.file.WriteAt([][]byte{b}, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	s := seal{end: v.tail, records: v.records, next: v.next, synced: v.next - 1}
	h := segmentHeader{version: formatVersion, id: j.id, number: l.number, size: l.size, first: l.first}
	if err := l.file.WriteAt([][]byte{s.encode(l.seed), h.encode()}, l.limit()); err != nil {
		return err
	}
	return l.file.Sync()
}
