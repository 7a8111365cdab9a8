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

// word is what a desk says of a document, by an envelope of its own.
type word struct {
	by *desk
	// owner sent the document, whose envelope is about.
	owner *desk
	about envelope.ID
	// at are the recipients at whom it is said; code is that of a recipient.
	at   []string
	code string
	// header of the envelope that says it, to those recipients.
	header *exchangev1.Header
	to     []string
	// takesBack: it is a recall.
	takesBack bool
	// mayFail reports whether something else that was said may have taken the
	// ground from it; nil: nothing can.
	mayFail func() bool

	id      envelope.ID // zero until somebody was told so
	refused bool
}

func (s *word) document() string { return s.header.GetDocumentId() }

// speaks reports whether recipients say what becomes of documents: in one plan of
// 16, for it makes three envelopes of each delivery. Where a clock is so far ahead
// that envelopes expire, nobody revives what they say.
func (w *world) speaks() bool { return !w.plan.ahead && w.seed%16 == 1 }

// speak has a recipient say what becomes of what has come: that a document has
// arrived and is in the books, or is returned, and its answer to what asks for a
// change. It goes on when the desk's software begins anew, as what stands in a
// document management system does.
func (w *world) speak(d *desk, arrival *agency.Arrival) {
	header := arrival.Envelope.GetHeader()
	owner := w.deskOf(header.GetSender().GetCode())
	if header.GetBusiness().GetType() != exchangev1.BusinessType_BUSINESS_TYPE_NEW {
		w.answer(d, owner, header)
		return
	}
	about := &exchangev1.TrackResponse{Header: header, Receipt: &exchangev1.Receipt{EnvelopeId: arrival.ID[:]}}
	codes := []string{"01", "03"}
	if l := w.letterOf(header); l != nil && w.asks() && d.roll(15) {
		codes[1] = "02"
		l.mu.Lock()
		l.returned = true
		l.mu.Unlock()
	}
	for _, code := range codes {
		h := agency.StatusOf(about, code, "sai nơi nhận", time.Now())
		h.DocumentId = fmt.Sprintf("status %s of %s at %s", code, arrival.ID, d.plan.code)
		w.utter(&word{by: d, owner: owner, about: arrival.ID, at: []string{d.plan.code}, code: code, header: h, to: []string{owner.plan.code}})
	}
}

func (w *world) deskOf(code string) *desk {
	i := slices.IndexFunc(w.desks, func(d *desk) bool { return d.plan.code == code })
	return w.desks[i]
}

// utter hands in what a desk says until its outbox has it, or a relay.
func (w *world) utter(s *word) {
	w.mu.Lock()
	w.words = append(w.words, s)
	w.mu.Unlock()
	w.history.HandIn(history.Document{Sender: s.by.plan.code, ID: s.document(), To: s.to, Sum: history.SumOf(nil)})
	for w.ctx.Err() == nil {
		outbox, alive := s.by.current()
		ctx, cancel := context.WithTimeout(alive, 10*time.Second)
		receipt, err := outbox.Submit(ctx, agency.Document{Header: s.header})
		ended := ctx.Err() != nil
		cancel()
		kept, refusal := (*agency.KeptError)(nil), (*envelope.Refusal)(nil)
		switch {
		case err == nil:
			w.uttered(s, receipt.ID)
			return
		case errors.As(err, &kept):
			w.uttered(s, kept.ID)
			return
		case !ended && !envelope.Temporary(err):
			reason := exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED
			if errors.As(err, &refusal) {
				reason = refusal.Reason
			}
			w.refusedWord(s, reason == exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, err.Error())
			return
		}
		w.say("desk %s: %s is not accepted: %v", s.by.plan.code, s.document(), err)
		w.sleep(500 * time.Millisecond)
	}
}

func (w *world) uttered(s *word, id envelope.ID) {
	w.say("desk %s: %s is accepted or kept as %s", s.by.plan.code, s.document(), id)
	w.history.Promised(s.by.plan.code, s.document(), id, time.Now())
	w.mu.Lock()
	s.id = id
	w.mu.Unlock()
	switch {
	case s.takesBack:
		w.count("recall by the sender", w.since())
	case s.code == "":
		w.count("update or replacement by the sender", w.since())
	default:
		w.count("statement of a recipient", w.since())
	}
}

// refusedWord is told that the mesh does not take what was said: right only where
// the life of the document no longer allows it.
func (w *world) refusedWord(s *word, state bool, why string) {
	w.mu.Lock()
	lost := w.diskLost // then nobody may know the document any more
	w.mu.Unlock()
	if !lost && (!state || s.mayFail == nil || !s.mayFail()) {
		w.violate("refused", "%s by %s: %s", s.document(), s.by.plan.code, why)
	}
	w.say("desk %s: %s is refused: %s", s.by.plan.code, s.document(), why)
	w.mu.Lock()
	s.refused = true
	told := !s.id.IsZero()
	w.mu.Unlock()
	if told {
		for _, to := range s.to {
			w.history.Excuse(s.by.plan.code, s.document(), to, why)
		}
	}
}

// said lists what was said and taken.
func (w *world) said() (all []*word, lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.words {
		if !s.refused && !s.id.IsZero() {
			all = append(all, s)
		}
	}
	return all, w.diskLost
}

// heard is what of the accepted words is not in the life of its document.
func (w *world) heard() error {
	all, lost := w.said()
	if lost {
		return nil // who kept it may be gone
	}
	tracks := map[envelope.ID]*exchangev1.TrackResponse{}
	for _, s := range all {
		track := tracks[s.about]
		if track == nil {
			client, ctx := s.owner.software()
			var err error
			if track, err = client.Track(ctx, s.about); err != nil {
				return err
			}
			tracks[s.about] = track
		}
		for _, at := range s.at {
			if err := s.keptAt(at, track); err != nil {
				return err
			}
		}
	}
	return nil
}

// keptAt holds what a track tells of one recipient against what was said there.
func (s *word) keptAt(at string, track *exchangev1.TrackResponse) error {
	times := 0
	for _, d := range track.GetDeliveries() {
		if d.GetAgencyCode() != at {
			continue
		}
		for _, t := range d.GetStatements() {
			if slices.Equal(t.GetEnvelopeId(), s.id[:]) {
				times++
			}
		}
		phase := d.GetPhase()
		switch {
		case s.code == "03" && phase < exchangev1.Phase_PHASE_ACCEPTED:
			return fmt.Errorf("document %s is %s at %s, which has accepted it", s.about, phase, at)
		case s.code == "02" && phase < exchangev1.Phase_PHASE_RETURNED:
			return fmt.Errorf("document %s is %s at %s, which has returned it", s.about, phase, at)
		case takenBack(d) && phase != exchangev1.Phase_PHASE_RECALLED:
			return fmt.Errorf("document %s is %s at %s, where it was taken back", s.about, phase, at)
		}
	}
	if times != 1 {
		return fmt.Errorf("%s about %s at %s is kept %d times", s.document(), s.about, at, times)
	}
	return nil
}
