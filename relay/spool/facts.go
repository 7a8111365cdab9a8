package spool

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/index"
	"github.com/truclienthong/truc/routing"
)

// maxNote bounds what is kept of a note, in bytes: with 20,000 recipients, all
// notes of an envelope must fit into one record.
const maxNote = 256

func shortened(s string) string {
	if len(s) <= maxNote {
		return strings.ToValidUTF8(s, "?")
	}
	s = s[:maxNote]
	for len(s) > 0 && !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// instant returns at, or now where a caller left it out.
func (s *Spool) instant(at time.Time) time.Time {
	if at.IsZero() {
		return s.now()
	}
	return at
}

// fact appends one record and waits for it.
func (s *Spool) fact(ctx context.Context, sync bool, r record) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	g, err := s.append(ctx, sync, nil, r)
	s.give()
	if err != nil {
		return err
	}
	return s.wait(g)
}

// HandOn says that the next hop has custody of recipients of a duty, which ends
// when none is left; without recipients it ends the duty to hand on a report, or
// to have a copy made, which this relay itself as next hop says was given up.
// What was handed on before, or settled, changes nothing.
func (s *Spool) HandOn(ctx context.Context, f envelope.HandedOn) error {
	f.At = s.instant(f.At)
	if err := s.fact(ctx, true, &handedOnRecord{HandedOn: f, Now: s.now()}); err != nil {
		return fmt.Errorf("hand on %s to %s: %w", f.ID, f.Peer, err)
	}
	return nil
}

// Defer says that a try to hand on failed, and when to try again. It is visible
// on return; a crash soon after may take it back.
func (s *Spool) Defer(ctx context.Context, id envelope.ID, destination routing.RelayID, tries uint32, next time.Time, lastError string) error {
	err := s.fact(ctx, false, &deferred{
		ID: id, Destination: destination, Tries: tries, Next: next, LastError: shortened(lastError), Now: s.now(),
	})
	if err != nil {
		return fmt.Errorf("defer %s for %s: %w", id, destination, err)
	}
	return nil
}

// Settle ends deliveries, each with its report in one step, all of them with
// one sync. It returns how many of them were not settled before: the reports of
// the others are not taken. The end of the last one at the ingress also ends the
// duties to have copies made.
func (s *Spool) Settle(ctx context.Context, batch []envelope.Settlement) (int, error) {
	total := 0
	for len(batch) > 0 {
		n := min(len(batch), maxSettlements)
		settled, err := s.settle(ctx, batch[:n])
		total += settled
		if err != nil {
			return total, fmt.Errorf("settle %d deliveries: %w", n, err)
		}
		batch = batch[n:]
	}
	return total, nil
}

// maxSettlements go into the journal together.
const maxSettlements = 1024

func (s *Spool) settle(ctx context.Context, batch []envelope.Settlement) (int, error) {
	for i := range batch {
		if err := s.checkSettlement(&batch[i]); err != nil {
			return 0, err
		}
	}
	if err := s.take(ctx); err != nil {
		return 0, err
	}
	g, waiting, err := s.appendSettlements(ctx, batch)
	s.give()
	if err != nil {
		return 0, err
	}
	// Deliveries that another call is settling: their answer is durable with it.
	for _, key := range waiting {
		if err := s.claims.wait(ctx, key, s.ended); err != nil {
			return 0, err
		}
	}
	if g == nil {
		return 0, nil
	}
	if err := s.wait(g); err != nil {
		return 0, err
	}
	settled := 0
	for _, r := range g.records {
		if r.(*settlement).effective {
			settled++
		}
	}
	return settled, nil
}

func (s *Spool) checkSettlement(f *envelope.Settlement) error {
	switch f.Transport {
	case exchangev1.TransportStatus_TRANSPORT_STATUS_DONE, exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL:
	default:
		return fmt.Errorf("a delivery ends with DONE or FAIL, not %s", f.Transport)
	}
	if f.Report == nil {
		return nil
	}
	if f.Report.Size() > 0 || f.Report.FromSender {
		return fmt.Errorf("report %s has content or a sender", f.Report.ID)
	}
	return s.checkCustody(f.Report)
}

// appendSettlements appends what is not settled yet; the caller has the order.
// Claims keep two records for one delivery from being under way, of which the
// second would be void: in a rebuild without the first it would not be. They are
// made before the index is looked at, as in Incoming.commit.
func (s *Spool) appendSettlements(ctx context.Context, batch []envelope.Settlement) (g *group, waiting [][]byte, err error) {
	var records []record
	var claimed [][]byte
	defer func() {
		if err != nil {
			s.claims.drop(claimed)
		}
	}()
	var ours []envelope.Settlement
	for _, f := range batch {
		key := index.DeliveryKey(f.ID, f.Agency)
		if _, free := s.claims.claim(key, f.ID); !free {
			waiting = append(waiting, key)
			continue
		}
		claimed = append(claimed, key)
		ours = append(ours, f)
	}
	v := s.store.View()
	defer v.Close()
	for _, f := range ours {
		open, err := openDelivery(v, f)
		if err != nil {
			return nil, nil, err
		}
		if !open {
			continue
		}
		r := &settlement{
			ID: f.ID, Agency: f.Agency, Transport: f.Transport, Reason: f.Reason, Note: shortened(f.Note),
			At: s.instant(f.At), Now: s.now(),
		}
		if f.Report != nil {
			r.Report = &commit{Custody: f.Report, Sequence: s.nextSequence(), At: s.now()}
		}
		records = append(records, r)
	}
	if len(records) == 0 {
		s.claims.drop(claimed)
		return nil, waiting, nil
	}
	g, err = s.append(ctx, true, claimed, records...)
	return g, waiting, err
}

func openDelivery(v *index.View, f envelope.Settlement) (bool, error) {
	st, err := envelopeAt(v, f.ID)
	if err != nil || st == nil {
		return false, err
	}
	d, err := deliveryAt(v, f.ID, st, f.Agency)
	return settles(d, f.Transport), err
}
