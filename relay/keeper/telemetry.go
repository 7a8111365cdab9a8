package keeper

import (
	"errors"

	"go.opentelemetry.io/otel/metric"
)

// telemetry counts what the keeper had to do. On a day without losses only
// settled moves, where an answer came before the report.
type telemetry struct {
	copies, resent, found, takenOver, settled, expired, silent metric.Int64Counter
}

func newTelemetry(m metric.Meter) (*telemetry, error) {
	t := new(telemetry)
	var errs []error
	for _, c := range []struct {
		counter           *metric.Int64Counter
		name, unit, about string
	}{
		{&t.copies, "truc.keeper.copies", "{envelope}", "Second copies wanted beyond those of delivery."},
		{&t.resent, "truc.keeper.resent", "{delivery}", "Deliveries sent again because their custody was lost."},
		{&t.found, "truc.keeper.found", "{delivery}", "Deliveries found in custody of another relay than believed."},
		{&t.takenOver, "truc.keeper.taken_over", "{envelope}", "Envelopes remembered here in place of their ingress."},
		{&t.settled, "truc.keeper.settled", "{delivery}", "Deliveries of which another relay's answer said how they ended."},
		{&t.expired, "truc.keeper.expired", "{delivery}", "Deliveries ended because their lifetime is over."},
		{&t.silent, "truc.keeper.silent", "{call}", "Questions that another relay did not answer."},
	} {
		counter, err := m.Int64Counter(c.name, metric.WithUnit(c.unit), metric.WithDescription(c.about))
		*c.counter, errs = counter, append(errs, err)
	}
	return t, errors.Join(errs...)
}
