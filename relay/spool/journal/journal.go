// Package journal is the log under the spool: the one place where something
// becomes durable, and the only code that says so.
//
// It promises:
//
//   - A ticket asked for with sync completes after its entries, and everything
//     appended before them in any segment, are on the disk. They are there,
//     unchanged and in order, after any crash.
//   - What was not acknowledged is, after a crash, there in whole or absent;
//     if it is absent, so is everything appended after it.
//   - A record that was once handed out by Replay or Read after a start does
//     not vanish at the next one.
//   - Damage is never taken for the end of the journal and never skipped in
//     silence: it is reported with its place and the sequences that it cost,
//     and every record around it stays readable.
//   - What a recycled file held before never comes back. A damaged segment is
//     not recycled: its file is put aside for somebody to look at, below
//     quarantine/, where the last four of them stay.
//   - A failed write or sync ends the journal for good.
//
// It does not promise to undo damage (another relay has a copy), to notice a
// segment file that somebody removed, or to know a record that was synced but
// damaged before the journal could write down that it was synced: the next
// record carries that, or a mark right after the sync if there is no next one.
// Only between those two instructions does damage to the last write look like
// a write that never finished, and is cut off like one.
//
// Invariants:
//
//   - Sequences count up by one from record to record, through all segments;
//     numbers of segments count up and are never used again.
//   - Only the last segment is written to, and only by Run. When segment n+1
//     exists, everything in segment n is durable and its seal is in place.
//   - A file is named as a segment only while its head is durable.
//
// Every live segment holds one file descriptor.
package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/metric"
)

var (
	// ErrPoisoned is wrapped by whatever fails after a failed write or sync,
	// together with that failure. The journal takes nothing more; the process
	// should end. The next Open finds out what reached the disk.
	ErrPoisoned = errors.New("journal is poisoned by a failed write or sync")
	// ErrClosed is the answer after Run has ended in good order.
	ErrClosed = errors.New("journal is closed")
	// ErrLocked says that another process has the directory.
	ErrLocked = errors.New("journal directory is in use by another process")
	// ErrGone says that the segment of a position has been recycled.
	ErrGone = errors.New("journal segment is gone")
	// ErrDamaged says that the record at a position is not what was written.
	ErrDamaged = errors.New("journal record is damaged")
	// ErrAhead says that a position lies beyond the end of the journal:
	// whoever holds it knows of records that were never made durable here.
	ErrAhead = errors.New("position lies beyond the end of the journal")
	// ErrReadOnly says that the journal was opened for reading only.
	ErrReadOnly = errors.New("journal is open for reading only")
	// ErrTooLarge says that an entry is longer than MaxPayload.
	ErrTooLarge = errors.New("journal entry is too large")
)

// Position is the start of a record. The zero Position is before all records.
type Position struct {
	Segment uint64
	Offset  int64
}

func (p Position) String() string { return fmt.Sprintf("segment %d offset %d", p.Segment, p.Offset) }

// Compare orders positions as the records were written.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Segment, q.Segment), cmp.Compare(p.Offset, q.Offset))
}

// Entry is one record to be. The parts of the payload are written one after
// the other; they are not joined in memory before.
type Entry struct {
	Type    uint8 // 1 to 254; the others are the journal's own
	Payload [][]byte
}

// Record is one record that was written.
type Record struct {
	Position
	Type     uint8
	Sequence uint64
	Payload  []byte
	Size     int64 // on disk: the next record, if any, starts this much further
}

// Config says how to open a journal.
type Config struct {
	// Dir holds the segments and nothing else. It is made if missing.
	Dir string
	// SegmentSize is the size of one segment file in bytes, rounded up to
	// 4096; 0 means 64 MiB. Segments of another size stay readable. A record
	// that does not fit gets a longer segment of its own.
	SegmentSize int64
	// Floor is how many bytes of the disk stay free when a whole segment is made;
	// below, short ones are, down to half of it.
	Floor uint64
	// PoolSize is how many recycled files wait to be used again; 0 means 4.
	PoolSize int
	// QueueBytes bounds the payload that waits for the writer; 0 means 16 MiB.
	QueueBytes int64
	// ReadOnly opens without changing anything; there is no Run.
	ReadOnly bool
	FS       FS           // nil: the operating system
	Logger   *slog.Logger // nil: discard
	Meter    metric.Meter // nil: none
}

// SegmentInfo describes one live segment.
type SegmentInfo struct {
	Number  uint64
	Size    int64  // of the file
	Used    int64  // of it, up to the end of the last record
	Records uint64 // those of the callers
	Sealed  bool   // nothing is written to it any more: may be recycled
	Damaged bool   // something in it is not what was written, as far as is known
}

// Damage is a stretch of a segment that is not what was written. First and
// Last are the sequences of the records that it cost, 0 if that is not known
// or it cost none.
type Damage struct {
	Position
	Length      int64
	First, Last uint64
	Cause       string
}

// Journal is one open directory. Every method but Run may be called from any
// goroutine.
type Journal struct {
	dir         string
	segmentSize int64
	floor       uint64
	poolSize    int
	readOnly    bool
	fs          FS
	log         *slog.Logger
	meters      meters
	id          [16]byte
	lock        io.Closer

	queue  *queue
	writer writer // of Run alone, once it runs

	recycling sync.Mutex // held by Recycle and Stock, before mu of a segment, before mu
	spares    uint64     // the last number that Stock named a file by; guarded by recycling

	mu       sync.RWMutex
	segments []*segment // by number; the last one is written to
	pool     []freeFile
	damage   []Damage
	closed   bool
}

// Segments lists the live segments by number.
func (j *Journal) Segments() []SegmentInfo {
	j.mu.RLock()
	defer j.mu.RUnlock()
	infos := make([]SegmentInfo, 0, len(j.segments))
	for i, s := range j.segments {
		infos = append(infos, SegmentInfo{
			Number:  s.number,
			Size:    s.size,
			Used:    s.end.Load(),
			Records: s.records.Load(),
			Sealed:  i < len(j.segments)-1,
			Damaged: j.damaged(s.number),
		})
	}
	return infos
}

// Identity tells this journal from every other one that the directory may have
// held; it stays the same as long as a segment is there.
func (j *Journal) Identity() [16]byte { return j.id }

// Tail is where the next record goes if it fits there: every record written
// so far is before it.
func (j *Journal) Tail() Position {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if len(j.segments) == 0 {
		return Position{}
	}
	s := j.segments[len(j.segments)-1]
	return Position{Segment: s.number, Offset: s.end.Load()}
}

// damaged reports whether damage is known in a segment; the caller has mu.
func (j *Journal) damaged(number uint64) bool {
	i, _ := slices.BinarySearchFunc(j.damage, Position{Segment: number}, func(d Damage, p Position) int {
		return d.Compare(p)
	})
	return i < len(j.damage) && j.damage[i].Segment == number
}

// Damage lists what Open, Replay and Verify found so far, by position.
func (j *Journal) Damage() []Damage {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return slices.Clone(j.damage)
}

// note records damage once, however often it is met.
func (j *Journal) note(d Damage) {
	j.mu.Lock()
	i, known := slices.BinarySearchFunc(j.damage, d, func(a, b Damage) int { return a.Compare(b.Position) })
	if !known {
		j.damage = slices.Insert(j.damage, i, d)
	}
	j.mu.Unlock()
	if !known {
		j.meters.damaged.Add(context.Background(), 1)
		j.log.Error("journal is damaged", "segment", d.Segment, "offset", d.Offset, "length", d.Length,
			"first", d.First, "last", d.Last, "cause", d.Cause)
	}
}

// find gives the segment with this number, or why there is none.
func (j *Journal) find(number uint64) (*segment, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.closed {
		return nil, ErrClosed
	}
	i, ok := slices.BinarySearchFunc(j.segments, number, func(s *segment, n uint64) int {
		return cmp.Compare(s.number, n)
	})
	switch {
	case ok:
		return j.segments[i], nil
	case i == len(j.segments):
		return nil, ErrAhead
	default:
		return nil, ErrGone
	}
}

// Close closes the files and lets go of the directory. Call it after Run has
// returned, or instead of it.
func (j *Journal) Close() error {
	j.queue.end(ErrClosed)
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	segments, pool := slices.Clone(j.segments), j.pool
	j.pool = nil
	j.mu.Unlock()

	var errs []error
	for _, s := range segments {
		s.mu.Lock()
		if !s.gone {
			s.gone = true
			errs = append(errs, s.file.Close())
		}
		s.mu.Unlock()
	}
	for _, f := range pool {
		errs = append(errs, f.file.Close())
	}
	errs = append(errs, j.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close journal %s: %w", j.dir, err)
	}
	return nil
}
