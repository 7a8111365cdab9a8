package spool

import (
	"fmt"
	"math"
	"slices"
	"sync"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

// Record returns what is known of an envelope. Inboxes and Onward are the
// duties that are still open, Kept those for whom a copy is still kept. Ingress
// and ExpiresAt are what they are now, not what they were at first.
func (s *Spool) Record(id envelope.ID) (*envelope.Record, error) {
	v := s.store.View()
	defer v.Close()
	st, err := envelopeAt(v, id)
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, fmt.Errorf("record of %s: %w", id, ErrNotFound)
	}
	r, err := recordAt(v, id, st)
	if err == nil {
		r.Damaged = s.quarantine.has(id)
	}
	return r, err
}

func recordAt(v *index.View, id envelope.ID, st *state) (*envelope.Record, error) {
	c, err := headerAt(v, id)
	if err != nil {
		return nil, err
	}
	c.FromSender, c.Ingress, c.ExpiresAt = st.FromSender, st.Ingress, st.ExpiresAt
	out := &envelope.Record{
		Custody: *c, CommittedAt: st.CommittedAt, Copies: st.copies(), Holders: st.Holders, Keepers: st.Keepers,
		Held: st.Held, ContentReleased: st.released(),
	}
	all, err := deliveriesAt(v, id, st)
	if err != nil {
		return nil, err
	}
	out.Deliveries = make([]envelope.Delivery, 0, len(all))
	queues := make(map[routing.RelayID][]routing.AgencyCode)
	for _, d := range all {
		told, err := lived(v, id, d)
		if err != nil {
			return nil, err
		}
		out.Deliveries = append(out.Deliveries, told)
		switch d.Place {
		case inInbox:
			out.Inboxes = append(out.Inboxes, d.Agency)
		case kept:
			out.Kept = append(out.Kept, d.Agency)
		case inQueue:
			queues[d.Home] = append(queues[d.Home], d.Agency)
		}
	}
	for _, d := range st.Duties {
		out.Onward = append(out.Onward, envelope.Onward{Relay: d.Relay, Agencies: queues[d.Relay]})
	}
	return out, nil
}

// ByDocument finds the envelope that a sender gave this document id, at the
// relay that was its ingress.
func (s *Spool) ByDocument(sender routing.AgencyCode, documentID string) (envelope.ID, bool, error) {
	v := s.store.View()
	defer v.Close()
	b, found, err := v.Get(index.DocumentKey(sender, documentID))
	if err != nil || !found {
		return envelope.ID{}, false, err
	}
	id, err := envelope.IDFromBytes(b)
	return id, err == nil, err
}

// Events returns the trace of an envelope at this relay, in order of time.
func (s *Spool) Events(id envelope.ID) ([]envelope.Event, error) {
	v := s.store.View()
	defer v.Close()
	st, err := envelopeAt(v, id)
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, fmt.Errorf("events of %s: %w", id, ErrNotFound)
	}
	return eventsAt(v, id, st)
}

// eventsAt puts together what is written as events and what the state says by
// itself: arrival, and what became of each recipient.
func eventsAt(v *index.View, id envelope.ID, st *state) ([]envelope.Event, error) {
	c, err := headerAt(v, id)
	if err != nil {
		return nil, err
	}
	accepted := st.FromSender && !st.TookOver
	first := envelope.Event{At: st.CommittedAt, Action: takenAction(accepted)}
	if len(c.Visited) > 0 && !accepted {
		first.Peer = c.Visited[len(c.Visited)-1]
	}
	events := []envelope.Event{first}
	all, err := deliveriesAt(v, id, st)
	if err != nil {
		return nil, err
	}
	arrived := false
	for _, d := range all {
		arrived = arrived || d.Place == inInbox || d.Place == settled && d.Sequence != 0
		if d.Place != settled {
			continue
		}
		e := envelope.Event{At: d.UpdatedAt, Action: exchangev1.TraceAction_TRACE_ACTION_FAILED, Agency: d.Agency, Note: d.Note}
		switch {
		case d.Transport == exchangev1.TransportStatus_TRANSPORT_STATUS_DONE:
			e.Action = exchangev1.TraceAction_TRACE_ACTION_CONFIRMED
		case d.Reason == exchangev1.ErrorReason_ERROR_REASON_EXPIRED:
			e.Action = exchangev1.TraceAction_TRACE_ACTION_EXPIRED
		case d.Reason == exchangev1.ErrorReason_ERROR_REASON_RECALLED:
			e.Action = exchangev1.TraceAction_TRACE_ACTION_RECALLED
		}
		events = append(events, e)
	}
	if arrived {
		events = append(events, envelope.Event{At: st.CommittedAt, Action: exchangev1.TraceAction_TRACE_ACTION_ARRIVED})
	}
	if st.released() {
		events = append(events, envelope.Event{At: st.ReleasedAt, Action: exchangev1.TraceAction_TRACE_ACTION_RELEASED_CONTENT})
	}
	it := v.Iterator(index.Events(id))
	defer it.Close()
	for ; it.Valid(); it.Next() {
		e, err := decodeEvent(it.Value())
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	slices.SortStableFunc(events, func(a, b envelope.Event) int { return a.At.Compare(b.At) })
	return events, it.Err()
}

// heads remembers where the live entries of a queue's lane begin, as far as
// known: what was handed on leaves marks in the index until badger compacts,
// and a long queue would be walked through them again and again. Sequences only
// grow, so nothing appears before a head.
type heads struct {
	mu    sync.Mutex
	first map[headKey]uint64
}

type headKey struct {
	relay routing.RelayID
	lane  envelope.Lane
}

func (h *heads) get(k headKey) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.first[k]
}

func (h *heads) set(k headKey, sequence uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.first == nil {
		h.first = make(map[headKey]uint64)
	}
	h.first[k] = max(h.first[k], sequence)
}

// Queue returns at most max entries of the queue for one destination behind
// after, the urgent lanes first, and in a lane in order of sequence; also those
// that are deferred.
func (s *Spool) Queue(relay routing.RelayID, after envelope.Position, max int) ([]envelope.QueueEntry, error) {
	next := s.machine.nextSequence() // before the view, which may have more
	v := s.store.View()
	defer v.Close()
	it := v.Iterator(index.Queue(relay))
	defer it.Close()
	held := s.heldAt(v)
	var out []envelope.QueueEntry
	for _, lane := range lanesFrom(after) {
		k := headKey{relay, lane}
		from, head := firstAfter(after, lane), s.heads.get(k)
		fromHead := from <= head
		if fromHead {
			from = head
		}
		it.Seek(index.QueueKey(relay, lane, from))
		if fromHead {
			sequence, ok := sequenceIn(it, lane)
			if !ok {
				sequence = next
			}
			s.heads.set(k, sequence)
		}
		for ; len(out) < max; it.Next() {
			sequence, ok := sequenceIn(it, lane)
			if !ok {
				break
			}
			q, err := decodeQueued(it.Value())
			if err != nil {
				return nil, err
			}
			isHeld, err := held(q.ID)
			if err != nil {
				return nil, err
			}
			out = append(out, envelope.QueueEntry{
				ID: q.ID, Held: isHeld, Sequence: sequence, Lane: lane, Size: q.Size, QueuedAt: q.QueuedAt,
				Onward: envelope.Onward{Relay: relay, Agencies: q.Agencies},
				Tries:  q.Tries, NextTry: q.NextTry, LastError: q.LastError,
			})
		}
	}
	return out, it.Err()
}

// Inbox returns at most max entries of an inbox behind after, in the order of
// Queue.
func (s *Spool) Inbox(agency routing.AgencyCode, after envelope.Position, max int) ([]envelope.InboxEntry, error) {
	v := s.store.View()
	defer v.Close()
	it := v.Iterator(index.Inbox(agency))
	defer it.Close()
	held := s.heldAt(v)
	var out []envelope.InboxEntry
	for _, lane := range lanesFrom(after) {
		it.Seek(index.InboxKey(agency, lane, firstAfter(after, lane)))
		for ; len(out) < max; it.Next() {
			sequence, ok := sequenceIn(it, lane)
			if !ok {
				break
			}
			e, err := decodeInboxed(it.Value())
			if err != nil {
				return nil, err
			}
			isHeld, err := held(e.ID)
			if err != nil {
				return nil, err
			}
			out = append(out, envelope.InboxEntry{
				ID: e.ID, Held: isHeld, Agency: agency, Sequence: sequence, Lane: lane,
				ArrivedAt: e.ArrivedAt, NotBefore: e.NotBefore, Size: e.Size,
			})
		}
	}
	return out, it.Err()
}

// lanesFrom lists the lanes from a position on, in order.
func lanesFrom(after envelope.Position) []envelope.Lane {
	if after == (envelope.Position{}) {
		return envelope.LaneOrder[:]
	}
	lanes := envelope.LaneOrder[max(slices.Index(envelope.LaneOrder[:], after.Lane), 0):]
	if after.Sequence == math.MaxUint64 {
		return lanes[1:] // behind the last of this lane
	}
	return lanes
}

// firstAfter is the first sequence of a lane that is behind a position.
func firstAfter(after envelope.Position, lane envelope.Lane) uint64 {
	if after == (envelope.Position{}) || lane != after.Lane {
		return 0
	}
	return after.Sequence + 1
}

// sequenceIn returns the sequence of the entry an iterator stands on, if that is of
// the lane.
func sequenceIn(it *index.Iterator, lane envelope.Lane) (uint64, bool) {
	if !it.Valid() {
		return 0, false
	}
	_, at, sequence := index.ParsePlace(it.Key())
	return sequence, at == lane
}
