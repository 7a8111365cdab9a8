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
}

// Judge finds the documents that an envelope is about and everything that speaks
// against what it says of them: that the document is not known, or not theirs who
// speak; that its life does not allow it. The error is temporary: those who would
// know are silent.
//
// Once the envelope is committed, hear has what it says kept by the ingress of
// each document, and takes documents out of inboxes here that it takes back. It is
// durable on return, and harmless when repeated.
func (l *Ledger) Judge(ctx context.Context, sender routing.AgencyCode, header *exchangev1.Header) (
	hear func(context.Context, *envelope.Record) error, problems []envelope.Problem, err error,
) {
	var all []judged
	for i, saying := range lifecycle.Read(header, l.config.Clock()) {
		j := judged{saying: saying, number: i}
		known, err := l.find(ctx, sender, &j)
		if err != nil {
			return nil, nil, err
		}
		found := l.against(sender, header, &j, known)
		if len(found) > 0 && !known.told && len(known.silent) > 0 {
			return nil, nil, l.silent(known) // who would know better does not answer
		}
		if len(found) == 0 && j.saying.Act == lifecycle.AsksRecall {
			if err := l.underWay(known, j.id, l.atHome(known.view, j.agencies)); err != nil {
				return nil, nil, err
			}
		}
		problems = append(problems, found...)
		all = append(all, j)
	}
	return func(ctx context.Context, record *envelope.Record) error {
		for _, j := range all {
			if err := l.tell(ctx, record, j); err != nil {
				return fmt.Errorf("%s is about %s: %w", record.ID, j.id, err)
			}
		}
		return l.Heard(ctx, record)
	}, problems, nil
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
		all.silent = append(all.silent, lost...)
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
		return []envelope.Problem{{Field: target, Reason: notFound,
			Description: "names a document that is not known, or is not yours to speak of"}}
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
				has++ // added by the update, or reached by the replacement only
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
// the ingress does not answer nobody knows: it is kept, and judged there.
func faultAt(all *knowledge, d *exchangev1.Delivery, j *judged, field string) []envelope.Problem {
	if !all.told {
		return nil
	}
	s := lifecycle.State{Phase: lifecycle.Phase(d.GetPhase()), Asked: lifecycle.Question(d.GetAsked()), Code: d.GetStatus()}
	_, verdict := s.Next(j.saying.Statement)
	if verdict.Outcome != lifecycle.Refused {
		return nil
	}
	return []envelope.Problem{{Field: field, Reason: wrongState,
		Description: fmt.Sprintf("%s at %s %s; the document is %s there", j.saying.Act, d.GetAgencyCode(), faultTexts[verdict.Fault], s.Phase)}}
}

// tell has one saying kept here, or takes custody of the report about it.
func (l *Ledger) tell(ctx context.Context, record *envelope.Record, j judged) error {
	if len(j.agencies) == 0 {
		return nil // a replacement, where nobody had what it replaces
	}
	said := envelope.Said{ID: j.id, Source: record.ID, Agencies: j.agencies, Statement: j.saying.Statement}
	if said.At.Equal(said.Heard) { // the header does not say when
		said.At = record.AcceptedAt
	}
	said.Heard = record.AcceptedAt
	if j.ingress == l.config.Self {
		return l.keep(ctx, said)
	}
	report, err := envelope.StatementReport(said, j.number, j.owner, j.saying.Document, l.config.Self, j.ingress)
	if err != nil {
		return err
	}
	return l.config.Report(ctx, report)
}

// keep is Say, and what follows from it at the ingress: what a recall finds still
// waiting here goes no further.
func (l *Ledger) keep(ctx context.Context, said envelope.Said) error {
	measure, err := l.firstConfirmation(said)
	if err != nil {
		return err
	}
	if err := l.config.Spool.Say(ctx, said); err != nil {
		return err
	}
	measure(ctx)
	if said.Act != lifecycle.AsksRecall {
		return nil
	}
	record, err := l.config.Spool.Record(said.ID)
	if err != nil {
		return err
	}
	return l.takeBack(ctx, record, said.Agencies, said.Note, envelope.InQueue)
}

// withdraw takes the documents that an envelope takes back out of the inboxes
// that it came into, where they were not confirmed yet: the recipients never get
// them, nor what takes them back.
func (l *Ledger) withdraw(ctx context.Context, record *envelope.Record, header *exchangev1.Header) error {
	for _, saying := range lifecycle.Read(header, record.AcceptedAt) {
		if saying.Act != lifecycle.AsksRecall {
			continue
		}
		id, known, err := l.config.Spool.ByDocument(record.Sender, saying.Document)
		if len(saying.Envelope) == 16 {
			id, known, err = envelope.ID(saying.Envelope), true, nil
		}
		if err != nil || !known {
			return err
		}
		document, err := l.config.Spool.Record(id)
		if isNotFound(err) || err == nil && document.Sender != record.Sender {
			return nil
		}
		if err != nil {
			return err
		}
		before := document.Inboxes
		if err := l.takeBack(ctx, document, record.Inboxes, saying.Note, envelope.InInbox); err != nil {
			return err
		}
		// Who never saw the document need not be told.
		untold := slices.DeleteFunc(slices.Clone(record.Inboxes), func(a routing.AgencyCode) bool { return !slices.Contains(before, a) })
		if err := l.takeBack(ctx, record, untold, "the document was taken back before it was fetched", envelope.InInbox); err != nil {
			return err
		}
	}
	return nil
}

// takeBack ends deliveries of a document that stand at a place here as recalled.
func (l *Ledger) takeBack(ctx context.Context, record *envelope.Record, agencies []routing.AgencyCode, note string, place envelope.Place) error {
	var settlements []envelope.Settlement
	for i := range record.Deliveries {
		d := &record.Deliveries[i]
		if d.Place != place || !slices.Contains(agencies, d.Agency) {
			continue
		}
		s := envelope.Settlement{
			ID: record.ID, Agency: d.Agency, Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL,
			Reason: exchangev1.ErrorReason_ERROR_REASON_RECALLED, Note: note, At: l.config.Clock(),
		}
		var err error
		if s.Report, err = envelope.ReportFor(record, l.config.Self, s); err != nil {
			return err
		}
		settlements = append(settlements, s)
	}
	if len(settlements) == 0 {
		return nil
	}
	if _, err := l.config.Spool.Settle(ctx, settlements); err != nil {
		return err
	}
	l.config.Logger.Info("document taken back before it was fetched", "envelope", record.ID.String(), "recipients", len(settlements))
	return nil
}

// applyStatement keeps what another relay reports that an envelope says.
func (l *Ledger) applyStatement(ctx context.Context, report *envelope.Custody) error {
	said, owner, _, err := envelope.ParseStatement(report)
	if err != nil {
		return envelope.Refuse(invalid, "%v", err)
	}
	if _, ok := l.config.Directory.View().Relay(report.Ingress); !ok {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY,
			"relay %s, which reports what is said of %s, is not in the directory", report.Ingress, said.ID)
	}
	record, err := l.config.Spool.Record(said.ID)
	if err != nil {
		return fmt.Errorf("statement about %s: %w", said.ID, err)
	}
	if !record.FromSender || record.Sender != owner {
		return envelope.Refuse(notFound, "envelope %s of %s was not accepted at relay %s", said.ID, owner, l.config.Self)
	}
	if err := l.keep(ctx, said); err != nil {
		return fmt.Errorf("statement about %s: %w", said.ID, err)
	}
	l.config.Logger.Info("statement heard", "envelope", said.ID.String(), "source", said.Source.String(),
		"says", said.Act.String(), "relay", string(report.Ingress))
	return nil
}

// Ready refuses for a while what would take a document back that is still on its
// way to an inbox here: the document would come behind it, and be given out. Where
// those who know do not answer, nothing waits for them.
func (l *Ledger) Ready(ctx context.Context, c *envelope.Custody) error {
	if c.Report || len(c.Inboxes) == 0 {
		return nil
	}
	header, err := envelope.ParseCanonical(c.Header)
	if err != nil {
		return err
	}
	for i, saying := range lifecycle.Read(header, c.AcceptedAt) {
		if saying.Act != lifecycle.AsksRecall {
			continue
		}
		j := judged{saying: saying, number: i}
		all, err := l.find(ctx, c.Sender, &j)
		if err != nil || !all.known() {
			continue
		}
		if err := l.underWay(all, j.id, c.Inboxes); err != nil {
			return err
		}
	}
	return nil
}

// underWay refuses while a document is on its way to recipients at home here.
func (l *Ledger) underWay(all *knowledge, id envelope.ID, agencies []routing.AgencyCode) error {
	if _, err := l.config.Spool.Record(id); !isNotFound(err) {
		return err
	}
	for _, a := range agencies {
		switch all.deliveries[string(a)].GetTransport() {
		case exchangev1.TransportStatus_TRANSPORT_STATUS_INITIAL, exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING:
			r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED,
				"the document that it takes back, %s, is still on its way to %s; try again in a moment", id, a)
			r.RetryAfter = recallPause
			return r
		}
	}
	return nil
}

// recallPause is after how long a recall that overtook its document is tried again.
const recallPause = 2 * time.Second

// Heard takes documents out of inboxes here that an envelope takes back which has
// come into them.
func (l *Ledger) Heard(ctx context.Context, record *envelope.Record) error {
	if record.Report || len(record.Inboxes) == 0 {
		return nil
	}
	header, err := envelope.ParseCanonical(record.Header)
	if err != nil || !lifecycle.Speaks(header) {
		return err
	}
	return l.withdraw(ctx, record, header)
}
