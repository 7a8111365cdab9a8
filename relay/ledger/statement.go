package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

// The life of a document is kept by its ingress: all that its sender and its
// recipients say of it. It comes there so:
//
//  1. Judge holds what an envelope says of a document against what the mesh knows
//     of that one, before the envelope is accepted anywhere.
//  2. The envelope is committed.
//  3. Hear, which Judge returns, has what it says kept, where this relay is the ingress of the document,
//     or takes custody of a report that tells the relay that is. Only then the
//     envelope is acknowledged.
//  4. Apply keeps what such a report tells.
//
// A kill between 2 and 3 leaves an envelope that nobody was told is accepted; its
// sender hands it in again, and 3 is done then. Everything is kept once for each
// envelope that says it.

// judged is what an envelope says of a document that the mesh knows.
type judged struct {
	saying lifecycle.Saying
	// number is its place among what the envelope says.
	number  int
	id      envelope.ID
	owner   routing.AgencyCode
	ingress routing.RelayID
	// agencies are the recipients at whom it is said.
	agencies []routing.AgencyCode
	// source is the envelope that says it, heard when it was: zero for the first
	// time. after is the last that had been said there when it was judged.
	source               envelope.ID
	heard, after, judged time.Time
	warnings             []*exchangev1.Warning
}

// Judge finds the documents that an envelope is about and everything that speaks
// against what it says of them: that the document is not known, or not theirs who
// speak; that its life does not allow it. The error is temporary: those who would
// know are silent.
//
// Hear has what it says kept by the ingress of each document, and takes documents
// out of inboxes here that it takes back.
func (l *Ledger) Judge(ctx context.Context, sender routing.AgencyCode, header *exchangev1.Header) (judgement envelope.Judgement, err error) {
	source, _, err := envelope.HeaderID(header)
	if err != nil {
		return judgement, envelope.Refuse(invalid, "header: %v", err)
	}
	var all []judged
	now := l.config.Clock()
	for i, saying := range lifecycle.Read(header, now) {
		j := judged{saying: saying, number: i, source: source, judged: now}
		known, err := l.find(ctx, sender, &j)
		if err != nil {
			return judgement, err
		}
		found := l.against(sender, header, &j, known)
		if len(found) > 0 && !known.told && len(known.silent) > 0 {
			return judgement, l.silent(known) // who would know better does not answer
		}
		if len(found) > 0 && found[0].Reason == wrongState {
			accepted, err := l.acceptedBefore(ctx, source)
			if err != nil {
				return judgement, err
			}
			if accepted { // and what speaks against it may have come of it
				found = nil
			}
		}
		if len(found) == 0 && j.saying.Act == lifecycle.AsksRecall {
			if err := l.underWay(known, j.id, l.atHome(known.view, j.agencies)); err != nil {
				return judgement, err
			}
		}
		j.recall(known)
		judgement.Problems = append(judgement.Problems, found...)
		judgement.Warnings = append(judgement.Warnings, j.warnings...)
		all = append(all, j)
	}
	judgement.Hear = func(ctx context.Context, record *envelope.Record) error {
		for _, j := range all {
			if err := l.tell(ctx, record, j); err != nil {
				return fmt.Errorf("%s is about %s: %w", record.ID, j.id, err)
			}
		}
		return l.Heard(ctx, record, true)
	}
	return judgement, nil
}

// acceptedBefore asks whether an envelope was accepted anywhere: its sender may not
// have been answered.
func (l *Ledger) acceptedBefore(ctx context.Context, id envelope.ID) (bool, error) {
	question := &relayv1.InquireRequest{EnvelopeId: id[:]}
	all := &knowledge{self: l.config.Self, view: l.config.Directory.View(), id: id}
	own, err := l.Inquire(ctx, question)
	if err != nil {
		return false, err
	}
	if all.add(l.config.Self, own); all.known() {
		return true, nil
	}
	ask, _ := l.others()
	l.ask(ctx, ask, question, all)
	if !all.known() && len(all.silent) > 0 {
		return false, l.silent(all)
	}
	return all.known(), nil
}

// recall finds out when it was said, if it was, and what was said before: whoever
// knows of something when it is accepted speaks behind it, whatever the clocks of
// two relays show.
func (j *judged) recall(all *knowledge) {
	for _, agency := range j.agencies {
		life := all.lives[string(agency)]
		if life == nil {
			continue
		}
		for _, h := range life.Said {
			switch {
			case h.Source == j.source:
				j.heard = h.Heard
			case h.Heard.After(j.after):
				j.after = h.Heard
			}
		}
	}
}

// find asks the mesh for the document that is spoken of.
func (l *Ledger) find(ctx context.Context, sender routing.AgencyCode, j *judged) (*knowledge, error) {
	view := l.config.Directory.View()
	j.owner = sender
	if j.saying.By != lifecycle.Sender {
		owner, ok := view.Agency(routing.AgencyCode(j.saying.Owner))
		if !ok {
			return &knowledge{}, nil
		}
		j.owner = routing.AgencyCode(owner.GetCode())
	}
	question := &relayv1.InquireRequest{SenderCode: string(j.owner), DocumentId: j.saying.Document}
	all := &knowledge{self: l.config.Self, view: view}
	if len(j.saying.Envelope) > 0 {
		id, err := envelope.IDFromBytes(j.saying.Envelope)
		if err != nil {
			return &knowledge{}, nil
		}
		question, all.id = &relayv1.InquireRequest{EnvelopeId: id[:]}, id
	} else if j.saying.Document == "" {
		return &knowledge{}, nil
	}
	own, err := l.Inquire(ctx, question)
	if err != nil {
		return nil, err
	}
	all.add(l.config.Self, own)
	// What was said of it its ingress alone knows; where that does not answer, the
	// home of a recipient knows of it, and others who passed it on.
	ask, lost := l.others()
	if all.known() && slices.Contains(ask, all.ingress) {
		l.ask(ctx, []routing.RelayID{all.ingress}, question, all)
		ask = slices.DeleteFunc(ask, func(r routing.RelayID) bool { return r == all.ingress })
	}
	if !all.known() || !all.told || all.ingress != l.config.Self && len(all.silent) > 0 {
		all.lost = lost
		l.ask(ctx, ask, question, all)
	}
	if !all.known() && len(all.silent) > 0 {
		return nil, l.silent(all)
	}
	j.id, j.ingress = all.id, all.ingress
	return all, nil
}

// atHome are the agencies whose home is this relay.
func (l *Ledger) atHome(view routing.View, agencies []routing.AgencyCode) []routing.AgencyCode {
	return slices.DeleteFunc(slices.Clone(agencies), func(a routing.AgencyCode) bool {
		agency, _ := view.Agency(a)
		return agency.GetHomeRelayId() != string(l.config.Self)
	})
}

func (l *Ledger) silent(all *knowledge) error {
	return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE,
		"the relays that may know the document do not answer just now: %v; try again later", all.silentRelays())
}

const (
	notFound   = exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
	wrongState = exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE
	invalid    = exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
)

// against finds what speaks against a saying, and at whom it is said.
func (l *Ledger) against(sender routing.AgencyCode, header *exchangev1.Header, j *judged, all *knowledge) []envelope.Problem {
	target := targetField(header, j)
	if j.saying.Act == lifecycle.Replaces && j.saying.Document == header.GetDocumentId() {
		return []envelope.Problem{{Field: target, Reason: invalid, Description: "is the document itself: give the replacement an id of its own"}}
	}
	if !all.known() || all.sender != j.owner {
		description := "names a document that is not known, or is not yours to speak of"
		if !all.known() && len(all.lost) > 0 {
			description += fmt.Sprintf("; relays were lost, %v, and with them what they alone knew", all.lost)
		}
		return []envelope.Problem{{Field: target, Reason: notFound, Description: description}}
	}
	if j.saying.By != lifecycle.Sender {
		return l.againstRecipient(sender, header, j, all, target)
	}
	return l.againstSender(header, j, all)
}

func targetField(header *exchangev1.Header, j *judged) string {
	switch {
	case header.GetKind() == exchangev1.Kind_KIND_STATUS && len(j.saying.Envelope) > 0:
		return "header.status.envelope_id"
	case header.GetKind() == exchangev1.Kind_KIND_STATUS:
		return "header.status.response_for"
	case j.saying.Act == lifecycle.Replaces:
		return fmt.Sprintf("header.business.replaces[%d].document_id", j.number)
	}
	return "header.business.target_document_id"
}

// againstRecipient judges a status of a recipient: it is about a document that it
// got, and goes to who sent that.
func (l *Ledger) againstRecipient(sender routing.AgencyCode, header *exchangev1.Header, j *judged, all *knowledge, target string) []envelope.Problem {
	d := all.deliveries[string(sender)]
	if d == nil {
		return []envelope.Problem{{Field: target, Reason: notFound,
			Description: "names a document that is not known, or is not yours to speak of"}}
	}
	codes, _ := all.view.Resolve(header.GetRecipients())
	if len(codes) == 1 && codes[0] != j.owner {
		return []envelope.Problem{{Field: "header.recipients[0]", Reason: invalid,
			Description: fmt.Sprintf("is %s: what is said of a document goes to its sender, %s", codes[0], j.owner)}}
	}
	j.agencies = []routing.AgencyCode{sender}
	return faultAt(all, d, j, "header.status.code")
}

// againstSender judges what a sender says of its own document at recipients.
func (l *Ledger) againstSender(header *exchangev1.Header, j *judged, all *knowledge) []envelope.Problem {
	at := make(map[routing.AgencyCode]bool)
	for _, code := range j.saying.At {
		if agency, ok := all.view.Agency(routing.AgencyCode(code)); ok {
			at[routing.AgencyCode(agency.GetCode())] = true
		}
	}
	removed := make(map[routing.AgencyCode]bool)
	for _, code := range j.saying.Removes {
		if agency, ok := all.view.Agency(routing.AgencyCode(code)); ok {
			removed[routing.AgencyCode(agency.GetCode())] = true
		}
	}
	var problems []envelope.Problem
	has := 0
	for i, recipient := range header.GetRecipients() {
		codes, _ := all.view.Resolve([]*exchangev1.Recipient{recipient})
		for _, code := range codes {
			d := all.deliveries[string(code)]
			switch {
			case len(at) > 0 && !at[code]:
				continue // it is not replaced there
			case d == nil && (j.saying.Act == lifecycle.Updates || j.saying.Act == lifecycle.Replaces):
				has++          // added by the update, or reached by the replacement only
				if !all.told { // or the ingress knows better, and judges
					j.agencies = append(j.agencies, code)
				}
				continue
			case d == nil:
				problems = append(problems, envelope.Problem{Field: recipientField(i), Reason: notFound,
					Description: fmt.Sprintf("the document was not sent to %s", code)})
				continue
			}
			if !removed[code] {
				has++
			}
			problems = append(problems, faultAt(all, d, j, recipientField(i))...)
			j.agencies = append(j.agencies, code)
		}
	}
	if j.saying.Act == lifecycle.Updates && len(removed) > 0 && has == 0 && !keepsAny(all, removed) {
		problems = append(problems, envelope.Problem{Field: "header.business.recipient_changes", Reason: invalid,
			Description: "take the document from every recipient: revoke it instead"})
	}
	return problems
}

// keepsAny reports whether somebody has the document who is not removed.
func keepsAny(all *knowledge, removed map[routing.AgencyCode]bool) bool {
	for code := range all.deliveries {
		if !removed[routing.AgencyCode(code)] {
			return true
		}
	}
	return false
}

func recipientField(i int) string { return fmt.Sprintf("header.recipients[%d]", i) }

var faultTexts = map[lifecycle.Fault]string{
	lifecycle.WrongParty: "is not yours to say",
	lifecycle.NoReason:   "needs a reason",
	lifecycle.NotAsked:   "answers a question that was not asked, or was answered",
	lifecycle.Over:       "comes too late: the document was returned or taken back there",
	lifecycle.InRecall:   "cannot be: the document is being taken back there",
}

// faultAt is why the life of the document at a recipient does not allow it. Where
// the ingress does not answer nobody knows: it is kept, and judged there. Nor is
// anything wrong with what was heard from the same envelope before.
func faultAt(all *knowledge, d *exchangev1.Delivery, j *judged, field string) []envelope.Problem {
	if !all.told {
		return nil
	}
	if life := all.lives[d.GetAgencyCode()]; life != nil {
		if _, ok := life.OutcomeOf(j.source); ok {
			return nil
		}
	}
	s := lifecycle.State{Phase: lifecycle.Phase(d.GetPhase()), Asked: lifecycle.Question(d.GetAsked()), Code: d.GetStatus()}
	_, verdict := s.Next(j.saying.Statement)
	if verdict.Outcome != lifecycle.Refused {
		return nil
	}
	description := fmt.Sprintf("%s at %s %s; the document is %s there", j.saying.Act, d.GetAgencyCode(), faultTexts[verdict.Fault], s.Phase)
	if verdict.Fault == lifecycle.NotAsked {
		// The question may be on its way to the ingress: it is kept, and counts if
		// a question turns out to have been asked before it.
		j.warnings = append(j.warnings, &exchangev1.Warning{Field: field, Description: description + "; it is kept, and changes nothing unless a question is still on its way"})
		return nil
	}
	return []envelope.Problem{{Field: field, Reason: wrongState, Description: description}}
}
