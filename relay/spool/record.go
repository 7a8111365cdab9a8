package spool

import (
	"encoding/binary"
	"fmt"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/journal"
	"github.com/truclienthong/truc/routing"
)

// The records of the journal. Every payload is
//
//	version 1 | length of the statement 4 (big-endian) | statement | content
//
// and a statement is the fields of its type in the order of appendStatement,
// written with the primitives of codec.go. Only chunk, commit, moved and state
// have content. Types and fields are append-only; another version means that
// older programs refuse to start rather than guess.
//
// A record changes one envelope, except settled, which also creates a report,
// and released and buried, which list many. What a record does depends on
// nothing but the records about the same envelope, so that leaving out
// envelopes that are gone does not change what becomes of the others.
const (
	typeBegin     uint8 = 1  // a transfer opens
	typeChunk     uint8 = 2  // bytes of a part
	typeCommit    uint8 = 3  // an envelope exists, with its duties
	typeExtend    uint8 = 4  // an envelope that is here gets further duties
	typeHandedOn  uint8 = 5  // the next hop took custody
	typeSettled   uint8 = 6  // a delivery ended; its report is in custody
	typeRerouted  uint8 = 7  // recipients move from one duty to others
	typeDeferred  uint8 = 8  // a try to hand on failed
	typeReleased  uint8 = 9  // content let go
	typeAbandoned uint8 = 10 // a transfer is given up
	typeMoved     uint8 = 11 // bytes of a part, written again elsewhere
	typeState     uint8 = 12 // all that is known of an envelope, in place of earlier records
	typeBuried    uint8 = 13 // released envelopes, said again before their release is recycled
	typeHeld      uint8 = 14 // an operator holds the envelope, or lets it go on
	typeRevived   uint8 = 15 // deliveries that were given up are duties again
	typeCopy      uint8 = 16 // a second copy is to be made
	typeTakenOver uint8 = 17 // this relay remembers the envelope in place of its ingress
	typeForgotten uint8 = 18 // another relay no longer counts as a holder
	typeSaid      uint8 = 19 // an envelope says something of another one
	typeLife      uint8 = 20 // all that was said at one recipient, in place of earlier records
)

const recordVersion = 2

// statementStart is where the statement starts in a payload.
const statementStart = 5

// record is one of the types below.
type record interface {
	kind() uint8
	appendStatement(b []byte) []byte
	readStatement(r *reader)
	// about lists the envelopes that the record may change.
	about() []envelope.ID
	// apply changes the index; step has the rules.
	apply(s *step) error
}

// carrier is a record with content.
type carrier interface {
	record
	carried() *content
}

// content is the bytes that a record carries behind its statement.
type content struct {
	data [][]byte
	// skip is where the content starts in the payload.
	skip, length uint32
}

func (c *content) carried() *content { return c }

// entryOf lays a record out for the journal.
func entryOf(r record) journal.Entry {
	b := make([]byte, statementStart, 128)
	b = r.appendStatement(b)
	b[0] = recordVersion
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-statementStart))
	e := journal.Entry{Type: r.kind(), Payload: [][]byte{b}}
	if c, ok := r.(carrier); ok {
		held := c.carried()
		held.skip, held.length = uint32(len(b)), 0
		for _, d := range held.data {
			held.length += uint32(len(d))
			e.Payload = append(e.Payload, d)
		}
	}
	return e
}

// sizeOf is what an entry takes on disk; it equals journal.Record.Size.
func sizeOf(e journal.Entry) int64 {
	n := 0
	for _, p := range e.Payload {
		n += len(p)
	}
	return 32 + int64(n+7)&^7
}

func newRecord(kind uint8) record {
	switch kind {
	case typeBegin:
		return new(begin)
	case typeChunk:
		return new(chunk)
	case typeCommit, typeExtend:
		return new(commit)
	case typeHandedOn:
		return new(handedOnRecord)
	case typeSettled:
		return new(settlement)
	case typeRerouted:
		return new(rerouted)
	case typeDeferred:
		return new(deferred)
	case typeReleased, typeBuried:
		return &released{again: kind == typeBuried}
	case typeAbandoned:
		return new(abandoned)
	case typeMoved:
		return new(moved)
	case typeState:
		return new(stateRecord)
	case typeHeld:
		return new(holding)
	case typeRevived:
		return new(revived)
	case typeCopy:
		return new(copyWanted)
	case typeTakenOver:
		return new(takenOver)
	case typeForgotten:
		return new(forgotten)
	case typeSaid:
		return new(said)
	case typeLife:
		return new(lifeRecord)
	case typeNoted:
		return new(noted)
	case typeLost:
		return new(lost)
	case typeIndexed:
		return new(indexed)
	}
	return nil
}

// recordOf reads a record; nothing in it refers to the payload.
func recordOf(kind uint8, payload []byte) (record, error) {
	r := newRecord(kind)
	if r == nil {
		return nil, fmt.Errorf("record of type %d: %w", kind, errFormat)
	}
	if len(payload) < statementStart {
		return nil, fmt.Errorf("record of type %d: %w", kind, errFormat)
	}
	if payload[0] != recordVersion {
		return nil, fmt.Errorf("record of type %d has version %d, this program reads and writes version %d: the spool belongs to another release",
			kind, payload[0], recordVersion)
	}
	length := binary.BigEndian.Uint32(payload[1:])
	if uint64(length) > uint64(len(payload)-statementStart) {
		return nil, fmt.Errorf("record of type %d: %w", kind, errFormat)
	}
	end := statementStart + int(length)
	in := &reader{b: payload[statementStart:end]}
	r.readStatement(in)
	if err := in.done(fmt.Sprintf("record of type %d", kind)); err != nil {
		return nil, err
	}
	c, ok := r.(carrier)
	switch {
	case ok:
		c.carried().skip, c.carried().length = uint32(end), uint32(len(payload)-end)
	case end != len(payload):
		return nil, fmt.Errorf("record of type %d: content where none belongs: %w", kind, errFormat)
	}
	return r, nil
}

type begin struct {
	ID         envelope.ID
	Generation uint64
	At         time.Time
	// Parts is the number of parts.
	Parts int
}

func (*begin) kind() uint8            { return typeBegin }
func (r *begin) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *begin) appendStatement(b []byte) []byte {
	b = binary.AppendUvarint(append(b, r.ID[:]...), r.Generation)
	return binary.AppendUvarint(appendTime(b, r.At), uint64(r.Parts))
}

func (r *begin) readStatement(in *reader) {
	r.ID, r.Generation, r.At, r.Parts = in.id(), in.number(), in.time(), int(in.number())
}

type chunk struct {
	content
	ID         envelope.ID
	Generation uint64
	Part       int
	Offset     uint64
	At         time.Time
}

func (*chunk) kind() uint8            { return typeChunk }
func (r *chunk) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *chunk) appendStatement(b []byte) []byte {
	b = binary.AppendUvarint(append(b, r.ID[:]...), r.Generation)
	b = binary.AppendUvarint(b, uint64(r.Part))
	return appendTime(binary.AppendUvarint(b, r.Offset), r.At)
}

func (r *chunk) readStatement(in *reader) {
	r.ID, r.Generation, r.Part, r.Offset, r.At = in.id(), in.number(), int(in.number()), in.number(), in.time()
}

type moved struct {
	chunk
	// From is where the bytes were.
	From journal.Position
}

func (*moved) kind() uint8 { return typeMoved }

func (r *moved) appendStatement(b []byte) []byte {
	b = r.chunk.appendStatement(b)
	b = binary.AppendUvarint(b, r.From.Segment)
	return binary.AppendUvarint(b, uint64(r.From.Offset))
}

func (r *moved) readStatement(in *reader) {
	r.chunk.readStatement(in)
	r.From = journal.Position{Segment: in.number(), Offset: int64(in.number())}
}

type abandoned struct {
	ID         envelope.ID
	Generation uint64
}

func (*abandoned) kind() uint8            { return typeAbandoned }
func (r *abandoned) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *abandoned) appendStatement(b []byte) []byte {
	return binary.AppendUvarint(append(b, r.ID[:]...), r.Generation)
}

func (r *abandoned) readStatement(in *reader) { r.ID, r.Generation = in.id(), in.number() }

// mode says where the content of a commit is.
type mode byte

const (
	// contentHere: the envelope has its content already.
	contentHere mode = iota
	// contentInline: all of it follows the statement.
	contentInline
	// contentChunks: in the chunks of the transfer.
	contentChunks
)

// commit is both typeCommit and typeExtend.
type commit struct {
	content
	Custody *envelope.Custody
	// Sequence is that of all its queue and inbox entries.
	Sequence uint64
	// Born is that of the envelope it adds to, 0 if it makes a new one.
	Born       uint64
	At         time.Time
	Mode       mode
	Generation uint64
	// Prior is what was known of an envelope that was released and comes again:
	// the records that said so may be recycled.
	Prior *stateRecord
}

func (r *commit) kind() uint8 {
	if r.Mode == contentHere && r.Born > 0 {
		return typeExtend
	}
	return typeCommit
}

func (r *commit) about() []envelope.ID { return []envelope.ID{r.Custody.ID} }

func (r *commit) appendStatement(b []byte) []byte {
	b = appendCustody(b, r.Custody)
	b = binary.AppendUvarint(b, r.Sequence)
	b = binary.AppendUvarint(b, r.Born)
	b = append(appendTime(b, r.At), byte(r.Mode))
	b = binary.AppendUvarint(b, r.Generation)
	b = appendBool(b, r.Prior != nil)
	if r.Prior != nil {
		b = r.Prior.appendStatement(b)
	}
	return b
}

func (r *commit) readStatement(in *reader) {
	r.Custody = readCustody(in)
	r.Sequence, r.Born, r.At = in.number(), in.number(), in.time()
	r.Mode, r.Generation = mode(in.byte()), in.number()
	if in.bool() {
		r.Prior = new(stateRecord)
		r.Prior.readStatement(in)
	}
}

type handedOnRecord struct {
	envelope.HandedOn
	Now time.Time
}

func (*handedOnRecord) kind() uint8            { return typeHandedOn }
func (r *handedOnRecord) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *handedOnRecord) appendStatement(b []byte) []byte {
	b = appendText(append(b, r.ID[:]...), r.Destination)
	b = appendCodes(appendText(b, r.Peer), r.Agencies)
	holding := holdsIts
	switch {
	case r.Released:
		holding = holdsNothing
	case r.Keeps:
		holding = holdsAll
	}
	return append(appendTime(appendTime(b, r.At), r.Now), holding)
}

// What the peer of a hand-on has from then on: the envelope for its own
// recipients, for all who wait here too, or not at all.
const (
	holdsIts byte = iota
	holdsAll
	holdsNothing
)

func (r *handedOnRecord) readStatement(in *reader) {
	r.ID, r.Destination, r.Peer, r.Agencies = in.id(), in.relay(), in.relay(), readAgencies(in)
	r.At, r.Now = in.time(), in.time()
	holding := in.byte()
	r.Keeps, r.Released = holding == holdsAll, holding == holdsNothing
}

// settlement carries the report's custody inside, so that the delivery and the
// duty to tell of it change in one step.
type settlement struct {
	ID        envelope.ID
	Agency    routing.AgencyCode
	Transport exchangev1.TransportStatus
	Reason    exchangev1.ErrorReason
	Note      string
	At, Now   time.Time
	Report    *commit

	// effective is set by apply.
	effective bool
}

func (*settlement) kind() uint8 { return typeSettled }

func (r *settlement) about() []envelope.ID {
	if r.Report != nil {
		return []envelope.ID{r.ID, r.Report.Custody.ID}
	}
	return []envelope.ID{r.ID}
}

func (r *settlement) appendStatement(b []byte) []byte {
	b = appendText(append(b, r.ID[:]...), r.Agency)
	b = append(b, byte(r.Transport))
	b = binary.AppendUvarint(b, uint64(r.Reason))
	b = appendTime(appendTime(appendText(b, r.Note), r.At), r.Now)
	b = appendBool(b, r.Report != nil)
	if r.Report != nil {
		b = r.Report.appendStatement(b)
	}
	return b
}

func (r *settlement) readStatement(in *reader) {
	r.ID, r.Agency, r.Transport = in.id(), in.agency(), exchangev1.TransportStatus(in.byte())
	r.Reason, r.Note = exchangev1.ErrorReason(in.number()), in.text()
	r.At, r.Now = in.time(), in.time()
	if in.bool() {
		r.Report = new(commit)
		r.Report.readStatement(in)
	}
}
