package spool

import (
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
)

func (c *checker) transfers() error {
	return c.each(index.Transfers(), func(key, value []byte) error {
		c.counted.Transfers++
		t, err := decodeTransfer(value)
		if err != nil {
			c.find(index.ParseID(key), "transfer cannot be read: %v", err)
			return nil
		}
		c.live[t.Begin.Segment] += t.Begin.Bytes
		return nil
	})
}

// chunks checks that every chunk belongs to an envelope or a transfer.
func (c *checker) chunks() error {
	return c.each(index.AllChunks(), func(key, value []byte) error {
		id, generation := index.ParseChunkOwner(key)
		l, err := decodeLocation(value)
		if err != nil {
			c.find(id, "location of a chunk cannot be read: %v", err)
			return nil
		}
		c.live[l.Segment] += int64(l.Record)
		st, err := envelopeAt(c.v, id)
		if err != nil {
			return err
		}
		if st != nil && st.Generation == generation {
			return nil
		}
		t, err := transferAt(c.v, id)
		if err != nil {
			return err
		}
		if t == nil || t.Generation != generation {
			c.find(id, "has a chunk of transfer %d, which is over", generation)
		}
		return nil
	})
}

func (c *checker) expiries() error {
	return c.each(index.Expiries(), func(key, _ []byte) error {
		at, purpose, id := index.ParseExpiryKey(key)
		st, err := envelopeAt(c.v, id)
		if err != nil {
			return err
		}
		if st == nil || st.Due != purpose || !st.DueAt.Equal(at) {
			c.find(id, "is in the table of what is due without being due")
		}
		return nil
	})
}

func (c *checker) documents() error {
	return c.each(index.Documents(), func(_, value []byte) error {
		id, err := envelope.IDFromBytes(value)
		if err != nil {
			c.find(envelope.ID{}, "a sender's document id names no envelope: %v", err)
			return nil
		}
		st, err := envelopeAt(c.v, id)
		switch {
		case err != nil:
			return err
		case st == nil:
			c.find(id, "is named by a sender's document id, and does not exist")
		case !st.Keyed:
			c.find(id, "is named by a sender's document id, and has not claimed it")
		}
		return nil
	})
}

// totals compares what is counted record by record with what is there.
func (c *checker) totals() error {
	m := c.s.machine
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, n := range m.forgotten.fields() {
		*c.counted.fields()[i] += *n
	}
	if c.counted != m.counters {
		c.find(envelope.ID{}, "counters say %+v, there is %+v", m.counters, c.counted)
	}
	for n, seg := range m.segments {
		if c.live[n] != seg.live {
			c.find(envelope.ID{}, "segment %d counts %d bytes alive, there are %d", n, seg.live, c.live[n])
		}
		delete(c.live, n)
	}
	for n, bytes := range c.live {
		if bytes != 0 {
			c.find(envelope.ID{}, "segment %d is gone, and %d bytes of it are needed", n, bytes)
		}
	}
	for relay, n := range m.lengths {
		if c.lengths[relay] != n {
			c.find(envelope.ID{}, "queue of %s counts %d entries, there are %d", relay, n, c.lengths[relay])
		}
		delete(c.lengths, relay)
	}
	for relay, n := range c.lengths {
		c.find(envelope.ID{}, "queue of %s counts no entries, there are %d", relay, n)
	}
	return nil
}
