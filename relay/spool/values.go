package spool

import (
	"encoding/binary"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// The values of the tables queue, inbox, transfer and event; see state.go.

// queued is the value of a queue entry.
type queued struct {
	ID       envelope.ID
	QueuedAt time.Time
	Size     uint64
	// Bare: there is a duty without agency, a report to the relay itself or a
	// second copy.
	Bare      bool
	Agencies  []routing.AgencyCode
	Tries     uint32
	NextTry   time.Time
	LastError string
	// Deferred is the record that said so, the only one of its kind needed.
	Deferred share
}

func encodeQueued(q *queued) []byte { return appendQueued([]byte{layoutVersion}, q) }

func appendQueued(b []byte, q *queued) []byte {
	b = append(b, q.ID[:]...)
	b = appendTime(b, q.QueuedAt)
	b = binary.AppendUvarint(b, q.Size)
	b = appendBool(b, q.Bare)
	b = appendCodes(b, q.Agencies)
	b = binary.AppendUvarint(b, uint64(q.Tries))
	b = appendTime(b, q.NextTry)
	b = appendText(b, q.LastError)
	b = binary.AppendUvarint(b, q.Deferred.Segment)
	return binary.AppendUvarint(b, uint64(q.Deferred.Bytes))
}

func readQueued(r *reader) *queued {
	return &queued{
		ID: r.id(), QueuedAt: r.time(), Size: r.number(), Bare: r.bool(), Agencies: readAgencies(r),
		Tries: uint32(r.number()), NextTry: r.time(), LastError: r.text(),
		Deferred: share{r.number(), int64(r.number())},
	}
}

func decodeQueued(b []byte) (*queued, error) {
	r := versioned(b)
	q := readQueued(r)
	return q, r.done("queue entry")
}

// inboxed is the value of an inbox entry.
type inboxed struct {
	ID                   envelope.ID
	ArrivedAt, NotBefore time.Time
	Size                 uint64
}

func encodeInboxed(e inboxed) []byte {
	b := append([]byte{layoutVersion}, e.ID[:]...)
	b = appendTime(b, e.ArrivedAt)
	b = appendTime(b, e.NotBefore)
	return binary.AppendUvarint(b, e.Size)
}

func decodeInboxed(b []byte) (inboxed, error) {
	r := versioned(b)
	e := inboxed{r.id(), r.time(), r.time(), r.number()}
	return e, r.done("inbox entry")
}

// transfer is an envelope on its way in.
type transfer struct {
	// Generation tells this try from earlier and later ones.
	Generation uint64
	TouchedAt  time.Time
	// Ends is how much of each part is here.
	Ends []uint64
	// Begin is the record that opened it.
	Begin share
}

func encodeTransfer(t *transfer) []byte {
	b := binary.AppendUvarint([]byte{layoutVersion}, t.Generation)
	b = appendTime(b, t.TouchedAt)
	b = appendList(b, t.Ends, binary.AppendUvarint)
	b = binary.AppendUvarint(b, t.Begin.Segment)
	return binary.AppendUvarint(b, uint64(t.Begin.Bytes))
}

func decodeTransfer(b []byte) (*transfer, error) {
	r := versioned(b)
	t := &transfer{
		Generation: r.number(), TouchedAt: r.time(), Ends: readList(r, (*reader).number),
		Begin: share{r.number(), int64(r.number())},
	}
	return t, r.done("transfer")
}

func encodeEvent(e envelope.Event) []byte {
	b := appendTime([]byte{layoutVersion}, e.At)
	b = binary.AppendUvarint(b, uint64(e.Action))
	b = appendText(b, e.Peer)
	b = appendText(b, e.Agency)
	return appendText(b, e.Note)
}

func decodeEvent(b []byte) (envelope.Event, error) {
	r := versioned(b)
	e := envelope.Event{
		At: r.time(), Action: exchangev1.TraceAction(r.number()), Peer: r.relay(), Agency: r.agency(), Note: r.text(),
	}
	return e, r.done("event")
}
