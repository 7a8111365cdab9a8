package spool

import (
	"encoding/binary"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/relay/spool/journal"
)

// Records about what the disk did.
const (
	typeNoted   uint8 = 30 // content of an envelope was found damaged, or mended
	typeLost    uint8 = 31 // bytes of a part cannot be read where they are
	typeIndexed uint8 = 32 // how far the index on disk reaches
)

// noted puts an envelope into quarantine, or takes it out.
type noted struct {
	ID     envelope.ID
	Mended bool
	Note   string
	Now    time.Time
}

func (*noted) kind() uint8            { return typeNoted }
func (r *noted) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *noted) appendStatement(b []byte) []byte {
	b = appendBool(append(b, r.ID[:]...), r.Mended)
	return appendTime(appendText(b, r.Note), r.Now)
}

func (r *noted) readStatement(in *reader) {
	r.ID, r.Mended, r.Note, r.Now = in.id(), in.bool(), in.text(), in.time()
}

func (r *noted) apply(s *step) error {
	h, err := s.load(r.ID)
	if err != nil || !h.known || h.st.released() {
		return err
	}
	e := envelope.Event{At: r.Now, Action: exchangev1.TraceAction_TRACE_ACTION_QUARANTINED, Note: r.Note}
	if r.Mended {
		e.Action = exchangev1.TraceAction_TRACE_ACTION_REPAIRED
		s.b.Delete(index.QuarantineKey(r.ID))
	} else {
		s.b.Put(index.QuarantineKey(r.ID), appendTime([]byte{layoutVersion}, r.Now))
	}
	s.event(h, e)
	s.needs(h, s.size)
	s.save(h, r.Now)
	return nil
}

// lost forgets where bytes of a part were, so that the damaged segment is not
// needed for their sake: they are missing until they come from another holder.
// The record itself is not needed later: a rebuild does not find the bytes.
type lost struct {
	ID         envelope.ID
	Generation uint64
	Part       int
	Offset     uint64
	From       journal.Position
}

func (*lost) kind() uint8            { return typeLost }
func (r *lost) about() []envelope.ID { return []envelope.ID{r.ID} }

func (r *lost) appendStatement(b []byte) []byte {
	b = binary.AppendUvarint(append(b, r.ID[:]...), r.Generation)
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(r.Part)), r.Offset)
	b = binary.AppendUvarint(b, r.From.Segment)
	return binary.AppendUvarint(b, uint64(r.From.Offset))
}

func (r *lost) readStatement(in *reader) {
	r.ID, r.Generation, r.Part, r.Offset = in.id(), in.number(), int(in.number()), in.number()
	r.From = journal.Position{Segment: in.number(), Offset: int64(in.number())}
}

func (r *lost) apply(s *step) error {
	l, found, err := chunkAt(s.v, r.ID, r.Generation, r.Part, r.Offset)
	if err != nil || !found || l.Position != r.From {
		return err
	}
	s.live(l.Segment, -int64(l.Record))
	s.b.Delete(index.ChunkKey(r.ID, r.Generation, r.Part, r.Offset))
	return nil
}

// indexed says how far the index on disk reached when segments were recycled
// that only an older one would need. An index that is found to reach less far
// has lost something, and cannot be brought forward.
type indexed struct {
	Position journal.Position
}

func (*indexed) kind() uint8          { return typeIndexed }
func (*indexed) about() []envelope.ID { return nil }
func (*indexed) apply(*step) error    { return nil }

func (r *indexed) appendStatement(b []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, r.Position.Segment), uint64(r.Position.Offset))
}

func (r *indexed) readStatement(in *reader) {
	r.Position = journal.Position{Segment: in.number(), Offset: int64(in.number())}
}
