package spool

import (
	"bytes"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

func (c *checker) queues() error {
	return c.each(index.Queues(), func(key, value []byte) error {
		relay, lane, sequence := index.ParsePlace(key)
		c.counted.Queued++
		c.lengths[routing.RelayID(relay)]++
		q, err := decodeQueued(value)
		if err != nil {
			c.find(envelope.ID{}, "queue of %s, sequence %d: %v", relay, sequence, err)
			return nil
		}
		st, err := envelopeAt(c.v, q.ID)
		if err != nil {
			return err
		}
		if st == nil || st.Lane != lane {
			c.find(q.ID, "is queued for relay %s, and does not exist", relay)
		} else if d, open := st.duty(routing.RelayID(relay)); !open || d.Sequence != sequence {
			c.find(q.ID, "is queued for relay %s, which is no duty of it", relay)
		}
		return nil
	})
}

// inboxes also counts the entries of each, which come one after the other.
func (c *checker) inboxes() error {
	var of routing.AgencyCode
	var here int64
	next := func(agency routing.AgencyCode) error {
		if agency == of {
			return nil
		}
		counted, err := waitingAt(c.v, of)
		if err == nil && counted != here {
			c.find(envelope.ID{}, "inbox of %s counts %d entries, there are %d", of, counted, here)
		}
		of, here = agency, 0
		return err
	}
	err := c.each(index.Inboxes(), func(key, value []byte) error {
		code, lane, sequence := index.ParsePlace(key)
		agency := routing.AgencyCode(code)
		if err := next(agency); err != nil {
			return err
		}
		here++
		c.counted.Inboxed++
		e, err := decodeInboxed(value)
		if err != nil {
			c.find(envelope.ID{}, "inbox of %s, sequence %d: %v", agency, sequence, err)
			return nil
		}
		st, err := envelopeAt(c.v, e.ID)
		if err != nil {
			return err
		}
		if st == nil || st.Lane != lane {
			c.findFor(e.ID, agency, "is in the inbox, and does not exist")
			return nil
		}
		d, err := deliveryAt(c.v, e.ID, st, agency)
		if err != nil {
			return err
		}
		if d == nil || d.Place != inInbox || d.Sequence != sequence {
			c.findFor(e.ID, agency, "is in the inbox, and does not wait there")
		}
		return nil
	})
	if err != nil {
		return err
	}
	return next("")
}

// waitings checks that nothing is counted for an inbox that is empty.
func (c *checker) waitings() error {
	return c.each(index.Waitings(), func(key, _ []byte) error {
		agency := index.ParseAgency(key)
		it := c.v.Iterator(index.Inbox(agency))
		defer it.Close()
		if !it.Valid() && it.Err() == nil {
			c.find(envelope.ID{}, "inbox of %s counts entries, there are none", agency)
		}
		return it.Err()
	})
}

// memberships checks that an envelope stands in every table that its state says.
func (c *checker) memberships(id envelope.ID, st *state) error {
	if st.sole() != (st.Alone != 0) {
		c.find(id, "is nowhere else: %t, and its place among those is %d", st.sole(), st.Alone)
	}
	m := st.membership()
	wanted := map[string][]byte{}
	for _, relay := range m.away {
		wanted["of "+string(relay)] = index.AwayKey(relay, id)
	}
	if m.alone != 0 {
		wanted["of what is nowhere else"] = index.SoleKey(m.alone, id)
		c.counted.Sole++
	}
	if m.origin {
		wanted["of what came from "+string(m.ingress)] = index.OriginKey(m.ingress, id)
	}
	if m.dead {
		wanted["of what was given up"] = index.DeadKey(m.since, id)
		c.counted.DeadLetters++
	}
	if m.underWay {
		wanted["of what is not delivered"] = index.UndeliveredKey(m.lane, m.from, id)
	}
	if m.held {
		wanted["of what is held"] = index.HeldKey(id)
		c.counted.Held++
	}
	for name, key := range wanted {
		if found, err := c.v.Has(key); err != nil {
			return err
		} else if !found {
			c.find(id, "is not in the list %s", name)
		}
	}
	if m.underWay && c.s != nil {
		u := c.used[m.sender]
		c.used[m.sender] = usage{u.Envelopes + 1, u.Bytes + int64(m.size)}
	}
	return nil
}

// members checks that every envelope in a table is there because of its state.
func (c *checker) members(table []byte, what string, of func(key []byte) (envelope.ID, func(membership) []byte)) error {
	return c.each(table, func(key, _ []byte) error {
		id, keyOf := of(key)
		st, err := envelopeAt(c.v, id)
		if err != nil {
			return err
		}
		if st == nil {
			c.find(id, "is in the list of what is %s, and does not exist", what)
		} else if !bytes.Equal(keyOf(st.membership()), key) {
			c.find(id, "is in the list of what is %s, and is not", what)
		}
		return nil
	})
}

func (c *checker) aways() error {
	return c.members(index.Aways(), "with others", func(key []byte) (envelope.ID, func(membership) []byte) {
		relay, id := index.ParseRelayAndID(key)
		return id, func(m membership) []byte {
			for _, holder := range m.away {
				if holder == relay {
					return index.AwayKey(relay, id)
				}
			}
			return nil
		}
	})
}

func (c *checker) origins() error {
	return c.members(index.Origins(), "here for others", func(key []byte) (envelope.ID, func(membership) []byte) {
		_, id := index.ParseRelayAndID(key)
		return id, func(m membership) []byte {
			if !m.origin {
				return nil
			}
			return index.OriginKey(m.ingress, id)
		}
	})
}

func (c *checker) soles() error {
	return c.members(index.Soles(), "nowhere else", func(key []byte) (envelope.ID, func(membership) []byte) {
		_, id := index.ParseSoleKey(key)
		return id, func(m membership) []byte { return index.SoleKey(m.alone, id) }
	})
}

func (c *checker) dead() error {
	return c.members(index.Dead(), "given up", func(key []byte) (envelope.ID, func(membership) []byte) {
		_, id := index.ParseDeadKey(key)
		return id, func(m membership) []byte {
			if !m.dead {
				return nil
			}
			return index.DeadKey(m.since, id)
		}
	})
}

func (c *checker) held() error {
	return c.members(index.Helds(), "held", func(key []byte) (envelope.ID, func(membership) []byte) {
		id := index.ParseID(key)
		return id, func(m membership) []byte {
			if !m.held {
				return nil
			}
			return index.HeldKey(id)
		}
	})
}

func (c *checker) undelivered() error {
	return c.members(index.Undelivered(), "not delivered", func(key []byte) (envelope.ID, func(membership) []byte) {
		_, _, id := index.ParseUndelivered(key)
		return id, func(m membership) []byte {
			if !m.underWay {
				return nil
			}
			return index.UndeliveredKey(m.lane, m.from, id)
		}
	})
}

func (c *checker) usages() error {
	err := c.each(index.Usages(), func(key, value []byte) error {
		sender := index.ParseAgency(key)
		u, err := decodeUsage(value)
		if err != nil || u != c.used[sender] {
			c.find(envelope.ID{}, "usage of %s says %+v, there is %+v: %v", sender, u, c.used[sender], err)
		}
		delete(c.used, sender)
		return nil
	})
	for sender, u := range c.used {
		c.find(envelope.ID{}, "usage of %s says nothing, there is %+v", sender, u)
	}
	return err
}

// lives checks that what was said is of a delivery that says so.
func (c *checker) lives() error {
	return c.each(index.AllLives(), func(key, value []byte) error {
		id, agency := index.ParseRecipient(key)
		if _, err := decodeLife(value); err != nil {
			c.findFor(id, agency, "what was said cannot be read: %v", err)
		}
		st, err := envelopeAt(c.v, id)
		if err != nil {
			return err
		}
		if st == nil {
			c.findFor(id, agency, "something was said of an envelope that is not there")
			return nil
		}
		if d, err := deliveryAt(c.v, id, st, agency); err != nil {
			return err
		} else if d == nil || !d.Spoken {
			c.findFor(id, agency, "what was said is not known to the delivery")
		}
		return nil
	})
}
