package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// The primitives that journal records and index values are made of: numbers as
// varints, text and bytes with their length before them, instants as
// nanoseconds since 1970 in 8 bytes (the zero instant as the lowest number).
// What is read belongs to the reader: nothing refers to the buffer.

// errFormat says that bytes are not what this program would have written.
var errFormat = errors.New("unknown or damaged layout")

const zeroTime = math.MinInt64

func appendText[T ~string](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBytes(b, data []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(data))), data...)
}

func appendTime(b []byte, t time.Time) []byte {
	nanos := int64(zeroTime)
	if !t.IsZero() {
		nanos = t.UnixNano()
	}
	return binary.BigEndian.AppendUint64(b, uint64(nanos))
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendList[T any](b []byte, list []T, each func([]byte, T) []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, v := range list {
		b = each(b, v)
	}
	return b
}

// reader reads what the functions above wrote; after the first fault it reads
// zeros, and err tells.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() { r.b, r.err = nil, errFormat }

func (r *reader) take(n uint64) []byte {
	if r.err != nil || n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) number() uint64 {
	n, used := binary.Uvarint(r.b)
	if r.err != nil || used <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[used:]
	return n
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) bool() bool { return r.byte() != 0 }

func (r *reader) bytes() []byte {
	n := r.number()
	return append([]byte(nil), r.take(n)...)
}

func (r *reader) text() string {
	n := r.number()
	return string(r.take(n))
}

func (r *reader) id() envelope.ID {
	if b := r.take(16); b != nil {
		return envelope.ID(b)
	}
	return envelope.ID{}
}

func (r *reader) relay() routing.RelayID     { return routing.RelayID(r.text()) }
func (r *reader) agency() routing.AgencyCode { return routing.AgencyCode(r.text()) }

func (r *reader) time() time.Time {
	b := r.take(8)
	if b == nil {
		return time.Time{}
	}
	nanos := int64(binary.BigEndian.Uint64(b))
	if nanos == zeroTime {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// readList reads a list whose items take at least one byte each.
func readList[T any](r *reader, each func(*reader) T) []T {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	list := make([]T, 0, n)
	for range n {
		list = append(list, each(r))
	}
	return list
}

func readRelays(r *reader) []routing.RelayID      { return readList(r, (*reader).relay) }
func readAgencies(r *reader) []routing.AgencyCode { return readList(r, (*reader).agency) }

// done returns the first fault, also that something is left over.
func (r *reader) done(what string) error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errFormat
	}
	if r.err != nil {
		return fmt.Errorf("%s: %w", what, r.err)
	}
	return nil
}

func appendCodes(b []byte, codes []routing.AgencyCode) []byte {
	return appendList(b, codes, appendText[routing.AgencyCode])
}

func appendRelays(b []byte, relays []routing.RelayID) []byte {
	return appendList(b, relays, appendText[routing.RelayID])
}

func appendOnward(b []byte, list []envelope.Onward) []byte {
	return appendList(b, list, func(b []byte, o envelope.Onward) []byte {
		return appendCodes(appendText(b, o.Relay), o.Agencies)
	})
}

func readOnward(r *reader) []envelope.Onward {
	return readList(r, func(r *reader) envelope.Onward {
		return envelope.Onward{Relay: r.relay(), Agencies: readAgencies(r)}
	})
}

// appendHeader writes what of a custody never changes: all but the duties and
// FromSender.
func appendHeader(b []byte, c *envelope.Custody) []byte {
	b = append(b, c.ID[:]...)
	b = appendBytes(b, c.Header)
	b = appendText(b, c.Sender)
	b = appendText(b, c.DocumentID)
	b = append(b, byte(c.Lane))
	b = appendList(b, c.Parts, func(b []byte, p envelope.PartSum) []byte {
		return append(binary.AppendUvarint(b, p.Size), p.SHA256[:]...)
	})
	b = appendText(b, c.Ingress)
	b = appendTime(b, c.AcceptedAt)
	b = appendTime(b, c.NotBefore)
	b = appendTime(b, c.ExpiresAt)
	b = appendText(b, c.TraceParent)
	b = appendText(b, c.TraceState)
	b = appendRelays(b, c.Visited)
	return appendBool(b, c.Report)
}

func readHeader(r *reader) *envelope.Custody {
	return &envelope.Custody{
		ID:         r.id(),
		Header:     r.bytes(),
		Sender:     r.agency(),
		DocumentID: r.text(),
		Lane:       envelope.Lane(r.byte()),
		Parts: readList(r, func(r *reader) envelope.PartSum {
			p := envelope.PartSum{Size: r.number()}
			copy(p.SHA256[:], r.take(32))
			return p
		}),
		Ingress:     r.relay(),
		AcceptedAt:  r.time(),
		NotBefore:   r.time(),
		ExpiresAt:   r.time(),
		TraceParent: r.text(),
		TraceState:  r.text(),
		Visited:     readRelays(r),
		Report:      r.bool(),
	}
}

func appendCustody(b []byte, c *envelope.Custody) []byte {
	b = appendHeader(b, c)
	b = appendBool(b, c.FromSender)
	b = appendCodes(b, c.Inboxes)
	b = appendOnward(b, c.Onward)
	return appendCodes(b, c.Kept)
}

func readCustody(r *reader) *envelope.Custody {
	c := readHeader(r)
	c.FromSender = r.bool()
	c.Inboxes = readAgencies(r)
	c.Onward = readOnward(r)
	c.Kept = readAgencies(r)
	return c
}
