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
	if f.ID.IsZero() {
		return f.Problem
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
	c := &checker{
		s: s, v: v, report: report,
		live: make(map[uint64]int64), lengths: make(map[routing.RelayID]int64),
	}
	if err := c.records(); err != nil {
		return fmt.Errorf("check spool %s: %w", cfg.Dir, err)
	}
	for _, d := range s.journal.Damage() {
		c.find(envelope.ID{}, "journal is damaged at %s, %d bytes: %s", d.Position, d.Length, d.Cause)
	}
	for _, pass := range []func() error{c.envelopes, c.queues, c.inboxes, c.transfers, c.chunks, c.expiries, c.documents, c.totals} {
		if err := pass(); err != nil {
			return fmt.Errorf("check spool %s: %w", cfg.Dir, err)
		}
	}
	return nil
}

type checker struct {
	s      *Spool
	v      *index.View
	report func(Finding)

	live    map[uint64]int64
	lengths map[routing.RelayID]int64
	counted Counters
}

func (c *checker) find(id envelope.ID, format string, args ...any) {
	c.report(Finding{ID: id, Problem: fmt.Sprintf(format, args...)})
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

func (c *checker) envelopes() error {
	return c.v.Each(index.Envelopes(), func(key, value []byte) error {
		id := index.ParseID(key)
		st, err := decodeState(value)
		if err != nil {
			c.find(id, "state cannot be read: %v", err)
			return nil
		}
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
		if st.FromSender {
			holder, found, err := c.v.Get(index.DocumentKey(header.Sender, header.DocumentID))
			if err != nil {
				return err
			}
			if !found || envelope.ID(holder) != id {
				c.find(id, "is not found by its sender's document id")
			}
		}
		return c.duties(id, st)
	})
}

// duties checks that each open duty has its entry.
func (c *checker) duties(id envelope.ID, st *state) error {
	var open, unsettled uint32
	waiting := make(map[routing.AgencyCode]routing.RelayID)
	all, err := deliveriesAt(c.v, id, st)
	if err != nil {
		return err
	}
	for _, d := range all {
		if d.Place.waiting() {
			open++
		}
		if d.Place != settled {
			unsettled++
		}
		if st.FromSender {
			c.counted.add(d, 1)
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
				c.find(id, "waits for %s, and is not in the inbox", d.Agency)
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
		}
		for _, a := range q.Agencies {
			if waiting[a] != d.Relay {
				c.find(id, "is queued for relay %s and %s, who does not wait for it", d.Relay, a)
			}
			delete(waiting, a)
		}
	}
	for a, relay := range waiting {
		c.find(id, "waits for %s at relay %s, and is not in the queue", a, relay)
	}
	if open != st.Open || unsettled != st.Unsettled || len(all) != int(st.Count) {
		c.find(id, "counts %d recipients, %d unsettled, %d open; there are %d, %d, %d",
			st.Count, st.Unsettled, st.Open, len(all), unsettled, open)
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

func (c *checker) queues() error {
	return c.v.Each(index.Queues(), func(key, value []byte) error {
		relay, lane, sequence := index.ParsePlace(key)
		c.counted.Queued++
		c.lengths[routing.RelayID(relay)]++
		q, err := decodeQueued(value)
		if err != nil {
			c.find(envelope.ID{}, "queue of %s, sequence %d: %v", relay, sequence, err)
			return nil
		}
		st, err := envelopeAt(c.v, q.ID)
		if err != nil {
			return err
		}
		if st == nil || st.Lane != lane {
			c.find(q.ID, "is queued for relay %s, and does not exist", relay)
		} else if d, open := st.duty(routing.RelayID(relay)); !open || d.Sequence != sequence {
			c.find(q.ID, "is queued for relay %s, which is no duty of it", relay)
		}
		return nil
	})
}

func (c *checker) inboxes() error {
	return c.v.Each(index.Inboxes(), func(key, value []byte) error {
		agency, lane, sequence := index.ParsePlace(key)
		c.counted.Inboxed++
		e, err := decodeInboxed(value)
		if err != nil {
			c.find(envelope.ID{}, "inbox of %s, sequence %d: %v", agency, sequence, err)
			return nil
		}
		st, err := envelopeAt(c.v, e.ID)
		if err != nil {
			return err
		}
		if st == nil || st.Lane != lane {
			c.find(e.ID, "is in the inbox of %s, and does not exist", agency)
			return nil
		}
		d, err := deliveryAt(c.v, e.ID, st, routing.AgencyCode(agency))
		if err != nil {
			return err
		}
		if d == nil || d.Place != inInbox || d.Sequence != sequence {
			c.find(e.ID, "is in the inbox of %s, who does not wait for it", agency)
		}
		return nil
	})
}
