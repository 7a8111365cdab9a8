package forward_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

var errNotFound = errors.New("envelope is not known here")

// memory is a spool in memory: what forward relies on, and nothing else. It
// survives the forwarder that uses it, as a disk does.
type memory struct {
	self routing.RelayID

	mu          sync.Mutex
	records     map[envelope.ID]*envelope.Record
	content     map[envelope.ID][][]byte
	partial     map[envelope.ID][][]byte
	queues      map[routing.RelayID][]envelope.QueueEntry
	inboxes     map[routing.AgencyCode][]envelope.ID // in order of arrival
	sequence    uint64
	destination chan struct{}
	additions   map[routing.RelayID]chan struct{}

	claims    map[document]envelope.ID
	commits   map[envelope.ID]int // how often custody, or a further duty, was taken
	written   map[envelope.ID]int // bytes written, repeats included
	handedOn  []envelope.HandedOn
	settled   []envelope.Settlement
	reroutes  []envelope.Reroute
	deferred  map[envelope.ID]int
	begun     int // incoming under way
	mostBegun int

	// Seams; called without the lock.
	onBegin  func(id envelope.ID) error
	onWrite  func(id envelope.ID, offset uint64)
	onCommit func(id envelope.ID)
	onRead   func(id envelope.ID) error
	spoil    func(id envelope.ID) bool // damage what is written now
	letsGo   bool                      // of what is known already
}

func newMemory(self routing.RelayID) *memory {
	return &memory{
		self:        self,
		records:     make(map[envelope.ID]*envelope.Record),
		content:     make(map[envelope.ID][][]byte),
		partial:     make(map[envelope.ID][][]byte),
		queues:      make(map[routing.RelayID][]envelope.QueueEntry),
		inboxes:     make(map[routing.AgencyCode][]envelope.ID),
		destination: make(chan struct{}),
		additions:   make(map[routing.RelayID]chan struct{}),
		claims:      make(map[document]envelope.ID),
		commits:     make(map[envelope.ID]int),
		written:     make(map[envelope.ID]int),
		deferred:    make(map[envelope.ID]int),
	}
}

func (m *memory) Destinations() ([]routing.RelayID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var relays []routing.RelayID
	for relay, q := range m.queues {
		if len(q) > 0 {
			relays = append(relays, relay)
		}
	}
	slices.Sort(relays)
	return relays, nil
}

func (m *memory) DestinationsChanged() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.destination
}

func (m *memory) QueueChanged(relay routing.RelayID) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.additions[relay] == nil {
		m.additions[relay] = make(chan struct{})
	}
	return m.additions[relay]
}

func order(lane envelope.Lane) int { return slices.Index(envelope.LaneOrder[:], lane) }

func (m *memory) Queue(relay routing.RelayID, after envelope.Position, max int) ([]envelope.QueueEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := slices.Clone(m.queues[relay])
	slices.SortFunc(q, func(a, b envelope.QueueEntry) int {
		return cmp.Or(cmp.Compare(order(a.Lane), order(b.Lane)), cmp.Compare(a.Sequence, b.Sequence))
	})
	var page []envelope.QueueEntry
	for _, e := range q {
		if after != (envelope.Position{}) && (order(e.Lane) < order(after.Lane) || (e.Lane == after.Lane && e.Sequence <= after.Sequence)) {
			continue
		}
		if len(page) < max {
			e.Onward.Agencies = slices.Clone(e.Onward.Agencies)
			page = append(page, e)
		}
	}
	return page, nil
}

func (m *memory) Record(id envelope.ID) (*envelope.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[id]
	if !ok {
		return nil, errNotFound
	}
	c := *r
	c.Deliveries = slices.Clone(r.Deliveries)
	c.Inboxes, c.Onward = nil, nil // those that are still open
	for code, ids := range m.inboxes {
		if slices.Contains(ids, id) {
			c.Inboxes = append(c.Inboxes, code)
		}
	}
	for _, q := range m.queues {
		for _, e := range q {
			if e.ID == id {
				c.Onward = append(c.Onward, e.Onward)
			}
		}
	}
	return &c, nil
}

func (m *memory) Content(id envelope.ID, part int, offset uint64) (io.ReadCloser, error) {
	if m.onRead != nil {
		if err := m.onRead(id); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.content[id] == nil {
		return nil, errNotFound
	}
	return io.NopCloser(bytes.NewReader(m.content[id][part][offset:])), nil
}

// enqueue adds a duty; m.mu is held.
func (m *memory) enqueue(r *envelope.Record, o envelope.Onward) {
	m.sequence++
	m.queues[o.Relay] = append(m.queues[o.Relay], envelope.QueueEntry{
		ID: r.ID, Sequence: m.sequence, Lane: r.Lane, Onward: o, Size: r.Size(), QueuedAt: time.Now(),
	})
	for _, code := range o.Agencies {
		m.delivery(r, code, envelope.InQueue).Home = o.Relay
	}
	close(m.destination)
	m.destination = make(chan struct{})
	if c := m.additions[o.Relay]; c != nil {
		close(c)
		delete(m.additions, o.Relay)
	}
}

// delivery notes where the delivery to a recipient stands; m.mu is held.
func (m *memory) delivery(r *envelope.Record, code routing.AgencyCode, at envelope.Place) *envelope.Delivery {
	i := slices.IndexFunc(r.Deliveries, func(d envelope.Delivery) bool { return d.Agency == code })
	if i < 0 {
		r.Deliveries = append(r.Deliveries, envelope.Delivery{Agency: code})
		i = len(r.Deliveries) - 1
	}
	r.Deliveries[i].Place = at
	return &r.Deliveries[i]
}

// leave takes recipients out of a duty, which ends when none is left, or ends
// one that has none. m.mu is held.
func (m *memory) leave(id envelope.ID, from routing.RelayID, agencies []routing.AgencyCode) {
	q := m.queues[from]
	for i, e := range q {
		if e.ID != id || (len(e.Onward.Agencies) == 0) != (len(agencies) == 0) {
			continue
		}
		q[i].Onward.Agencies = slices.DeleteFunc(slices.Clone(e.Onward.Agencies), func(a routing.AgencyCode) bool { return slices.Contains(agencies, a) })
		if len(q[i].Onward.Agencies) == 0 {
			m.queues[from] = slices.Delete(q, i, i+1)
		}
		return
	}
}

func (m *memory) HandOn(_ context.Context, f envelope.HandedOn) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handedOn = append(m.handedOn, f)
	m.leave(f.ID, f.Destination, f.Agencies)
	r := m.records[f.ID]
	for _, code := range f.Agencies {
		m.delivery(r, code, envelope.Elsewhere)
	}
	if f.Peer != m.self && !slices.Contains(r.Holders, f.Peer) {
		r.Holders = append(r.Holders, f.Peer)
	}
	r.Copies = 1 + uint32(len(r.Holders))
	return nil
}

func (m *memory) Settle(_ context.Context, batch []envelope.Settlement) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range batch {
		m.settled = append(m.settled, s)
		m.delivery(m.records[s.ID], s.Agency, envelope.Settled).Transport = s.Transport
		for relay := range m.queues {
			m.leave(s.ID, relay, []routing.AgencyCode{s.Agency})
		}
		if s.Report != nil && m.records[s.Report.ID] == nil {
			r := &envelope.Record{Custody: *s.Report, CommittedAt: s.At, Copies: 1}
			m.records[r.ID], m.content[r.ID] = r, [][]byte{}
			for _, o := range s.Report.Onward {
				m.enqueue(r, o)
			}
		}
	}
	return len(batch), nil
}

func (m *memory) Reroute(_ context.Context, f envelope.Reroute) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reroutes = append(m.reroutes, f)
	m.leave(f.ID, f.From, f.Agencies)
	if f.From == m.self {
		for _, code := range f.Agencies {
			m.inboxes[code] = slices.DeleteFunc(m.inboxes[code], func(id envelope.ID) bool { return id == f.ID })
		}
	}
	r := m.records[f.ID]
	for _, o := range f.Onward {
		m.enqueue(r, o)
	}
	for _, code := range f.Inboxes {
		m.delivery(r, code, envelope.InInbox)
		m.inboxes[code] = append(m.inboxes[code], f.ID)
	}
	return nil
}

func (m *memory) Defer(_ context.Context, id envelope.ID, destination routing.RelayID, tries uint32, next time.Time, lastError string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deferred[id]++
	for i, e := range m.queues[destination] {
		if e.ID == id {
			e.Tries, e.NextTry, e.LastError = tries, next, lastError
			m.queues[destination][i] = e
			return nil
		}
	}
	return fmt.Errorf("defer %s: %w", id, errNotFound)
}

func (m *memory) InboxAgencies(after routing.AgencyCode, limit int) ([]routing.AgencyCode, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var codes []routing.AgencyCode
	for _, code := range slices.Sorted(maps.Keys(m.inboxes)) {
		if code > after && len(m.inboxes[code]) > 0 && len(codes) < limit {
			codes = append(codes, code)
		}
	}
	return codes, nil
}

func (m *memory) Inbox(code routing.AgencyCode, after envelope.Position, limit int) ([]envelope.InboxEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var entries []envelope.InboxEntry
	for i, id := range m.inboxes[code] {
		if sequence := uint64(i) + 1; sequence > after.Sequence && len(entries) < limit {
			entries = append(entries, envelope.InboxEntry{ID: id, Agency: code, Sequence: sequence})
		}
	}
	return entries, nil
}

// copyTo adds the duty to have a second copy made at a relay.
func (m *memory) copyTo(id envelope.ID, relay routing.RelayID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.enqueue(m.records[id], envelope.Onward{Relay: relay})
}

// places tells where each delivery of an envelope stands.
func (m *memory) places(id envelope.ID) map[routing.AgencyCode]envelope.Place {
	m.mu.Lock()
	defer m.mu.Unlock()
	places := make(map[routing.AgencyCode]envelope.Place)
	if r := m.records[id]; r != nil {
		for _, d := range r.Deliveries {
			places[d.Agency] = d.Place
		}
	}
	return places
}
