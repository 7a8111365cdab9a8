package spool

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
	"github.com/truclienthong/truc/routing"
)

// Counters are kept record by record.
type Counters struct {
	// Envelopes and Bytes are in custody: their content is not released.
	Envelopes, Bytes int64
	// Inboxed and Queued are inbox and queue entries.
	Inboxed, Queued int64
	// Transfers are in progress or waiting to be resumed.
	Transfers int64
	// Sole are envelopes accepted here that no other relay is known to have,
	// DeadLetters those that were given up for some recipient and can be
	// revived, Held those that an operator holds.
	Sole, DeadLetters, Held int64
	Tally
}

// Tally counts recipients of envelopes that this relay is ingress of, and what
// became of them. At any moment Accepted = Delivered + Expired + Refused +
// Recalled + Pending.
type Tally struct {
	Accepted, Delivered, Expired, Refused, Recalled int64
}

// Pending is the number of recipients whose outcome is not known yet.
func (t Tally) Pending() int64 {
	return t.Accepted - t.Delivered - t.Expired - t.Refused - t.Recalled
}

// outcome is the counter for how a settled delivery ended.
func (t *Tally) outcome(d *delivery) *int64 {
	switch d.Outcome() {
	case envelope.Delivered:
		return &t.Delivered
	case envelope.Expired:
		return &t.Expired
	case envelope.Recalled:
		return &t.Recalled
	}
	return &t.Refused
}

// add counts a delivery n times.
func (t *Tally) add(d *delivery, n int64) {
	t.Accepted += n
	if d.Place == settled {
		*t.outcome(d) += n
	}
}

func (t *Tally) fields() []*int64 {
	return []*int64{&t.Accepted, &t.Delivered, &t.Expired, &t.Refused, &t.Recalled}
}

func (m *machine) numbers() []*int64 {
	c := &m.counters
	own := []*int64{&c.Envelopes, &c.Bytes, &c.Inboxed, &c.Queued, &c.Transfers, &c.Sole, &c.DeadLetters, &c.Held}
	return slices.Concat(own, c.fields(), m.forgotten.fields())
}

// segment is what the spool knows of one segment of the journal.
type segment struct {
	// live is how many bytes of it are needed.
	live int64
	// outlives are segments with records of envelopes whose release is written
	// in this one: while they exist, the release must.
	outlives map[uint64]bool
}

// persisted is what the index on disk says.
type persisted struct {
	position journal.Position
	// dead are the segments that nothing needs.
	dead map[uint64]bool
}

// machine turns records into the index, one after the other. It is a state
// machine: the same records give the same index, whether they come from callers
// or from a replay. The goroutine that applies owns it; mu guards what others
// read.
type machine struct {
	self      routing.RelayID
	retention Retention
	store     *index.Store
	batch     index.Batch
	woken     woken
	// rebuilding: the index is built from the register and the whole journal.
	rebuilding bool
	// held is Counters.Held, for readers that shall not wait for a record that
	// is being applied.
	held atomic.Int64

	mu       sync.Mutex
	segments map[uint64]*segment
	counters Counters
	// forgotten is the part of the tally whose records are forgotten.
	forgotten Tally
	lengths   map[routing.RelayID]int64
	// sequence is the next one to give out; every lower one that was given out
	// is applied or on its way. visible is its value before the change that is
	// being made: a view may lack entries from there on.
	sequence, visible uint64
	// position is that of the last record applied.
	position journal.Position
	// dirty names what Seal has to write.
	dirtySegments map[uint64]bool
	dirtyLengths  map[routing.RelayID]bool
	saved         persisted
}

// woken collects whom to wake once a record is visible.
type woken struct {
	relays   []routing.RelayID
	agencies []routing.AgencyCode
	copies   []envelope.ID
	newRelay bool
	sole     bool
	due      bool
}

func newMachine(self routing.RelayID, retention Retention) *machine {
	return &machine{
		self: self, retention: retention, sequence: 1, visible: 1,
		segments:      make(map[uint64]*segment),
		lengths:       make(map[routing.RelayID]int64),
		dirtySegments: make(map[uint64]bool),
		dirtyLengths:  make(map[routing.RelayID]bool),
	}
}

// load reads what Seal wrote last.
func (m *machine) load(v *index.View) error {
	if b, found, err := v.Get(index.PositionKey()); err != nil {
		return err
	} else if found {
		m.position = journal.Position{Segment: binary.BigEndian.Uint64(b), Offset: int64(binary.BigEndian.Uint64(b[8:]))}
	}
	if b, found, err := v.Get(index.SequenceKey()); err != nil {
		return err
	} else if found {
		m.sequence = binary.BigEndian.Uint64(b)
		m.visible = m.sequence
	}
	if b, found, err := v.Get(index.CountersKey()); err != nil {
		return err
	} else if found {
		r := versioned(b)
		for _, field := range m.numbers() {
			*field = int64(r.number())
		}
		if err := r.done("counters"); err != nil {
			return err
		}
		m.held.Store(m.counters.Held)
	}
	for it := v.Iterator(index.Segments()); ; it.Next() {
		if !it.Valid() {
			it.Close()
			if it.Err() != nil {
				return it.Err()
			}
			break
		}
		r := versioned(it.Value())
		s := &segment{live: int64(r.number())}
		for _, n := range readList(r, (*reader).number) {
			s.outlive(n)
		}
		if err := r.done("segment"); err != nil {
			it.Close()
			return err
		}
		m.segments[index.ParseSegmentKey(it.Key())] = s
	}
	it := v.Iterator(index.Lengths())
	defer it.Close()
	for ; it.Valid(); it.Next() {
		r := versioned(it.Value())
		m.lengths[index.ParseLengthKey(it.Key())] = int64(r.number())
		if err := r.done("queue length"); err != nil {
			return err
		}
	}
	m.saved = persisted{position: m.position, dead: m.dead()}
	return it.Err()
}

func (s *segment) outlive(n uint64) {
	if s.outlives == nil {
		s.outlives = make(map[uint64]bool)
	}
	s.outlives[n] = true
}

// dead lists segments without live bytes.
func (m *machine) dead() map[uint64]bool {
	dead := make(map[uint64]bool)
	for n, s := range m.segments {
		if s.live == 0 {
			dead[n] = true
		}
	}
	return dead
}

// seal is index.Config.Seal.
func (m *machine) seal(b *index.Batch) func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	position := binary.BigEndian.AppendUint64(nil, m.position.Segment)
	b.Put(index.PositionKey(), binary.BigEndian.AppendUint64(position, uint64(m.position.Offset)))
	b.Put(index.SequenceKey(), binary.BigEndian.AppendUint64(nil, m.sequence))
	counters := []byte{layoutVersion}
	for _, field := range m.numbers() {
		counters = binary.AppendUvarint(counters, uint64(*field))
	}
	b.Put(index.CountersKey(), counters)
	for n := range m.dirtySegments {
		s, found := m.segments[n]
		if !found {
			b.Delete(index.SegmentKey(n))
			continue
		}
		value := binary.AppendUvarint([]byte{layoutVersion}, uint64(s.live))
		value = appendList(value, slices.Sorted(maps.Keys(s.outlives)), binary.AppendUvarint)
		b.Put(index.SegmentKey(n), value)
	}
	for relay := range m.dirtyLengths {
		if n := m.lengths[relay]; n > 0 {
			b.Put(index.LengthKey(relay), binary.AppendUvarint([]byte{layoutVersion}, uint64(n)))
		} else {
			b.Delete(index.LengthKey(relay))
		}
	}
	clear(m.dirtySegments)
	clear(m.dirtyLengths)
	now := persisted{position: m.position, dead: m.dead()}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.saved = now
	}
}

// live changes how many bytes of a segment are needed.
func (m *machine) live(number uint64, bytes int64) {
	s := m.segments[number]
	if s == nil {
		s = new(segment)
		m.segments[number] = s
	}
	s.live += bytes
	m.dirtySegments[number] = true
}

// nextSequence is beyond every sequence that a view taken now shows, and not
// beyond any that it does not show yet.
func (m *machine) nextSequence() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.visible
}

// recycled drops segments, and what was held for their sake.
func (m *machine) recycled(gone ...uint64) {
	for _, n := range gone {
		delete(m.segments, n)
		delete(m.saved.dead, n)
		m.dirtySegments[n] = true
	}
	for n, s := range m.segments {
		before := len(s.outlives)
		for _, g := range gone {
			delete(s.outlives, g)
		}
		if len(s.outlives) != before {
			m.dirtySegments[n] = true
		}
	}
}

// step is the application of one record.
//
// Its rules: what is read is the state before the record; every envelope is
// loaded once and saved once; live bytes of a segment are the sum of the shares
// of envelopes, their chunks, and transfers; whatever has no effect is not
// needed and counts nothing.
type step struct {
	*machine
	v    *index.View
	b    *index.Batch
	at   journal.Position
	size int64
	// used and waits are what the record adds to the tables usage and waiting.
	used  map[routing.AgencyCode]usage
	waits map[routing.AgencyCode]int64
	// numbers is what the record makes of the table number.
	numbers map[envelope.Number]*numbering
}

// apply puts one record into the index, where it is visible afterwards.
func (m *machine) apply(r record, at journal.Position, size int64) error {
	err := m.change(&step{at: at, size: size}, func(s *step) error {
		if m.segments[at.Segment] == nil {
			m.live(at.Segment, 0)
		}
		m.position = at
		return r.apply(s)
	})
	if err != nil {
		return unfit(fmt.Errorf("apply record of type %d at %s: %w", r.kind(), at, err))
	}
	return nil
}

// change makes one change of the index.
func (m *machine) change(s *step, fn func(*step) error) error {
	m.batch.Reset()
	s.machine, s.v, s.b = m, m.store.Latest(), &m.batch
	m.mu.Lock()
	err := fn(s)
	if err == nil {
		err = s.count()
	}
	m.held.Store(m.counters.Held) // before a view shows it
	m.mu.Unlock()
	if err != nil {
		return err
	}
	m.store.Apply(s.b)
	m.mu.Lock()
	m.visible = m.sequence
	m.mu.Unlock()
	return nil
}

// needs notes that the record is needed for the envelope. What is learnt after
// its release is kept by the index alone.
func (s *step) needs(h *held, bytes int64) {
	if h.st.released() {
		return
	}
	h.st.hold(s.at.Segment, bytes)
	s.live(s.at.Segment, bytes)
}

// sequenced keeps the counter beyond every sequence ever given out.
func (s *step) sequenced(sequence uint64) { s.sequence = max(s.sequence, sequence+1) }

// event adds a line to the trace.
func (s *step) event(h *held, e envelope.Event) {
	h.events++
	s.b.Put(index.EventKey(h.id, h.st.Revision<<16|h.events), encodeEvent(e))
}
