package spool

import (
	"encoding/binary"
	"slices"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
	"github.com/truclienthong/truc/routing"
)

// The values of the index. Each begins with the version of its layout, 1.

const layoutVersion = 1

// inlineDeliveries is how many deliveries stand in the state of their envelope;
// with more, each has a key of its own, so that settling one of 20,000 does not
// rewrite them all.
const inlineDeliveries = 16

// Where a delivery stands at this relay.
const (
	inInbox  = envelope.InInbox
	inQueue  = envelope.InQueue
	handedOn = envelope.Elsewhere
	settled  = envelope.Settled
	kept     = envelope.Kept
)

// delivery is what this relay knows of one recipient's copy.
type delivery struct {
	envelope.Delivery
	// Sequence is that of the inbox entry.
	Sequence uint64
	// Spoken: something was said of the document here; it stands in the table
	// life.
	Spoken bool
}

// open reports whether the content is here for the sake of the delivery: it is a
// duty of this relay, or a copy is kept for it.
func (d *delivery) open() bool { return d.Place == inInbox || d.Place == inQueue || d.Place == kept }

// dead reports whether the delivery was given up and can be revived. What its
// sender took back cannot.
func (d *delivery) dead() bool {
	return d.Place == settled && d.Transport == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL &&
		d.Reason != exchangev1.ErrorReason_ERROR_REASON_RECALLED
}

// duty is one open queue entry of an envelope.
type duty struct {
	Relay    routing.RelayID
	Sequence uint64
}

// share is how many bytes of records about an envelope one segment holds that
// are still needed.
type share struct {
	Segment uint64
	Bytes   int64
}

// location is where content lies: in the payload of a record, after skip bytes.
type location struct {
	journal.Position
	Skip, Length uint32
	// Record is what the record takes on disk.
	Record uint32
}

// state is what changes about an envelope.
type state struct {
	// Born is the sequence of the commit that made the envelope exist, or exist
	// again after its release. In a rebuild it tells records of this life from
	// those of an earlier one.
	Born uint64
	// Revision counts the records that had an effect.
	Revision    uint64
	CommittedAt time.Time
	FromSender  bool
	// Of the header, what facts need: so they need not read it.
	Lane                 envelope.Lane
	Size                 uint64
	NotBefore, ExpiresAt time.Time
	Report               bool
	Sender               routing.AgencyCode
	// Ingress is the relay that remembers the envelope for its sender: that of
	// the header, unless this one took over.
	Ingress routing.RelayID
	// TookOver: it came from another relay before this one was its ingress.
	TookOver bool
	// Keyed: its sender's document id leads to it.
	Keyed bool
	// Numbered: it is counted in the table number.
	Numbered bool
	// Held: an operator holds it.
	Held bool
	// Count is the number of deliveries, Unsettled of those not settled, Open
	// of those waiting or kept here plus the duties without agency.
	Count, Unsettled, Open uint32
	// Bare is the number of duties without agency.
	Bare uint32
	// Failed is the number of deliveries that are dead, FailedAt since when the
	// first was.
	Failed   uint32
	FailedAt time.Time
	// Alone is its place in the table sole; 0: it is not there.
	Alone uint64
	// Paged: the deliveries have keys of their own.
	Paged      bool
	Deliveries []*delivery
	// Duties are the open queue entries, at most one per relay.
	Duties []duty
	// Holders are the other relays known to have made it durable, Keepers those
	// of them that would deliver in the place of this one.
	Holders, Keepers []routing.RelayID
	// Whole locates the content where it lies in one record; else Generation
	// names the chunks, 0 if there is no content here.
	Whole      *location
	Generation uint64
	// Last is the highest generation that was ever its content.
	Last       uint64
	ReleasedAt time.Time
	// Shares is what the journal must keep, Origins where it may still hold
	// records that would make the envelope exist anew.
	Shares  []share
	Origins []uint64
	// Due is the envelope's key in the table expiry.
	DueAt time.Time
	Due   index.Purpose
}

func (st *state) released() bool { return !st.ReleasedAt.IsZero() }

// done reports that nobody needs the content any more: every duty here has
// ended and, at ingress, every recipient's outcome is known.
func (st *state) done() bool {
	return st.Open == 0 && (!st.FromSender || st.Unsettled == 0)
}

func (st *state) duty(relay routing.RelayID) (duty, bool) {
	for _, d := range st.Duties {
		if d.Relay == relay {
			return d, true
		}
	}
	return duty{}, false
}

// hold adds to the share of a segment.
func (st *state) hold(segment uint64, bytes int64) {
	i := slices.IndexFunc(st.Shares, func(s share) bool { return s.Segment == segment })
	if i < 0 {
		st.Shares = append(st.Shares, share{segment, bytes})
		return
	}
	if st.Shares[i].Bytes += bytes; st.Shares[i].Bytes <= 0 {
		st.Shares = slices.Delete(st.Shares, i, i+1)
	}
}

func (st *state) originate(segment uint64) {
	if !slices.Contains(st.Origins, segment) {
		st.Origins = append(st.Origins, segment)
	}
}

func appendDelivery(b []byte, d *delivery) []byte {
	b = appendText(b, d.Agency)
	b = appendText(b, d.Home)
	b = append(b, byte(d.Place), byte(d.Transport))
	b = appendBool(b, d.Spoken)
	b = binary.AppendUvarint(b, uint64(d.Reason))
	b = appendText(b, d.Note)
	b = appendTime(b, d.UpdatedAt)
	return binary.AppendUvarint(b, d.Sequence)
}

func readDelivery(r *reader) *delivery {
	d := new(delivery)
	d.Agency, d.Home = r.agency(), r.relay()
	d.Place, d.Transport = envelope.Place(r.byte()), exchangev1.TransportStatus(r.byte())
	d.Spoken, d.Reason = r.bool(), exchangev1.ErrorReason(r.number())
	d.Note, d.UpdatedAt, d.Sequence = r.text(), r.time(), r.number()
	return d
}

func appendLocation(b []byte, l location) []byte {
	b = binary.AppendUvarint(b, l.Segment)
	b = binary.AppendUvarint(b, uint64(l.Offset))
	b = binary.AppendUvarint(b, uint64(l.Skip))
	b = binary.AppendUvarint(b, uint64(l.Length))
	return binary.AppendUvarint(b, uint64(l.Record))
}

func readLocation(r *reader) location {
	var l location
	l.Segment, l.Offset = r.number(), int64(r.number())
	l.Skip, l.Length, l.Record = uint32(r.number()), uint32(r.number()), uint32(r.number())
	return l
}

func encodeLocation(l location) []byte { return appendLocation([]byte{layoutVersion}, l) }

func decodeLocation(b []byte) (location, error) {
	r := versioned(b)
	l := readLocation(r)
	return l, r.done("location of a chunk")
}

// versioned reads the version of a layout.
func versioned(b []byte) *reader {
	r := &reader{b: b}
	if r.byte() != layoutVersion {
		r.fail()
	}
	return r
}

func encodeDelivery(d *delivery) []byte { return appendDelivery([]byte{layoutVersion}, d) }

func decodeDelivery(b []byte) (*delivery, error) {
	r := versioned(b)
	d := readDelivery(r)
	return d, r.done("delivery")
}

func encodeState(st *state) []byte {
	return appendState(append(make([]byte, 0, 256), layoutVersion), st)
}

func appendState(b []byte, st *state) []byte {
	b = binary.AppendUvarint(b, st.Born)
	b = binary.AppendUvarint(b, st.Revision)
	b = appendTime(b, st.CommittedAt)
	b = appendBool(b, st.FromSender)
	b = binary.AppendUvarint(append(b, byte(st.Lane)), st.Size)
	b = appendTime(appendTime(b, st.NotBefore), st.ExpiresAt)
	b = appendBool(b, st.Report)
	b = appendText(appendText(b, st.Sender), st.Ingress)
	b = appendBool(append(appendBool(b, st.TookOver), st.claimed()), st.Held)
	b = binary.AppendUvarint(b, uint64(st.Count))
	b = binary.AppendUvarint(b, uint64(st.Unsettled))
	b = binary.AppendUvarint(b, uint64(st.Open))
	b = appendTime(binary.AppendUvarint(b, uint64(st.Failed)), st.FailedAt)
	b = binary.AppendUvarint(b, st.Alone)
	b = appendBool(b, st.Paged)
	b = appendList(b, st.Deliveries, appendDelivery)
	b = appendList(b, st.Duties, func(b []byte, d duty) []byte {
		return binary.AppendUvarint(appendText(b, d.Relay), d.Sequence)
	})
	b = appendRelays(b, st.Holders)
	b = appendRelays(b, st.Keepers)
	b = binary.AppendUvarint(b, uint64(st.Bare))
	b = appendBool(b, st.Whole != nil)
	if st.Whole != nil {
		b = appendLocation(b, *st.Whole)
	}
	b = binary.AppendUvarint(b, st.Generation)
	b = binary.AppendUvarint(b, st.Last)
	b = appendTime(b, st.ReleasedAt)
	b = appendList(b, st.Shares, func(b []byte, s share) []byte {
		return binary.AppendUvarint(binary.AppendUvarint(b, s.Segment), uint64(s.Bytes))
	})
	b = appendList(b, st.Origins, binary.AppendUvarint)
	b = appendTime(b, st.DueAt)
	return append(b, byte(st.Due))
}

func decodeState(b []byte) (*state, error) {
	r := versioned(b)
	st := readState(r)
	return st, r.done("state of an envelope")
}

// What an envelope has claimed, in one byte: 0 and 1 are what earlier releases wrote
// there of Keyed alone.
const (
	claimKeyed byte = 1 << iota
	claimNumbered
)

func (st *state) claimed() (b byte) {
	if st.Keyed {
		b |= claimKeyed
	}
	if st.Numbered {
		b |= claimNumbered
	}
	return b
}

func readState(r *reader) *state {
	st := &state{
		Born:        r.number(),
		Revision:    r.number(),
		CommittedAt: r.time(),
		FromSender:  r.bool(),
		Lane:        envelope.Lane(r.byte()),
		Size:        r.number(),
		NotBefore:   r.time(),
		ExpiresAt:   r.time(),
		Report:      r.bool(),
		Sender:      r.agency(),
		Ingress:     r.relay(),
		TookOver:    r.bool(),
	}
	claimed := r.byte()
	st.Keyed, st.Numbered = claimed&claimKeyed != 0, claimed&claimNumbered != 0
	st.Held = r.bool()
	st.Count, st.Unsettled, st.Open = uint32(r.number()), uint32(r.number()), uint32(r.number())
	st.Failed, st.FailedAt = uint32(r.number()), r.time()
	st.Alone = r.number()
	st.Paged = r.bool()
	st.Deliveries = readList(r, readDelivery)
	st.Duties = readList(r, func(r *reader) duty {
		return duty{r.relay(), r.number()}
	})
	st.Holders, st.Keepers = readRelays(r), readRelays(r)
	st.Bare = uint32(r.number())
	if r.bool() {
		whole := readLocation(r)
		st.Whole = &whole
	}
	st.Generation = r.number()
	st.Last = r.number()
	st.ReleasedAt = r.time()
	st.Shares = readList(r, func(r *reader) share {
		return share{r.number(), int64(r.number())}
	})
	st.Origins = readList(r, (*reader).number)
	st.DueAt = r.time()
	st.Due = index.Purpose(r.byte())
	return st
}
