package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

// What becomes of a statement once the envelope that makes it is durable; see
// statement.go.

// tell has one saying kept here, or takes custody of the report about it.
func (l *Ledger) tell(ctx context.Context, record *envelope.Record, j judged) error {
	if len(j.agencies) == 0 {
		return nil // a replacement, where nobody had what it replaces
	}
	said := envelope.Said{ID: j.id, Source: record.ID, Agencies: j.agencies, Statement: j.saying.Statement}
	if said.At.Equal(said.Heard) { // the header does not say when
		said.At = record.AcceptedAt
	}
	switch said.Heard = record.AcceptedAt; {
	case !j.heard.IsZero():
		said.Heard = j.heard
	case !record.AcceptedAt.Before(j.judged) && !said.Heard.After(j.after):
		said.Heard = j.after.Add(time.Microsecond)
	}
	if j.ingress == l.config.Self {
		err := l.keep(ctx, said)
		if isNotFound(err) {
			// Lost with a disk. The envelope reaches whom it is for all the same.
			l.config.Logger.WarnContext(ctx, "what is said of an envelope is not kept: it is not known here any more",
				"envelope", said.ID.String(), "source", said.Source.String())
			return nil
		}
		return err
	}
	report, err := envelope.StatementReport(said, j.number, j.owner, j.saying.Document, l.config.Self, j.ingress)
	if err != nil {
		return err
	}
	return l.config.Report(ctx, report)
}

// keep has the spool keep it; the first that confirms is measured. A recall changes
// nothing here of what waits to be handed on: the home relay alone decides whether it
// or the document was first, for the document may have got there, unknown to this
// relay.
func (l *Ledger) keep(ctx context.Context, said envelope.Said) error {
	if !confirms(said) {
		return l.config.Spool.Say(ctx, said)
	}
	done, err := l.turns.take(ctx, said)
	if err != nil {
		return err
	}
	defer done()
	measure, err := l.firstConfirmation(said)
	if err != nil {
		return err
	}
	if err := l.config.Spool.Say(ctx, said); err != nil {
		return err
	}
	measure(ctx)
	return nil
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
		if err := l.takeBack(ctx, document, record.Inboxes, saying.Note); err != nil {
			return err
		}
		// A confirmation may have been first. Who need not have the document need
		// not be told.
		if document, err = l.config.Spool.Record(id); err != nil {
			return err
		}
		untold := slices.DeleteFunc(slices.Clone(record.Inboxes), func(a routing.AgencyCode) bool { return !isTakenBack(document, a) })
		if err := l.takeBack(ctx, record, untold, "the document was taken back before it was fetched"); err != nil {
			return err
		}
	}
	return nil
}

func isTakenBack(document *envelope.Record, agency routing.AgencyCode) bool {
	return slices.ContainsFunc(document.Deliveries, func(d envelope.Delivery) bool { return d.Agency == agency && d.TakenBack() })
}

// takeBack takes a document out of inboxes here.
func (l *Ledger) takeBack(ctx context.Context, record *envelope.Record, agencies []routing.AgencyCode, note string) error {
	return l.end(ctx, record, agencies, envelope.Settlement{
		Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL, Reason: exchangev1.ErrorReason_ERROR_REASON_RECALLED, Note: note})
}

// end settles deliveries that are in inboxes here, with reports to the ingress.
func (l *Ledger) end(ctx context.Context, record *envelope.Record, agencies []routing.AgencyCode, as envelope.Settlement) error {
	var settlements []envelope.Settlement
	for i := range record.Deliveries {
		d := &record.Deliveries[i]
		if d.Place != envelope.InInbox || !slices.Contains(agencies, d.Agency) {
			continue
		}
		s := as
		s.ID, s.Agency, s.At = record.ID, d.Agency, l.config.Clock()
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
	what := "document taken back before it was fetched"
	if as.Transport == exchangev1.TransportStatus_TRANSPORT_STATUS_DONE {
		what = "document was confirmed before it came"
	}
	l.config.Logger.Info(what, "envelope", record.ID.String(), "recipients", len(settlements))
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
// way to an inbox here: the document would come behind it, and be given out. It is
// remembered, and the document taken back when it comes. Where those who know do
// not answer, nothing waits for them.
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
			if all.sender == c.Sender {
				l.recalls.add(j.id, c.Inboxes, saying.Note, l.config.Clock())
			}
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
// come into them; and what has come itself, if it was taken back, or confirmed,
// before it came.
func (l *Ledger) Heard(ctx context.Context, record *envelope.Record, speaks bool) error {
	if record.Report || len(record.Inboxes) == 0 {
		return nil
	}
	now := l.config.Clock()
	if c := l.confirmations.take(record.ID, record.Inboxes, now); len(c.agencies) > 0 {
		// Who has confirmed it keeps it, whatever came meanwhile.
		if err := l.end(ctx, record, c.agencies, envelope.Settlement{Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_DONE}); err != nil {
			return err
		}
	}
	if c := l.recalls.take(record.ID, record.Inboxes, now); len(c.agencies) > 0 {
		if err := l.takeBack(ctx, record, c.agencies, c.note); err != nil {
			return err
		}
	}
	if !speaks {
		return nil
	}
	header, err := envelope.ParseCanonical(record.Header)
	if err != nil {
		return err
	}
	return l.withdraw(ctx, record, header)
}
