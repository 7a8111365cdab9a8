package ledger

import (
	"context"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Apply takes another relay's report of how a delivery ended, for an envelope
// that was accepted here. It is durable on return and harmless when repeated.
// A report that can never be applied is refused: NOT_FOUND where the envelope
// or the recipient is not known here, INVALID_FIELD where it contradicts the
// envelope, WRONG_IDENTITY where the reporting relay is none of the mesh.
// Everything else is temporary; NOT_HOME, where a relay reports that did not get
// custody of the delivery from here yet, too.
//
// The relay that reports is mostly the home of the recipient, but need not be:
// a relay on the way may have given up, and the agency may have moved since. But
// what still waits here has been nowhere else than, perhaps, where it waits to
// go: a report of anyone else would end a delivery that never happened. And that
// a delivery was given up ends no life that it was given after: such a report is
// taken, and changes nothing.
func (l *Ledger) Apply(ctx context.Context, report *envelope.Custody) error {
	apply := l.apply
	if header, err := envelope.ParseCanonical(report.Header); err == nil && envelope.IsStatement(header) {
		apply = l.applyStatement
	}
	err := apply(ctx, report)
	outcome := "applied"
	if err != nil {
		outcome = "refused"
		l.config.Logger.Warn("report not applied", "envelope", report.ID.String(), "relay", string(report.Ingress), "error", err)
	}
	l.reports.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
	return err
}

func (l *Ledger) apply(ctx context.Context, report *envelope.Custody) error {
	settlement, err := envelope.ParseReport(report)
	if err != nil {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "%v", err)
	}
	view := l.config.Directory.View()
	if _, ok := view.Relay(report.Ingress); !ok {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY,
			"relay %s, which reports on %s, is not in the directory", report.Ingress, settlement.ID)
	}
	record, err := l.config.Spool.Record(settlement.ID)
	if err != nil {
		return fmt.Errorf("report on %s: %w", settlement.ID, err)
	}
	if !record.FromSender {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND,
			"envelope %s was not accepted at relay %s", settlement.ID, l.config.Self)
	}
	header, err := envelope.ParseCanonical(report.Header)
	if err != nil {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "report on %s: %v", settlement.ID, err)
	}
	if err := l.plausible(view, report, header, record, settlement); err != nil {
		return err
	}
	if end := header.GetExpiresAt(); end != nil && end.AsTime().Before(record.ExpiresAt) {
		// It was late. What it says of a recipient who was not revived, the relay
		// that reports is asked again.
		l.config.Logger.Info("report is about an earlier life", "envelope", settlement.ID.String(),
			"agency", string(settlement.Agency), "relay", string(report.Ingress))
		return nil
	}
	if _, err := l.config.Spool.Settle(ctx, []envelope.Settlement{settlement}); err != nil {
		return fmt.Errorf("report on %s for %s: %w", settlement.ID, settlement.Agency, err)
	}
	l.config.Logger.Info("delivery settled", "envelope", settlement.ID.String(), "agency", string(settlement.Agency),
		"transport", settlement.Transport.String(), "relay", string(report.Ingress))
	return nil
}

// plausible holds a report against the record of the envelope.
func (l *Ledger) plausible(view routing.View, report *envelope.Custody, header *exchangev1.Header, record *envelope.Record, s envelope.Settlement) error {
	about := header.GetStatus().GetResponseFor()
	if about.GetAgencyCode() != string(record.Sender) || about.GetDocumentId() != record.DocumentID {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD,
			"report on %s names another document than the envelope holds", s.ID)
	}
	if slices.Contains(record.Inboxes, s.Agency) || slices.ContainsFunc(record.Onward, func(duty envelope.Onward) bool {
		return duty.Relay != report.Ingress && slices.Contains(duty.Agencies, s.Agency)
	}) {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_HOME,
			"relay %s reports on %s for %s, which still waits at relay %s", report.Ingress, s.ID, s.Agency, l.config.Self)
	}
	for _, delivery := range record.Deliveries {
		if delivery.Agency != s.Agency {
			continue
		}
		agency, _ := view.Agency(s.Agency)
		if from := report.Ingress; from != delivery.Home && string(from) != agency.GetHomeRelayId() {
			l.config.Logger.Warn("report by a relay that is not home", "envelope", s.ID.String(),
				"agency", string(s.Agency), "relay", string(from), "home", string(delivery.Home))
		}
		return nil
	}
	return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND,
		"agency %s is no recipient of %s", s.Agency, s.ID)
}
