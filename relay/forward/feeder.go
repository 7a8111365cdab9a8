package forward

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

const (
	// pageSize is how many entries are read from a queue at once.
	pageSize = 64
	// maxSkipped bounds how far a feeder looks behind large envelopes that wait
	// for a place, for small ones that need none.
	maxSkipped = 1024
)

// feeder picks the entries of one destination and one stream and starts an
// offer for each, the most urgent first. Its goroutine owns every field that
// says nothing else.
//
// It remembers its place in the queue, so that each entry is read once however
// many are under way. It goes back to the beginning when an entry before its
// place may be offered again: one failed, one was skipped, its time has come;
// and now and then without a reason.
type feeder struct {
	f      *Forwarder
	d      *destination
	urgent bool
	lanes  []envelope.Lane

	underWay map[envelope.ID]bool
	place    place
	page     []envelope.QueueEntry // read and not yet looked at
	queue    <-chan struct{}       // closed when something was added after page was read
	again    bool                  // go back to the beginning
	due      time.Time             // go back then: an entry's next try
	rescan   time.Time             // go back then in any case
	transfer int                   // large ones under way, at most Config.Transfers
	skipped  int                   // large ones skipped since the beginning
	stuck    bool                  // an entry found no way; go back when links change

	row   int  // entries picked in lane order since a lower lane had its turn
	turns int  // counts through the lower lanes
	owed  bool // the entry whose turn it was waits for a place
	// current is the lane of the last entry picked in lane order.
	current envelope.Lane

	sweepWanted bool      // the directory changed since the last sweep
	sweepAfter  time.Time // not before
	passedOver  bool      // an entry was under way when the last sweep came by

	work sync.WaitGroup
	wake chan struct{} // holds one token when ended was added to

	mu    sync.Mutex
	ended []ended // guarded by mu
}

// ended says that an offer is no longer under way.
type ended struct {
	id    envelope.ID
	large bool
	// gone: the duty left the queue as a whole.
	gone bool
}

func newFeeder(f *Forwarder, d *destination, urgent bool) *feeder {
	return &feeder{
		f: f, d: d, urgent: urgent, lanes: lanes(urgent),
		underWay:    make(map[envelope.ID]bool),
		sweepWanted: true,
		wake:        make(chan struct{}, 1),
	}
}

func (fd *feeder) run(ctx context.Context) {
	defer fd.work.Wait()
	timer := time.NewTimer(fd.f.Rescan)
	defer timer.Stop()
	var links, directory <-chan struct{}
	for ctx.Err() == nil {
		// Much may have happened at once, and select tells of one thing.
		fd.again = fd.again || fd.stuck && closed(links)
		fd.sweepWanted = fd.sweepWanted || closed(directory) || closed(fd.queue) && fd.abandoned()
		// Each channel is taken before what it tells of is read.
		fd.queue = fd.f.Queues.QueueChanged(fd.d.relay)
		links = fd.f.links.change()
		breaker := fd.d.breaker.change()
		directory = fd.f.Directory.Changed()

		fd.collect()
		next := sooner(fd.sweep(ctx), fd.feed(ctx))
		next = sooner(next, fd.rescan)
		timer.Reset(max(next.Sub(fd.f.Clock()), time.Millisecond))

		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-fd.queue:
		case <-breaker:
		case <-fd.wake:
		case <-links:
		case <-directory:
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// feed starts offers until nothing more may be offered now, and returns when to
// look again if nothing happens until then.
func (fd *feeder) feed(ctx context.Context) (next time.Time) {
	for ctx.Err() == nil {
		now := fd.f.Clock()
		if fd.again || (!fd.due.IsZero() && !now.Before(fd.due)) || !now.Before(fd.rescan) {
			fd.restart(now)
		}
		e, ok := pick{}, false
		if fd.turnDue() {
			e, ok = fd.turn(ctx, now)
		}
		if !ok {
			if e.QueueEntry, ok = fd.next(ctx); !ok {
				return fd.due
			}
			if !fd.ready(e.QueueEntry, now) {
				continue
			}
		}
		started, until := fd.start(ctx, e, now)
		if !started {
			// Nothing of this destination may be offered now.
			fd.putBack(e.QueueEntry)
			return sooner(until, fd.due)
		}
	}
	return fd.due
}

// ready reports whether an entry may be offered now.
func (fd *feeder) ready(e envelope.QueueEntry, now time.Time) bool {
	if fd.underWay[e.ID] || e.Held {
		return false
	}
	// One further ahead than any pause was noted before the clock was put back.
	if now.Before(e.NextTry) && e.NextTry.Sub(now) <= fd.f.BackoffCap {
		fd.due = sooner(fd.due, e.NextTry)
		return false
	}
	return true
}

// start starts the offer of an entry, or skips it; false when no entry of this
// destination may be offered before the given time, or before a change where
// that is zero.
func (fd *feeder) start(ctx context.Context, e pick, now time.Time) (started bool, until time.Time) {
	hop, since, ok := fd.hop(ctx, e.QueueEntry)
	if !ok {
		// Where there is no way for an envelope that was nowhere yet, there is
		// none for any, and the queue is not read on.
		_, _, others := fd.f.hop(fd.d.relay, nil)
		fd.stuck = fd.stuck || others
		if !others && fd.urgent && fd.f.links.up(fd.d.relay) {
			// It takes no envelopes, and yet reports, which may stand behind.
			fd.stuck = true
			fd.skipped++
			return fd.skipped < maxSkipped, time.Time{}
		}
		return others, time.Time{}
	}
	fd.d.breaker.cutShort(since)
	p, until, ok := fd.d.breaker.admit(now)
	if !ok {
		return false, until
	}
	o := fd.f.outlet(hop, fd.urgent)
	large := e.Size > o.slow.inlineLimit()
	switch {
	case large && fd.transfer == fd.f.Transfers:
		fd.d.breaker.unused(p)
		fd.skipped++
		fd.owe(e)
		return fd.skipped < maxSkipped, time.Time{}
	case large:
		fd.transfer++
	default:
		select {
		case o.offers <- struct{}{}:
		case <-ctx.Done():
			fd.d.breaker.unused(p)
			return true, time.Time{}
		}
		if !e.turn && fd.overtaken(ctx, e.QueueEntry) {
			<-o.offers
			fd.d.breaker.unused(p)
			fd.putBack(e.QueueEntry)
			return true, time.Time{}
		}
	}
	fd.underWay[e.ID] = true
	fd.picked(e)
	fd.work.Go(func() {
		gone := fd.f.trying(ctx, &attempt{destination: fd.d, entry: e.QueueEntry, outlet: o, pass: p, large: large})
		if !large {
			<-o.offers
		}
		fd.end(ended{id: e.ID, large: large, gone: gone})
	})
	return true, time.Time{}
}

// hop returns the next hop of an entry. Only where the destination is not
// reached directly does it depend on where the envelope was. A relay that takes
// no envelopes takes reports: they end its duties, and give its space back. A
// copy is kept by the relay that is called, so it goes directly or waits.
func (fd *feeder) hop(ctx context.Context, e envelope.QueueEntry) (hop routing.RelayID, since time.Time, ok bool) {
	if fd.d.relay == fd.f.Self {
		return fd.f.Self, time.Time{}, true
	}
	if since, ok := fd.f.links.usable(fd.d.relay); ok {
		return fd.d.relay, since, true
	}
	_, _, ok = fd.f.hop(fd.d.relay, nil)
	bare := len(e.Onward.Agencies) == 0
	reports := !ok && fd.urgent && bare && fd.f.links.up(fd.d.relay)
	if !ok && !reports {
		return "", time.Time{}, false
	}
	r, err := fd.f.Holdings.Record(e.ID)
	if err != nil {
		fd.f.Logger.WarnContext(ctx, "envelope cannot be read", "envelope", e.ID.String(), "error", err)
		return "", time.Time{}, false
	}
	if reports {
		return fd.d.relay, time.Time{}, r.Report
	}
	if bare && !r.Report {
		return "", time.Time{}, false
	}
	return fd.f.hop(fd.d.relay, r.Visited)
}

// next returns the next entry that was not looked at.
func (fd *feeder) next(ctx context.Context) (envelope.QueueEntry, bool) {
	for lane := 0; len(fd.page) == 0; {
		if lane == len(fd.lanes) {
			return envelope.QueueEntry{}, false
		}
		// What left the queue is no longer under way here only now, before the
		// queue is read: else a stale page would bring it back.
		fd.collect()
		wanted := fd.lanes[lane]
		page, err := fd.f.Queues.Queue(fd.d.relay, fd.place.after(wanted), pageSize)
		if err != nil {
			fd.f.Logger.ErrorContext(ctx, "queue cannot be read", "peer", fd.d.relay, "error", err)
			return envelope.QueueEntry{}, false
		}
		end := 0
		for end < len(page) && page[end].Lane == wanted {
			end++
		}
		fd.page = page[:end]
		lane++
		if end == 0 && len(page) > 0 {
			// The lanes between are empty.
			for lane < len(fd.lanes) && rank(fd.lanes[lane]) < rank(page[0].Lane) {
				lane++
			}
		} else if end == 0 {
			return envelope.QueueEntry{}, false
		}
	}
	e := fd.page[0]
	fd.page = fd.page[1:]
	fd.place[e.Lane], fd.current = e.Sequence, e.Lane
	return e, true
}

// overtaken reports whether something more urgent came in while the entry
// waited for its place.
func (fd *feeder) overtaken(ctx context.Context, e envelope.QueueEntry) bool {
	if e.Lane == fd.lanes[0] {
		return false
	}
	select {
	case <-fd.queue:
		fd.sweepWanted = fd.sweepWanted || fd.abandoned()
		fd.queue = fd.f.Queues.QueueChanged(fd.d.relay)
	default:
		return false
	}
	for _, lane := range fd.lanes {
		if lane == e.Lane {
			return false
		}
		page, err := fd.f.Queues.Queue(fd.d.relay, fd.place.after(lane), 1)
		if err != nil {
			fd.f.Logger.ErrorContext(ctx, "queue cannot be read", "peer", fd.d.relay, "error", err)
			return false
		}
		if len(page) > 0 && page[0].Lane == lane {
			return true
		}
	}
	return false
}

// putBack makes an entry the next one of its lane again.
func (fd *feeder) putBack(e envelope.QueueEntry) {
	fd.place[e.Lane] = e.Sequence - 1
	fd.page = nil
}

// restart goes back to the beginning.
func (fd *feeder) restart(now time.Time) {
	fd.place, fd.page = place{}, nil
	fd.again, fd.stuck, fd.skipped, fd.due = false, false, 0, time.Time{}
	fd.rescan = now.Add(fd.f.jitter.around(fd.f.Rescan))
}

// end notes that an offer is no longer under way.
func (fd *feeder) end(e ended) {
	fd.mu.Lock()
	fd.ended = append(fd.ended, e)
	fd.mu.Unlock()
	select {
	case fd.wake <- struct{}{}:
	default:
	}
}

// collect takes in what has ended.
func (fd *feeder) collect() {
	fd.mu.Lock()
	list := fd.ended
	fd.ended = nil
	fd.mu.Unlock()
	for _, e := range list {
		delete(fd.underWay, e.id)
		if e.large {
			fd.transfer--
		}
		// An entry that stays is before our place; and there is a place now for
		// a large one that was skipped.
		if !e.gone || (e.large && fd.skipped > 0) {
			fd.again = true
		}
		if !e.gone && fd.passedOver {
			fd.sweepWanted = true
		}
		// The page was read before it ended.
		fd.page = slices.DeleteFunc(fd.page, func(q envelope.QueueEntry) bool { return q.ID == e.id })
	}
}
