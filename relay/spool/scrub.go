package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/truclienthong/truc/relay/spool/journal"
)

// scrubPiece is the most that is read at once of what nobody waits for.
const scrubPiece = 1 << 20

// scrub reads every sealed segment, and the index, again and again until ctx
// ends: damage is found while other holders still have the bytes. Where somebody
// came upon damage it looks at once. What it finds in the journal the cleaner
// takes in hand (space.go); a damaged index ends the spool, and the next start
// builds it anew.
func (s *Spool) scrub(ctx context.Context) error {
	limit := rate.NewLimiter(rate.Limit(s.cfg.ScrubRate), int(min(s.cfg.ScrubRate, scrubPiece)))
	pace := func(ctx context.Context, n int) error {
		for n > 0 {
			if err := s.lookAtSuspects(ctx); err != nil {
				return err
			}
			k := min(n, limit.Burst())
			if err := limit.WaitN(ctx, k); err != nil {
				return err
			}
			n -= k
		}
		return nil
	}
	timer := time.NewTimer(s.cfg.scrubAfter)
	defer timer.Stop()
	for {
		select {
		case <-s.quarantine.look:
			if err := s.lookAtSuspects(ctx); err != nil {
				return endOf(ctx, err)
			}
		case <-timer.C:
			began := time.Now()
			if err := s.scrubAll(ctx, pace); err != nil {
				return endOf(ctx, fmt.Errorf("scrub: %w", err))
			}
			timer.Reset(max(s.cfg.ScrubEvery-time.Since(began), 0))
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Spool) scrubAll(ctx context.Context, pace func(context.Context, int) error) error {
	began, before := time.Now(), len(s.journal.Damage())
	for _, j := range []*journal.Journal{s.journal, s.register} {
		for _, info := range j.Segments() {
			if !info.Sealed {
				continue // read by whoever comes for what is in it
			}
			if err := j.Verify(ctx, info.Number, pace); err != nil {
				return err
			}
		}
	}
	if err := s.store.Prove(ctx, pace); err != nil {
		return err
	}
	s.log.Info("scrubbed the spool", "took", time.Since(began).Round(time.Millisecond), "damaged", len(s.journal.Damage())-before)
	return nil
}

// lookAtSuspects reads the segments where damage was met.
func (s *Spool) lookAtSuspects(ctx context.Context) error {
	for _, n := range s.quarantine.takeSuspects() {
		if err := s.journal.Verify(ctx, n, nil); err != nil && !errors.Is(err, journal.ErrAhead) {
			return fmt.Errorf("look at damage: %w", err)
		}
	}
	return nil
}
