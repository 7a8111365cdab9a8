package consensus

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// watched is what the leader has seen of one follower over time.
type watched struct {
	matched uint64    // its last entry when looked at before
	fine    time.Time // when it last had everything, or had got on
	alarmed bool
}

// watch runs until the node must stop.
func (n *Node) watch(ctx context.Context, l *live, leadership <-chan bool) error {
	look := time.NewTicker(max(n.cfg.LagAlarm/4, time.Millisecond))
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			select {
			case err := <-n.fatal: // both at once: the reason must not get lost
				return err
			default:
				return nil
			}
		case err := <-n.fatal:
			n.log.Error("this relay's directory stops", "error", err)
			return err
		case leader := <-leadership:
			n.log.Info("leadership changed", "leader_here", leader, "term", l.raft.CurrentTerm())
			if leader {
				n.meters.elections.Add(context.Background(), 1)
			}
			clear(n.followers)
		case <-look.C:
			n.watchFollowers(l, time.Now())
		}
	}
}

// watchFollowers warns of each follower once when it falls silent or stays
// behind without getting on, and says when it is back.
func (n *Node) watchFollowers(l *live, now time.Time) {
	if l.raft.State() != raft.Leader {
		return
	}
	last, term := l.raft.LastIndex(), l.raft.CurrentTerm()
	for _, s := range l.raft.GetConfiguration().Configuration().Servers {
		id := string(s.ID)
		if id == n.cfg.ID {
			continue
		}
		w, ok := n.followers[id]
		if !ok {
			w = &watched{fine: now}
			n.followers[id] = w
		}
		f, known := l.progress.of(id, term)
		silent := !known || now.Sub(f.contact) > n.cfg.LagAlarm
		if known && (f.matched >= last || f.matched > w.matched) {
			w.matched, w.fine = f.matched, now
		}
		// One that has never answered is given the same time as one that fell
		// silent.
		troubled := (silent && known) || now.Sub(w.fine) > n.cfg.LagAlarm
		switch {
		case troubled && !w.alarmed:
			n.log.Warn("a follower lags", "follower", id, "address", s.Address,
				"silent", silent, "entries", last-min(last, f.matched))
			n.meters.alarms.Add(context.Background(), 1)
		case !troubled && w.alarmed:
			n.log.Info("the follower is back", "follower", id)
		}
		w.alarmed = troubled
	}
}
