package journal

import (
	"context"
	"errors"
	"fmt"
)

// Pace is asked before bytes are read that nobody waits for; it may take its
// time, and ends the reading with its error.
type Pace func(ctx context.Context, bytes int) error

// Verify reads a segment from its head to its seal and proves every record in
// it. What is damaged is added to Damage, and makes the segment one that is put
// aside instead of being recycled. A segment that is gone, or goes meanwhile, is
// nothing to complain of.
func (j *Journal) Verify(ctx context.Context, number uint64, pace Pace) error {
	err := j.verify(ctx, number, pace)
	if err == nil || errors.Is(err, ErrGone) || errors.Is(err, errRecycled) {
		return nil
	}
	return fmt.Errorf("verify segment %d: %w", number, err)
}

func (j *Journal) verify(ctx context.Context, number uint64, pace Pace) error {
	s, err := j.find(number)
	if err != nil {
		return err
	}
	sealed := number < j.Tail().Segment
	w := &walker{s: s, off: segmentHead, limit: s.end.Load(), expect: s.first, ceiling: s.next.Load(), fresh: true}
	if pace != nil {
		w.pace = func(n int) error { return pace(ctx, n) }
	}
	if err := j.replaySegment(w, func(Record) error { return ctx.Err() }); err != nil {
		return err
	}
	if !sealed {
		return nil // its seal is still to come
	}
	return j.verifyFrame(s)
}

// verifyFrame proves what stands around the records of a sealed segment.
func (j *Journal) verifyFrame(s *segment) error {
	front, back := make([]byte, segmentHead), make([]byte, segmentTrailer)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.gone {
		return errRecycled
	}
	_, frontErr := readFull(s.file, front, 0)
	_, backErr := readFull(s.file, back, s.limit())
	check := func(good bool, at, length int64, what string, err error) {
		if good {
			return
		}
		if err != nil {
			what += ": " + err.Error()
		}
		j.note(Damage{Position: Position{s.number, at}, Length: length, Cause: what})
	}
	h, good := parseSegmentHeader(front)
	check(good && h.number == s.number, 0, segmentHead, "head of the segment", frontErr)
	_, good = parseSeal(back, s.seed)
	check(good, s.limit(), sealLength, "seal of the segment", backErr)
	h, good = parseSegmentHeader(back[sealLength:])
	check(good && h.number == s.number, s.limit()+sealLength, segmentHead, "copy of the segment's head", backErr)
	return nil
}
