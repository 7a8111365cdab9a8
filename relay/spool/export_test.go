package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
	"github.com/truclienthong/truc/routing"
)

// Hurried has segments looked at all the time.
func Hurried(cfg Config) Config {
	cfg.reclaimEvery = time.Millisecond
	cfg.CopyAfter = time.Millisecond
	return cfg
}

// Dump returns everything the index says, apart from what counts runs.
func (s *Spool) Dump() map[string]string {
	out := make(map[string]string)
	v := s.store.View()
	defer v.Close()
	for table := range 20 {
		err := v.Each([]byte{byte(table)}, func(key, value []byte) error {
			if table != 0 || key[1] == index.CountersKey()[1] {
				out[fmt.Sprintf("%x", key)] = fmt.Sprintf("%x", value)
			}
			return nil
		})
		if err != nil {
			out["error"] = err.Error()
		}
	}
	return out
}

// Break takes something away that must be there.
func Break(cfg Config, what string, id envelope.ID) error {
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	err = s.machine.change(&step{}, func(st *step) error {
		h, err := st.load(id)
		if err != nil {
			return err
		}
		switch what {
		case "queue entry":
			st.b.Delete(index.QueueKey(h.st.Duties[0].Relay, h.st.Lane, h.st.Duties[0].Sequence))
		case "inbox entry":
			st.b.Delete(index.InboxKey("A", h.st.Lane, h.st.Deliveries[0].Sequence))
		case "envelope":
			st.b.Delete(index.EnvelopeKey(id))
		case "document":
			st.b.Delete(index.DocumentKey("H26", "doc-1"))
		case "usage":
			st.used = map[routing.AgencyCode]usage{"H26": {Envelopes: 1}}
		case "waiting":
			st.waits = map[routing.AgencyCode]int64{"A": 1}
		case "segment":
			st.live(h.st.Shares[0].Segment, 8)
			st.b.Put([]byte{255}, nil)
		case "counters":
			st.counters.Accepted++
			st.b.Put([]byte{255}, nil)
		}
		return nil
	})
	return errors.Join(err, s.store.Flush(context.Background()), s.Close())
}

// Lists names the tables of what is to be looked after.
var Lists = []string{"away", "origin", "sole", "dead", "held", "undelivered", "document"}

// Unlist empties such a table, or adds an envelope to it that does not belong
// there.
func Unlist(cfg Config, list string, stranger *envelope.ID) error {
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	err = s.machine.change(&step{}, func(st *step) error {
		var id envelope.ID
		if stranger != nil {
			id = *stranger
		}
		l := map[string]struct{ table, key []byte }{
			"away":        {index.Aways(), index.AwayKey("tay", id)},
			"origin":      {index.Origins(), index.OriginKey("tay", id)},
			"sole":        {index.Soles(), index.SoleKey(99, id)},
			"dead":        {index.Dead(), index.DeadKey(time.Unix(99, 0), id)},
			"held":        {index.Helds(), index.HeldKey(id)},
			"undelivered": {index.Undelivered(), index.UndeliveredKey(2, time.Unix(99, 0), id)},
			"document":    {index.Documents(), index.DocumentKey("H99", "doc")},
		}[list]
		if stranger != nil {
			st.b.Put(l.key, encodeAlone(&state{}))
			if list == "document" {
				st.b.Put(l.key, id[:])
			}
			return nil
		}
		return st.v.Each(l.table, func(key, _ []byte) error {
			st.b.Delete(key)
			return nil
		})
	})
	return errors.Join(err, s.store.Flush(context.Background()), s.Close())
}

// Flushed tells whether the index on disk reflects everything in the journal.
func (s *Spool) Flushed() bool {
	m := s.machine
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saved.position == m.position
}

// Settlements counts the records of settlements in the journal.
func (s *Spool) Settlements() (n int, err error) {
	err = s.journal.Replay(journal.Position{}, func(rec journal.Record) error {
		if rec.Type == typeSettled {
			n++
		}
		return nil
	})
	return n, err
}

// InJournal counts the records in the journal about some envelopes.
func (s *Spool) InJournal(ids ...envelope.ID) (n int, err error) {
	err = s.journal.Replay(journal.Position{}, func(rec journal.Record) error {
		r, err := recordOf(rec.Type, rec.Payload)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(r.about(), func(id envelope.ID) bool { return slices.Contains(ids, id) }) {
			n++
		}
		return nil
	})
	return n, err
}

// Unregistered counts what is still to be registered.
func (s *Spool) Unregistered() (n int) {
	v := s.store.View()
	defer v.Close()
	for it := v.Iterator(index.Unregistered()); ; it.Next() {
		if !it.Valid() {
			it.Close()
			return n
		}
		n++
	}
}

// FirstSegment is the number of the oldest segment of the journal.
func (s *Spool) FirstSegment() uint64 { return s.journal.Segments()[0].Number }

// RegisterSegments counts the segments of the register.
func (s *Spool) RegisterSegments() int { return len(s.register.Segments()) }

// Bury states that an envelope was released before a sequence.
func (s *Spool) Bury(id envelope.ID, before uint64) error {
	return s.fact(context.Background(), true, &released{again: true, Items: []gone{{ID: id, Before: before, Origins: []uint64{1}}}})
}

// Older makes the spool one of the release before the register.
func Older(cfg Config) error {
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	err = s.machine.change(&step{}, func(st *step) error {
		for _, table := range [][]byte{index.Undelivered(), index.Unregistered()} {
			err := st.v.Each(table, func(key, _ []byte) error { st.b.Delete(key); return nil })
			if err != nil {
				return err
			}
		}
		st.b.Delete(index.RegisterKey())
		return nil
	})
	return errors.Join(err, s.store.Flush(context.Background()), s.Close(), os.RemoveAll(cfg.registerDir()))
}

// Unnumber makes the index one of the release before numbers were counted.
func Unnumber(cfg Config) error {
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	err = s.machine.change(&step{}, func(st *step) error {
		err := st.v.Each(index.Envelopes(), func(key, value []byte) error {
			was, err := decodeState(value)
			if err == nil {
				was.Numbered = false
				st.b.Put(key, encodeState(was))
			}
			return err
		})
		return errors.Join(err, st.v.Each(index.Numbers(), func(key, _ []byte) error { st.b.Delete(key); return nil }))
	})
	return errors.Join(err, s.store.Flush(context.Background()), s.Close())
}

// Renumber puts another count, or another envelope, into the table number.
func Renumber(cfg Config, n envelope.Number, count uint64, first envelope.ID) error {
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	err = s.machine.change(&step{}, func(st *step) error {
		st.b.Put(index.NumberKey(n), encodeNumbered(numbered{count, first}))
		return nil
	})
	return errors.Join(err, s.store.Flush(context.Background()), s.Close())
}

// Age appends a record as an earlier program wrote them.
func Age(cfg Config) error {
	j, err := journal.Open(journal.Config{Dir: cfg.journalDir(), SegmentSize: cfg.SegmentSize})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- j.Run(ctx) }()
	e := entryOf(&deferred{})
	e.Payload[0][0] = recordVersion - 1
	ticket, err := j.Append(ctx, true, e)
	if err == nil {
		_, err = ticket.Wait(ctx)
	}
	stop()
	return errors.Join(err, <-ran, j.Close())
}
