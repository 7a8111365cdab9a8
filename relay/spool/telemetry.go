package spool

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// observe reports Stats to the meter whenever it collects.
func (s *Spool) observe() error {
	m := s.cfg.Meter
	if m == nil {
		m = noop.Meter{}
	}
	var errs []error
	var all []metric.Observable
	var reads []func(Stats) int64
	gauge := func(name, unit, description string, read func(Stats) int64) {
		g, err := m.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		all, reads = append(all, g), append(reads, read)
	}
	gauge("truc.spool.envelopes", "", "Envelopes in custody.", func(st Stats) int64 { return st.Envelopes })
	gauge("truc.spool.content", "By", "Content in custody.", func(st Stats) int64 { return st.Bytes })
	gauge("truc.spool.queued", "", "Entries in queues for other relays.", func(st Stats) int64 { return st.Queued })
	gauge("truc.spool.inboxed", "", "Entries in inboxes.", func(st Stats) int64 { return st.Inboxed })
	gauge("truc.spool.pending", "", "Accepted recipients whose outcome is not known.", func(st Stats) int64 { return st.Pending() })
	gauge("truc.spool.sole", "", "Envelopes accepted here that no other relay is known to have.", func(st Stats) int64 { return st.Sole })
	gauge("truc.spool.dead_letters", "", "Envelopes given up for some recipient that can be revived.", func(st Stats) int64 { return st.DeadLetters })
	gauge("truc.spool.held", "", "Envelopes that an operator holds.", func(st Stats) int64 { return st.Held })
	gauge("truc.spool.journal", "By", "What the journal takes on disk.", func(st Stats) int64 { return st.JournalBytes })
	gauge("truc.spool.alive", "By", "What of the journal is needed.", func(st Stats) int64 { return st.LiveBytes })
	gauge("truc.spool.index", "By", "What the index takes on disk.", func(st Stats) int64 { return st.IndexBytes })
	gauge("truc.spool.damaged", "", "Envelopes found damaged since the start.", func(st Stats) int64 { return int64(st.Damaged) })
	gauge("truc.spool.repaired", "", "Damaged envelopes mended since the start.", func(st Stats) int64 { return int64(st.Repaired) })
	gauge("truc.spool.quarantined", "", "Envelopes whose content is damaged now.", func(st Stats) int64 { return int64(st.Quarantined) })
	gauge("truc.spool.lost", "", "Records missing in the journal, and not known to the index, since the start.",
		func(st Stats) int64 { return int64(st.LostRecords) })
	if err := errors.Join(errs...); err != nil {
		return err
	}
	registration, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := s.Stats()
		for i, read := range reads {
			o.ObserveInt64(all[i].(metric.Int64Observable), read(now))
		}
		return nil
	}, all...)
	if err != nil {
		return err
	}
	s.observed = registration
	return nil
}
