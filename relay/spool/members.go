package spool

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

// The tables away, origin, sole, dead, held, undelivered and usage say again what states say,
// in the order in which it is asked for. enlist alone changes them, from what
// the state was to what it is; so they are right whatever changed it: a fact, a
// commit, a state record in place of what was known, or the end of everything.

// membership is in which of the tables an envelope stands, with its keys there.
type membership struct {
	// underWay: accepted here, and not settled; it counts in the usage of its
	// sender.
	underWay bool
	sender   routing.AgencyCode
	size     uint64
	// lane and from are its place in the table undelivered.
	lane envelope.Lane
	from time.Time
	// away are the others that have such an envelope; if nobody has, alone is
	// its place in the table sole.
	away  []routing.RelayID
	alone uint64
	// origin: in custody or kept here for another ingress.
	origin  bool
	ingress routing.RelayID
	// dead: given up for some recipient, since then.
	dead  bool
	since time.Time
	held  bool
}

func (st *state) membership() membership {
	var m membership
	if m.underWay = st.FromSender && st.Unsettled > 0; m.underWay {
		m.sender, m.size, m.alone = st.Sender, st.Size, st.Alone
		m.away = slices.Clone(st.Holders)
		m.lane, m.from = st.Lane, st.runsFrom()
	}
	if m.origin = !st.FromSender && !st.Report && !st.done(); m.origin {
		m.ingress = st.Ingress
	}
	if m.dead = st.FromSender && st.Failed > 0 && !st.released(); m.dead {
		m.since = st.FailedAt
	}
	m.held = st.Held
	return m
}

// runsFrom is when the delivery target of an envelope that was accepted here begins
// to run: at its acceptance, hỏa tốc hẹn giờ at its hour.
func (st *state) runsFrom() time.Time {
	if st.NotBefore.After(st.CommittedAt) {
		return st.NotBefore
	}
	return st.CommittedAt
}

// sole reports whether a delivery of what was accepted here depends on this
// relay alone: one waits here, and nobody keeps a copy for it, though others may
// have the envelope for other recipients; or nobody has it at all.
func (st *state) sole() bool {
	return st.FromSender && st.Unsettled > 0 &&
		(len(st.Holders) == 0 || len(st.Keepers) == 0 && st.Open > st.Bare)
}

// copies is on how many relays the envelope is durable, as far as known.
func (st *state) copies() uint32 {
	if st.sole() {
		return 1
	}
	return 1 + uint32(len(st.Holders))
}

// enlist has the envelope stand in the tables that its state says.
func (s *step) enlist(h *held) {
	st := h.st
	switch {
	case !st.sole():
		if st.Alone != 0 {
			s.woken.copies = append(s.woken.copies, h.id)
		}
		st.Alone = 0
	case st.Alone == 0:
		st.Alone = h.sequence
		s.woken.sole = true
	}
	was, is := h.listed, st.membership()
	h.listed = is
	if was.underWay != is.underWay || was.sender != is.sender || was.size != is.size {
		if was.underWay {
			s.use(was.sender, usage{-1, -int64(was.size)})
		}
		if is.underWay {
			s.use(is.sender, usage{1, int64(is.size)})
		}
	}
	if was.underWay != is.underWay || was.lane != is.lane || !was.from.Equal(is.from) {
		if was.underWay {
			s.b.Delete(index.UndeliveredKey(was.lane, was.from, h.id))
		}
		if is.underWay {
			s.b.Insert(index.UndeliveredKey(is.lane, is.from, h.id), nil)
		}
	}
	for _, relay := range was.away {
		if !slices.Contains(is.away, relay) {
			s.b.Delete(index.AwayKey(relay, h.id))
		}
	}
	for _, relay := range is.away {
		if !slices.Contains(was.away, relay) {
			s.b.Insert(index.AwayKey(relay, h.id), nil)
		}
	}
	if was.alone != is.alone {
		if was.alone != 0 {
			s.b.Delete(index.SoleKey(was.alone, h.id))
			s.counters.Sole--
		}
		if is.alone != 0 {
			s.b.Insert(index.SoleKey(is.alone, h.id), encodeAlone(st))
			s.counters.Sole++
		}
	}
	if was.origin != is.origin || was.ingress != is.ingress {
		if was.origin {
			s.b.Delete(index.OriginKey(was.ingress, h.id))
		}
		if is.origin {
			s.b.Insert(index.OriginKey(is.ingress, h.id), nil)
		}
	}
	if was.dead != is.dead || !was.since.Equal(is.since) {
		if was.dead {
			s.b.Delete(index.DeadKey(was.since, h.id))
			s.counters.DeadLetters--
		}
		if is.dead {
			s.b.Insert(index.DeadKey(is.since, h.id), nil)
			s.counters.DeadLetters++
		}
	}
	if was.held != is.held {
		if was.held {
			s.b.Delete(index.HeldKey(h.id))
			s.counters.Held--
		} else {
			s.b.Insert(index.HeldKey(h.id), nil)
			s.counters.Held++
		}
	}
}

// usage is what a sender has under way.
type usage struct{ Envelopes, Bytes int64 }

func (s *step) use(sender routing.AgencyCode, more usage) {
	if s.used == nil {
		s.used = make(map[routing.AgencyCode]usage)
	}
	u := s.used[sender]
	s.used[sender] = usage{u.Envelopes + more.Envelopes, u.Bytes + more.Bytes}
}

// inboxed counts entries of an inbox that come and go.
func (s *step) inboxed(agency routing.AgencyCode, more int64) {
	s.counters.Inboxed += more
	if s.waits == nil {
		s.waits = make(map[routing.AgencyCode]int64)
	}
	s.waits[agency] += more
}

// count writes what the step added to the tables usage, waiting and number. They are in
// the index, because there are as many as there are agencies.
func (s *step) count() error {
	for sender, more := range s.used {
		if more == (usage{}) {
			continue
		}
		u, err := usageAt(s.v, sender)
		if err != nil {
			return err
		}
		now := usage{u.Envelopes + more.Envelopes, u.Bytes + more.Bytes}
		s.put(index.UsageKey(sender), u == usage{}, now == usage{}, encodeUsage(now))
	}
	for agency, more := range s.waits {
		if more == 0 {
			continue
		}
		n, err := waitingAt(s.v, agency)
		if err != nil {
			return err
		}
		s.put(index.WaitingKey(agency), n == 0, n+more == 0, encodeWaiting(n+more))
	}
	s.countNumbers()
	return nil
}

// put writes a count, which has no key where it is zero.
func (s *step) put(key []byte, wasZero, isZero bool, value []byte) {
	switch {
	case isZero:
		s.b.Delete(key)
	case wasZero:
		s.b.Insert(key, value)
	default:
		s.b.Put(key, value)
	}
}

func usageAt(v *index.View, sender routing.AgencyCode) (usage, error) {
	b, found, err := v.Get(index.UsageKey(sender))
	if err != nil || !found {
		return usage{}, err
	}
	return decodeUsage(b)
}

func waitingAt(v *index.View, agency routing.AgencyCode) (int64, error) {
	b, found, err := v.Get(index.WaitingKey(agency))
	if err != nil || !found {
		return 0, err
	}
	return decodeWaiting(b)
}

func encodeUsage(u usage) []byte {
	b := binary.AppendUvarint([]byte{layoutVersion}, uint64(u.Envelopes))
	return binary.AppendUvarint(b, uint64(u.Bytes))
}

func decodeUsage(b []byte) (usage, error) {
	r := versioned(b)
	u := usage{int64(r.number()), int64(r.number())}
	return u, r.done("usage of a sender")
}

func encodeWaiting(n int64) []byte { return binary.AppendUvarint([]byte{layoutVersion}, uint64(n)) }

func decodeWaiting(b []byte) (int64, error) {
	r := versioned(b)
	n := int64(r.number())
	return n, r.done("length of an inbox")
}

// encodeAlone is the value of the table sole.
func encodeAlone(st *state) []byte {
	return binary.AppendUvarint(appendTime([]byte{layoutVersion}, st.CommittedAt), st.Size)
}

func decodeAlone(b []byte) (since time.Time, size uint64, err error) {
	r := versioned(b)
	since, size = r.time(), r.number()
	return since, size, r.done("entry of the table sole")
}
