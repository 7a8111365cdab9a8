package spool

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
)

// How an envelope is mended. What of its content cannot be read any more is
// forgotten, so that it is missing like something that never came: this much is
// certain, and lets the damaged segment go. What is missing is fetched from
// another holder, and counts once the SHA-256 of the whole part is the one that
// the header declares. Then it is written like a chunk that was moved. Where no
// holder has it, the envelope stays in quarantine and is tried again, ever less
// often.

const (
	// menders are at work at one time.
	menders = 4
	// mendMemory is how much of a part is kept until it is proved; more is
	// fetched a second time, and must be what it was the first time.
	mendMemory = 8 << 20
	// A holder has mendWait, and a second for each mendSpeed bytes.
	mendWait  = 30 * time.Second
	mendSpeed = 128 << 10
)

// unmended is why an envelope stays in quarantine.
type unmended struct{ error }

func (u unmended) Unwrap() error { return u.error }

var (
	errNoHolder = unmended{errors.New("no other holder can be asked")}
	errBusy     = unmended{errors.New("its transfer is under way")}
)

type mender struct {
	*Spool
	limit *rate.Limiter
}

// mendAll works on what is in quarantine until ctx ends.
func (s *Spool) mendAll(ctx context.Context) error {
	m := &mender{Spool: s, limit: rate.NewLimiter(rate.Limit(s.cfg.CopyRate), max(s.cfg.CopyRate, 2*maxChunk))}
	if err := m.recall(ctx); err != nil {
		return endOf(ctx, fmt.Errorf("recall quarantine: %w", err))
	}
	work, working := errgroup.WithContext(ctx)
	work.SetLimit(menders)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for working.Err() == nil {
		id, h, wait := s.quarantine.due(time.Now())
		if h != nil {
			work.Go(func() error { return m.treat(working, id, h) })
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-s.quarantine.wake:
		case <-working.Done():
		}
	}
	return endOf(ctx, work.Wait())
}

// recall finds what was in quarantine before the start.
func (m *mender) recall(ctx context.Context) error {
	v := m.store.View()
	defer v.Close()
	n := 0
	err := v.Each(index.Quarantines(), func(key, _ []byte) error {
		m.quarantine.enter(index.ParseID(key), true)
		n++
		return ctx.Err()
	})
	if n > 0 {
		m.log.Warn("content was damaged before the start", "envelopes", n)
	}
	return err
}

// treat tries to mend one envelope. Its error is one that ends the spool.
func (m *mender) treat(ctx context.Context, id envelope.ID, h *hurt) error {
	err := m.mend(ctx, id, h)
	var why unmended
	switch {
	case err == nil:
		m.quarantine.leave(id, false, 0)
		return nil
	case ctx.Err() != nil || m.refusal() != nil:
		return nil
	case !errors.As(err, &why):
		return fmt.Errorf("mend %s: %w", id, err)
	}
	if tries := m.quarantine.leave(id, true, m.cfg.mendAgain); bits.OnesCount(uint(tries)) == 1 {
		m.log.Warn("content stays damaged for now", "envelope", id, "tries", tries, "error", err)
	}
	return nil
}

func (m *mender) mend(ctx context.Context, id envelope.ID, h *hurt) error {
	c, err := m.examine(ctx, id)
	if err != nil {
		return err
	}
	if c == nil {
		return m.discharge(ctx, id, h, "")
	}
	missing := c.missing()
	if missing == 0 {
		return m.discharge(ctx, id, h, "reads well again")
	}
	if !h.noted {
		note := fmt.Sprintf("%d bytes are damaged", missing)
		if err := m.fact(ctx, true, &noted{ID: id, Note: note, Now: m.now()}); err != nil {
			return err
		}
		h.noted = true
	}
	if m.cfg.Mend == nil {
		return errNoHolder
	}
	if c.record, err = m.Record(id); err != nil {
		return err
	}
	for part := range c.parts {
		if err := m.mendPart(ctx, c, part); err != nil {
			return fmt.Errorf("part %d: %w", part, err)
		}
	}
	return m.discharge(ctx, id, h, fmt.Sprintf("%d bytes came from another holder", missing))
}

// discharge ends the quarantine of an envelope that is whole, or gone.
func (m *mender) discharge(ctx context.Context, id envelope.ID, h *hurt, note string) error {
	if !h.noted {
		return nil
	}
	if note == "" {
		return m.change(ctx, func(s *step) error {
			s.b.Delete(index.QuarantineKey(id))
			return nil
		})
	}
	// Durable with it is everything written before, the mended bytes too.
	if err := m.fact(ctx, true, &noted{ID: id, Mended: true, Note: note, Now: m.now()}); err != nil {
		return err
	}
	m.quarantine.mu.Lock()
	m.quarantine.mended++
	m.quarantine.mu.Unlock()
	m.log.Warn("content is mended", "envelope", id, "note", note)
	return nil
}

// mendPart fetches what is missing of a part, proves the part, and writes it.
func (m *mender) mendPart(ctx context.Context, c *composition, part int) error {
	whole, declared := sha256.New(), c.header.Parts[part]
	var fetched fetched
	gaps := 0
	for _, p := range c.parts[part] {
		if !p.missing {
			b, err := m.readPiece(ctx, c, part, p)
			if err != nil {
				return err
			}
			whole.Write(b[p.skip:])
			continue
		}
		gaps++
		err := m.fetch(ctx, c, part, p, func(offset uint64, b []byte) error {
			whole.Write(b)
			fetched.add(offset, b)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if gaps == 0 {
		return nil
	}
	if [32]byte(whole.Sum(nil)) != declared.SHA256 {
		return unmended{errors.New("what another holder gave does not have the declared SHA-256")}
	}
	for _, p := range c.parts[part] {
		if !p.missing {
			continue
		}
		if err := m.writeGap(ctx, c, part, p, &fetched); err != nil {
			return err
		}
	}
	return nil
}

// fetch asks another holder for what is missing and gives it to fn in pieces
// that fit a record.
func (m *mender) fetch(ctx context.Context, c *composition, part int, p piece, fn func(offset uint64, b []byte) error) error {
	limited, cancel := context.WithTimeout(ctx, mendWait+time.Duration(p.length/mendSpeed)*time.Second)
	defer cancel()
	r, err := m.cfg.Mend(limited, c.record, part, p.offset, p.length)
	if err != nil {
		return unmended{fmt.Errorf("ask another holder: %w", err)}
	}
	defer r.Close()
	buf := make([]byte, min(p.length, maxChunk))
	for offset, end := p.offset, p.offset+p.length; offset < end; {
		b := buf[:min(end-offset, uint64(len(buf)))]
		if _, err := io.ReadFull(r, b); err != nil {
			return unmended{fmt.Errorf("read from another holder at %d: %w", offset, err)}
		}
		if err := fn(offset, b); err != nil {
			return err
		}
		offset += uint64(len(b))
	}
	return nil
}

// fetched is what came for a part until it is proved: the bytes, or if that is
// too much, what they must be when they come again.
type fetched struct {
	bytes map[uint64][]byte
	sums  map[uint64][32]byte
	kept  int
}

func (f *fetched) add(offset uint64, b []byte) {
	if f.sums == nil {
		f.bytes, f.sums = make(map[uint64][]byte), make(map[uint64][32]byte)
	}
	f.sums[offset] = sha256.Sum256(b)
	if f.kept+len(b) <= mendMemory {
		f.kept += len(b)
		f.bytes[offset] = append([]byte(nil), b...)
	}
}

func (m *mender) writeGap(ctx context.Context, c *composition, part int, p piece, got *fetched) error {
	offset, end := p.offset, p.offset+p.length
	for b := got.bytes[offset]; offset < end && b != nil; b = got.bytes[offset] {
		if err := m.writeChunk(ctx, c, part, offset, b); err != nil {
			return err
		}
		offset += uint64(len(b))
	}
	if offset == end {
		return nil
	}
	return m.fetch(ctx, c, part, piece{offset: offset, length: end - offset}, func(offset uint64, b []byte) error {
		if sha256.Sum256(b) != got.sums[offset] {
			return unmended{fmt.Errorf("another holder gave other bytes at %d the second time", offset)}
		}
		return m.writeChunk(ctx, c, part, offset, append([]byte(nil), b...))
	})
}

// writeChunk writes bytes that are proved, if they are still missing.
func (m *mender) writeChunk(ctx context.Context, c *composition, part int, offset uint64, b []byte) error {
	if err := m.limit.WaitN(ctx, len(b)); err != nil {
		return err
	}
	return m.decide(ctx, c.id, func(v *index.View) (record, error) {
		st, err := envelopeAt(v, c.id)
		if err != nil || st == nil || st.released() || st.Generation != c.generation {
			return nil, err
		}
		if _, found, err := chunkAt(v, c.id, c.generation, part, offset); found || err != nil {
			return nil, err
		}
		return &moved{chunk: chunk{
			ID: c.id, Generation: c.generation, Part: part, Offset: offset, At: m.now(), content: content{data: [][]byte{b}},
		}}, nil
	})
}
