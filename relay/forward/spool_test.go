package forward_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
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
		m.delivery(r, code, o.Relay)
	}
	close(m.destination)
	m.destination = make(chan struct{})
	if c := m.additions[o.Relay]; c != nil {
		close(c)
		delete(m.additions, o.Relay)
	}
}

// delivery notes where a recipient's home is; m.mu is held.
func (m *memory) delivery(r *envelope.Record, code routing.AgencyCode, home routing.RelayID) {
	i := slices.IndexFunc(r.Deliveries, func(d envelope.Delivery) bool { return d.Agency == code })
	if i < 0 {
		r.Deliveries = append(r.Deliveries, envelope.Delivery{Agency: code})
		i = len(r.Deliveries) - 1
	}
	r.Deliveries[i].Home = home
}

// knows: the delivery waits or ended here; one that was handed on may come back.
func (m *memory) knows(id envelope.ID, code routing.AgencyCode) bool {
	if slices.Contains(m.inboxes[code], id) {
		return true
	}
	for _, q := range m.queues {
		for _, e := range q {
			if e.ID == id && slices.Contains(e.Onward.Agencies, code) {
				return true
			}
		}
	}
	return slices.ContainsFunc(m.settled, func(s envelope.Settlement) bool { return s.ID == id && s.Agency == code })
}

func (m *memory) Begin(_ context.Context, c *envelope.Custody) (forward.Incoming, error) {
	if m.onBegin != nil {
		if err := m.onBegin(c.ID); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	in := &incoming{m: m, c: c}
	if r := m.records[c.ID]; r != nil {
		// Drop the duties that are known; none left: a repeat.
		in.known = true
		want := *c
		want.Inboxes = slices.DeleteFunc(slices.Clone(c.Inboxes), func(a routing.AgencyCode) bool { return m.knows(c.ID, a) })
		want.Onward = nil
		for _, o := range c.Onward {
			o.Agencies = slices.DeleteFunc(slices.Clone(o.Agencies), func(a routing.AgencyCode) bool { return m.knows(c.ID, a) })
			if len(o.Agencies) > 0 {
				want.Onward = append(want.Onward, o)
			}
		}
		if len(want.Inboxes)+len(want.Onward) == 0 {
			in.repeat = r
		}
		in.c = &want
	} else if m.partial[c.ID] == nil {
		m.partial[c.ID] = make([][]byte, len(c.Parts))
	}
	m.begun++
	m.mostBegun = max(m.mostBegun, m.begun)
	return in, nil
}

type incoming struct {
	m      *memory
	c      *envelope.Custody
	known  bool
	repeat *envelope.Record
	closed bool
}

func (in *incoming) Repeat() (*envelope.Record, bool) { return in.repeat, in.repeat != nil }

func (in *incoming) Offsets() []uint64 {
	in.m.mu.Lock()
	defer in.m.mu.Unlock()
	offsets := make([]uint64, len(in.c.Parts))
	for i := range offsets {
		if in.known {
			offsets[i] = in.c.Parts[i].Size
		} else {
			offsets[i] = uint64(len(in.m.partial[in.c.ID][i]))
		}
	}
	return offsets
}

func (in *incoming) Write(_ context.Context, part int, offset uint64, data []byte) error {
	if in.m.onWrite != nil {
		in.m.onWrite(in.c.ID, offset)
	}
	if in.m.spoil != nil && in.m.spoil(in.c.ID) {
		data = bytes.Repeat([]byte{'?'}, len(data))
	}
	in.m.mu.Lock()
	defer in.m.mu.Unlock()
	at := in.m.partial[in.c.ID]
	if uint64(len(at[part])) != offset {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "offset %d, want %d", offset, len(at[part]))
	}
	at[part] = append(at[part], data...)
	in.m.written[in.c.ID] += len(data)
	return nil
}

func (in *incoming) Commit(context.Context) (*envelope.Record, error) {
	m := in.m
	if m.onCommit != nil {
		m.onCommit(in.c.ID)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.records[in.c.ID]; r != nil && !in.known {
		c := *r // another transfer of the same came first
		return &c, nil
	}
	if !in.known {
		for i, p := range in.c.Parts {
			if uint64(len(m.partial[in.c.ID][i])) != p.Size {
				return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH, "part %d", i)
			}
			if sha256.Sum256(m.partial[in.c.ID][i]) != p.SHA256 {
				delete(m.partial, in.c.ID)
				return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH, "part %d", i)
			}
		}
	}
	m.commits[in.c.ID]++
	r := m.records[in.c.ID]
	if r == nil {
		r = &envelope.Record{Custody: *in.c, CommittedAt: time.Now(), Copies: 1}
		m.records[r.ID] = r
		m.content[r.ID] = m.partial[in.c.ID]
		delete(m.partial, r.ID)
	}
	for _, code := range in.c.Inboxes {
		m.delivery(r, code, m.self)
		m.inboxes[code] = append(m.inboxes[code], r.ID)
	}
	for _, o := range in.c.Onward {
		m.enqueue(r, o)
	}
	c := *r
	return &c, nil
}

func (in *incoming) Close() error {
	in.m.mu.Lock()
	defer in.m.mu.Unlock()
	if !in.closed {
		in.closed = true
		in.m.begun--
	}
	return nil
}

// leave takes recipients out of a duty; the duty ends when none is left. m.mu
// is held.
func (m *memory) leave(id envelope.ID, from routing.RelayID, agencies []routing.AgencyCode) {
	q := m.queues[from]
	for i, e := range q {
		if e.ID != id {
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
	m.records[f.ID].Copies++
	return nil
}

func (m *memory) Settle(_ context.Context, batch []envelope.Settlement) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range batch {
		m.settled = append(m.settled, s)
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
		m.delivery(r, code, m.self)
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

// What tests ask.

func (m *memory) inbox(code routing.AgencyCode) []envelope.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.inboxes[code])
}

func (m *memory) queued() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, q := range m.queues {
		n += len(q)
	}
	return n
}

func (m *memory) entry(id envelope.ID) (envelope.QueueEntry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, q := range m.queues {
		for _, e := range q {
			if e.ID == id {
				return e, true
			}
		}
	}
	return envelope.QueueEntry{}, false
}

func (m *memory) commitsOf(id envelope.ID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.commits[id]
}

func (m *memory) writtenOf(id envelope.ID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.written[id]
}

func (m *memory) settlements() []envelope.Settlement {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.settled)
}

func (m *memory) handOns() []envelope.HandedOn {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.handedOn)
}

func (m *memory) deferrals(id envelope.ID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.deferred[id]
}

func (m *memory) bytesOf(id envelope.ID) [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.content[id]
}

// envelopes lists what is in custody here.
func (m *memory) envelopes() []envelope.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.records))
}
