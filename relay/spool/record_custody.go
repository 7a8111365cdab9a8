package spool

import (
	"encoding/binary"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// The records of facts that change who answers for an envelope.

type copyWanted struct {
	envelope.Copy
	// Sequence is that of the new queue entry.
	Sequence uint64
	Now      time.Time
}

func (*copyWanted) kind() uint8            { return typeCopy }
func (r *copyWanted) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *copyWanted) appendStatement(b []byte) []byte {
	b = appendRelays(appendText(append(b, r.ID[:]...), r.Relay), r.Instead)
	b = appendTime(binary.AppendUvarint(b, r.Sequence), r.At)
	return appendTime(b, r.Now)
}

func (r *copyWanted) readStatement(in *reader) {
	r.ID, r.Relay, r.Instead = in.id(), in.relay(), readRelays(in)
	r.Sequence, r.At, r.Now = in.number(), in.time(), in.time()
}

type forgotten struct {
	ID     envelope.ID
	Holder routing.RelayID
	// Sequence is its place in the table sole, if nobody else is left.
	Sequence uint64
	Now      time.Time
}

func (*forgotten) kind() uint8            { return typeForgotten }
func (r *forgotten) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *forgotten) appendStatement(b []byte) []byte {
	b = appendText(append(b, r.ID[:]...), r.Holder)
	return appendTime(binary.AppendUvarint(b, r.Sequence), r.Now)
}

func (r *forgotten) readStatement(in *reader) {
	r.ID, r.Holder, r.Sequence, r.Now = in.id(), in.relay(), in.number(), in.time()
}

type takenOver struct {
	envelope.TakeOver
	// Sequence is that of the new entries.
	Sequence uint64
	Now      time.Time
	// Keyed: the sender's document id is claimed.
	Keyed bool
}

func (*takenOver) kind() uint8            { return typeTakenOver }
func (r *takenOver) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *takenOver) appendStatement(b []byte) []byte {
	b = appendOnward(appendCodes(append(b, r.ID[:]...), r.Inboxes), r.Onward)
	b = appendTime(binary.AppendUvarint(b, r.Sequence), r.At)
	return appendBool(appendTime(b, r.Now), r.Keyed)
}

func (r *takenOver) readStatement(in *reader) {
	r.ID, r.Inboxes, r.Onward = in.id(), readAgencies(in), readOnward(in)
	r.Sequence, r.At, r.Now, r.Keyed = in.number(), in.time(), in.time(), in.bool()
}

type holding struct {
	envelope.Hold
	Now time.Time
}

func (*holding) kind() uint8            { return typeHeld }
func (r *holding) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *holding) appendStatement(b []byte) []byte {
	b = appendText(appendBool(append(b, r.ID[:]...), r.Held), r.Note)
	return appendTime(appendTime(b, r.At), r.Now)
}

func (r *holding) readStatement(in *reader) {
	r.ID, r.Held, r.Note, r.At, r.Now = in.id(), in.bool(), in.text(), in.time(), in.time()
}

type revived struct {
	envelope.Revive
	// Sequence is that of the new entries.
	Sequence uint64
	Now      time.Time
	// Keyed: the sender's document id is claimed with the inboxes.
	Keyed bool
}

func (*revived) kind() uint8            { return typeRevived }
func (r *revived) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *revived) appendStatement(b []byte) []byte {
	b = appendOnward(appendCodes(append(b, r.ID[:]...), r.Inboxes), r.Onward)
	b = appendText(appendTime(b, r.ExpiresAt), r.Note)
	b = appendTime(binary.AppendUvarint(b, r.Sequence), r.At)
	return appendBool(appendTime(b, r.Now), r.Keyed)
}

func (r *revived) readStatement(in *reader) {
	r.ID, r.Inboxes, r.Onward = in.id(), readAgencies(in), readOnward(in)
	r.ExpiresAt, r.Note = in.time(), in.text()
	r.Sequence, r.At, r.Now, r.Keyed = in.number(), in.time(), in.time(), in.bool()
}
