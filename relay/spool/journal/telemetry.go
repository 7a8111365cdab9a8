package journal

import (
	"errors"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

type meters struct {
	bytes    metric.Int64Counter
	records  metric.Int64Counter
	syncs    metric.Float64Histogram
	batch    metric.Int64Histogram
	segments metric.Int64Counter
	recycled metric.Int64Counter
	damaged  metric.Int64Counter
	cut      metric.Int64Counter
}

func newMeters(m metric.Meter) (meters, error) {
	if m == nil {
		m = noop.Meter{}
	}
	var out meters
	var errs [8]error
	out.bytes, errs[0] = m.Int64Counter("truc.journal.written", metric.WithUnit("By"),
		metric.WithDescription("Bytes written to segments."))
	out.records, errs[1] = m.Int64Counter("truc.journal.records",
		metric.WithDescription("Records written."))
	out.syncs, errs[2] = m.Float64Histogram("truc.journal.sync", metric.WithUnit("s"),
		metric.WithDescription("Time one sync took."))
	out.batch, errs[3] = m.Int64Histogram("truc.journal.batch",
		metric.WithDescription("Appends that shared one write."))
	out.segments, errs[4] = m.Int64Counter("truc.journal.segments",
		metric.WithDescription("Segments begun."))
	out.recycled, errs[5] = m.Int64Counter("truc.journal.recycled",
		metric.WithDescription("Segments given back."))
	out.damaged, errs[6] = m.Int64Counter("truc.journal.damaged",
		metric.WithDescription("Stretches found damaged."))
	out.cut, errs[7] = m.Int64Counter("truc.journal.cut", metric.WithUnit("By"),
		metric.WithDescription("Bytes of unacknowledged writes cut off at the start."))
	return out, errors.Join(errs[:]...)
}
