package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// tendRegister gives up segments of the register whose time is over, and writes
// again what lies in damaged ones, or in nearly empty ones: each start begins a
// new one.
func (c *cleaner) tendRegister(ctx context.Context) error {
	var sealed, scarce []journal.SegmentInfo
	damaged := false
	for _, info := range c.register.Segments() {
		if !info.Sealed {
			continue
		}
		sealed = append(sealed, info)
		damaged = damaged || info.Damaged
		if 2*info.Used < info.Size {
			scarce = append(scarce, info)
		}
	}
	switch {
	case damaged:
		c.log.Error("register is damaged: it is written again from the index")
		return c.moveRegister(ctx, sealed, c.eachReleasedBatch)
	case len(scarce) >= maxScarce:
		return c.moveRegister(ctx, scarce, func(fn func([]envelope.ID) error) error { return c.eachRegisteredBatch(scarce, fn) })
	case time.Since(c.registerLooked) < registerLook:
		return nil
	}
	c.registerLooked = time.Now()
	if err := c.registerAll(ctx); err != nil { // so that a lost one is whole again soon
		return err
	}
	for _, info := range sealed {
		until, err := c.lastOf(info.Number)
		if err != nil {
			return err
		}
		if until.After(c.now()) {
			return nil // and so are those behind it, or they wait a little
		}
		if err := c.register.Recycle(info.Number); err != nil {
			return err
		}
	}
	return nil
}

// eachOf gives every record of a segment of the register to fn.
func (c *cleaner) eachOf(segment uint64, fn func(registerEntry) error) error {
	err := c.register.Replay(journal.Position{Segment: segment}, func(rec journal.Record) error {
		if rec.Segment != segment {
			return errScanned
		}
		r, err := registered(rec)
		if err != nil {
			return fmt.Errorf("%s: %w", rec.Position, err)
		}
		return fn(r)
	})
	if errors.Is(err, errScanned) {
		return nil
	}
	return err
}

// lastOf is when the last envelope in a segment of the register is forgotten.
func (c *cleaner) lastOf(segment uint64) (until time.Time, err error) {
	if known, ok := c.registeredUntil[segment]; ok {
		return known, nil
	}
	err = c.eachOf(segment, func(r registerEntry) error {
		if r.until().After(until) {
			until = r.until()
		}
		return nil
	})
	if err == nil {
		c.registeredUntil[segment] = until
	}
	return until, err
}

// eachRegisteredBatch gives the ids of what is known of segments of the register.
func (c *cleaner) eachRegisteredBatch(segments []journal.SegmentInfo, fn func([]envelope.ID) error) error {
	for _, info := range segments {
		var ids []envelope.ID
		err := c.eachOf(info.Number, func(r registerEntry) error {
			if ids = append(ids, r.about()...); len(ids) < maxMarks {
				return nil
			}
			batch := ids
			ids = nil
			return fn(batch)
		})
		if err == nil && len(ids) > 0 {
			err = fn(ids)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// moveRegister registers envelopes again, and then lets go of the segments where
// they were.
func (c *cleaner) moveRegister(ctx context.Context, segments []journal.SegmentInfo, each func(func([]envelope.ID) error) error) error {
	err := each(func(ids []envelope.ID) error { return c.change(ctx, markUnregistered(ids)) })
	if err != nil {
		return err
	}
	if err := c.registerAll(ctx); err != nil {
		return err
	}
	for _, info := range segments {
		if err := c.register.Recycle(info.Number); err != nil {
			return err
		}
		delete(c.registeredUntil, info.Number)
	}
	return nil
}
