package consensus

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// meters are the instruments, built once with their attribute sets.
type meters struct {
	first, repeated metric.MeasurementOption
	commands        metric.Int64Counter
	applyTime       metric.Float64Histogram
	proposeTime     metric.Float64Histogram
	done, failed    metric.MeasurementOption
	elections       metric.Int64Counter
	alarms          metric.Int64Counter
}

func option(key, value string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String(key, value)))
}

func newMeters(meter metric.Meter, observe func(metric.Observer, *gauges)) (*meters, error) {
	m := &meters{
		first: option("repeat", "no"), repeated: option("repeat", "yes"),
		done: option("outcome", "done"), failed: option("outcome", "failed"),
	}
	var errs [12]error
	m.commands, errs[0] = meter.Int64Counter("truc.raft.commands",
		metric.WithDescription("Commands applied; repeats changed nothing"))
	m.applyTime, errs[1] = meter.Float64Histogram("truc.raft.apply.duration", metric.WithUnit("s"),
		metric.WithDescription("Applying one entry"))
	m.proposeTime, errs[2] = meter.Float64Histogram("truc.raft.propose.duration", metric.WithUnit("s"),
		metric.WithDescription("From Propose to its answer, with finding and asking the leader"))
	m.elections, errs[3] = meter.Int64Counter("truc.raft.leaderships",
		metric.WithDescription("Times this relay became leader"))
	m.alarms, errs[4] = meter.Int64Counter("truc.raft.follower.alarms",
		metric.WithDescription("Times a follower was found silent or stuck"))
	var g gauges
	g.state, errs[5] = meter.Int64ObservableGauge("truc.raft.state",
		metric.WithDescription("0 follower, 1 candidate, 2 leader, 3 shut down"))
	g.term, errs[6] = meter.Int64ObservableGauge("truc.raft.term")
	g.index, errs[7] = meter.Int64ObservableGauge("truc.raft.index",
		metric.WithDescription("Last, committed, applied and snapshot index of the log"))
	g.contact, errs[8] = meter.Float64ObservableGauge("truc.raft.last_contact", metric.WithUnit("s"),
		metric.WithDescription("Since the leader was heard of; none on the leader"))
	g.lag, errs[9] = meter.Int64ObservableGauge("truc.raft.follower.lag",
		metric.WithDescription("Entries a follower is behind; on the leader"))
	g.followerContact, errs[10] = meter.Float64ObservableGauge("truc.raft.follower.last_contact", metric.WithUnit("s"),
		metric.WithDescription("Since a follower answered; on the leader"))
	_, errs[11] = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		observe(o, &g)
		return nil
	}, g.state, g.term, g.index, g.contact, g.lag, g.followerContact)
	for _, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("consensus: instruments: %w", err)
		}
	}
	return m, nil
}

type gauges struct {
	state, term, index, lag  metric.Int64ObservableGauge
	contact, followerContact metric.Float64ObservableGauge
}

var indexKinds = [...]metric.MeasurementOption{
	option("index", "last"), option("index", "committed"), option("index", "applied"), option("index", "snapshot"),
}

func (m *meters) applied(start time.Time, repeat bool) {
	set := m.first
	if repeat {
		set = m.repeated
	}
	m.commands.Add(context.Background(), 1, set)
	m.applyTime.Record(context.Background(), time.Since(start).Seconds())
}

func (m *meters) proposed(start time.Time, err error) {
	set := m.done
	if err != nil {
		set = m.failed
	}
	m.proposeTime.Record(context.Background(), time.Since(start).Seconds(), set)
}

func (n *Node) observe(o metric.Observer, g *gauges) {
	r := n.running()
	if r == nil {
		return
	}
	s := n.Status()
	o.ObserveInt64(g.state, int64(r.raft.State()))
	o.ObserveInt64(g.term, int64(s.Term))
	for i, index := range []uint64{s.LastIndex, s.CommitIndex, s.AppliedIndex, s.SnapshotIndex} {
		o.ObserveInt64(g.index, int64(index), indexKinds[i])
	}
	if s.LastContact > 0 {
		o.ObserveFloat64(g.contact, s.LastContact.Seconds())
	}
	members, _ := n.Members()
	for _, m := range members {
		if !m.Known {
			continue
		}
		relay := option("relay", m.ID)
		o.ObserveInt64(g.lag, int64(m.Lag), relay)
		o.ObserveFloat64(g.followerContact, m.LastContact.Seconds(), relay)
	}
}
