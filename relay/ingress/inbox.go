package ingress

import (
	"context"
	"math"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// inboxPage is how many entries are read, and sent, before urgent lanes are
// looked at again.
const inboxPage = 16

// maxRun is how many entries are sent in a row while a less urgent lane waits;
// then one of that lane is.
const maxRun = 16

// heldPause is how often a lane is looked at again for entries that an operator
// held and may have released: each look passes by what was sent since.
const heldPause = time.Second

// reader walks one agency's inbox for one stream. It belongs to the goroutine
// of that stream.
type reader struct {
	inboxes Inboxes
	agency  routing.AgencyCode
	window  *window
	// passed is the last sequence seen in each lane.
	passed map[envelope.Lane]uint64
	// early is the earliest hour for which an entry of a lane was passed by; the
	// lane is read from its beginning again when it strikes.
	early map[envelope.Lane]time.Time
	// held is the first entry of a lane that was passed by because an operator
	// holds it; the lane is read from there again when the inbox has changed.
	held map[envelope.Lane]uint64
	// looked is when that was done last; due is set when it was too soon for it.
	looked time.Time
	due    bool
	// run counts entries in a row, the last of them of lane last; turn is the less
	// urgent lane that had its turn last. Lanes as indices of LaneOrder.
	run, last, turn int
}

func newReader(inboxes Inboxes, agency routing.AgencyCode, w *window) *reader {
	return &reader{
		inboxes: inboxes, agency: agency, window: w,
		passed: make(map[envelope.Lane]uint64), early: make(map[envelope.Lane]time.Time),
		held: make(map[envelope.Lane]uint64),
	}
}

// next returns up to max entries of the most urgent lane that has something to
// send now; none when nothing is left. After maxRun of them a less urgent lane
// has its turn.
func (r *reader) next(now time.Time, max int) ([]envelope.InboxEntry, error) {
	r.again(now)
	if r.run >= maxRun {
		r.run = 0
		if entries, err := r.lessUrgent(now); err != nil || len(entries) > 0 {
			return entries, err
		}
	}
	for i := 0; i < len(envelope.LaneOrder); i++ {
		ready, following, err := r.lane(envelope.LaneOrder[i], now, min(max, maxRun-r.run))
		if err != nil || len(ready) > 0 {
			r.run, r.last = r.run+len(ready), i
			return ready, err
		}
		if following == nil {
			break
		}
		// The lanes between are empty.
		for envelope.LaneOrder[i+1] != *following {
			i++
		}
	}
	r.run = 0
	return nil, nil
}

// lessUrgent returns one entry of the least urgent lane that waits behind the
// last one; where several wait, of each in its turn, or the middle ones would
// starve.
func (r *reader) lessUrgent(now time.Time) ([]envelope.InboxEntry, error) {
	for range len(envelope.LaneOrder) - 1 - r.last {
		if r.turn--; r.turn <= r.last {
			r.turn = len(envelope.LaneOrder) - 1
		}
		ready, _, err := r.lane(envelope.LaneOrder[r.turn], now, 1)
		if err != nil || len(ready) > 0 {
			return ready, err
		}
	}
	return nil, nil
}

// again has lanes read again in which something was passed by that may be sent
// by now.
func (r *reader) again(now time.Time) {
	for lane, hour := range r.early {
		if !now.Before(hour) {
			delete(r.early, lane)
			r.passed[lane] = 0
		}
	}
	r.due = len(r.held) > 0 && now.Before(r.looked.Add(heldPause))
	if len(r.held) == 0 || r.due {
		return
	}
	r.looked = now
	for lane, sequence := range r.held {
		r.passed[lane] = min(r.passed[lane], sequence-1)
	}
	clear(r.held)
}

// lane returns what can be sent of one lane, or the next lane that holds
// anything; nil when there is none.
func (r *reader) lane(lane envelope.Lane, now time.Time, max int) (ready []envelope.InboxEntry, following *envelope.Lane, err error) {
	for {
		page, err := r.inboxes.Inbox(r.agency, r.after(lane), inboxPage)
		if err != nil {
			return nil, nil, err
		}
		for _, entry := range page {
			if entry.Lane != lane {
				return ready, &entry.Lane, nil
			}
			r.passed[lane] = entry.Sequence
			if r.window.holds(entry.ID) {
				continue
			}
			if entry.Held {
				if _, ok := r.held[lane]; !ok {
					r.held[lane] = entry.Sequence
				}
				continue
			}
			if entry.NotBefore.After(now) {
				if hour, ok := r.early[lane]; !ok || entry.NotBefore.Before(hour) {
					r.early[lane] = entry.NotBefore
				}
				continue
			}
			if ready = append(ready, entry); len(ready) == max {
				return ready, nil, nil
			}
		}
		if len(page) < inboxPage {
			return ready, nil, nil
		}
	}
}

// after is where to go on in a lane. The zero position means the beginning of
// the inbox, so the beginning of a lane is the end of the one before.
func (r *reader) after(lane envelope.Lane) envelope.Position {
	if sequence := r.passed[lane]; sequence > 0 {
		return envelope.Position{Lane: lane, Sequence: sequence}
	}
	var before envelope.Position
	for _, other := range envelope.LaneOrder {
		if other == lane {
			break
		}
		before = envelope.Position{Lane: other, Sequence: math.MaxUint64}
	}
	return before
}

// hour is the earliest time at which an entry that was passed by may be sent;
// zero where none is known.
func (r *reader) hour() time.Time {
	var earliest time.Time
	if r.due {
		earliest = r.looked.Add(heldPause)
	}
	for _, hour := range r.early {
		if earliest.IsZero() || hour.Before(earliest) {
			earliest = hour
		}
	}
	return earliest
}

// window holds the ids that one stream sent and that were not confirmed since.
type window struct {
	limit int

	mu   sync.Mutex
	sent map[envelope.ID]struct{}
	// freed has room for one signal: something was confirmed.
	freed chan struct{}
}

func (w *window) room() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.limit - len(w.sent)
}

func (w *window) holds(id envelope.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.sent[id]
	return ok
}

func (w *window) add(id envelope.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent[id] = struct{}{}
}

func (w *window) confirm(ids []envelope.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		delete(w.sent, id)
	}
	select {
	case w.freed <- struct{}{}:
	default:
	}
}

// streams are the Receive streams open here, by agency, so that a confirmation
// moves their windows.
type streams struct {
	perAgency int

	mu     sync.Mutex
	agency map[routing.AgencyCode]map[*window]struct{}
}

func newStreams(perAgency int) *streams {
	return &streams{perAgency: perAgency, agency: make(map[routing.AgencyCode]map[*window]struct{})}
}

// open adds a stream until the returned function is called.
func (s *streams) open(agency routing.AgencyCode, limit int) (*window, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.agency[agency]) >= s.perAgency {
		r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED,
			"agency %s has %d Receive streams open here; close one first", agency, s.perAgency)
		r.Quota, r.RetryAfter = "streams per agency", 10*time.Second
		return nil, nil, r
	}
	w := &window{limit: limit, sent: make(map[envelope.ID]struct{}), freed: make(chan struct{}, 1)}
	if s.agency[agency] == nil {
		s.agency[agency] = make(map[*window]struct{})
	}
	s.agency[agency][w] = struct{}{}
	return w, func() { s.close(agency, w) }, nil
}

func (s *streams) close(agency routing.AgencyCode, w *window) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.agency[agency], w)
	if len(s.agency[agency]) == 0 {
		delete(s.agency, agency)
	}
}

// confirm moves the windows of the agency's streams.
func (s *streams) confirm(agency routing.AgencyCode, ids []envelope.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.agency[agency] {
		w.confirm(ids)
	}
}

// waitUntil blocks until one of the channels is closed or signals, the hour
// strikes (zero: never), or ctx ends, whose cause it then returns.
func waitUntil(ctx context.Context, now, hour time.Time, changed <-chan struct{}, freed <-chan struct{}) error {
	var strikes <-chan time.Time
	if !hour.IsZero() {
		timer := time.NewTimer(hour.Sub(now))
		defer timer.Stop()
		strikes = timer.C
	}
	select {
	case <-changed:
	case <-freed:
	case <-strikes:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
