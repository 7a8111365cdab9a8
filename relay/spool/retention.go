package spool

import (
	"time"

	"github.com/truclienthong/truc/relay/spool/index"
)

// Retention says how long what is kept, counted from the end of the last duty.
// What is a duty is kept as long as it is one.
type Retention struct {
	// Ingress is for content of envelopes that were accepted here from their
	// sender, counted from the last recipient's outcome; 0: let go at once.
	Ingress time.Duration
	// Dead is for content of such envelopes with deliveries that were given up,
	// so that they can be revived; 0: 30 days.
	Dead time.Duration
	// Transit is for content of all others.
	Transit time.Duration
	// Record is for everything but the content: the record, the trace and the
	// sender's document id; 0: 400 days.
	Record time.Duration
	// Report is the same for a relay's reports; 0: 7 days.
	Report time.Duration
	// Transfer is how long an unfinished transfer may be resumed; 0: 24 hours.
	Transfer time.Duration
}

// schedule keeps the envelope's one key in the table expiry.
func (s *step) schedule(h *held, now time.Time) {
	st := h.st
	var at time.Time
	var due index.Purpose
	switch {
	case st.released():
		at, due = st.ReleasedAt.Add(s.retention.record(st)), index.Forget
	case st.done() && st.Due == index.Release && !h.renewed:
		at, due = st.DueAt, st.Due
	case st.done():
		at, due = now.Add(s.retention.content(st)), index.Release
		s.woken.due = true
	case !h.st.ExpiresAt.IsZero():
		at, due = h.st.ExpiresAt, index.Expire
	}
	if at.Equal(st.DueAt) && due == st.Due {
		return
	}
	if st.Due != 0 {
		s.b.Delete(index.ExpiryKey(st.DueAt, st.Due, h.id))
	}
	switch key := index.ExpiryKey(at, due, h.id); {
	case due == 0:
	case h.dropped:
		s.b.Put(key, nil) // perhaps the one deleted just now
	default:
		s.b.Insert(key, nil)
	}
	st.DueAt, st.Due = at, due
}

func (r Retention) record(st *state) time.Duration {
	if st.Report {
		return r.Report
	}
	return r.Record
}

func (r Retention) content(st *state) time.Duration {
	switch {
	case st.FromSender && st.Failed > 0:
		return r.Dead
	case st.FromSender:
		return r.Ingress
	}
	return r.Transit
}
