package spool

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

const (
	// inlineContent is the most content that goes into the journal together
	// with its commit; until then it is in memory.
	inlineContent = 256 << 10
	// maxChunk is the most content of one record.
	maxChunk = 1 << 20
	// minChunk and maxChunks bound the number of records: what is written in
	// smaller pieces is gathered, more for larger envelopes.
	minChunk  = 64 << 10
	maxChunks = 16 << 10
	// maxContent is the most content of an envelope that maxChunks allow.
	maxContent = maxChunks * maxChunk
)

// Incoming is an envelope on its way in. One goroutine uses it; Close it.
type Incoming struct {
	s *Spool
	c *envelope.Custody

	mu hold // held by the call under way
	// superseded: a later Begin of the same envelope took over.
	superseded, closed bool
	repeat             *envelope.Record
	// present: all content is here already.
	present bool
	parts   []incomingPart
	// generation is that of the transfer, 0 while nothing is in the journal.
	generation uint64
	// gathered are bytes of one part that are not in the journal yet.
	gathered []byte
	part     int
}

// hold is a lock for those who wait for the disk while they have it: a channel,
// because a clock that is not the machine's (synctest) stands still while
// somebody waits for a mutex.
type hold chan struct{}

func newHold() hold    { return make(hold, 1) }
func (h hold) Lock()   { h <- struct{}{} }
func (h hold) Unlock() { <-h }

// incomingPart is how far one part is.
type incomingPart struct {
	// end counts all bytes taken, written those in the journal.
	end, written uint64
	sum          hash.Hash
	// inline holds the bytes of a small envelope.
	inline []byte
}

// Begin opens the transfer of an envelope, or goes on with one that was cut,
// also by a restart. It takes the place of an earlier Incoming of the same
// envelope, whose calls then fail with STREAM_CUT.
//
// The refusals are DOCUMENT_ID_REUSED, when the sender gave the document id to
// another envelope, and INVALID_FIELD and TOO_LARGE for what no sender can mend
// by trying again. c must not be changed afterwards.
func (s *Spool) Begin(ctx context.Context, c *envelope.Custody) (*Incoming, error) {
	if err := s.refusal(); err != nil {
		return nil, err
	}
	if err := s.checkCustody(c); err != nil {
		return nil, err
	}
	in := &Incoming{s: s, c: c, mu: newHold(), parts: make([]incomingPart, len(c.Parts))}
	in.mu.Lock()
	defer in.mu.Unlock()
	s.supersede(in)
	err := in.resume()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		s.leave(in)
		return nil, err
	}
	return in, nil
}

// supersede makes in the one writer of its envelope, once the earlier one has
// finished its call.
func (s *Spool) supersede(in *Incoming) {
	for {
		s.incomingMu.Lock()
		earlier := s.incoming[in.c.ID]
		if earlier == nil {
			s.incoming[in.c.ID] = in
			s.incomingMu.Unlock()
			return
		}
		s.incomingMu.Unlock()
		earlier.mu.Lock()
		earlier.superseded = true
		s.leave(earlier)
		earlier.mu.Unlock()
	}
}

// leave ends being the writer.
func (s *Spool) leave(in *Incoming) {
	s.incomingMu.Lock()
	defer s.incomingMu.Unlock()
	if s.incoming[in.c.ID] == in {
		delete(s.incoming, in.c.ID)
	}
}

// resume finds out what is here already.
func (in *Incoming) resume() error {
	v := in.s.store.View()
	defer v.Close()
	c := in.c
	if err := documentFree(v, c); err != nil {
		return err
	}
	st, err := envelopeAt(v, c.ID)
	if err != nil {
		return err
	}
	if st != nil {
		known, err := knows(v, st, c)
		if err != nil {
			return err
		}
		if known {
			in.repeat, err = recordAt(v, c.ID, st)
			return err
		}
		if st.holdsContent() {
			in.present = true
			return nil
		}
	}
	t, err := transferAt(v, c.ID)
	if err != nil || t == nil {
		return err
	}
	ends, whole, err := contiguous(v, c, t)
	if err != nil || !whole {
		return err
	}
	in.generation = t.Generation
	for i, end := range ends {
		in.parts[i].end, in.parts[i].written = end, end
	}
	return nil
}

// documentFree refuses a document id that the sender gave to something else.
func documentFree(v *index.View, c *envelope.Custody) error {
	if !claimsDocument(c) {
		return nil
	}
	b, found, err := v.Get(index.DocumentKey(c.Sender, c.DocumentID))
	if err != nil || !found || envelope.ID(b) == c.ID {
		return err
	}
	return reused(c, envelope.ID(b))
}

func reused(c *envelope.Custody, holder envelope.ID) error {
	return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED,
		"document id %q of %s belongs to envelope %s, which has other content: send it with a new document id",
		c.DocumentID, c.Sender, holder)
}

// knows reports whether c would change nothing.
func knows(v *index.View, st *state, c *envelope.Custody) (bool, error) {
	if c.FromSender && !st.FromSender {
		return false, nil
	}
	if !c.FromSender && st.Open > 0 && prolongs(c, st) {
		return false, nil
	}
	lacking, err := missing(v, st, c, func(a routing.AgencyCode) (*delivery, error) {
		return deliveryAt(v, c.ID, st, a)
	})
	return err == nil && lacking.none(), err
}

// contiguous returns how much of each part a transfer has, and false if there
// are gaps: damage took something, or records were rebuilt without their first.
func contiguous(v *index.View, c *envelope.Custody, t *transfer) ([]uint64, bool, error) {
	ends := make([]uint64, len(c.Parts))
	it := v.Iterator(index.Chunks(c.ID, t.Generation))
	defer it.Close()
	for ; it.Valid(); it.Next() {
		part, offset := index.ParseChunkKey(it.Key())
		l, err := decodeLocation(it.Value())
		if err != nil {
			return nil, false, err
		}
		if part >= len(ends) || offset != ends[part] || offset+uint64(l.Length) > c.Parts[part].Size {
			return nil, false, nil
		}
		ends[part] += uint64(l.Length)
	}
	return ends, true, it.Err()
}

// Repeat returns the record if every duty is known here already: there is
// nothing to write and nothing to commit.
func (in *Incoming) Repeat() (*envelope.Record, bool) { return in.repeat, in.repeat != nil }

// Offsets tells for each part, in bytes, what is here already.
func (in *Incoming) Offsets() []uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	offsets := make([]uint64, len(in.parts))
	for i := range offsets {
		if offsets[i] = in.parts[i].end; in.present || in.repeat != nil {
			offsets[i] = in.c.Parts[i].Size
		}
	}
	return offsets
}

// Write adds bytes to a part; offset is where they start, and must be where the
// part ends so far. It keeps nothing of data. It returns before the bytes are
// durable, which Commit sees to.
func (in *Incoming) Write(ctx context.Context, part int, offset uint64, data []byte) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.usable(ctx); err != nil {
		return err
	}
	if part < 0 || part >= len(in.parts) {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD,
			"part %d: the header declares %d parts", part, len(in.parts))
	}
	p, size := &in.parts[part], in.c.Parts[part].Size
	switch {
	case in.present || in.repeat != nil:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "part %d is here already", part)
	case offset != p.end:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD,
			"part %d: bytes from %d were sent, %d is where it goes on", part, offset, p.end)
	case uint64(len(data)) > size-p.end:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH,
			"part %d has more than the %d bytes that the header declares", part, size)
	case len(data) == 0:
		return nil
	}
	if err := in.ready(part); err != nil {
		return err
	}
	if in.c.Size() <= inlineContent && in.generation == 0 {
		if p.inline == nil {
			p.inline = make([]byte, 0, size)
		}
		p.inline = append(p.inline, data...)
	} else if err := in.gather(ctx, part, data); err != nil {
		in.closed = true // nobody knows how much of it is in the journal
		return err
	}
	p.sum.Write(data)
	p.end += uint64(len(data))
	return nil
}

// released is said where the content was here when the transfer began, and is not
// any more: whoever brought it has seen the envelope to its end.
func (in *Incoming) released() error {
	return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT,
		"content of envelope %s was released meanwhile: send it again", in.c.ID)
}

// usable reports why nothing more can be written.
func (in *Incoming) usable(ctx context.Context) error {
	switch {
	case in.superseded:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT,
			"envelope %s is being sent again on another stream", in.c.ID)
	case in.closed:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT, "transfer of envelope %s was closed", in.c.ID)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return in.s.refusal()
}

// ready has the hash of a part at its end; after a resume it reads back what is
// here.
func (in *Incoming) ready(part int) error {
	p := &in.parts[part]
	if p.sum != nil {
		return nil
	}
	sum := sha256.New()
	if p.written > 0 {
		src := &source{s: in.s, id: in.c.ID, generation: in.generation, part: part, end: p.written}
		defer src.Close()
		if _, err := src.WriteTo(sum); err != nil {
			return fmt.Errorf("read back part %d: %w", part, err)
		}
	}
	p.sum = sum
	return nil
}

// gather puts data into the journal, together with what was too little before.
func (in *Incoming) gather(ctx context.Context, part int, data []byte) error {
	if in.part != part {
		if err := in.flush(ctx); err != nil {
			return err
		}
		in.part = part
	}
	enough := max(minChunk, int(in.c.Size()/maxChunks))
	if len(in.gathered)+len(data) < enough {
		in.gathered = append(in.gathered, data...)
		return nil
	}
	for first := in.gathered; ; first = nil {
		n := min(len(data), maxChunk-len(first))
		if err := in.put(ctx, part, first, data[:n]); err != nil {
			return err
		}
		if data = data[n:]; len(data) < enough {
			break
		}
	}
	in.gathered = append(in.gathered[:0], data...)
	return nil
}

// flush puts what was gathered into the journal.
func (in *Incoming) flush(ctx context.Context) error {
	if len(in.gathered) == 0 {
		return nil
	}
	if err := in.put(ctx, in.part, in.gathered); err != nil {
		return err
	}
	in.gathered = in.gathered[:0]
	return nil
}

// put appends a chunk, and before the first one the record that opens the
// transfer.
func (in *Incoming) put(ctx context.Context, part int, data ...[]byte) error {
	s := in.s
	if err := s.take(ctx); err != nil {
		return err
	}
	var records []record
	generation := in.generation
	if generation == 0 {
		generation = s.nextSequence()
		records = append(records, &begin{ID: in.c.ID, Generation: generation, At: s.now(), Parts: len(in.parts)})
	}
	p := &in.parts[part]
	r := &chunk{content: content{data: data}, ID: in.c.ID, Generation: generation, Part: part, Offset: p.written, At: s.now()}
	g, err := s.append(ctx, false, nil, append(records, r)...)
	s.give()
	if err != nil {
		return err
	}
	in.generation = generation
	p.written += uint64(r.length)
	return s.wait(g)
}

// Close ends the use of in. What was written and not committed stays for a
// resume, as far as it has reached the journal.
func (in *Incoming) Close() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.s.leave(in)
	for i := range in.parts {
		in.parts[i].inline = nil
	}
	in.gathered = nil
	return nil
}
