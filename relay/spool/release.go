package spool

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
)

const (
	// sweepEvery is how often the table expiry is looked at, sweepPause the
	// least time between two looks, so that releases share records.
	sweepEvery = time.Second
	sweepPause = 50 * time.Millisecond
	// maxReleases share a record.
	maxReleases = 1024
	// overlap is how far back a look goes behind the end of the one before:
	// entries are made with the time at which their record was appended.
	overlap = time.Minute
	// wholeTable is how often a look begins at the beginning, in case the clock
	// was put back.
	wholeTable = time.Hour
	// tidyEvery is how often abandoned transfers and badger's value log are
	// looked at.
	tidyEvery = time.Minute
)

// releaseDue lets go what nobody needs any more, when its time has come.
func (s *Spool) releaseDue(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var mark, full, tidied time.Time
	for {
		select {
		case <-timer.C:
		case <-s.due:
			if err := pause(ctx, sweepPause); err != nil {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
		now := s.now()
		if mark.IsZero() || now.Before(mark) || now.Sub(full) > wholeTable {
			mark, full = time.Time{}, now
		}
		if err := s.sweep(ctx, mark, now); err != nil {
			return endOf(ctx, fmt.Errorf("release content: %w", err))
		}
		mark = now.Add(-overlap)
		if now.Sub(tidied) > tidyEvery || now.Before(tidied) {
			tidied = now
			if err := s.tidy(ctx, now); err != nil {
				return endOf(ctx, err)
			}
		}
		timer.Reset(sweepEvery)
	}
}

// endOf turns errors of an ended context into the end.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sweep does what is due between two instants.
func (s *Spool) sweep(ctx context.Context, from, to time.Time) error {
	for start := index.ExpiryTime(from); start != nil; {
		var due, over []envelope.ID
		var err error
		if due, over, start, err = s.dueFrom(start, to); err != nil {
			return err
		}
		if err := s.release(ctx, due); err != nil {
			return err
		}
		for _, id := range over {
			if err := s.change(ctx, func(st *step) error { return st.forget(id) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// dueFrom returns what is to be released and forgotten, and where to go on; nil
// at the end.
func (s *Spool) dueFrom(start []byte, to time.Time) (due, over []envelope.ID, next []byte, err error) {
	v := s.store.View()
	defer v.Close()
	it := v.Iterator(index.Expiries())
	defer it.Close()
	for it.Seek(start); it.Valid(); it.Next() {
		at, purpose, id := index.ParseExpiryKey(it.Key())
		if at.After(to) {
			break
		}
		if len(due)+len(over) == maxReleases {
			return due, over, it.Key(), nil
		}
		switch purpose {
		case index.Release:
			due = append(due, id)
		case index.Forget:
			over = append(over, id)
		}
	}
	return due, over, nil, it.Err()
}

// release writes that content may go. Envelopes that something is happening to
// wait for the next sweep.
func (s *Spool) release(ctx context.Context, ids []envelope.ID) error {
	if len(ids) == 0 {
		return nil
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	r := &released{Now: s.now()}
	v := s.store.View()
	defer v.Close()
	for _, id := range ids {
		if s.pending.wait(id) != nil {
			continue
		}
		st, err := envelopeAt(v, id)
		if err != nil {
			s.give()
			return err
		}
		if st != nil && st.done() && !st.released() && st.Due == index.Release && !st.DueAt.After(r.Now) {
			r.Items = append(r.Items, gone{ID: id, Before: s.sequence, Origins: st.Origins})
		}
	}
	if len(r.Items) == 0 {
		s.give()
		return nil
	}
	g, err := s.append(ctx, false, nil, r)
	s.give()
	if err != nil {
		return err
	}
	return s.wait(g)
}

// tidy gives up transfers that nobody resumed, and space of badger's.
func (s *Spool) tidy(ctx context.Context, now time.Time) error {
	stale, err := s.staleTransfers(now)
	if err != nil {
		return err
	}
	for id, generation := range stale {
		if err := s.fact(ctx, false, &abandoned{ID: id, Generation: generation}); err != nil {
			return fmt.Errorf("give up transfer of %s: %w", id, err)
		}
	}
	return s.store.Collect()
}

func (s *Spool) staleTransfers(now time.Time) (map[envelope.ID]uint64, error) {
	v := s.store.View()
	defer v.Close()
	stale := make(map[envelope.ID]uint64)
	it := v.Iterator(index.Transfers())
	defer it.Close()
	for ; it.Valid(); it.Next() {
		t, err := decodeTransfer(it.Value())
		if err != nil {
			return nil, err
		}
		id := index.ParseID(it.Key())
		if now.Sub(t.TouchedAt) < s.cfg.Retention.Transfer || s.underWay(id) {
			continue
		}
		if stale[id] = t.Generation; len(stale) == maxReleases {
			break
		}
	}
	return stale, it.Err()
}

func (s *Spool) underWay(id envelope.ID) bool {
	s.incomingMu.Lock()
	defer s.incomingMu.Unlock()
	return s.incoming[id] != nil
}

// Expired lists at most max envelopes behind a place in the list whose ExpiresAt
// is not after an instant and that are not done with: their recipients are to be
// settled.
func (s *Spool) Expired(before time.Time, after envelope.Due, max int) ([]envelope.Due, error) {
	v := s.store.View()
	defer v.Close()
	var out []envelope.Due
	it := v.Iterator(index.Expiries())
	defer it.Close()
	if !after.At.IsZero() {
		it.Seek(index.ExpiryTime(after.At))
	}
	for ; it.Valid() && len(out) < max; it.Next() {
		at, purpose, id := index.ParseExpiryKey(it.Key())
		if at.After(before) {
			break
		}
		if purpose == index.Expire && comesBehind(at, id, after) {
			out = append(out, envelope.Due{At: at, ID: id})
		}
	}
	return out, it.Err()
}

// comesBehind reports whether an entry of a list in order of time, then of id,
// stands behind a place in it.
func comesBehind(at time.Time, id envelope.ID, after envelope.Due) bool {
	c := at.Compare(after.At)
	return c > 0 || c == 0 && bytes.Compare(id[:], after.ID[:]) > 0
}
