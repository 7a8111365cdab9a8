package journal

import (
	"context"
	"fmt"
	"time"
)

const (
	// copyLimit is the longest payload that is copied beside its head, so
	// that many short records are one part of a write.
	copyLimit = 8 << 10
	// scratchSize holds heads, short payloads and padding of one write.
	scratchSize = 256 << 10
	// writeBack is how much is written before the disk is asked to begin
	// with it: what an urgent sync may find before it.
	writeBack = 4 << 20
)

var padding [alignment]byte

// writer is the state of Run, which alone touches it once it runs.
type writer struct {
	j      *Journal
	active *segment

	off    int64  // where the next record goes
	next   uint64 // its sequence
	last   uint64 // sequence of the last record of a caller
	synced uint64 // every record up to this sequence is durable
	marked uint64 // the newest synced that a record carries
	backed int64  // of active, up to where the disk was asked to begin

	// What is gathered for the next write, which goes to gatherOff.
	gather    [][]byte
	gatherOff int64
	scratch   []byte
	piece     int // of scratch, from here on not in gather yet
	records   uint64
}

func newWriter(j *Journal, active *segment) writer {
	w := writer{j: j}
	w.enter(active)
	return w
}

// enter goes on in a segment that is empty and durable, and so is everything
// before it.
func (w *writer) enter(s *segment) {
	w.active, w.off, w.gatherOff, w.backed = s, segmentHead, segmentHead, 0
	w.next = max(s.first, 1)
	w.last, w.synced, w.marked = w.next-1, w.next-1, w.next-1
}

// Run writes what is appended until ctx ends; then it writes and syncs what is
// in the queue, seals the segment and returns nil. It returns the failed write
// or sync that poisoned the journal. It may run once.
func (j *Journal) Run(ctx context.Context) error {
	if j.readOnly {
		return fmt.Errorf("run journal %s: %w", j.dir, ErrReadOnly)
	}
	w := &j.writer
	w.scratch = make([]byte, 0, scratchSize)
	err := w.run(ctx)
	if err == nil {
		j.queue.end(ErrClosed)
		return nil
	}
	j.log.Error("journal is poisoned", "segment", w.active.number, "error", err)
	j.queue.end(poisoned(err))
	return fmt.Errorf("run journal %s: %w", j.dir, poisoned(err))
}

func poisoned(err error) error { return fmt.Errorf("%w: %w", ErrPoisoned, err) }

func (w *writer) run(ctx context.Context) error {
	for {
		batch := w.j.queue.take(ctx)
		if batch == nil {
			break
		}
		if err := w.commit(batch); err != nil {
			return err
		}
		if w.marked < w.synced && w.j.queue.empty() {
			if err := w.mark(); err != nil {
				return err
			}
		}
	}
	if err := w.commit(w.j.queue.close(ErrClosed)); err != nil {
		return err
	}
	return w.finish()
}

// commit is the durability point: the only code that acknowledges.
//
// What happens, in this order, and what a kill on the next instruction leaves:
//
//  1. The records of the whole batch are written behind the last one, into
//     blocks that the segment has had since it was made. A kill, or a power
//     cut, leaves any selection of their sectors. None is acknowledged, the
//     next start keeps those up to the first gap.
//     1a. Where the segment is full, its seal is written behind it and the
//     segment synced (rotate). Its records are durable from here on, and still
//     none is acknowledged.
//     1b. Only then is the next segment made: its head is written and synced
//     under a spare name, the file renamed, the directory synced. A kill leaves
//     a spare file or an empty segment. So a record in a segment proves that
//     every segment before it is durable, and one sync covers them all.
//  2. Tickets that asked for no sync are done: their records can be read.
//     A power cut may still take them; what it takes, it takes from the end.
//  3. If anybody in the batch asked for it, the segment is synced, once. A kill
//     right after it leaves everything durable and nothing acknowledged: the
//     sender comes again and is told that it is there.
//  4. Tickets that asked for sync are done. From here on their records are
//     promised. Nothing on the disk says so yet.
//  5. The next record, of the next batch or a mark if nobody waits, carries the
//     sequence synced in 3. From here on damage to these records is told from a
//     write that never finished.
//
// If 1 or 3 fails, nobody can say what is on the disk: nothing of the batch that
// was not done yet is acknowledged, nothing is tried again, and Run ends.
func (w *writer) commit(batch []*Ticket) (err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, t := range batch {
			if t != nil {
				w.j.queue.finish(t, poisoned(err))
			}
		}
	}()
	durable := false
	for _, t := range batch {
		durable = durable || t.sync
		if err := w.append(t); err != nil {
			return err
		}
	}
	if err := w.flush(); err != nil { // 1
		return err
	}
	for i, t := range batch { // 2
		if !t.sync {
			w.j.queue.finish(t, nil)
			batch[i] = nil
		}
	}
	if durable && w.synced < w.last {
		if err := w.sync(); err != nil { // 3
			return err
		}
	}
	for i, t := range batch { // 4
		if t != nil {
			w.j.queue.finish(t, nil)
			batch[i] = nil
		}
	}
	if len(batch) > 0 {
		w.j.meters.batch.Record(context.Background(), int64(len(batch)))
	}
	return nil
}

func (w *writer) append(t *Ticket) error {
	t.positions = make([]Position, len(t.entries))
	for i, e := range t.entries {
		size := recordSize(t.lengths[i])
		if w.off+size > w.active.limit() {
			if err := w.rotate(size); err != nil {
				return err
			}
		}
		t.positions[i] = Position{Segment: w.active.number, Offset: w.off}
		h := head{kind: e.Type, length: t.lengths[i], content: t.contents[i]}
		if err := w.add(h, e.Payload); err != nil {
			return err
		}
		w.last = w.next - 1
		w.records++
	}
	return nil
}

// add gathers one record; there is room for it in the segment.
func (w *writer) add(h head, payload [][]byte) error {
	short := h.length <= copyLimit
	need := headLength + alignment
	if short {
		need += h.length
	}
	if len(w.scratch)+need > cap(w.scratch) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	h.sequence, h.synced = w.next, w.synced
	// scratch never grows beyond its capacity: gather points into it.
	w.scratch = appendHead(w.scratch, w.active.seed, h)
	if short {
		for _, part := range payload {
			w.scratch = append(w.scratch, part...)
		}
	} else {
		w.closePiece()
		w.gather = append(w.gather, payload...)
	}
	w.scratch = append(w.scratch, padding[:h.size()-headLength-int64(h.length)]...)
	w.off += h.size()
	w.next++
	w.marked = w.synced
	return nil
}

func (w *writer) closePiece() {
	if w.piece < len(w.scratch) {
		w.gather = append(w.gather, w.scratch[w.piece:len(w.scratch):len(w.scratch)])
		w.piece = len(w.scratch)
	}
}

// flush writes what is gathered with one call.
func (w *writer) flush() error {
	w.closePiece()
	if len(w.gather) == 0 {
		return nil
	}
	if err := w.active.file.WriteAt(w.gather, w.gatherOff); err != nil {
		return fmt.Errorf("write segment %d: %w", w.active.number, err)
	}
	w.j.meters.bytes.Add(context.Background(), w.off-w.gatherOff)
	w.j.meters.records.Add(context.Background(), int64(w.records))
	clear(w.gather)
	w.gather, w.scratch, w.piece = w.gather[:0], w.scratch[:0], 0
	w.gatherOff = w.off
	w.active.records.Add(w.records)
	w.records = 0
	w.active.end.Store(w.off) // readers may go so far now
	if w.off-w.backed < writeBack {
		return nil
	}
	from := w.backed
	w.backed = w.off
	if err := w.active.file.WriteBack(from, w.off-from); err != nil {
		return fmt.Errorf("write back segment %d: %w", w.active.number, err)
	}
	return nil
}

func (w *writer) sync() error {
	begin := time.Now()
	if err := w.active.file.Sync(); err != nil {
		return fmt.Errorf("sync segment %d: %w", w.active.number, err)
	}
	w.j.meters.syncs.Record(context.Background(), time.Since(begin).Seconds())
	w.synced = w.next - 1
	w.backed = w.off
	return nil
}

// mark writes down what is synced when no record comes along to carry it. The
// mark itself is not synced: it has no worth that a power cut would take.
func (w *writer) mark() error {
	if w.off+headLength > w.active.limit() {
		w.marked = w.synced // the head of the next segment says it
		return nil
	}
	if err := w.add(head{kind: typeMark}, nil); err != nil {
		return err
	}
	return w.flush()
}

// rotate ends the active segment and begins the next one, for a record of this
// size; steps 1a and 1b of commit.
func (w *writer) rotate(size int64) error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.seal(); err != nil {
		return err
	}
	if err := w.sync(); err != nil {
		return err
	}
	s, err := w.j.create(w.active.number+1, w.next, size)
	if err != nil {
		return err
	}
	w.active.next.Store(w.next)
	w.j.mu.Lock()
	w.j.segments = append(w.j.segments, s)
	w.j.mu.Unlock()
	w.j.meters.segments.Add(context.Background(), 1)
	w.enter(s)
	return nil
}

func (w *writer) seal() error {
	l := seal{end: w.off, records: w.active.records.Load(), next: w.next, synced: w.synced}
	if err := w.active.file.WriteAt([][]byte{l.encode(w.active.seed)}, w.active.limit()); err != nil {
		return fmt.Errorf("seal segment %d: %w", w.active.number, err)
	}
	return nil
}

// finish leaves the journal so that the next start knows of every record that
// it must be there: all is synced before the seal that says so is written.
func (w *writer) finish() error {
	if w.off == segmentHead {
		return nil // an empty segment is gone on in
	}
	if err := w.sync(); err != nil {
		return err
	}
	if err := w.seal(); err != nil {
		return err
	}
	return w.sync()
}
