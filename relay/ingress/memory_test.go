package ingress_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"slices"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
	"github.com/truclienthong/truc/routing"
)

// memory is a spool that forgets everything when the test ends.
type memory struct {
	self  routing.RelayID
	clock func() time.Time

	mu        sync.Mutex
	records   map[envelope.ID]*envelope.Record
	content   map[envelope.ID][][]byte
	partial   map[envelope.ID][][]byte
	documents map[[2]string]envelope.ID
	numbers   map[envelope.Number]envelope.ID
	inboxes   map[routing.AgencyCode][]envelope.InboxEntry
	changed   map[routing.AgencyCode]chan struct{}
	settled   []envelope.Settlement
	asked     int // settlements asked for
	sequence  uint64
	// copies is closed when one is made.
	copies chan struct{}
	// holdNew has what arrives be held.
	holdNew bool
	// beforeSettle, if not nil, is called before a change is made.
	beforeSettle func()
	// ended envelopes count for no sender any more.
	ended map[envelope.ID]bool
	// failCommit, where set, is what every commit answers.
	failCommit error
	// failNumbers is what looking for a number answers.
	failNumbers error
	// damaged content, and lost records, cannot be read.
	damaged, lost map[envelope.ID]bool
}

var (
	_ ingress.Spool   = (*memory)(nil)
	_ ingress.Inboxes = (*memory)(nil)
	_ ingress.Copies  = (*memory)(nil)
	_ ingress.Usage   = (*memory)(nil)
)

func newMemory(self routing.RelayID, clock func() time.Time) *memory {
	return &memory{
		self: self, clock: clock,
		records: map[envelope.ID]*envelope.Record{}, content: map[envelope.ID][][]byte{},
		partial: map[envelope.ID][][]byte{}, documents: map[[2]string]envelope.ID{}, numbers: map[envelope.Number]envelope.ID{},
		inboxes: map[routing.AgencyCode][]envelope.InboxEntry{}, changed: map[routing.AgencyCode]chan struct{}{},
		copies: make(chan struct{}), ended: map[envelope.ID]bool{},
	}
}

type incoming struct {
	*memory
	custody *envelope.Custody
}

func (m *memory) Begin(_ context.Context, c *envelope.Custody) (ingress.Incoming, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id, ok := m.documents[[2]string{string(c.Sender), c.DocumentID}]; ok && id != c.ID {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED, "document id was used before with other content")
	}
	if m.partial[c.ID] == nil {
		m.partial[c.ID] = make([][]byte, len(c.Parts))
	}
	return &incoming{m, c}, nil
}

func (in *incoming) Repeat() (*envelope.Record, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	r, ok := in.records[in.custody.ID]
	if !ok || !r.FromSender {
		return nil, false
	}
	wanted := slices.Clone(in.custody.Inboxes)
	for _, onward := range in.custody.Onward {
		wanted = append(wanted, onward.Agencies...)
	}
	return r, !slices.ContainsFunc(wanted, func(a routing.AgencyCode) bool {
		return !slices.ContainsFunc(r.Deliveries, func(d envelope.Delivery) bool { return d.Agency == a })
	})
}

func (in *incoming) Offsets() []uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	offsets := make([]uint64, len(in.custody.Parts))
	for i, b := range in.partial[in.custody.ID] {
		offsets[i] = uint64(len(b))
	}
	return offsets
}

func (in *incoming) Write(_ context.Context, part int, offset uint64, data []byte) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	have := in.partial[in.custody.ID][part]
	if offset != uint64(len(have)) {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "offset %d, want %d", offset, len(have))
	}
	in.partial[in.custody.ID][part] = append(have, data...)
	return nil
}

func (in *incoming) Content(_ context.Context, part int) (io.ReadCloser, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return io.NopCloser(bytes.NewReader(in.partial[in.custody.ID][part])), nil
}

func (in *incoming) Abandon(context.Context) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.partial, in.custody.ID)
	return nil
}

// kept is how many bytes of transfers are here, for a resume.
func (m *memory) kept() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, parts := range m.partial {
		for _, b := range parts {
			n += len(b)
		}
	}
	return n
}

func (in *incoming) Commit(context.Context) (*envelope.Record, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := in.custody
	if in.failCommit != nil {
		return nil, in.failCommit
	}
	for i, want := range c.Parts {
		got := in.partial[c.ID][i]
		switch {
		case uint64(len(got)) != want.Size:
			return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH, "part %d has %d bytes, want %d", i, len(got), want.Size)
		case sha256.Sum256(got) != want.SHA256:
			return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH, "part %d has another hash", i)
		}
	}
	r := &envelope.Record{Custody: *c, CommittedAt: in.clock(), Copies: 1}
	for _, agency := range c.Inboxes {
		r.Deliveries = append(r.Deliveries, envelope.Delivery{Agency: agency, Home: in.self, Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING})
		in.sequence++
		in.inboxes[agency] = append(in.inboxes[agency], envelope.InboxEntry{
			ID: c.ID, Agency: agency, Sequence: in.sequence, Lane: c.Lane,
			ArrivedAt: in.clock(), NotBefore: c.NotBefore, Size: c.Size(), Held: in.holdNew,
		})
		in.wake(agency)
	}
	for _, onward := range c.Onward {
		for _, agency := range onward.Agencies {
			r.Deliveries = append(r.Deliveries, envelope.Delivery{Agency: agency, Home: onward.Relay, Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_INITIAL})
		}
	}
	in.records[c.ID], in.content[c.ID] = r, in.partial[c.ID]
	in.documents[[2]string{string(c.Sender), c.DocumentID}] = c.ID
	if n, ok := envelope.NumberOf(c); ok && in.numbers[n].IsZero() {
		in.numbers[n] = c.ID
	}
	delete(in.partial, c.ID)
	return r, nil
}

func (in *incoming) Close() error { return nil }

func (m *memory) ByDocument(sender routing.AgencyCode, documentID string) (envelope.ID, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, found := m.documents[[2]string{string(sender), documentID}]
	return id, found, nil
}

func (m *memory) ByNumber(n envelope.Number) (envelope.ID, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, found := m.numbers[n]
	return id, found, m.failNumbers
}

func (m *memory) Record(id envelope.ID) (*envelope.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost[id] {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DAMAGED, "check sum differs")
	}
	if r, ok := m.records[id]; ok {
		return r, nil
	}
	return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "no envelope %s", id)
}

func (m *memory) Content(id envelope.ID, part int, offset uint64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.damaged[id] {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DAMAGED, "check sum differs")
	}
	if part >= len(m.content[id]) {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "no content of %s", id)
	}
	return io.NopCloser(bytes.NewReader(m.content[id][part][offset:])), nil
}

func (m *memory) Settle(_ context.Context, batch []envelope.Settlement) (int, error) {
	if m.beforeSettle != nil {
		m.beforeSettle()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	settled := 0
	m.asked += len(batch)
	for _, s := range batch {
		before := len(m.inboxes[s.Agency])
		m.inboxes[s.Agency] = slices.DeleteFunc(m.inboxes[s.Agency], func(e envelope.InboxEntry) bool { return e.ID == s.ID })
		takenBack := slices.ContainsFunc(m.records[s.ID].Deliveries, func(d envelope.Delivery) bool { return d.Agency == s.Agency && d.TakenBack() })
		if len(m.inboxes[s.Agency]) < before || m.ended[s.ID] && !takenBack {
			settled++
			m.settled = append(m.settled, s)
		}
	}
	return settled, nil
}

func rank(l envelope.Lane) int { return slices.Index(envelope.LaneOrder[:], l) }

func (m *memory) Inbox(agency routing.AgencyCode, after envelope.Position, max int) ([]envelope.InboxEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Clone(m.inboxes[agency])
	slices.SortFunc(all, func(a, b envelope.InboxEntry) int {
		if a.Lane != b.Lane {
			return rank(a.Lane) - rank(b.Lane)
		}
		return int(a.Sequence) - int(b.Sequence)
	})
	if after != (envelope.Position{}) {
		all = slices.DeleteFunc(all, func(e envelope.InboxEntry) bool {
			return rank(e.Lane) < rank(after.Lane) || e.Lane == after.Lane && e.Sequence <= after.Sequence
		})
	}
	return all[:min(max, len(all))], nil
}

func (m *memory) InboxChanged(agency routing.AgencyCode) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed[agency] == nil {
		m.changed[agency] = make(chan struct{})
	}
	return m.changed[agency]
}

func (m *memory) CopiesChanged(envelope.ID) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.copies
}

// copied makes the envelope known to be at another relay too.
func (m *memory) copied(id envelope.ID, holder routing.RelayID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	record := *m.records[id]
	record.Copies++
	record.Holders = append(slices.Clone(record.Holders), holder)
	m.records[id] = &record
	close(m.copies)
	m.copies = make(chan struct{})
}

// end settles all deliveries of an envelope.
func (m *memory) end(id envelope.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	record := *m.records[id]
	record.Deliveries = slices.Clone(record.Deliveries)
	for i := range record.Deliveries {
		record.Deliveries[i].Transport = exchangev1.TransportStatus_TRANSPORT_STATUS_DONE
	}
	m.records[id], m.ended[id] = &record, true
}

// takenOver makes an envelope one that came from another relay, which is lost,
// for one recipient; what the others were to get is not known here.
func (m *memory) takenOver(id envelope.ID, from routing.RelayID, agency routing.AgencyCode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	record := *m.records[id]
	record.Visited = []routing.RelayID{from}
	record.Deliveries = slices.DeleteFunc(slices.Clone(record.Deliveries), func(d envelope.Delivery) bool { return d.Agency != agency })
	m.records[id] = &record
}

// hurt damages the copy of an envelope, of which others are on so many relays.
func (m *memory) hurt(id envelope.ID, others uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	record := *m.records[id]
	record.Damaged, record.Copies = true, 1+others
	m.records[id] = &record
}

// giveUp ends the delivery of an envelope to one recipient.
func (m *memory) giveUp(id envelope.ID, agency routing.AgencyCode, reason exchangev1.ErrorReason) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inboxes[agency] = slices.DeleteFunc(m.inboxes[agency], func(e envelope.InboxEntry) bool { return e.ID == id })
	record := *m.records[id]
	record.Deliveries = slices.Clone(record.Deliveries)
	record.Inboxes = slices.DeleteFunc(slices.Clone(record.Inboxes), func(a routing.AgencyCode) bool { return a == agency })
	for i := range record.Deliveries {
		if d := &record.Deliveries[i]; d.Agency == agency {
			d.Place, d.Transport, d.Reason = envelope.Settled, exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL, reason
		}
	}
	m.records[id], m.ended[id] = &record, true
}

func (m *memory) Usage(sender routing.AgencyCode) (envelopes, bytes int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, r := range m.records {
		if r.FromSender && r.Sender == sender && !m.ended[id] {
			envelopes, bytes = envelopes+1, bytes+int64(r.Size())
		}
	}
	return envelopes, bytes, nil
}

func (m *memory) Waiting(agency routing.AgencyCode) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.inboxes[agency])), nil
}

// hold has an envelope wait in its inboxes, or go on.
func (m *memory) hold(id envelope.ID, held bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for agency, entries := range m.inboxes {
		for i := range entries {
			if entries[i].ID == id {
				entries[i].Held = held
				m.wake(agency)
			}
		}
	}
}

// wake is called with mu held.
func (m *memory) wake(agency routing.AgencyCode) {
	if ch := m.changed[agency]; ch != nil {
		close(ch)
		delete(m.changed, agency)
	}
}

// empty reports whether nothing was accepted.
func (m *memory) empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.records) == 0 && len(m.documents) == 0
}

func (m *memory) custody(id envelope.ID) *envelope.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records[id]
}
