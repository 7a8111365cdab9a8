package spool

import (
	"context"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

const (
	// maxRecipients is the contract's limit after groups are resolved.
	maxRecipients = 20_000
	// maxHeader leaves room in one journal record for recipients and the rest.
	maxHeader = 2 << 20
	maxParts  = 200
)

// Commit makes the envelope exist, with everything that hangs on it, in one
// durable step, and returns its record. Before that it proves size and SHA-256
// of every part; after HASH_MISMATCH the transfer starts anew. After any other
// error Commit may be called again, here or on an Incoming of a later Begin.
func (in *Incoming) Commit(ctx context.Context) (*envelope.Record, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.repeat != nil {
		return in.repeat, nil
	}
	if err := in.usable(ctx); err != nil {
		return nil, err
	}
	if !in.present {
		if err := in.prove(ctx); err != nil {
			return nil, err
		}
		if err := in.flush(ctx); err != nil {
			in.closed = true
			return nil, err
		}
	}
	g, err := in.commit(ctx)
	if err != nil {
		return nil, err
	}
	if g != nil {
		if err := in.s.wait(g); err != nil {
			return nil, err
		}
	}
	record, err := in.s.Record(in.c.ID)
	if err == nil {
		in.repeat = record
	}
	return record, err
}

// prove checks every part against the header.
func (in *Incoming) prove(ctx context.Context) error {
	for i := range in.parts {
		p, want := &in.parts[i], in.c.Parts[i]
		if p.end != want.Size {
			return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH,
				"part %d has %d bytes, the header declares %d", i, p.end, want.Size)
		}
		if err := in.ready(i); err != nil {
			return err
		}
		if [32]byte(p.sum.Sum(nil)) == want.SHA256 {
			continue
		}
		in.closed = true
		if err := in.abandon(ctx); err != nil {
			return err
		}
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH,
			"part %d does not have the SHA-256 that the header declares", i)
	}
	return nil
}

// abandon gives up what is in the journal.
func (in *Incoming) abandon(ctx context.Context) error {
	if in.generation == 0 {
		return nil
	}
	if err := in.s.take(ctx); err != nil {
		return err
	}
	g, err := in.s.append(ctx, false, nil, &abandoned{ID: in.c.ID, Generation: in.generation})
	in.s.give()
	if err != nil {
		return err
	}
	return in.s.wait(g)
}

// commit decides and appends; nil if there is nothing to do any more.
//
// The document id is claimed before the index is looked at: a rival's claim is
// dropped only once what it claimed can be seen, so that one of the two shows.
func (in *Incoming) commit(ctx context.Context) (g *group, err error) {
	s, c := in.s, in.c
	if err := s.takeFor(ctx, c.ID); err != nil {
		return nil, err
	}
	defer s.give()
	var claimed [][]byte
	if claimsDocument(c) {
		key := index.DocumentKey(c.Sender, c.DocumentID)
		if holder, free := s.claims.claim(key, c.ID); !free {
			return nil, reused(c, holder)
		}
		claimed = [][]byte{key}
		defer func() {
			if g == nil {
				s.claims.drop(claimed)
			}
		}()
	}
	v := s.store.View()
	defer v.Close()
	if err := documentFree(v, c); err != nil {
		return nil, err
	}
	st, err := envelopeAt(v, c.ID)
	if err != nil {
		return nil, err
	}
	r := &commit{Custody: c, At: s.now(), Generation: in.generation}
	if st != nil {
		known, err := knows(v, st, c)
		if known || err != nil {
			return nil, err
		}
		r.Born = st.Born
		if st.released() {
			if r.Prior, err = stateAt(v, c.ID, st); err != nil {
				return nil, err
			}
			r.Prior.Header = &envelope.Custody{ID: c.ID} // that of the commit serves for both
		}
	}
	records := []record{r}
	switch {
	case c.Size() == 0:
		r.Mode = contentHere
	case st != nil && st.holdsContent():
		r.Mode = contentHere
		if in.generation != 0 {
			records = append(records, &abandoned{ID: c.ID, Generation: in.generation})
		}
	case in.present:
		return nil, in.released()
	case in.generation != 0:
		r.Mode = contentChunks
	default:
		r.Mode = contentInline
		for i := range in.parts {
			if b := in.parts[i].inline; len(b) > 0 {
				r.data = append(r.data, b)
			}
		}
	}
	r.Sequence = s.nextSequence()
	return s.append(ctx, true, claimed, records...)
}

// checkCustody refuses what the spool cannot hold.
func (s *Spool) checkCustody(c *envelope.Custody) error {
	invalid := func(format string, args ...any) error {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, format, args...)
	}
	switch {
	case c.ID.IsZero():
		return invalid("envelope id is missing")
	case len(c.Parts) > maxParts:
		return invalid("%d parts, at most %d are allowed", len(c.Parts), maxParts)
	case int(c.Lane) >= len(envelope.LaneOrder):
		return invalid("lane %d does not exist", c.Lane)
	case len(c.Sender) > 255 || len(c.DocumentID) > 4096:
		return invalid("sender or document id is too long")
	case len(c.Header) > maxHeader:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE,
			"header has %d bytes, at most %d are allowed", len(c.Header), maxHeader)
	case c.Size() > maxContent:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE,
			"content has %d bytes, at most %d are allowed", c.Size(), uint64(maxContent))
	}
	seen := make(map[routing.AgencyCode]bool)
	once := func(agencies []routing.AgencyCode) error {
		for _, a := range agencies {
			if a == "" || len(a) > 255 || seen[a] {
				return invalid("recipient %q is empty, too long or named twice", a)
			}
			seen[a] = true
		}
		return nil
	}
	if err := once(c.Inboxes); err != nil {
		return err
	}
	if err := once(c.Kept); err != nil {
		return err
	}
	relays := make(map[routing.RelayID]bool)
	for _, o := range c.Onward {
		if o.Relay == "" || len(o.Relay) > 255 || o.Relay == s.cfg.Self || relays[o.Relay] {
			return invalid("destination %q is empty, this relay, or named twice", o.Relay)
		}
		relays[o.Relay] = true
		if err := once(o.Agencies); err != nil {
			return err
		}
	}
	if len(seen) > maxRecipients {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_TOO_MANY_RECIPIENTS,
			"%d recipients, at most %d are allowed", len(seen), maxRecipients)
	}
	return nil
}
