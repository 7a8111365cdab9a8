package relay

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
)

// The disk watermark. Below the reserve no new envelope is accepted, from agencies
// and from peers, so that there is room for what has to be written about those in
// custody: confirmations, reports, what was handed on. Above a quarter more than
// the reserve they are accepted again. What was accepted goes on all the time,
// which is what frees the disk. A transfer that is under way may end, until half
// of the reserve is used up; then it is refused at its next chunk, and resumed
// from there when there is room.
const diskFullRetry = 30 * time.Second

// levels is what fills up here, as of the last look: it is asked at each submit,
// and finding out costs more than that.
type levels struct {
	mu sync.Mutex
	// free and reserve are bytes of the spool's disk; 0 and 0 before the first
	// look.
	free, reserve uint64
	// low is set from the moment that free is below reserve until it is a quarter
	// above.
	low bool
	// queues are the lengths of queues, by destination.
	queues map[routing.RelayID]int64
}

// diskLow says what is wrong with the disk; empty: nothing is.
func (l *levels) diskLow() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.low {
		return ""
	}
	return fmt.Sprintf("disk: %s free, %s are kept in reserve", size(l.free), size(l.reserve))
}

// exhausted reports whether half of the reserve is used up.
func (l *levels) exhausted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.low && l.free < l.reserve/2
}

// queued is how many envelopes wait for a relay.
func (l *levels) queued(relay routing.RelayID) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queues[relay]
}

// set notes a look at the disk; it reports whether low has changed.
func (l *levels) set(free, reserve uint64) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free, l.reserve = free, reserve
	low := free < reserve || l.low && free < reserve+reserve/4
	changed, l.low = low != l.low, low
	return changed
}

// watchSpace looks at the levels until ctx ends.
func (r *Relay) watchSpace(ctx context.Context, s *spool.Spool) {
	tick := time.NewTicker(r.config.LookEvery)
	defer tick.Stop()
	for blind := false; ; {
		err := r.look(s)
		if err != nil && !blind {
			r.config.Logger.Error("free space of the disk is not known; the last figure stands", "error", err)
		}
		blind = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look takes the levels of now.
func (r *Relay) look(s *spool.Spool) error {
	queues := s.Stats().Queues
	r.levels.mu.Lock()
	r.levels.queues = queues
	r.levels.mu.Unlock()
	free, reserve, err := s.Space()
	if err != nil {
		return err
	}
	if !r.levels.set(free, reserve) {
		return nil
	}
	if why := r.levels.diskLow(); why != "" {
		r.config.Logger.Error("no envelopes are accepted any more", "reason", why)
	} else {
		r.config.Logger.Info("disk has room, envelopes are accepted again", "free", free, "reserve", reserve)
	}
	r.state.announce()
	return nil
}

// filling is an envelope on its way into the spool, as long as the disk has room.
type filling struct {
	*spool.Incoming
	levels *levels
}

func (f *filling) Write(ctx context.Context, part int, offset uint64, data []byte) error {
	if f.levels.exhausted() {
		return diskFull("%s; call again later to resume", f.levels.diskLow())
	}
	return f.Incoming.Write(ctx, part, offset, data)
}

// Content gives the errors of reading the form that the other parts know.
func (f *filling) Content(ctx context.Context, part int) (io.ReadCloser, error) {
	content, err := f.Incoming.Content(ctx, part)
	if err != nil {
		return nil, refusalOf(err)
	}
	return contentReader{content}, nil
}

func diskFull(format string, args ...any) error {
	refusal := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DISK_FULL, format, args...)
	refusal.RetryAfter = diskFullRetry
	return refusal
}

// size writes bytes for people.
func size(bytes uint64) string {
	for _, unit := range []struct {
		name  string
		bytes uint64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}} {
		if bytes >= unit.bytes {
			return fmt.Sprintf("%.1f %s", float64(bytes)/float64(unit.bytes), unit.name)
		}
	}
	return fmt.Sprintf("%d B", bytes)
}
