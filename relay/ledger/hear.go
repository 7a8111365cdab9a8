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
