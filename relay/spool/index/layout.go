package index

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// The tables. A key begins with the number of its table; numbers in keys are
// big-endian and of fixed width, so that keys sort like what they stand for. A
// code of variable length has its length before it as one byte, so that no code
// is the prefix of another.
//
//	table     key after the table's byte                  value
//	meta      item 1                                       see the items
//	envelope  id 16                                        what changes: state, small deliveries
//	header    id 16, page 2                                what does not: header and custody
//	delivery  id 16, length 1, agency                      one recipient, where there are many
//	chunk     id 16, generation 8, part 2, offset 8        where these bytes lie in the journal
//	queue     length 1, relay, rank 1, sequence 8          an envelope waiting to be handed on
//	inbox     length 1, agency, rank 1, sequence 8         an envelope waiting to be confirmed
//	document  SHA-256 of sender and document id 32         the envelope's id
//	event     id 16, number 8                              one line of the trace
//	expiry    nanoseconds since 1970 8, purpose 1, id 16   empty
//	segment   number 8                                     bytes alive, origins it must outlive
//	transfer  id 16                                        a transfer in progress
//	length    length 1, relay                              entries in that queue
//	away      length 1, holder, id 16                      empty; accepted here, not settled, the holder has it
//	origin    length 1, ingress, id 16                     empty; in custody or kept here for another ingress
//	sole      sequence 8, id 16                            accepted here, not settled, nobody else has it
//	dead      nanoseconds since 1970 8, id 16              empty; given up for some recipient, can be revived
//	held      id 16                                        empty; an operator holds it
//	usage     length 1, sender                             envelopes accepted here and not settled, their bytes
//	waiting   length 1, agency                             entries in that inbox
//	chain     number modulo chainLength 4                  number 8: the last transactions (chain.go)
//	quarantine id 16                                       since when; its content is damaged here
//	unregistered id 16                                     empty; released, and not in the register yet
//	life      id 16, length 1, agency                      what was said at that recipient
//	unregistered life id 16, length 1, agency              empty; the register does not have all of that life
//	undelivered lane 1, nanoseconds since 1970 8, id 16    empty; accepted here, not settled, its target runs since then
//	number    SHA-256 of year, issuer, number, notation 32 how many accepted here have it, and the first
//
// An envelope is in away, origin, sole, dead, held and undelivered, and counts in usage,
// because its state says so; package spool keeps all of them in one function.
// rank is the place of the lane in envelope.LaneOrder. The values are laid out
// in package spool, beside what they hold.
const (
	tableMeta byte = iota
	tableEnvelope
	tableHeader
	tableDelivery
	tableChunk
	tableQueue
	tableInbox
	tableDocument
	tableEvent
	tableExpiry
	tableSegment
	tableTransfer
	tableLength
	tableAway
	tableOrigin
	tableSole
	tableDead
	tableHeld
	tableUsage
	tableWaiting
)

// Items of the table meta.
const (
	itemFormat   byte = iota // version 4
	itemPosition             // the last record applied: segment 8, offset 8
	itemSequence             // the next sequence to be given out: 8
	itemCounters             // the relay's counters
	itemRegister             // the identity of the register that has, but for unregistered, what was released: 16
)

// Purpose says why an envelope stands in the table expiry.
type Purpose byte

// Purposes; the numbers stand in keys.
const (
	// Release: the content may go.
	Release Purpose = 1
	// Forget: everything about it may go.
	Forget Purpose = 2
	// Expire: the mesh gives it up.
	Expire Purpose = 3
)

// FormatKey holds the version of the layout; it is the same in every version.
func FormatKey() []byte { return []byte{tableMeta, itemFormat} }

// PositionKey holds the position of the last record that is reflected.
func PositionKey() []byte { return []byte{tableMeta, itemPosition} }

// SequenceKey holds the next sequence.
func SequenceKey() []byte { return []byte{tableMeta, itemSequence} }

// CountersKey holds the counters.
func CountersKey() []byte { return []byte{tableMeta, itemCounters} }

// RegisterKey holds the identity of the register.
func RegisterKey() []byte { return []byte{tableMeta, itemRegister} }

func idKey(table byte, id envelope.ID, room int) []byte {
	key := make([]byte, 0, 1+len(id)+room)
	return append(append(key, table), id[:]...)
}

func codeKey(table byte, code string, room int) []byte {
	key := make([]byte, 0, 2+len(code)+room)
	return append(append(key, table, byte(len(code))), code...)
}

// EnvelopeKey holds the state of an envelope.
func EnvelopeKey(id envelope.ID) []byte { return idKey(tableEnvelope, id, 0) }

// Envelopes is the prefix of all envelopes.
func Envelopes() []byte { return []byte{tableEnvelope} }

// HeaderKey holds one page of an envelope's header and custody.
func HeaderKey(id envelope.ID, page int) []byte {
	return binary.BigEndian.AppendUint16(idKey(tableHeader, id, 2), uint16(page))
}

// Deliveries is the prefix of an envelope's deliveries.
func Deliveries(id envelope.ID) []byte { return idKey(tableDelivery, id, 0) }

// DeliveryKey holds one delivery.
func DeliveryKey(id envelope.ID, agency routing.AgencyCode) []byte {
	key := append(idKey(tableDelivery, id, 1+len(agency)), byte(len(agency)))
	return append(key, agency...)
}

// Chunks is the prefix of the chunks of one transfer.
func Chunks(id envelope.ID, generation uint64) []byte {
	return binary.BigEndian.AppendUint64(idKey(tableChunk, id, 18), generation)
}

// AllChunks is the prefix of all chunks.
func AllChunks() []byte { return []byte{tableChunk} }

// ParseChunkOwner returns the envelope and the transfer of a chunk.
func ParseChunkOwner(key []byte) (id envelope.ID, generation uint64) {
	return ParseID(key), binary.BigEndian.Uint64(key[17:])
}

// ChunkKey holds the location of the bytes of a part from offset on.
func ChunkKey(id envelope.ID, generation uint64, part int, offset uint64) []byte {
	key := binary.BigEndian.AppendUint16(Chunks(id, generation), uint16(part))
	return binary.BigEndian.AppendUint64(key, offset)
}

// PartChunks is the prefix of the chunks of one part.
func PartChunks(id envelope.ID, generation uint64, part int) []byte {
	return binary.BigEndian.AppendUint16(Chunks(id, generation), uint16(part))
}

// ParseChunkKey returns part and offset of a chunk.
func ParseChunkKey(key []byte) (part int, offset uint64) {
	tail := key[1+16+8:]
	return int(binary.BigEndian.Uint16(tail)), binary.BigEndian.Uint64(tail[2:])
}

// rankOf gives the place of each lane in envelope.LaneOrder.
var rankOf = func() (ranks [len(envelope.LaneOrder)]byte) {
	for rank, lane := range envelope.LaneOrder {
		ranks[lane] = byte(rank)
	}
	return ranks
}()

func appendPlace(key []byte, lane envelope.Lane, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(append(key, rankOf[lane]), sequence)
}

// Queues is the prefix of all queues.
func Queues() []byte { return []byte{tableQueue} }

// Queue is the prefix of the queue of one destination.
func Queue(relay routing.RelayID) []byte { return codeKey(tableQueue, string(relay), 9) }

// QueueKey holds an envelope waiting for one destination.
func QueueKey(relay routing.RelayID, lane envelope.Lane, sequence uint64) []byte {
	return appendPlace(Queue(relay), lane, sequence)
}

// Inboxes is the prefix of all inboxes.
func Inboxes() []byte { return []byte{tableInbox} }

// Inbox is the prefix of the inbox of one agency.
func Inbox(agency routing.AgencyCode) []byte { return codeKey(tableInbox, string(agency), 9) }

// InboxKey holds an envelope waiting for one recipient.
func InboxKey(agency routing.AgencyCode, lane envelope.Lane, sequence uint64) []byte {
	return appendPlace(Inbox(agency), lane, sequence)
}

// ParsePlace returns code, lane and sequence of a queue or inbox key.
func ParsePlace(key []byte) (code string, lane envelope.Lane, sequence uint64) {
	length := int(key[1])
	tail := key[2+length:]
	return string(key[2 : 2+length]), envelope.LaneOrder[tail[0]], binary.BigEndian.Uint64(tail[1:])
}

// DocumentKey holds the id of the envelope that a sender gave this document id.
func DocumentKey(sender routing.AgencyCode, documentID string) []byte {
	h := sha256.New()
	h.Write([]byte{byte(len(sender))})
	h.Write([]byte(sender))
	h.Write([]byte(documentID))
	return h.Sum([]byte{tableDocument})
}

// Documents is the prefix of all dedupe keys.
func Documents() []byte { return []byte{tableDocument} }

// Events is the prefix of an envelope's trace.
func Events(id envelope.ID) []byte { return idKey(tableEvent, id, 0) }

// EventKey holds one line of the trace.
func EventKey(id envelope.ID, number uint64) []byte {
	return binary.BigEndian.AppendUint64(idKey(tableEvent, id, 8), number)
}

// Expiries is the prefix of everything that waits for its time.
func Expiries() []byte { return []byte{tableExpiry} }

// ExpiryTime is the beginning of the keys at or after an instant.
func ExpiryTime(at time.Time) []byte { return timeKey(tableExpiry, at) }

func timeKey(table byte, at time.Time) []byte {
	key := make([]byte, 0, 1+8+1+16)
	return binary.BigEndian.AppendUint64(append(key, table), uint64(max(at.UnixNano(), 0)))
}

func parseTime(key []byte) time.Time {
	return time.Unix(0, int64(min(binary.BigEndian.Uint64(key[1:]), math.MaxInt64)))
}

// ExpiryKey says that something is due for an envelope.
func ExpiryKey(at time.Time, purpose Purpose, id envelope.ID) []byte {
	return append(append(ExpiryTime(at), byte(purpose)), id[:]...)
}

// ParseExpiryKey returns when what is due for which envelope.
func ParseExpiryKey(key []byte) (at time.Time, purpose Purpose, id envelope.ID) {
	return parseTime(key), Purpose(key[9]), envelope.ID(key[10:26])
}

// Segments is the prefix of all segments.
func Segments() []byte { return []byte{tableSegment} }

// SegmentKey holds what is known of one segment of the journal.
func SegmentKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{tableSegment}, number)
}

// ParseSegmentKey returns the number of a segment.
func ParseSegmentKey(key []byte) uint64 { return binary.BigEndian.Uint64(key[1:]) }

// TransferKey holds a transfer in progress.
func TransferKey(id envelope.ID) []byte { return idKey(tableTransfer, id, 0) }

// Transfers is the prefix of all transfers in progress.
func Transfers() []byte { return []byte{tableTransfer} }

// ParseID returns the id in a key whose first column is one.
func ParseID(key []byte) envelope.ID { return envelope.ID(key[1:17]) }

// LengthKey holds the number of entries of a queue.
func LengthKey(relay routing.RelayID) []byte { return codeKey(tableLength, string(relay), 0) }

// Lengths is the prefix of the lengths of all queues.
func Lengths() []byte { return []byte{tableLength} }

// ParseLengthKey returns the relay whose queue it is.
func ParseLengthKey(key []byte) routing.RelayID { return routing.RelayID(key[2:]) }
