package spool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// How space comes back. A segment is recycled when
//
//   - the index on disk says that nothing in it is needed, and reflects a record
//     of a later segment, so that no replay begins in it;
//   - every release that it states is stated elsewhere, as long as segments
//     exist with records that would bring the envelope back in a rebuild;
//   - the register has everything that was released (register.go).
//
// What is still needed in a segment with little left is written again: chunks
// as moved, the rest of an envelope as one state record. That is appended like
// everything else, and the old segment is recycled by the rule above once the
// index on disk points to the new place. A damaged segment is emptied however
// much of it is needed, and goes by the same rule; the journal puts its file
// aside.

const (
	// scant is the part of a segment that is worth writing again at once.
	scant = 0.25
	// overhead is how much larger than what is alive the full segments may be;
	// the one that is written to, and a spare one, come on top.
	overhead = 1.3
	// maxBuried releases share a record.
	maxBuried = 20_000
	// stuckFor is how long a segment is left alone of which something alive
	// cannot be read, or written again.
	stuckFor = 10 * time.Second
)

// cleaner is the state of reclaim alone.
type cleaner struct {
	*Spool
	limit *rate.Limiter
	// sealed is when a segment was first seen full.
	sealed map[uint64]time.Time
	// stuck is until when a segment is left alone that cannot be emptied yet.
	stuck map[uint64]time.Time
	// registerLooked is when old segments of the register were looked for,
	// registeredUntil when the time of everything in one is over.
	registerLooked  time.Time
	registeredUntil map[uint64]time.Time
}

// reclaim gives segments back until ctx ends.
func (s *Spool) reclaim(ctx context.Context) error {
	c := &cleaner{
		Spool: s, sealed: make(map[uint64]time.Time), stuck: make(map[uint64]time.Time),
		registeredUntil: make(map[uint64]time.Time),
		limit:           rate.NewLimiter(rate.Limit(s.cfg.CopyRate), max(s.cfg.CopyRate, 2*maxChunk)),
	}
	tick := time.NewTicker(s.cfg.reclaimEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := c.recycleDead(ctx); err != nil {
			return endOf(ctx, err)
		}
		if err := c.tendRegister(ctx); err != nil {
			return endOf(ctx, fmt.Errorf("register: %w", err))
		}
		if n, found := c.candidate(); found {
			if err := c.empty(ctx, n); err != nil {
				return endOf(ctx, fmt.Errorf("empty segment %d: %w", n, err))
			}
		}
	}
}

func (c *cleaner) recycleDead(ctx context.Context) error {
	there := make(map[uint64]bool)
	var dead []uint64
	m := c.machine
	infos := c.journal.Segments()
	damaged := make(map[uint64]bool)
	m.mu.Lock()
	reached := m.saved.position
	for _, info := range infos {
		there[info.Number] = true
		if info.Sealed && m.saved.dead[info.Number] && info.Number < reached.Segment {
			dead = append(dead, info.Number)
			damaged[info.Number] = info.Damaged
		}
	}
	m.mu.Unlock()
	if len(dead) > 0 {
		if err := c.registerAll(ctx); err != nil {
			return err
		}
		if err := c.fact(ctx, true, &indexed{Position: reached}); err != nil {
			return err
		}
	}
	for n := range c.absent {
		if c.isDead(n) {
			delete(c.absent, n)
			if err := c.change(ctx, func(s *step) error { s.recycled(n); return nil }); err != nil {
				return err
			}
		}
	}
	for _, n := range dead {
		if err := c.bury(ctx, n, there, damaged[n]); err != nil {
			return fmt.Errorf("keep what segment %d says of released envelopes: %w", n, err)
		}
		if err := c.journal.Recycle(n); err != nil {
			return err
		}
		delete(there, n)
		delete(c.sealed, n)
		delete(c.stuck, n)
		err := c.change(ctx, func(s *step) error {
			s.recycled(n)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// bury states again which envelopes were released in a segment, where records
// that would bring them back are still there. Of a damaged segment nobody knows
// what it stated, and everything is said again that the index knows as released.
func (c *cleaner) bury(ctx context.Context, n uint64, there map[uint64]bool, damaged bool) error {
	m := c.machine
	m.mu.Lock()
	needed := false
	if seg := m.segments[n]; seg != nil {
		for origin := range seg.outlives {
			needed = needed || there[origin] && origin != n
		}
	}
	m.mu.Unlock()
	if !needed {
		return nil
	}
	again := &released{Now: c.now(), again: true}
	state := func() error {
		if len(again.Items) == 0 {
			return nil
		}
		r := *again
		again.Items = nil
		return c.fact(ctx, true, &r)
	}
	restate := func(g gone) error {
		g.Origins = slices.DeleteFunc(g.Origins, func(o uint64) bool { return !there[o] || o == n })
		if len(g.Origins) > 0 {
			again.Items = append(again.Items, g)
		}
		if len(again.Items) < maxBuried {
			return nil
		}
		return state()
	}
	var err error
	if damaged {
		err = c.eachReleased(restate)
	} else {
		err = c.scan(n, func(rec journal.Record, r record) error {
			released, ok := r.(*released)
			if !ok {
				return nil
			}
			for _, g := range released.Items {
				if err := restate(g); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return err
	}
	return state()
}

// eachReleased gives every envelope that is released, as the index knows it.
func (c *cleaner) eachReleased(fn func(gone) error) error {
	v := c.store.View()
	defer v.Close()
	return v.Each(index.Envelopes(), func(key, value []byte) error {
		st, err := decodeState(value)
		if err != nil || !st.released() {
			return err
		}
		return fn(gone{ID: index.ParseID(key), Before: st.Born + 1, Origins: st.Origins})
	})
}

var errScanned = errors.New("segment is scanned")

// scan gives every record of a segment to fn.
func (c *cleaner) scan(n uint64, fn func(journal.Record, record) error) error {
	err := c.journal.Replay(journal.Position{Segment: n}, func(rec journal.Record) error {
		if rec.Segment != n {
			return errScanned
		}
		r, err := recordOf(rec.Type, rec.Payload)
		if err != nil {
			return fmt.Errorf("%s: %w", rec.Position, err)
		}
		return fn(rec, r)
	})
	if errors.Is(err, errScanned) {
		return nil
	}
	return err
}

// candidate chooses a damaged segment, or the one with the least alive if it is
// time.
func (c *cleaner) candidate() (uint64, bool) {
	m := c.machine
	infos := c.journal.Segments()
	m.mu.Lock()
	defer m.mu.Unlock()
	var alive, full int64
	var best, damaged uint64
	least := 1.0
	for n := range c.absent {
		if time.Now().After(c.stuck[n]) {
			damaged = n
		}
	}
	for _, info := range infos {
		seg := m.segments[info.Number]
		if seg == nil {
			continue
		}
		alive += seg.live
		if !info.Sealed || seg.live == 0 {
			continue
		}
		full += info.Size
		if _, seen := c.sealed[info.Number]; !seen {
			c.sealed[info.Number] = time.Now()
		}
		reached := info.Number < m.saved.position.Segment && time.Now().After(c.stuck[info.Number])
		if reached && info.Damaged {
			damaged = info.Number
		}
		ripe := reached && time.Since(c.sealed[info.Number]) >= c.cfg.CopyAfter
		if part := float64(seg.live) / float64(info.Size); ripe && part < least {
			best, least = info.Number, part
		}
	}
	if damaged != 0 {
		return damaged, true
	}
	return best, best != 0 && (least < scant || float64(full) > overhead*float64(alive) && least < 1/overhead)
}

// empty writes what is alive in a segment again.
func (c *cleaner) empty(ctx context.Context, n uint64) error {
	ids := make(map[envelope.ID]bool)
	err := c.scan(n, func(_ journal.Record, r record) error {
		for _, id := range r.about() {
			ids[id] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.isDamaged(n) {
		// The records that cannot be read are of somebody, too.
		if err := c.aliveIn(n, ids); err != nil {
			return err
		}
		c.stuck[n] = time.Now().Add(c.cfg.stuckFor)
	}
	began := time.Now()
	for id := range ids {
		err := c.copyOut(ctx, id, n)
		if errors.Is(err, ErrDamaged) || errors.Is(err, journal.ErrTooLarge) {
			c.log.Warn("segment cannot be emptied yet", "segment", n, "envelope", id, "error", err)
			c.stuck[n] = time.Now().Add(c.cfg.stuckFor)
			continue
		}
		if err != nil {
			return fmt.Errorf("envelope %s: %w", id, err)
		}
	}
	c.log.Debug("emptied a segment", "segment", n, "envelopes", len(ids), "took", time.Since(began))
	return nil
}

// isDead reports whether nothing in a segment is needed, also not by a replay.
func (c *cleaner) isDead(n uint64) bool {
	c.machine.mu.Lock()
	defer c.machine.mu.Unlock()
	return c.machine.saved.dead[n]
}

func (c *cleaner) isDamaged(n uint64) bool {
	return c.absent[n] || slices.ContainsFunc(c.journal.Segments(), func(info journal.SegmentInfo) bool {
		return info.Number == n && info.Damaged
	})
}

// aliveIn adds every envelope that needs something in a segment, as the index
// knows it.
func (c *cleaner) aliveIn(n uint64, ids map[envelope.ID]bool) error {
	v := c.store.View()
	defer v.Close()
	err := v.Each(index.Envelopes(), func(key, value []byte) error {
		st, err := decodeState(value)
		if err == nil && slices.ContainsFunc(st.Shares, func(s share) bool { return s.Segment == n }) {
			ids[index.ParseID(key)] = true
		}
		return err
	})
	if err != nil {
		return err
	}
	err = v.Each(index.AllChunks(), func(key, value []byte) error {
		l, err := decodeLocation(value)
		if err == nil && l.Segment == n {
			ids[index.ParseID(key)] = true
		}
		return err
	})
	if err != nil {
		return err
	}
	return v.Each(index.Transfers(), func(key, value []byte) error {
		t, err := decodeTransfer(value)
		if err == nil && t.Begin.Segment == n {
			ids[index.ParseID(key)] = true
		}
		return err
	})
}
