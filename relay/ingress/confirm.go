package ingress

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Confirm ends deliveries that a connector made durable, here or at the home
// relay of the agency.
func (s *Service) Confirm(ctx context.Context, req *exchangev1.ConfirmRequest) (*exchangev1.ConfirmResponse, error) {
	response, err := s.confirm(ctx, req)
	if err != nil {
		s.metrics.refusal(ctx, "confirm", err)
	}
	return response, err
}

func (s *Service) confirm(ctx context.Context, req *exchangev1.ConfirmRequest) (*exchangev1.ConfirmResponse, error) {
	owner, err := s.inboxOwner(ctx, s.config.Directory.View(), req.GetAgencyCode())
	if err != nil {
		return nil, err
	}
	if home := routing.RelayID(owner.GetHomeRelayId()); home != s.config.Self {
		return s.confirmAtHome(ctx, home, named(req, owner.GetCode()))
	}
	return s.settle(ctx, routing.AgencyCode(owner.GetCode()), req)
}

// settle ends the deliveries in one durable step; where another relay is the
// ingress, custody of the report to it is part of that step.
func (s *Service) settle(ctx context.Context, agency routing.AgencyCode, req *exchangev1.ConfirmRequest) (*exchangev1.ConfirmResponse, error) {
	ids, err := confirmIDs(req)
	if err != nil {
		return nil, err
	}
	var settlements []envelope.Settlement
	var recalled [][]byte
	var absent []envelope.ID
	for _, id := range ids {
		settlement, ok, err := s.settlement(ctx, agency, id)
		switch {
		case errors.Is(err, errAbsent):
			absent = append(absent, id)
		case err != nil:
			return nil, err
		case ok && settlement.Reason == exchangev1.ErrorReason_ERROR_REASON_RECALLED:
			recalled = append(recalled, id[:])
		case ok:
			settlements = append(settlements, settlement)
		}
	}
	var settled int
	if len(settlements) > 0 {
		if settled, err = s.config.Spool.Settle(ctx, settlements); err != nil {
			return nil, fmt.Errorf("confirm %d envelopes of %s: %w", len(settlements), agency, err)
		}
	}
	// Also those that were settled before or never here: no stream need wait
	// for them.
	s.streams.confirm(agency, ids)
	if settled < len(settlements) { // a recall may have been durable first
		late, err := s.takenBack(agency, settlements)
		if err != nil {
			return nil, err
		}
		recalled = append(recalled, late...)
	}
	if len(absent) > 0 {
		late, err := s.config.Ledger.Confirmed(ctx, agency, absent)
		if err != nil {
			return nil, err
		}
		for _, id := range late {
			recalled = append(recalled, id[:])
		}
	}
	return &exchangev1.ConfirmResponse{
		Confirmed: uint32(settled), Repeats: uint32(len(req.GetEnvelopeIds()) - settled), RecalledIds: recalled,
	}, nil
}

// takenBack lists which envelopes were taken back from an agency.
func (s *Service) takenBack(agency routing.AgencyCode, settlements []envelope.Settlement) (ids [][]byte, err error) {
	for _, settlement := range settlements {
		record, err := s.config.Spool.Record(settlement.ID)
		if isReason(err, exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("confirm %s for %s: %w", settlement.ID, agency, err)
		}
		if gaveUp(record, agency, exchangev1.ErrorReason_ERROR_REASON_RECALLED) {
			ids = append(ids, record.ID[:])
		}
	}
	return ids, nil
}

var errAbsent = errors.New("not in the inbox")

func hasSettled(record *envelope.Record, agency routing.AgencyCode) bool {
	return slices.ContainsFunc(record.Deliveries, func(d envelope.Delivery) bool {
		return d.Agency == agency && d.Place == envelope.Settled
	})
}

// gaveUp reports whether a delivery was given up for that reason.
func gaveUp(record *envelope.Record, agency routing.AgencyCode, why exchangev1.ErrorReason) bool {
	return slices.ContainsFunc(record.Deliveries, func(d envelope.Delivery) bool {
		return d.Agency == agency && d.Place == envelope.Settled &&
			d.Transport == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL && d.Reason == why
	})
}

// confirmIDs reads the ids without repeats.
func confirmIDs(req *exchangev1.ConfirmRequest) ([]envelope.ID, error) {
	invalid := exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	if n := len(req.GetEnvelopeIds()); n == 0 || n > maxConfirm {
		return nil, refuseField(invalid, "envelope_ids", "%d ids in one call, 1 to %d are allowed", n, maxConfirm)
	}
	ids := make([]envelope.ID, 0, len(req.GetEnvelopeIds()))
	var problems []envelope.Problem
	for i, b := range req.GetEnvelopeIds() {
		id, err := envelope.IDFromBytes(b)
		if err != nil {
			problems = append(problems, envelope.Problem{
				Field: fmt.Sprintf("envelope_ids[%d]", i), Reason: invalid, Description: err.Error()})
			continue
		}
		ids = append(ids, id)
	}
	if len(problems) > 0 {
		return nil, envelope.RefuseProblems(bounded(problems))
	}
	slices.SortFunc(ids, func(a, b envelope.ID) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(ids), nil
}

// settlement is what confirming one envelope means here; false where there is
// nothing to settle, errAbsent where it is not, or no more, this relay's to settle. Who received it before its time was over, and made it durable
// meanwhile, confirms what is true all the same; what its sender has taken back
// stays so, and the recipient is told.
func (s *Service) settlement(ctx context.Context, agency routing.AgencyCode, id envelope.ID) (envelope.Settlement, bool, error) {
	record, err := s.config.Spool.Record(id)
	if isReason(err, exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND) {
		return envelope.Settlement{}, false, errAbsent
	}
	if err != nil {
		return envelope.Settlement{}, false, fmt.Errorf("confirm %s for %s: %w", id, agency, err)
	}
	if recalled := exchangev1.ErrorReason_ERROR_REASON_RECALLED; gaveUp(record, agency, recalled) {
		return envelope.Settlement{ID: id, Agency: agency, Reason: recalled}, true, nil
	}
	if !slices.Contains(record.Inboxes, agency) && !gaveUp(record, agency, exchangev1.ErrorReason_ERROR_REASON_EXPIRED) {
		if !hasSettled(record, agency) {
			return envelope.Settlement{}, false, errAbsent
		}
		return envelope.Settlement{}, false, nil
	}
	ctx, span := s.span(continueTrace(ctx, record.TraceParent, record.TraceState), "confirm", id)
	defer span.End()
	span.SetAttributes(attribute.String("truc.agency.code", string(agency)))

	settlement := envelope.Settlement{
		ID: id, Agency: agency, At: s.config.Clock(),
		Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_DONE,
	}
	// Nil where this relay is the ingress itself.
	if settlement.Report, err = envelope.ReportFor(record, s.config.Self, settlement); err != nil {
		return envelope.Settlement{}, false, err
	}
	s.log(ctx, id).Info("envelope confirmed", "agency", agency)
	return settlement, true, nil
}
