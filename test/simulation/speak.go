package simulation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/history"
)

// statement is what a recipient has said of a document, and was told is accepted.
type statement struct {
	sender   *desk
	document envelope.ID
	by, code string
	id       envelope.ID
}

// speaks reports whether recipients say what becomes of documents: in one plan of
// 32, for it makes three envelopes of each delivery. Where a clock is so far ahead
// that envelopes expire, nobody revives what they say.
func (w *world) speaks() bool { return !w.plan.ahead && w.seed%32 == 1 }

// speak has a recipient say that a document has arrived, and that it is in the
// books. It goes on when the desk's software begins anew, as what stands in a
// document management system does.
func (w *world) speak(d *desk, arrival *agency.Arrival) {
	header := arrival.Envelope.GetHeader()
	about := &exchangev1.TrackResponse{Header: header, Receipt: &exchangev1.Receipt{EnvelopeId: arrival.ID[:]}}
	for _, code := range []string{"01", "03"} {
		h := agency.StatusOf(about, code, "", time.Now())
		h.DocumentId = fmt.Sprintf("status %s of %s at %s", code, arrival.ID, d.plan.code)
		to := header.GetSender().GetCode()
		w.history.HandIn(history.Document{Sender: d.plan.code, ID: h.GetDocumentId(), To: []string{to}, Sum: history.SumOf(nil)})
		id := w.tell(d, h)
		if id.IsZero() {
			return
		}
		w.history.Promised(d.plan.code, h.GetDocumentId(), id, time.Now())
		i := slices.IndexFunc(w.desks, func(o *desk) bool { return o.plan.code == to })
		w.mu.Lock()
		w.statements = append(w.statements, statement{w.desks[i], arrival.ID, d.plan.code, code, id})
		w.mu.Unlock()
		w.count("statement of a recipient", w.since())
	}
}

// tell hands a status in until the outbox has it, or a relay.
func (w *world) tell(d *desk, h *exchangev1.Header) envelope.ID {
	for w.ctx.Err() == nil {
		outbox, alive := d.current()
		ctx, cancel := context.WithTimeout(alive, 10*time.Second)
		receipt, err := outbox.Submit(ctx, agency.Document{Header: h})
		ended := ctx.Err() != nil
		cancel()
		if kept := (*agency.KeptError)(nil); errors.As(err, &kept) {
			return kept.ID
		}
		if err == nil {
			return receipt.ID
		}
		w.mu.Lock()
		lost := w.diskLost
		w.mu.Unlock()
		if !ended && !envelope.Temporary(err) {
			if !lost { // else nobody may know the document any more
				w.violate("refused", "%s by %s: %v", h.GetDocumentId(), d.plan.code, err)
			}
			return envelope.ID{}
		}
		w.say("desk %s: %s is not accepted: %v", d.plan.code, h.GetDocumentId(), err)
		w.sleep(500 * time.Millisecond)
	}
	return envelope.ID{}
}

// heard is what of the accepted statements is not in the life of its document.
func (w *world) heard() error {
	w.mu.Lock()
	lost, all := w.diskLost, slices.Clone(w.statements)
	w.mu.Unlock()
	if lost {
		return nil // who kept it may be gone
	}
	tracks := map[envelope.ID]*exchangev1.TrackResponse{}
	for _, s := range all {
		track := tracks[s.document]
		if track == nil {
			s.sender.mu.Lock()
			client, ctx := s.sender.client, s.sender.ctx
			s.sender.mu.Unlock()
			var err error
			if track, err = client.Track(ctx, s.document); err != nil {
				return err
			}
			tracks[s.document] = track
		}
		times := 0
		for _, d := range track.GetDeliveries() {
			for _, t := range d.GetStatements() {
				if slices.Equal(t.GetEnvelopeId(), s.id[:]) && d.GetAgencyCode() == s.by {
					times++
				}
			}
			if d.GetAgencyCode() == s.by && d.GetPhase() < exchangev1.Phase_PHASE_ACCEPTED && s.code == "03" {
				return fmt.Errorf("document %s is %s at %s, which has accepted it", s.document, d.GetPhase(), s.by)
			}
		}
		if times != 1 {
			return fmt.Errorf("statement %s about %s at %s is kept %d times", s.code, s.document, s.by, times)
		}
	}
	return nil
}
