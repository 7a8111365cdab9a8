package spool

import (
	"encoding/binary"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

type rerouted struct {
	envelope.Reroute
	// Sequence is that of the new queue and inbox entries.
	Sequence uint64
	Now      time.Time
	// Keyed: the sender's document id is claimed with the inboxes.
	Keyed bool
}

func (*rerouted) kind() uint8            { return typeRerouted }
func (r *rerouted) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *rerouted) appendStatement(b []byte) []byte {
	b = appendCodes(appendText(append(b, r.ID[:]...), r.From), r.Agencies)
	b = appendCodes(appendOnward(b, r.Onward), r.Inboxes)
	b = appendTime(binary.AppendUvarint(b, r.Sequence), r.At)
	return appendBool(appendOnward(appendTime(b, r.Now), r.Elsewhere), r.Keyed)
}

func (r *rerouted) readStatement(in *reader) {
	r.ID, r.From, r.Agencies = in.id(), in.relay(), readAgencies(in)
	r.Onward, r.Inboxes = readOnward(in), readAgencies(in)
	r.Sequence, r.At, r.Now = in.number(), in.time(), in.time()
	r.Elsewhere, r.Keyed = readOnward(in), in.bool()
}

type deferred struct {
	ID          envelope.ID
	Destination routing.RelayID
	Tries       uint32
	Next        time.Time
	LastError   string
	Now         time.Time
}

func (*deferred) kind() uint8            { return typeDeferred }
func (r *deferred) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *deferred) appendStatement(b []byte) []byte {
	b = appendText(append(b, r.ID[:]...), r.Destination)
	b = appendTime(binary.AppendUvarint(b, uint64(r.Tries)), r.Next)
	return appendTime(appendText(b, r.LastError), r.Now)
}

func (r *deferred) readStatement(in *reader) {
	r.ID, r.Destination, r.Tries = in.id(), in.relay(), uint32(in.number())
	r.Next, r.LastError, r.Now = in.time(), in.text(), in.time()
}

// gone says that an envelope born before a sequence was released, and which
// segments held records that would bring it back if the index were rebuilt from
// a journal without this statement.
type gone struct {
	ID      envelope.ID
	Before  uint64
	Origins []uint64
}

// released is both typeReleased and typeBuried.
type released struct {
	Now   time.Time
	Items []gone
	again bool
}

func (r *released) kind() uint8 {
	if r.again {
		return typeBuried
	}
	return typeReleased
}

func (r *released) about() []envelope.ID {
	ids := make([]envelope.ID, 0, len(r.Items))
	for _, g := range r.Items {
		ids = append(ids, g.ID)
	}
	return ids
}

func (r *released) appendStatement(b []byte) []byte {
	return appendList(appendTime(b, r.Now), r.Items, func(b []byte, g gone) []byte {
		b = binary.AppendUvarint(append(b, g.ID[:]...), g.Before)
		return appendList(b, g.Origins, binary.AppendUvarint)
	})
}

func (r *released) readStatement(in *reader) {
	r.Now = in.time()
	r.Items = readList(in, func(in *reader) gone {
		return gone{in.id(), in.number(), readList(in, (*reader).number)}
	})
}

// queueState is one queue entry of an envelope in a state record.
type queueState struct {
	Duty  duty
	Entry *queued
}

// stateRecord stands in place of all earlier records about an envelope, apart
// from the chunks of its content.
type stateRecord struct {
	content
	Header *envelope.Custody
	State  *state
	// Deliveries are those of a paged state.
	Deliveries []*delivery
	Queues     []queueState
}

func (*stateRecord) kind() uint8            { return typeState }
func (r *stateRecord) about() []envelope.ID { return []envelope.ID{r.Header.ID} }

func (r *stateRecord) appendStatement(b []byte) []byte {
	b = appendState(appendHeader(b, r.Header), r.State)
	b = appendList(b, r.Deliveries, appendDelivery)
	return appendList(b, r.Queues, func(b []byte, q queueState) []byte {
		b = binary.AppendUvarint(appendText(b, q.Duty.Relay), q.Duty.Sequence)
		return appendQueued(b, q.Entry)
	})
}

func (r *stateRecord) readStatement(in *reader) {
	r.Header, r.State = readHeader(in), readState(in)
	r.Deliveries = readList(in, readDelivery)
	r.Queues = readList(in, func(in *reader) queueState {
		return queueState{duty{in.relay(), in.number()}, readQueued(in)}
	})
}

var (
	_ carrier = (*chunk)(nil)
	_ carrier = (*moved)(nil)
	_ carrier = (*commit)(nil)
	_ carrier = (*stateRecord)(nil)
)
