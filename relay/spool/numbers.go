package spool

import (
	"encoding/binary"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
)

// The table number tells of a document that its number was given before. It counts
// what was accepted here from its sender, and names the first of them.
//
// It only serves a warning, so it promises less than the table document:
//
//   - A relay knows what was handed in to it, not what was handed in to another.
//   - What the index of an earlier release had accepted is not in it, nor is, after
//     the loss of an index, what was released and the register has lost too.
//   - Whose record is forgotten is not named any more: then nothing is, until the
//     next is accepted under that number. Numbers of a year outlive it by as long as
//     records are kept.
//   - Of documents that are accepted at once the first to be applied is named: each
//     other one finds it after its commit. After a rebuild another one may be named.

// numbered is the value of the table number.
type numbered struct {
	// Count is how many were accepted here and are not forgotten.
	Count uint64
	// First is the one that is named; zero: it was forgotten.
	First envelope.ID
}

func encodeNumbered(n numbered) []byte {
	return append(binary.AppendUvarint([]byte{layoutVersion}, n.Count), n.First[:]...)
}

func decodeNumbered(b []byte) (numbered, error) {
	r := versioned(b)
	n := numbered{r.number(), r.id()}
	return n, r.done("entry of the table number")
}

func numberedAt(v *index.View, n envelope.Number) (numbered, error) {
	b, found, err := v.Get(index.NumberKey(n))
	if err != nil || !found {
		return numbered{}, err
	}
	return decodeNumbered(b)
}

// ByNumber finds the first document that was accepted here under a number.
func (s *Spool) ByNumber(n envelope.Number) (envelope.ID, bool, error) {
	v := s.store.View()
	defer v.Close()
	now, err := numberedAt(v, n)
	return now.First, err == nil && !now.First.IsZero(), err
}

// numbering is what a step makes of one entry of the table.
type numbering struct{ was, is numbered }

// numbering reads an entry once.
func (s *step) numbering(n envelope.Number) (*numbering, error) {
	if e := s.numbers[n]; e != nil {
		return e, nil
	}
	was, err := numberedAt(s.v, n)
	if err != nil {
		return nil, err
	}
	if s.numbers == nil {
		s.numbers = make(map[envelope.Number]*numbering)
	}
	e := &numbering{was, was}
	s.numbers[n] = e
	return e, nil
}

// number counts a document that was accepted here, if it has a number.
func (s *step) number(h *held, header *envelope.Custody) error {
	n, ok := envelope.NumberOf(header)
	if h.st.Numbered = ok; !ok {
		return nil
	}
	e, err := s.numbering(n)
	if err != nil {
		return err
	}
	if e.is.Count++; e.is.First.IsZero() {
		e.is.First = h.id
	}
	return nil
}

// unnumber counts it no longer.
func (s *step) unnumber(h *held, header *envelope.Custody) error {
	h.st.Numbered = false
	n, ok := envelope.NumberOf(header)
	if !ok {
		return nil
	}
	e, err := s.numbering(n)
	if err != nil {
		return err
	}
	if e.is.Count > 0 {
		e.is.Count--
	}
	if e.is.First == h.id {
		e.is.First = envelope.ID{}
	}
	return nil
}

// countNumbers writes what the step made of the table.
func (s *step) countNumbers() {
	for n, e := range s.numbers {
		if e.was != e.is {
			s.put(index.NumberKey(n), e.was.Count == 0, e.is.Count == 0, encodeNumbered(e.is))
		}
	}
}

// numberSum is what a check sums up of the table and of the envelopes that are in it:
// how many there are, and their numbers, so that none stands for another.
type numberSum struct{ count, sum uint64 }

func (s *numberSum) add(n envelope.Number, times uint64) {
	s.count += times
	s.sum += times * binary.BigEndian.Uint64(n[:])
}

// number checks that an envelope that is counted under its number is so.
func (c *checker) number(id envelope.ID, st *state, header *envelope.Custody) error {
	if !st.Numbered {
		return nil
	}
	n, ok := envelope.NumberOf(header)
	if !ok || !st.FromSender {
		c.find(id, "is counted under its number, and has none or was not accepted here")
		return nil
	}
	c.numbered.add(n, 1)
	if now, err := numberedAt(c.v, n); err != nil {
		return err
	} else if now.Count == 0 {
		c.find(id, "is not counted under its number")
	}
	return nil
}

// numbers checks that nothing else is counted, and who is named.
func (c *checker) numbers() error {
	var there numberSum
	err := c.each(index.Numbers(), func(key, value []byte) error {
		n := index.ParseNumber(key)
		now, err := decodeNumbered(value)
		if err != nil {
			c.find(envelope.ID{}, "what has the number %x cannot be read: %v", n, err)
			return nil
		}
		there.add(n, now.Count)
		if now.Count == 0 {
			c.find(now.First, "nothing is counted under the number %x", n)
		}
		if now.First.IsZero() {
			return nil
		}
		st, err := envelopeAt(c.v, now.First)
		if err != nil {
			return err
		}
		if st == nil || !st.Numbered {
			c.find(now.First, "is named by a number, and does not exist or is not counted under one")
			return nil
		}
		header, err := headerAt(c.v, now.First)
		if err != nil {
			return err
		}
		if own, _ := envelope.NumberOf(header); own != n {
			c.find(now.First, "is named by a number that is not its own")
		}
		return nil
	})
	if err == nil && there != c.numbered {
		c.find(envelope.ID{}, "%d documents are counted under numbers (sum %x), there are %d (sum %x)",
			there.count, there.sum, c.numbered.count, c.numbered.sum)
	}
	return err
}
