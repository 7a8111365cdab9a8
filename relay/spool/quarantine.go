package spool

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// What happens to damage. It is found when something is read, when the journal
// is replayed, and by a look at every segment now and then (scrub.go). Then
//
//   - the envelope is in quarantine: reading its content fails where bytes are
//     damaged, and goes on to fail until they are mended (mend.go);
//   - the segment is emptied like one with little left alive, however much is:
//     what can be read is written again, statements from what the index knows;
//     and when nothing in it is needed any more its file is put aside.
//
// All of it is counted, in the trace of the envelope, and logged once per place.

// maxQuarantine bounds the envelopes that are remembered; those beyond are found
// again by the next look.
const maxQuarantine = 10_000

const (
	// mendAgain is the pause behind the first try that failed, which doubles up
	// to mendAtLast.
	mendAgain  = time.Second
	mendAtLast = 10 * time.Minute
)

// hurt is an envelope in quarantine.
type hurt struct {
	// noted: the index knows.
	noted bool
	// busy: somebody is at work on it.
	busy  bool
	tries int
	next  time.Time
}

// quarantine is what is known to be damaged.
type quarantine struct {
	mu   sync.Mutex
	hurt map[envelope.ID]*hurt
	// suspects are segments to be looked at now.
	suspects map[uint64]bool
	// found and mended count envelopes, records those that are missing in the
	// journal, since Open.
	found, mended int
	records       uint64
	// wake and look hold a token when hurt, or suspects, has something new.
	wake, look chan struct{}
}

func newQuarantine() *quarantine {
	return &quarantine{
		hurt: make(map[envelope.ID]*hurt), suspects: make(map[uint64]bool),
		wake: make(chan struct{}, 1), look: make(chan struct{}, 1),
	}
}

func signalOne(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// enter reports whether the envelope was not known to be damaged.
func (q *quarantine) enter(id envelope.ID, noted bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if h := q.hurt[id]; h != nil || len(q.hurt) >= maxQuarantine {
		if h != nil && noted {
			h.noted = true
		}
		return false
	}
	q.hurt[id] = &hurt{noted: noted}
	if !noted {
		q.found++
	}
	signalOne(q.wake)
	return true
}

// has reports whether an envelope is known to be damaged.
func (q *quarantine) has(id envelope.ID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.hurt[id] != nil
}

// due takes an envelope that is to be worked on, or says how long there is none.
func (q *quarantine) due(now time.Time) (id envelope.ID, h *hurt, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait = mendAtLast
	for id, h := range q.hurt {
		if h.busy {
			continue
		}
		if !h.next.After(now) {
			h.busy = true
			return id, h, 0
		}
		wait = min(wait, h.next.Sub(now))
	}
	return id, nil, wait
}

// leave ends the work on an envelope: it is whole or gone, or waits for another
// try, the number of which it returns.
func (q *quarantine) leave(id envelope.ID, again bool, first time.Duration) (tries int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.hurt[id]
	if !again {
		delete(q.hurt, id)
		return 0
	}
	h.busy = false
	h.next = time.Now().Add(min(first<<min(h.tries, 30), mendAtLast))
	h.tries++
	signalOne(q.wake)
	return h.tries
}

func (q *quarantine) suspect(segment uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.suspects[segment] = true
	signalOne(q.look)
}

func (q *quarantine) takeSuspects() []uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []uint64
	for n := range q.suspects {
		all = append(all, n)
	}
	clear(q.suspects)
	return all
}

// damaged reports content that is not what was written, where it should be.
func (s *Spool) damaged(id envelope.ID, part int, at journal.Position, cause error) error {
	if errors.Is(cause, journal.ErrClosed) || errors.Is(cause, index.ErrClosed) {
		return fmt.Errorf("part %d of %s: %w", part, id, cause)
	}
	err := fmt.Errorf("part %d of %s: %w: %w", part, id, ErrDamaged, cause)
	if at.Segment > 0 {
		s.quarantine.suspect(at.Segment)
	}
	if s.quarantine.enter(id, false) {
		s.log.Error("content is damaged", "envelope", id, "part", part, "error", cause)
		if s.cfg.OnDamage != nil {
			s.cfg.OnDamage(id, part, err)
		}
	}
	return err
}

// assess finds out what damage that the journal has found did to envelopes.
func (s *Spool) assess() error {
	all := s.journal.Damage()
	if len(all) == 0 && len(s.absent) == 0 {
		return nil
	}
	for _, d := range all {
		// What the index reflected before is not lost: it is written again.
		if d.First > 0 && d.Compare(s.reflected) > 0 {
			s.quarantine.records += d.Last - d.First + 1
		}
	}
	s.log.Error("journal is damaged: envelopes may lack content or duties, other relays have copies",
		"places", len(all), "records", s.quarantine.records, "segments missing", len(s.absent))
	hit := func(p journal.Position) bool {
		if s.absent[p.Segment] {
			return true
		}
		for _, d := range all {
			if p.Segment == d.Segment && p.Offset >= d.Offset && p.Offset < d.Offset+d.Length {
				return true
			}
		}
		return false
	}
	v := s.store.View()
	defer v.Close()
	return v.Each(index.Envelopes(), func(key, value []byte) error {
		st, err := decodeState(value)
		if err != nil || st.released() {
			return err
		}
		id := index.ParseID(key)
		if st.Whole != nil && hit(st.Whole.Position) {
			_ = s.damaged(id, 0, st.Whole.Position, errMissing)
		}
		if st.Generation == 0 {
			return nil
		}
		return s.assessChunks(v, id, st, hit)
	})
}

func (s *Spool) assessChunks(v *index.View, id envelope.ID, st *state, hit func(journal.Position) bool) error {
	var here uint64
	last := 0
	err := v.Each(index.Chunks(id, st.Generation), func(key, value []byte) error {
		l, err := decodeLocation(value)
		if err != nil {
			return err
		}
		last, _ = index.ParseChunkKey(key)
		if hit(l.Position) {
			_ = s.damaged(id, last, l.Position, errMissing)
		}
		here += uint64(l.Length)
		return nil
	})
	if err == nil && here < st.Size {
		_ = s.damaged(id, last, journal.Position{}, errMissing)
	}
	return err
}
