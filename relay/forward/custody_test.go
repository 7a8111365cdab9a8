package forward_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
)

// known reports whether nothing is to be done for a recipient: the delivery
// waits or ended here. One that was handed on may come back, and one that was
// given up may be wanted again. m.mu is held.
func known(r *envelope.Record, c *envelope.Custody, code routing.AgencyCode, kept bool) bool {
	for _, d := range r.Deliveries {
		switch {
		case d.Agency != code:
		case d.Place == envelope.Kept, d.Place == envelope.Elsewhere:
			return kept
		case d.Place == envelope.Settled && d.Transport == fail:
			return !c.ExpiresAt.After(r.ExpiresAt)
		default:
			return d.Place != envelope.Unknown
		}
	}
	return false
}

// document is what a sender may use once.
type document struct {
	sender routing.AgencyCode
	id     string
}

// claim refuses another envelope with the id of one that was accepted from its
// sender here, or came to its recipients. m.mu is held.
func (m *memory) claim(c *envelope.Custody) error {
	if c.Report || !c.FromSender && len(c.Inboxes) == 0 {
		return nil
	}
	key := document{c.Sender, c.DocumentID}
	if id, ok := m.claims[key]; ok && id != c.ID {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED, "%s has another document %s", c.Sender, c.DocumentID)
	}
	m.claims[key] = c.ID
	return nil
}

func (m *memory) Begin(_ context.Context, c *envelope.Custody) (forward.Incoming, error) {
	if m.onBegin != nil {
		if err := m.onBegin(c.ID); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.claim(c); err != nil {
		return nil, err
	}
	in := &incoming{m: m, c: c}
	if r := m.records[c.ID]; r != nil {
		// Drop the duties that are known; none left: a repeat.
		in.known = true
		want := *c
		drop := func(codes []routing.AgencyCode, kept bool) []routing.AgencyCode {
			return slices.DeleteFunc(slices.Clone(codes), func(a routing.AgencyCode) bool { return known(r, c, a, kept) })
		}
		want.Inboxes, want.Kept, want.Onward = drop(c.Inboxes, false), drop(c.Kept, true), nil
		for _, o := range c.Onward {
			if o.Agencies = drop(o.Agencies, false); len(o.Agencies) > 0 {
				want.Onward = append(want.Onward, o)
			}
		}
		if len(want.Inboxes)+len(want.Onward)+len(want.Kept) == 0 {
			r.ContentReleased = r.ContentReleased || m.letsGo
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
		m.delivery(r, code, envelope.InInbox)
		m.inboxes[code] = append(m.inboxes[code], r.ID)
	}
	for _, code := range in.c.Kept {
		m.delivery(r, code, envelope.Kept)
	}
	for _, o := range in.c.Onward {
		m.enqueue(r, o)
	}
	if in.c.ExpiresAt.After(r.ExpiresAt) {
		r.ExpiresAt = in.c.ExpiresAt
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
