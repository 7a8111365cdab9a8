package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
)

const (
	defaultSegmentSize = 64 << 20
	defaultPoolSize    = 4
	defaultQueueBytes  = 16 << 20
)

// Open takes the directory for this process, reads the heads and seals of its
// segments, and looks through the last one for where the journal ends. When it
// returns, everything it found is durable, what was torn is cut off, and there
// is an empty segment to go on in. Records of earlier segments are checked
// when Replay or Read come to them.
func Open(c Config) (*Journal, error) {
	j, err := open(c)
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", c.Dir, err)
	}
	return j, nil
}

func open(c Config) (_ *Journal, err error) {
	if c.Dir == "" {
		return nil, errors.New("no directory is given")
	}
	if c.SegmentSize < 0 || c.PoolSize < 0 || c.QueueBytes < 0 {
		return nil, errors.New("a size is negative")
	}
	j := &Journal{
		dir:         filepath.Clean(c.Dir),
		segmentSize: orDefault(c.SegmentSize, defaultSegmentSize),
		poolSize:    orDefault(c.PoolSize, defaultPoolSize),
		floor:       c.Floor,
		readOnly:    c.ReadOnly,
		fs:          c.FS,
		log:         c.Logger,
		queue:       newQueue(orDefault(c.QueueBytes, defaultQueueBytes)),
		spares:      firstSpare,
	}
	j.segmentSize = (j.segmentSize + pageSize - 1) / pageSize * pageSize
	if j.fs == nil {
		j.fs = system{}
	}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	if j.meters, err = newMeters(c.Meter); err != nil {
		return nil, err
	}
	if !j.readOnly {
		if err := j.fs.MakeDir(j.dir); err != nil {
			return nil, err
		}
	}
	if j.lock, err = j.fs.Lock(j.dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, j.Close())
		}
	}()
	if err := j.load(); err != nil {
		return nil, err
	}
	if j.readOnly {
		j.queue.end(ErrReadOnly)
	}
	return j, nil
}

func orDefault[T int | int64](v, fallback T) T {
	if v == 0 {
		return fallback
	}
	return v
}

// load brings the journal from what is in the directory to ready for Run.
func (j *Journal) load() error {
	numbers, err := j.tidy()
	if err != nil {
		return err
	}
	all := make([]*loaded, 0, len(numbers))
	for _, n := range numbers {
		l, err := j.loadSegment(n)
		if err != nil {
			return fmt.Errorf("segment %d: %w", n, err)
		}
		all = append(all, l)
	}
	if err := j.identify(all); err != nil {
		return err
	}
	for i, l := range all {
		l.seed = seedOf(j.id, l.number)
		if l.first == 0 && i > 0 && all[i-1].number+1 == l.number {
			l.first = all[i-1].next.Load()
		}
		if i == len(all)-1 {
			break
		}
		next := all[i+1]
		if err := j.settle(l, next.first, l.number+1 == next.number); err != nil {
			return fmt.Errorf("segment %d: %w", l.number, err)
		}
	}
	if len(all) > 0 {
		last := all[len(all)-1]
		floor := uint64(1)
		if len(all) > 1 {
			floor = all[len(all)-2].next.Load()
		}
		fresh, err := j.recover(last, floor)
		if err != nil {
			return fmt.Errorf("recover segment %d: %w", last.number, err)
		}
		if fresh || j.readOnly {
			j.writer = newWriter(j, last.segment)
			return nil
		}
	}
	if j.readOnly {
		return nil
	}
	number, first := uint64(1), uint64(1)
	if len(all) > 0 {
		last := all[len(all)-1]
		number, first = last.number+1, last.next.Load()
	}
	s, err := j.create(number, first, 0)
	if err != nil {
		return err
	}
	j.segments = append(j.segments, s)
	j.writer = newWriter(j, s)
	return nil
}

// tidy lists the live segments, takes the spare files into the pool, and
// removes what a kill left half made.
func (j *Journal) tidy() ([]uint64, error) {
	names, err := j.fs.List(j.dir)
	if err != nil {
		return nil, err
	}
	if !j.readOnly {
		// A rename that a kill left without its sync is in the list but not
		// yet on the disk.
		if err := j.fs.SyncDir(j.dir); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	var numbers []uint64
	for _, name := range names {
		number, suffix := parseName(name)
		switch {
		case suffix == suffixLive:
			numbers = append(numbers, number)
		case j.readOnly:
		case suffix == suffixNew:
			if err := j.fs.Remove(filepath.Join(j.dir, name)); err != nil {
				return nil, err
			}
		case suffix == suffixFree:
			j.spares = max(j.spares, number)
			if err := j.keepSpare(filepath.Join(j.dir, name)); err != nil {
				return nil, err
			}
		}
	}
	return numbers, nil
}

func (j *Journal) keepSpare(name string) error {
	f, err := j.fs.Open(name, true)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if size != j.segmentSize || len(j.pool) >= j.poolSize {
		return errors.Join(f.Close(), j.fs.Remove(name))
	}
	j.pool = append(j.pool, freeFile{name: name, file: f})
	return nil
}

// loaded is a segment on its way through Open.
type loaded struct {
	*segment
	headers   []segmentHeader // the good ones of the two
	trailer   []byte
	actual    int64 // size of the file
	truncated bool  // the file is shorter than it was made
	hurt      bool  // one of the headers is damaged
}

func (j *Journal) loadSegment(number uint64) (*loaded, error) {
	f, err := j.fs.Open(j.path(number, suffixLive), !j.readOnly)
	if err != nil {
		return nil, err
	}
	s := &segment{number: number, file: f}
	j.segments = append(j.segments, s) // from here on Close closes it
	l := &loaded{segment: s, trailer: make([]byte, segmentTrailer)}
	if l.actual, err = f.Size(); err != nil {
		return nil, err
	}
	front := make([]byte, segmentHead)
	_, frontErr := readFull(f, front, 0)
	h, frontGood := parseSegmentHeader(front)
	s.size = l.actual
	if frontGood {
		l.headers = append(l.headers, h)
		s.size = h.size
	}
	var backErr error
	if s.size >= segmentHead+segmentTrailer {
		_, backErr = readFull(f, l.trailer, s.size-segmentTrailer)
	}
	if !frontGood && frontErr != nil && backErr != nil {
		return nil, errors.Join(frontErr, backErr) // not a page: the whole file
	}
	if h, ok := parseSegmentHeader(l.trailer[sealLength:]); ok {
		l.headers = append(l.headers, h)
	}
	for _, h := range l.headers {
		if h.version != formatVersion {
			return nil, fmt.Errorf("its format is version %d, this program knows %d", h.version, formatVersion)
		}
		if h.number != number {
			return nil, fmt.Errorf("its head says segment %d", h.number)
		}
		s.size, s.first = h.size, h.first
	}
	if len(l.headers) == 0 {
		s.size = max(l.actual, j.segmentSize)
		if l.actual == 0 || l.actual%pageSize != 0 {
			// Cut short, and nothing says from what: what it cost is reported
			// as far as the longest segment could have gone.
			s.size = max(s.size, fileSize(j.segmentSize, recordSize(MaxPayload)))
		}
	}
	l.truncated = l.actual < s.size
	hurt := Damage{Position: Position{Segment: number}, Length: segmentHead, Cause: "head of the segment"}
	switch {
	case len(l.headers) == 2 || l.truncated && frontGood:
		return l, nil // where the file was cut is reported with its records
	case frontGood:
		hurt.Offset, hurt.Cause = s.size-segmentHead, "copy of the segment's head"
	}
	l.hurt = true
	j.note(hurt)
	return l, nil
}

// identify finds the id of the journal, which every head carries.
func (j *Journal) identify(all []*loaded) error {
	known := false
	for _, l := range all {
		for _, h := range l.headers {
			if known && h.id != j.id {
				return fmt.Errorf("segment %d belongs to another journal", l.number)
			}
			j.id, known = h.id, true
		}
	}
	if known {
		return nil
	}
	if len(all) > 0 {
		return fmt.Errorf("%w: no segment has a readable head", ErrDamaged)
	}
	if _, err := rand.Read(j.id[:]); err != nil {
		return err
	}
	return nil
}

// settle finds the end of a segment that has another one behind it: all of it
// was durable before that other one was made, so what is bad is damage.
func (j *Journal) settle(l *loaded, nextFirst uint64, adjacent bool) error {
	if end, ok := parseSeal(l.trailer, l.seed); ok && end.end <= l.limit() {
		l.end.Store(end.end)
		l.records.Store(end.records)
		l.next.Store(end.next)
		if l.truncated {
			j.note(Damage{Position: Position{l.number, l.actual}, Length: l.size - l.actual, Cause: "file was cut short"})
		}
		return nil
	}
	w := &walker{s: l.segment, off: segmentHead, limit: min(l.limit(), l.actual), expect: l.first, ceiling: nextFirst}
	records, _, err := j.walkAll(w, true)
	if err != nil {
		return err
	}
	l.records.Store(records)
	l.end.Store(w.off)
	l.next.Store(w.expect)
	lost := Damage{Position: Position{l.number, l.limit()}, Length: sealLength, Cause: "seal of the segment"}
	if l.truncated {
		lost = Damage{Position: Position{l.number, w.off}, Length: l.size - w.off, Cause: "file was cut short"}
	}
	if adjacent && nextFirst > w.expect && w.expect > 0 {
		lost.Position.Offset, lost.Length = w.off, l.size-w.off
		lost.First, lost.Last = w.expect, nextFirst-1
		l.next.Store(nextFirst)
	}
	j.note(lost)
	return nil
}

// walkAll counts the callers' records and finds what the last of them knew to
// be durable; with report, bad stretches are damage.
func (j *Journal) walkAll(w *walker, report bool) (records, known uint64, err error) {
	for {
		f, err := w.next()
		if endOfWalk(err) {
			return records, known, nil
		}
		if err != nil {
			return 0, 0, err
		}
		known = max(known, f.synced)
		if f.bad && report {
			j.note(f.damage())
		}
		if !f.bad && f.Type != typeMark {
			records++
		}
	}
}
