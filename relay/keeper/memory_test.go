package keeper_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/keeper"
	"github.com/truclienthong/truc/routing"
)

// memory is a spool that keeps nothing. It does to records what the spool does.
type memory struct {
	self    routing.RelayID
	mu      sync.Mutex
	records map[envelope.ID]*envelope.Record
	order   []envelope.ID
	reports []*envelope.Custody
	copied  []envelope.Copy
	added   chan struct{}
	// fails is asked before each fact, by its name.
	fails func(fact string, id envelope.ID) error
	// onRead is told of each record read.
	onRead func()
}

var _ keeper.Spool = (*memory)(nil)

func newMemory(self routing.RelayID) *memory {
	return &memory{self: self, records: make(map[envelope.ID]*envelope.Record), added: make(chan struct{})}
}

func idOf(n int) envelope.ID {
	return envelope.ComputeID("H26", fmt.Sprint(n), []byte("header"))
}

// put adds an envelope; deliveries with a home and a place say the rest.
func (m *memory) put(n int, edit func(*envelope.Record)) envelope.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := idOf(n)
	now := time.Now()
	r := &envelope.Record{
		Custody: envelope.Custody{
			ID: id, Sender: "H26", DocumentID: fmt.Sprint(n), Ingress: m.self, FromSender: true,
			AcceptedAt: now, ExpiresAt: now.Add(30 * 24 * time.Hour),
		},
		CommittedAt: now,
	}
	edit(r)
	if !r.FromSender && r.Ingress == m.self {
		panic("whose envelope is it?")
	}
	for i := range r.Deliveries {
		if r.Deliveries[i].UpdatedAt.IsZero() {
			r.Deliveries[i].UpdatedAt = r.AcceptedAt
		}
	}
	m.records[id] = r
	m.order = append(m.order, id)
	close(m.added)
	m.added = make(chan struct{})
	return id
}

func at(code routing.AgencyCode, place envelope.Place, home routing.RelayID) envelope.Delivery {
	return envelope.Delivery{Agency: code, Place: place, Home: home}
}

// settled reports whether nobody waits for anything any more.
func settled(r *envelope.Record) bool {
	return !slices.ContainsFunc(r.Deliveries, func(d envelope.Delivery) bool { return d.Place != envelope.Settled })
}

func (m *memory) Record(id envelope.ID) (*envelope.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.onRead != nil {
		m.onRead()
	}
	r, ok := m.records[id]
	if !ok {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "not known")
	}
	out := *r
	out.Deliveries, out.Holders = slices.Clone(r.Deliveries), slices.Clone(r.Holders)
	out.Onward = nil
	for _, o := range r.Onward {
		if len(o.Agencies) == 0 {
			out.Onward = append(out.Onward, o)
		}
	}
	for _, d := range r.Deliveries {
		switch d.Place {
		case envelope.InInbox:
			out.Inboxes = append(out.Inboxes, d.Agency)
		case envelope.InQueue:
			out.Onward = append(out.Onward, envelope.Onward{Relay: d.Home, Agencies: []routing.AgencyCode{d.Agency}})
		}
	}
	return &out, nil
}

func (m *memory) list(after envelope.ID, max int, wanted func(*envelope.Record) bool) (ids []envelope.ID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, r := range m.records {
		if slices.Compare(id[:], after[:]) > 0 && !settled(r) && wanted(r) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b envelope.ID) int { return slices.Compare(a[:], b[:]) })
	return ids[:min(len(ids), max)], nil
}

func (m *memory) relays(each func(*envelope.Record) []routing.RelayID) ([]routing.RelayID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[routing.RelayID]bool)
	for _, r := range m.records {
		if !settled(r) {
			for _, relay := range each(r) {
				all[relay] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all)), nil
}

func (m *memory) Sole(after uint64, max int) (out []envelope.SoleEntry, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, id := range m.order {
		r := m.records[id]
		if seq := uint64(i + 1); seq > after && r.FromSender && !settled(r) && len(r.Holders) == 0 && len(out) < max {
			out = append(out, envelope.SoleEntry{ID: id, Sequence: seq, Since: r.AcceptedAt, Size: r.Size()})
		}
	}
	return out, nil
}

func (m *memory) SoleChanged() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.added
}

func (m *memory) Holders() ([]routing.RelayID, error) {
	return m.relays(func(r *envelope.Record) []routing.RelayID {
		if r.FromSender {
			return r.Holders
		}
		return nil
	})
}

func (m *memory) Away(holder routing.RelayID, after envelope.ID, max int) ([]envelope.ID, error) {
	return m.list(after, max, func(r *envelope.Record) bool { return r.FromSender && slices.Contains(r.Holders, holder) })
}

func (m *memory) Origins() ([]routing.RelayID, error) {
	return m.relays(func(r *envelope.Record) []routing.RelayID {
		if r.FromSender {
			return nil
		}
		return []routing.RelayID{r.Ingress}
	})
}

func (m *memory) Origin(ingress routing.RelayID, after envelope.ID, max int) ([]envelope.ID, error) {
	return m.list(after, max, func(r *envelope.Record) bool { return !r.FromSender && r.Ingress == ingress })
}

func (m *memory) Expired(before time.Time, after envelope.Due, max int) (out []envelope.Due, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	compare := func(a, b envelope.Due) int {
		return cmp.Or(a.At.Compare(b.At), slices.Compare(a.ID[:], b.ID[:]))
	}
	for id, r := range m.records {
		due := envelope.Due{At: r.ExpiresAt, ID: id}
		if (!settled(r) || len(r.Onward) > 0) && !r.ExpiresAt.After(before) && compare(due, after) > 0 {
			out = append(out, due)
		}
	}
	slices.SortFunc(out, compare)
	return out[:min(len(out), max)], nil
}

// fact finds what a fact is about; nil: nothing.
func (m *memory) fact(name string, id envelope.ID) (*envelope.Record, error) {
	if m.fails != nil {
		if err := m.fails(name, id); err != nil {
			return nil, err
		}
	}
	return m.records[id], nil
}

func (m *memory) Settle(_ context.Context, batch []envelope.Settlement) (n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range batch {
		r, err := m.fact("settle", s.ID)
		if err != nil {
			return n, err
		}
		for i := range r.Deliveries {
			if d := &r.Deliveries[i]; d.Agency == s.Agency && d.Place != envelope.Settled {
				d.Place, d.Transport, d.Reason, d.Note, d.UpdatedAt = envelope.Settled, s.Transport, s.Reason, s.Note, s.At
				n++
				if s.Report != nil {
					m.reports = append(m.reports, s.Report)
				}
			}
		}
	}
	return n, nil
}

func (m *memory) Reroute(_ context.Context, f envelope.Reroute) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.fact("reroute", f.ID)
	if err != nil {
		return err
	}
	move := func(codes []routing.AgencyCode, place envelope.Place, home routing.RelayID) {
		for i := range r.Deliveries {
			d := &r.Deliveries[i]
			if slices.Contains(codes, d.Agency) && slices.Contains(f.Agencies, d.Agency) && d.Home == f.From && d.Place != envelope.Settled {
				d.Place, d.Home, d.UpdatedAt = place, home, f.At
			}
		}
	}
	for _, o := range f.Elsewhere {
		move(o.Agencies, envelope.Elsewhere, o.Relay)
		if !slices.Contains(r.Holders, o.Relay) {
			r.Holders = append(r.Holders, o.Relay)
		}
	}
	for _, o := range f.Onward {
		move(o.Agencies, envelope.InQueue, o.Relay)
	}
	move(f.Inboxes, envelope.InInbox, m.self)
	return nil
}

func (m *memory) Copy(_ context.Context, f envelope.Copy) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.fact("copy", f.ID)
	if err != nil {
		return err
	}
	m.copied = append(m.copied, f)
	r.Onward = slices.DeleteFunc(r.Onward, func(o envelope.Onward) bool {
		return len(o.Agencies) == 0 && slices.Contains(f.Instead, o.Relay)
	})
	r.Onward = append(r.Onward, envelope.Onward{Relay: f.Relay})
	return nil
}

func (m *memory) TakeOver(_ context.Context, f envelope.TakeOver) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.fact("take over", f.ID)
	if err != nil {
		return err
	}
	r.FromSender, r.Ingress = true, m.self
	close(m.added)
	m.added = make(chan struct{})
	for i := range r.Deliveries {
		d := &r.Deliveries[i]
		if d.Place != envelope.Kept {
			continue
		}
		if slices.Contains(f.Inboxes, d.Agency) {
			d.Place, d.Home = envelope.InInbox, m.self
		}
		for _, o := range f.Onward {
			if slices.Contains(o.Agencies, d.Agency) {
				d.Place, d.Home = envelope.InQueue, o.Relay
			}
		}
	}
	return nil
}

func (m *memory) Forget(_ context.Context, id envelope.ID, holder routing.RelayID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.fact("forget", id)
	if err != nil {
		return err
	}
	r.Holders = slices.DeleteFunc(r.Holders, func(h routing.RelayID) bool { return h == holder })
	return nil
}

func (m *memory) HandOn(_ context.Context, f envelope.HandedOn) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.fact("hand on", f.ID)
	if err != nil {
		return err
	}
	r.Onward = slices.DeleteFunc(r.Onward, func(o envelope.Onward) bool {
		return len(o.Agencies) == 0 && len(f.Agencies) == 0 && o.Relay == f.Destination
	})
	for i := range r.Deliveries {
		if d := &r.Deliveries[i]; slices.Contains(f.Agencies, d.Agency) && d.Home == f.Destination {
			d.Place, d.UpdatedAt = envelope.Elsewhere, f.At
		}
	}
	if f.Peer != m.self && !slices.Contains(r.Holders, f.Peer) {
		r.Holders = append(r.Holders, f.Peer)
	}
	return nil
}

// edit changes the spool while the keeper runs.
func (m *memory) edit(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// copies returns what was asked to be copied.
func (m *memory) copies() []envelope.Copy {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.copied)
}
