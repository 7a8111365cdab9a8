package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// The register has the last word on every envelope that was released: how each
// delivery ended, and which document id it had. Without it only the index would
// know, and an index that is built again would let a document be delivered, or
// accepted, a second time. It is a journal of its own (spool/journal), so that
// what stays for a year does not lie between what goes within seconds, and is not
// written again and again: a segment goes as a whole when the time of all that is
// in it is over (Retention.Record).
//
// The order of things:
//
//  1. A release, and whatever changes an envelope after it, marks the envelope in
//     the table unregistered, in the change of the index that makes it.
//  2. Before a segment of the journal is recycled, all that is marked is written
//     into the register and synced; then the marks go.
//  3. The segment is recycled.
//
// So the records of what was released stand in the journal, or its last word in
// the register. A kill between 1 and 2 leaves the mark, between 2 and 3 an entry
// that comes a second time. The later entry about an envelope counts; what came
// again after its release has later records in the journal.
//
// A rebuild reads the register first and the journal behind it. Records of a life
// that the register has ended are met there as long as their segments are, and
// skipped (outlived, over).
//
// The register's identity stands in the index, so that one that was lost, or put
// in its place, is noticed; then, and where it is damaged, all that was released
// is marked, and written again. Relays' reports are not registered: they may come
// twice.

const (
	// maxRegisterSegment bounds a segment of the register, in bytes.
	maxRegisterSegment = 16 << 20
	// registerBatch bounds what is registered with one sync, in bytes.
	registerBatch = 4 << 20
	// registerLook is how often old segments of the register are looked for.
	registerLook = time.Hour
	// maxScarce segments of the register that are less than half full are left.
	maxScarce = 3
	// maxMarks share a change of the index.
	maxMarks = 1024
)

func (c *Config) registerSegment() int64 { return min(c.SegmentSize, maxRegisterSegment) }

func (s *Spool) openRegister() (err error) {
	s.register, err = journal.Open(journal.Config{
		Dir: s.cfg.registerDir(), SegmentSize: s.cfg.registerSegment(), PoolSize: 1, Floor: s.cfg.floor(),
		FS: s.cfg.FS, Logger: s.log,
	})
	return err
}

func (s *Spool) closeRegister() error {
	if s.register == nil {
		return nil
	}
	return s.register.Close()
}

// readRegister puts what the register says into an empty index.
func (s *Spool) readRegister() error {
	began, now, m := time.Now(), s.now(), s.machine
	read, bad := 0, 0
	err := s.register.Replay(journal.Position{}, func(rec journal.Record) error {
		r, err := registered(rec)
		if errors.Is(err, errFormat) {
			bad++
			return nil
		}
		if err != nil {
			return err
		}
		if read++; r.until().Before(now) {
			return nil // and its document id may be another's by now
		}
		if err := m.change(&step{}, r.restore); err != nil {
			return unfit(fmt.Errorf("restore envelope %s: %w", r.about()[0], err))
		}
		m.woken = woken{}
		if s.store.Full() {
			return s.store.Flush(context.Background())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read register: %w", err)
	}
	damaged := bad + len(s.register.Damage())
	if read > 0 || damaged > 0 {
		s.log.Warn("restored from the register what was released", "envelopes", read, "damages", damaged, "took", time.Since(began))
	}
	if damaged > 0 {
		return nil // it is renewed
	}
	return m.change(&step{}, s.adoptRegister)
}

// adoptRegister says that the register has what was released.
func (s *Spool) adoptRegister(st *step) error {
	id := s.register.Identity()
	st.b.Put(index.RegisterKey(), id[:])
	return nil
}

// registerEntry is a record of the register: what a released envelope is, or what was
// said at one of its recipients.
type registerEntry interface {
	record
	// until is when it is over, revision that of the envelope.
	until() time.Time
	revision() uint64
	restore(s *step) error
}

func (r *stateRecord) until() time.Time { return r.State.DueAt }
func (r *stateRecord) revision() uint64 { return r.State.Revision }

func (r *lifeRecord) until() time.Time      { return r.Until }
func (r *lifeRecord) revision() uint64      { return r.Revision }
func (r *lifeRecord) restore(s *step) error { return r.put(s, false) }

// registered reads a record of the register.
func registered(rec journal.Record) (registerEntry, error) {
	r, err := recordOf(rec.Type, rec.Payload)
	if err != nil {
		return nil, err
	}
	st, isState := r.(*stateRecord)
	e, ok := r.(registerEntry)
	if !ok || isState && !st.State.released() {
		return nil, fmt.Errorf("record of type %d in the register: %w", rec.Type, errFormat)
	}
	return e, nil
}

// restore makes a released envelope known again.
func (r *stateRecord) restore(s *step) error {
	h, err := s.load(r.Header.ID)
	if err != nil || h.known && h.st.outranks(r.State) {
		return err
	}
	if err := s.install(h, r); err != nil {
		return err
	}
	h.registered = true
	s.write(h)
	return nil
}

func (st *state) outranks(other *state) bool {
	return st.Born > other.Born || st.Born == other.Born && st.Revision > other.Revision
}

// outlived reports whether a commit belongs to a life of the envelope that has
// ended, which is met only in a rebuild: what makes a released envelope exist
// again comes later, and says what was known before.
func (h *held) outlived(r *commit) bool {
	return h.known && h.st.released() && !h.st.Report && (r.Sequence <= h.st.Born || r.Born > 0 && r.Prior == nil)
}

// discard drops a transfer whose commit is outlived.
func (s *step) discard(h *held) error {
	t, err := transferAt(s.v, h.id)
	if err != nil || t == nil || t.Generation > h.st.Last {
		return err
	}
	return s.closeTransfer(h.id, t, true)
}

// over reports whether, in a rebuild, a transfer brought what was released.
func (s *step) over(id envelope.ID, generation uint64) (bool, error) {
	if !s.rebuilding {
		return false, nil
	}
	st, err := envelopeAt(s.v, id)
	return st != nil && st.released() && generation <= st.Last, err
}

// renewRegister marks everything that was released, where the index does not say
// that the register has it. A start that ends early does it again.
func (s *Spool) renewRegister() error {
	v := s.store.View()
	known, _, err := v.Get(index.RegisterKey())
	v.Close()
	id := s.register.Identity()
	if err != nil || bytes.Equal(known, id[:]) {
		return err
	}
	if len(known) == 0 {
		// An index of a release that had no register had no list of what is not
		// delivered either. Built again from the journal alone it would have
		// forgotten what ended.
		if err := s.listUndelivered(); err != nil {
			return err
		}
	}
	marked := 0
	err = s.eachReleasedBatch(func(ids []envelope.ID) error {
		marked += len(ids)
		if err := s.machine.change(&step{}, markUnregistered(ids)); err != nil {
			return err
		}
		if s.store.Full() {
			return s.store.Flush(context.Background())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if marked > 0 {
		s.log.Warn("the register is written again", "envelopes", marked)
	}
	return s.machine.change(&step{}, s.adoptRegister)
}

// listUndelivered puts everything that is under way into the table undelivered.
func (s *Spool) listUndelivered() error {
	v := s.store.View()
	defer v.Close()
	return v.Each(index.Envelopes(), func(key, value []byte) error {
		st, err := decodeState(value)
		if err != nil {
			return err
		}
		m := st.membership()
		if !m.underWay {
			return nil
		}
		err = s.machine.change(&step{}, func(st *step) error {
			st.b.Put(index.UndeliveredKey(m.lane, m.from, index.ParseID(key)), nil)
			return nil
		})
		if err == nil && s.store.Full() {
			err = s.store.Flush(context.Background())
		}
		return err
	})
}

func markUnregistered(ids []envelope.ID) func(*step) error {
	return func(st *step) error {
		for _, id := range ids {
			st.b.Put(index.UnregisteredKey(id), nil)
		}
		return nil
	}
}

// eachReleasedBatch gives the ids of everything released that is registered.
func (s *Spool) eachReleasedBatch(fn func([]envelope.ID) error) error {
	v := s.store.View()
	defer v.Close()
	var ids []envelope.ID
	err := v.Each(index.Envelopes(), func(key, value []byte) error {
		st, err := decodeState(value)
		if err != nil || !st.released() || st.Report {
			return err
		}
		if ids = append(ids, index.ParseID(key)); len(ids) < maxMarks {
			return nil
		}
		err = fn(ids)
		ids = nil
		return err
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	return fn(ids)
}
