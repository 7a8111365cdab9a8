package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// Short names for the operations on the wire.
const (
	opAddVoter    = directoryv1.MembershipOperation_MEMBERSHIP_OPERATION_ADD_VOTER
	opAddNonvoter = directoryv1.MembershipOperation_MEMBERSHIP_OPERATION_ADD_NONVOTER
	opDemote      = directoryv1.MembershipOperation_MEMBERSHIP_OPERATION_DEMOTE
	opRemove      = directoryv1.MembershipOperation_MEMBERSHIP_OPERATION_REMOVE
	opTransfer    = directoryv1.MembershipOperation_MEMBERSHIP_OPERATION_TRANSFER_LEADER
)

// Every membership change may be asked of any relay, is done by the leader,
// returns when the configuration is committed, with its index, and changes
// nothing where things are already so.

// AddVoter adds a relay with a vote, or promotes a non-voter. A new voter first
// catches up without a vote: a relay that does not answer would otherwise count
// towards the majority at once. Where it does not catch up in time it stays a
// non-voter, and the call is refused; so it is where the relay has a vote at
// another address, which is MoveVoter's to change.
func (n *Node) AddVoter(ctx context.Context, id, address string) (index uint64, err error) {
	return n.change(ctx, &directoryv1.ChangeMembershipRequest{Operation: opAddVoter, RelayId: id, Address: address})
}

// MoveVoter does what AddVoter does, and changes the address of who has a vote
// already. At a wrong address a voter is lost to the others, and with it maybe
// the majority.
func (n *Node) MoveVoter(ctx context.Context, id, address string) (index uint64, err error) {
	return n.change(ctx, &directoryv1.ChangeMembershipRequest{Operation: opAddVoter, RelayId: id, Address: address, ChangeAddress: true})
}

// AddNonvoter adds a relay that copies the state without a vote, or changes a
// non-voter's address.
func (n *Node) AddNonvoter(ctx context.Context, id, address string) (index uint64, err error) {
	return n.change(ctx, &directoryv1.ChangeMembershipRequest{Operation: opAddNonvoter, RelayId: id, Address: address})
}

// Demote takes a voter's vote away. A leader hands leadership over first.
func (n *Node) Demote(ctx context.Context, id string) (index uint64, err error) {
	return n.change(ctx, &directoryv1.ChangeMembershipRequest{Operation: opDemote, RelayId: id})
}

// Remove takes a member out. A leader hands leadership over first.
func (n *Node) Remove(ctx context.Context, id string) (index uint64, err error) {
	return n.change(ctx, &directoryv1.ChangeMembershipRequest{Operation: opRemove, RelayId: id})
}

// TransferLeader hands leadership to a voter, or to any where id is empty, and
// returns who leads then as far as this relay knows.
func (n *Node) TransferLeader(ctx context.Context, id string) (leader string, err error) {
	if _, err := n.change(ctx, &directoryv1.ChangeMembershipRequest{Operation: opTransfer, RelayId: id}); err != nil {
		return "", err
	}
	// This relay may learn of the new leader a little later than the old one.
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	for {
		changed := n.leaderChanged.listen()
		if leader, _ = n.leader(); leader != "" && (id == "" || leader == id) {
			return leader, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return leader, nil
		}
	}
}

func (n *Node) change(ctx context.Context, req *directoryv1.ChangeMembershipRequest) (index uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ProposeTimeout)
	defer cancel()
	// A try whose answer was lost may have been done. A second try then finds
	// another leader, or the member gone, and must not call that a fault.
	var tries int
	var firstLeader string
	settled := func() bool {
		leader, _ := n.leader()
		tries++
		if tries == 1 {
			firstLeader = leader
		}
		return req.GetOperation() == opTransfer && req.GetRelayId() == "" && leader != firstLeader
	}
	err = n.onLeader(ctx, leaderCall{
		here: func(ctx context.Context) (err error) {
			if settled() {
				return nil
			}
			index, err = n.changeHere(ctx, req)
			return err
		},
		there: func(ctx context.Context, client directoryv1.ReplicationServiceClient) error {
			if settled() {
				return nil
			}
			answer, err := client.ChangeMembership(ctx, req)
			index = answer.GetIndex()
			return err
		},
	})
	var refusal *Refusal
	if errors.As(err, &refusal) && tries > 1 && req.GetOperation() == opRemove &&
		refusal.Reason == exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND {
		err = nil
	}
	if err != nil {
		return 0, fmt.Errorf("change the membership: %w", err)
	}
	return index, nil
}

// changeHere does one change on the leader. Changes are done one at a time, so
// that each is judged by the configuration it is applied to.
func (n *Node) changeHere(ctx context.Context, req *directoryv1.ChangeMembershipRequest) (index uint64, err error) {
	select {
	case n.membership <- struct{}{}:
		defer func() { <-n.membership }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	l := n.running()
	if l == nil {
		return 0, errNotRunning
	}
	s, err := decide(l.raft.GetConfiguration().Configuration(), n.cfg.ID, req)
	if err != nil {
		return 0, err
	}
	n.log.Info("membership change", "operation", req.GetOperation().String(), "member", req.GetRelayId(),
		"address", req.GetAddress(), "step", s.String())
	id, address := raft.ServerID(req.GetRelayId()), raft.ServerAddress(req.GetAddress())
	switch s {
	case stepNothing:
		return n.configurationIndex(l), nil
	case stepTransfer:
		if req.GetOperation() != opTransfer {
			id = ""
		}
		if err := n.transfer(ctx, id); err != nil {
			return 0, err
		}
		if req.GetOperation() != opTransfer {
			return 0, errElsewhere // the new leader does the rest
		}
		return n.configurationIndex(l), nil
	case stepJoinFirst:
		if _, err := n.configure(ctx, func(r *raft.Raft, wait time.Duration) raft.IndexFuture {
			return r.AddNonvoter(id, address, 0, wait)
		}); err != nil {
			return 0, err
		}
		fallthrough
	case stepPromote:
		if err := n.awaitCaughtUp(ctx, l, string(id), string(address)); err != nil {
			return 0, err
		}
		fallthrough
	case stepAddVoter:
		return n.configure(ctx, func(r *raft.Raft, wait time.Duration) raft.IndexFuture {
			return r.AddVoter(id, address, 0, wait)
		})
	case stepAddNonvoter:
		return n.configure(ctx, func(r *raft.Raft, wait time.Duration) raft.IndexFuture {
			return r.AddNonvoter(id, address, 0, wait)
		})
	case stepDemote:
		return n.configure(ctx, func(r *raft.Raft, wait time.Duration) raft.IndexFuture {
			return r.DemoteVoter(id, 0, wait)
		})
	case stepRemove:
		return n.configure(ctx, func(r *raft.Raft, wait time.Duration) raft.IndexFuture {
			return r.RemoveServer(id, 0, wait)
		})
	}
	panic("consensus: no such step: " + s.String())
}

func (n *Node) configure(ctx context.Context, start func(*raft.Raft, time.Duration) raft.IndexFuture) (uint64, error) {
	future, err := await(ctx, n, start)
	if err != nil {
		return 0, err
	}
	return future.Index(), nil
}

// transfer hands leadership to a voter, or to the one furthest on.
func (n *Node) transfer(ctx context.Context, id raft.ServerID) error {
	_, err := await(ctx, n, func(r *raft.Raft, _ time.Duration) raft.Future {
		if id == "" {
			return r.LeadershipTransfer()
		}
		for _, s := range r.GetConfiguration().Configuration().Servers {
			if s.ID == id {
				return r.LeadershipTransferToServer(id, s.Address)
			}
		}
		return r.LeadershipTransferToServer(id, "")
	})
	if err == nil || ctx.Err() != nil || mayRetryHere(err) {
		return err
	}
	return refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE,
		"leadership was not taken over in time (%v); see raft members for who is behind or silent, and try another relay", err)
}

// awaitCaughtUp waits until a member has what the leader has now.
func (n *Node) awaitCaughtUp(ctx context.Context, l *live, id, address string) error {
	// Some time must be left to say how it ended.
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)*4/5)
		defer cancel()
	}
	target, term := l.raft.LastIndex(), l.raft.CurrentTerm()
	for {
		moved, changed := l.progress.moved.listen(), n.leaderChanged.listen()
		if l.raft.State() != raft.Leader || l.raft.CurrentTerm() != term {
			return errElsewhere
		}
		f, known := l.progress.of(id, term)
		if known && f.matched >= target {
			return nil
		}
		select {
		case <-moved:
		case <-changed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			what := "does not answer at " + address
			if known {
				what = fmt.Sprintf("is still %d entries behind", target-f.matched)
			}
			return refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE,
				"%s %s, so it has no vote yet; it stays a non-voter: ask again when it runs and has caught up, or remove it", id, what)
		}
	}
}

// configurationIndex is the index of the committed configuration. Raft does
// not tell it; it is seen when an entry is committed, or stands in the
// snapshot that brought it here.
func (n *Node) configurationIndex(l *live) uint64 {
	index := l.fsm.configuration.Load()
	if list, err := l.snapshots.List(); err == nil && len(list) > 0 {
		index = max(index, list[0].ConfigurationIndex)
	}
	return index
}
