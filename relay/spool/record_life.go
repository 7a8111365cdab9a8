package spool

import (
	"encoding/binary"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

// The records of what was said of documents.

type said struct {
	envelope.Said
	Now time.Time
}

func (*said) kind() uint8            { return typeSaid }
func (r *said) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *said) appendStatement(b []byte) []byte {
	b = append(append(b, r.ID[:]...), r.Source[:]...)
	return appendTime(appendStatement(appendCodes(b, r.Agencies), r.Statement), r.Now)
}

func (r *said) readStatement(in *reader) {
	r.ID, r.Source, r.Agencies = in.id(), in.id(), readAgencies(in)
	r.Statement, r.Now = readStatement(in), in.time()
}

// lifeRecord is all that was said at one recipient. It stands in the journal in
// place of the records that said it, and in the register.
type lifeRecord struct {
	ID     envelope.ID
	Agency routing.AgencyCode
	Life   *lifecycle.Life
	// Revision is that of the envelope, Until when it is forgotten; for the
	// register.
	Revision uint64
	Until    time.Time
}

func (*lifeRecord) kind() uint8            { return typeLife }
func (r *lifeRecord) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *lifeRecord) appendStatement(b []byte) []byte {
	b = appendLife(appendText(append(b, r.ID[:]...), r.Agency), r.Life)
	return appendTime(binary.AppendUvarint(b, r.Revision), r.Until)
}

func (r *lifeRecord) readStatement(in *reader) {
	r.ID, r.Agency, r.Life = in.id(), in.agency(), readLife(in)
	r.Revision, r.Until = in.number(), in.time()
}

func appendStatement(b []byte, s lifecycle.Statement) []byte {
	b = appendText(append(b, byte(s.Act), byte(s.By)), s.Code)
	return appendText(appendTime(appendTime(b, s.At), s.Heard), s.Note)
}

func readStatement(in *reader) lifecycle.Statement {
	return lifecycle.Statement{
		Act: lifecycle.Act(in.byte()), By: lifecycle.Party(in.byte()), Code: in.text(),
		At: in.time(), Heard: in.time(), Note: in.text(),
	}
}

func appendLife(b []byte, l *lifecycle.Life) []byte {
	s := l.Base
	b = append(b, byte(s.Phase), byte(s.Asked))
	b = binary.AppendUvarint(b, uint64(s.Code))
	b = appendBool(appendBool(b, s.Implied), s.Late)
	b = appendText(appendTime(b, s.At), s.Note)
	b = binary.AppendUvarint(b, uint64(l.Dropped))
	return appendList(b, l.Said, func(b []byte, h lifecycle.Heard) []byte {
		return append(append(appendStatement(b, h.Statement), h.Source[:]...), byte(h.Outcome))
	})
}

func readLife(in *reader) *lifecycle.Life {
	l := &lifecycle.Life{Base: lifecycle.State{
		Phase: lifecycle.Phase(in.byte()), Asked: lifecycle.Question(in.byte()), Code: exchangev1.StatusCode(in.number()),
		Implied: in.bool(), Late: in.bool(), At: in.time(), Note: in.text(),
	}}
	l.Dropped = uint32(in.number())
	l.Said = readList(in, func(in *reader) lifecycle.Heard {
		return lifecycle.Heard{Statement: readStatement(in), Source: in.id(), Outcome: lifecycle.Outcome(in.byte())}
	})
	return l
}

func encodeLife(l *lifecycle.Life) []byte { return appendLife([]byte{layoutVersion}, l) }

func decodeLife(b []byte) (*lifecycle.Life, error) {
	r := versioned(b)
	l := readLife(r)
	return l, r.done("life of a document")
}
