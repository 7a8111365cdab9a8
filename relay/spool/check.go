package spool

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
	"github.com/truclienthong/truc/routing"
)

// Finding is one thing that is not as it must be.
type Finding struct {
	// ID is the envelope concerned, zero if none is.
	ID envelope.ID
	// Agency is the recipient concerned, empty if none is.
	Agency routing.AgencyCode
	// Problem says what is wrong, for operators.
	Problem string
}

func (f Finding) String() string {
	switch {
	case f.ID.IsZero():
		return f.Problem
	case f.Agency != "":
		return fmt.Sprintf("envelope %s for %s: %s", f.ID, f.Agency, f.Problem)
	}
	return fmt.Sprintf("envelope %s: %s", f.ID, f.Problem)
}

// Check proves the crash rule on a spool that no process uses (ErrLocked
// otherwise): every queue and inbox entry has its envelope, every envelope has
// an entry for each open duty and its whole content, with the SHA-256 that the
// sender declared, and what is counted agrees with what is there. It first
// brings the index to what the journal says, exactly as a start of the relay
// would, and reads everything once. What it finds goes to report; the error is
// for a check that could not be finished.
func Check(cfg Config, report func(Finding)) (err error) {
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	v := s.store.View()
	defer v.Close()
	c := newChecker(v, report)
	c.s = s
	if err := c.records(); err != nil {
		return fmt.Errorf("check spool %s: %w", cfg.Dir, err)
	}
	if err := c.register(); err != nil {
		return fmt.Errorf("check spool %s: %w", cfg.Dir, err)
	}
	for _, d := range s.register.Damage() {
		c.rewritten = true
		c.find(envelope.ID{}, "register is damaged at %s, %d bytes: %s", d.Position, d.Length, d.Cause)
	}
	for _, d := range s.journal.Damage() {
		c.find(envelope.ID{}, "journal is damaged at %s, %d bytes: %s", d.Position, d.Length, d.Cause)
	}
	for _, pass := range []func() error{
		c.envelopes, c.queues, c.inboxes, c.transfers, c.chunks, c.expiries, c.documents,
		c.aways, c.origins, c.soles, c.dead, c.held, c.undelivered, c.usages, c.waitings, c.lives, c.numbers, c.totals,
	} {
		if err := pass(); err != nil {
			return fmt.Errorf("check spool %s: %w", cfg.Dir, err)
		}
	}
	return nil
}

// checker compares the tables of the index with each other.
type checker struct {
	// s is set for a check of everything, with the spool unused: journal,
	// content and totals too.
	s      *Spool
	v      *index.View
	report func(Finding)
	// interrupted ends the check early; visit is told of every envelope.
	interrupted func() error
	visit       func(id envelope.ID, st *state, all []*delivery) error

	// registered are the revisions that the register has, which will be written
	// again if it is damaged.
	registered map[envelope.ID]uint64
	rewritten  bool

	live    map[uint64]int64
	lengths map[routing.RelayID]int64
	used    map[routing.AgencyCode]usage
	counted Counters
	// numbered is what has to stand in the table number.
	numbered numberSum
}

func newChecker(v *index.View, report func(Finding)) *checker {
	return &checker{
		v: v, report: report,
		interrupted: func() error { return nil },
		visit:       func(envelope.ID, *state, []*delivery) error { return nil },
		live:        make(map[uint64]int64), lengths: make(map[routing.RelayID]int64),
		used: make(map[routing.AgencyCode]usage),
	}
}

func (c *checker) find(id envelope.ID, format string, args ...any) {
	c.report(Finding{ID: id, Problem: fmt.Sprintf(format, args...)})
}

func (c *checker) findFor(id envelope.ID, agency routing.AgencyCode, format string, args ...any) {
	c.report(Finding{ID: id, Agency: agency, Problem: fmt.Sprintf(format, args...)})
}

// each gives every key of a table to fn.
func (c *checker) each(table []byte, fn func(key, value []byte) error) error {
	return c.v.Each(table, func(key, value []byte) error {
		if err := c.interrupted(); err != nil {
			return err
		}
		return fn(key, value)
	})
}

// records reads the whole journal, also what the index reflects already.
func (c *checker) records() error {
	return c.s.journal.Replay(journal.Position{}, func(rec journal.Record) error {
		if _, err := recordOf(rec.Type, rec.Payload); err != nil {
			c.find(envelope.ID{}, "record at %s: %v", rec.Position, err)
		}
		return nil
	})
}

// register reads the register.
func (c *checker) register() error {
	c.registered = make(map[envelope.ID]uint64)
	return c.s.register.Replay(journal.Position{}, func(rec journal.Record) error {
		r, err := registered(rec)
		if err != nil {
			c.find(envelope.ID{}, "register at %s: %v", rec.Position, err)
			return nil
		}
		id := r.about()[0]
		c.registered[id] = max(c.registered[id], r.revision())
		return nil
	})
}

// inRegister checks that what was released is known without the index, too.
func (c *checker) inRegister(id envelope.ID, st *state) error {
	if st.Report || c.rewritten {
		return nil
	}
	marked, err := c.v.Has(index.UnregisteredKey(id))
	if it := c.v.Iterator(index.UnregisteredLives(&id)); err == nil {
		marked = marked || it.Valid()
		it.Close()
		err = it.Err()
	}
	if err == nil && !marked && c.registered[id] != st.Revision {
		c.find(id, "was released, and the register does not say how it ended")
	}
	return err
}

// states gives every envelope to fn.
func (c *checker) states(fn func(id envelope.ID, st *state) error) error {
	return c.each(index.Envelopes(), func(key, value []byte) error {
		id := index.ParseID(key)
		st, err := decodeState(value)
		if err != nil {
			c.find(id, "state cannot be read: %v", err)
			return nil
		}
		return fn(id, st)
	})
}

func (c *checker) envelopes() error {
	return c.states(func(id envelope.ID, st *state) error {
		if c.s != nil {
			if err := c.everything(id, st); err != nil {
				return err
			}
		}
		if err := c.memberships(id, st); err != nil {
			return err
		}
		all, err := deliveriesAt(c.v, id, st)
		if err != nil {
			return err
		}
		if err := c.duties(id, st, all); err != nil {
			return err
		}
		return c.visit(id, st, all)
	})
}

// everything checks what hangs on an envelope besides its duties.
func (c *checker) everything(id envelope.ID, st *state) error {
	header, err := headerAt(c.v, id)
	if err != nil || header.ID != id {
		c.find(id, "header cannot be read: %v", err)
		return nil
	}
	for _, s := range st.Shares {
		c.live[s.Segment] += s.Bytes
	}
	if !st.released() {
		c.counted.Envelopes++
		c.counted.Bytes += int64(st.Size)
		c.content(id, st, header)
	} else if st.Open > 0 || len(st.Shares) > 0 || st.Whole != nil || st.Generation != 0 {
		c.find(id, "is released, and still has duties or content")
	} else if err := c.inRegister(id, st); err != nil {
		return err
	}
	if st.Due != 0 {
		if found, err := c.v.Has(index.ExpiryKey(st.DueAt, st.Due, id)); err != nil {
			return err
		} else if !found {
			c.find(id, "is not in the table of what is due")
		}
	} else if st.released() || st.done() {
		c.find(id, "is done with and will never be released or forgotten")
	}
	if err := c.number(id, st, header); err != nil {
		return err
	}
	return c.document(id, st, header)
}

// document checks that the sender's document id leads to the envelope. In a
// rebuild one that was forgotten may be back, without its content, while its
// document id has long been given anew.
func (c *checker) document(id envelope.ID, st *state, header *envelope.Custody) error {
	if !st.Keyed {
		if st.FromSender && !st.TookOver {
			c.find(id, "was accepted here, and has not claimed its sender's document id")
		}
		return nil
	}
	holder, found, err := c.v.Get(index.DocumentKey(header.Sender, header.DocumentID))
	if err != nil {
		return err
	}
	if !found || envelope.ID(holder) != id && !st.released() {
		c.find(id, "is not found by its sender's document id")
	}
	return nil
}

// duties checks that each open duty has its entry.
func (c *checker) duties(id envelope.ID, st *state, all []*delivery) error {
	var open, bare, unsettled, failed uint32
	waiting := make(map[routing.AgencyCode]routing.RelayID)
	for _, d := range all {
		if d.open() {
			open++
		}
		if d.Place != settled {
			unsettled++
		}
		if d.dead() {
			failed++
		}
		if st.FromSender {
			c.counted.add(d, 1)
		}
		if d.Spoken {
			if told, err := c.v.Has(index.LifeKey(id, d.Agency)); err != nil {
				return err
			} else if !told {
				c.findFor(id, d.Agency, "something was said, and is not there")
			}
		}
		switch d.Place {
		case inQueue:
			waiting[d.Agency] = d.Home
		case inInbox:
			b, found, err := c.v.Get(index.InboxKey(d.Agency, st.Lane, d.Sequence))
			if err != nil {
				return err
			}
			if e, err := decodeInboxed(b); !found || err != nil || e.ID != id {
				c.findFor(id, d.Agency, "waits, and is not in the inbox")
			}
		}
	}
	for _, d := range st.Duties {
		b, found, err := c.v.Get(index.QueueKey(d.Relay, st.Lane, d.Sequence))
		if err != nil {
			return err
		}
		q, err := decodeQueued(b)
		if !found || err != nil || q.ID != id {
			c.find(id, "waits for relay %s, and is not in the queue", d.Relay)
			continue
		}
		if q.Bare {
			open++
			bare++
		}
		for _, a := range q.Agencies {
			if waiting[a] != d.Relay {
				c.findFor(id, a, "is queued for relay %s, and does not wait there", d.Relay)
			}
			delete(waiting, a)
		}
	}
	for a, relay := range waiting {
		c.findFor(id, a, "waits for relay %s, and is not in the queue", relay)
	}
	if open != st.Open || bare != st.Bare || unsettled != st.Unsettled || len(all) != int(st.Count) {
		c.find(id, "counts %d recipients, %d unsettled, %d open; there are %d, %d, %d",
			st.Count, st.Unsettled, st.Open, len(all), unsettled, open)
	}
	if failed != st.Failed || (failed == 0) != st.FailedAt.IsZero() {
		c.find(id, "counts %d recipients given up since %s, there are %d", st.Failed, st.FailedAt, failed)
	}
	return nil
}

// content reads every byte.
func (c *checker) content(id envelope.ID, st *state, header *envelope.Custody) {
	if !st.holdsContent() {
		c.find(id, "has no content")
		return
	}
	for i, p := range header.Parts {
		src, err := c.s.Content(id, i, 0)
		if err != nil {
			c.find(id, "part %d: %v", i, err)
			continue
		}
		sum := sha256.New()
		n, err := src.(*source).WriteTo(sum)
		switch {
		case err != nil:
			c.find(id, "part %d: %v", i, err)
		case uint64(n) != p.Size:
			c.find(id, "part %d has %d bytes, the header declares %d", i, n, p.Size)
		case [32]byte(sum.Sum(nil)) != p.SHA256:
			c.find(id, "part %d does not have the SHA-256 that the header declares", i)
		}
		src.Close()
	}
}
