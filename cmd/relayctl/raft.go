package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

func newRaft(options *cli.Options) *cobra.Command {
	raft := &cobra.Command{
		Use:   "raft",
		Short: "Members, leader, snapshots and backups of the replicated directory",
		Long: `The directory is replicated by Raft. These commands look after its members and
its copies; documents do not pass through it and go on while it has no leader.`,
	}
	raft.AddCommand(
		newRaftStatus(options), newRaftMembers(options),
		newRaftAdd(options, "add-voter", "Add a relay as voter, or promote a non-voter", addVoterHelp,
			func(ctx context.Context, c adminv1.RaftServiceClient, id, address string) (uint64, error) {
				// checkAddress has seen the relay there, or --unchecked takes the word.
				r, err := c.AddVoter(ctx, &adminv1.AddVoterRequest{RelayId: id, Address: address, ChangeAddress: true})
				return r.GetIndex(), err
			}),
		newRaftAdd(options, "add-nonvoter", "Add a relay that copies the directory without a vote", addNonvoterHelp,
			func(ctx context.Context, c adminv1.RaftServiceClient, id, address string) (uint64, error) {
				r, err := c.AddNonvoter(ctx, &adminv1.AddNonvoterRequest{RelayId: id, Address: address})
				return r.GetIndex(), err
			}),
		newRaftMember(options, "demote", "Turn a voter into a non-voter", demoteHelp,
			func(ctx context.Context, c adminv1.RaftServiceClient, id string) (uint64, error) {
				r, err := c.Demote(ctx, &adminv1.DemoteRequest{RelayId: id})
				return r.GetIndex(), err
			}),
		newRaftMember(options, "remove", "Take a relay out of Raft", removeHelp,
			func(ctx context.Context, c adminv1.RaftServiceClient, id string) (uint64, error) {
				r, err := c.Remove(ctx, &adminv1.RemoveRequest{RelayId: id})
				return r.GetIndex(), err
			}),
		newRaftTransfer(options), newRaftSnapshot(options), newRaftBackup(options), newRaftRestore(options),
		newRaftRecover(options),
	)
	return raft
}

// raftStatus is the JSON of `relayctl raft status`.
type raftStatus struct {
	Relay            string   `json:"relay"`
	State            string   `json:"state"`
	Term             uint64   `json:"term"`
	Leader           string   `json:"leader"`
	LastIndex        uint64   `json:"last_index"`
	CommitIndex      uint64   `json:"commit_index"`
	AppliedIndex     uint64   `json:"applied_index"`
	SnapshotIndex    uint64   `json:"snapshot_index"`
	LastContactMS    *float64 `json:"last_contact_ms"`
	Voter            bool     `json:"voter"`
	DirectoryVersion uint64   `json:"directory_version"`
}

func newRaftStatus(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "How the relay that answers sees Raft", Args: cobra.NoArgs,
		Long: `How the relay that answers sees Raft; works without a leader.

Fields with -o json: relay, state (leader, follower, candidate), term, leader ("":
none known), last_index, commit_index, applied_index, snapshot_index,
last_contact_ms (since the leader was heard; null on the leader itself), voter,
directory_version.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := c.Raft.Status(cmd.Context(), &adminv1.StatusRequest{})
			if err != nil {
				return err
			}
			s := raftStatus{
				Relay: r.GetRelayId(), State: r.GetState(), Term: r.GetTerm(), Leader: r.GetLeaderId(),
				LastIndex: r.GetLastIndex(), CommitIndex: r.GetCommitIndex(), AppliedIndex: r.GetAppliedIndex(),
				SnapshotIndex: r.GetSnapshotIndex(), LastContactMS: milliseconds(r.GetLastContact()),
				Voter: r.GetVoter(), DirectoryVersion: r.GetDirectoryVersion(),
			}
			out := options.Output(cmd)
			return out.Print(s, func(io.Writer) error {
				return out.Table(func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "relay\t%s\nstate\t%s\nvoter\t%t\nterm\t%d\nleader\t%s\nlast index\t%d\n"+
						"commit index\t%d\napplied index\t%d\nsnapshot index\t%d\nlast contact\t%s\ndirectory version\t%d\n",
						s.Relay, s.State, s.Voter, s.Term, orDash(s.Leader), s.LastIndex, s.CommitIndex, s.AppliedIndex,
						s.SnapshotIndex, ago(s.LastContactMS), s.DirectoryVersion)
					return err
				})
			})
		},
	}
}

// raftMember is a line of `relayctl raft members -o json`.
type raftMember struct {
	ID            string   `json:"id"`
	Address       string   `json:"address"`
	Voter         bool     `json:"voter"`
	Leader        bool     `json:"leader"`
	Lag           *uint64  `json:"lag"`
	LastContactMS *float64 `json:"last_contact_ms"`
}

func newRaftMembers(options *cli.Options) *cobra.Command {
	var local bool
	cmd := &cobra.Command{
		Use: "members", Short: "List the members of Raft", Args: cobra.NoArgs,
		Long: `List the members of Raft, one per line. Lag (log entries behind the leader) and
last contact are known where the relay that answers is the leader.

The list is that of the leader and needs one; --local is what the relay that
answers has, and works without.

Fields with -o json, one line per member: id, address, voter, leader, lag,
last_contact_ms (both null where not known).`,
		Example: "  relayctl raft members\n  relayctl raft members --local -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			request := &adminv1.MembersRequest{Consistency: adminv1.Consistency_CONSISTENCY_LINEARIZABLE}
			if local {
				request.Consistency = adminv1.Consistency_CONSISTENCY_LOCAL
			}
			r, err := c.Raft.Members(cmd.Context(), request)
			if err != nil && !local && envelope.Temporary(err) {
				return fmt.Errorf("%w; \"relayctl raft members --local\" shows what one relay knows", err)
			}
			if err != nil {
				return err
			}
			out := options.Output(cmd)
			members := make([]raftMember, 0, len(r.GetMembers()))
			for _, m := range r.GetMembers() {
				members = append(members, raftMember{ID: m.GetRelayId(), Address: m.GetAddress(), Voter: m.GetVoter(),
					Leader: m.GetLeader(), Lag: m.Lag, LastContactMS: milliseconds(m.GetLastContact())})
			}
			return list(out, "ID\tADDRESS\tVOTER\tLEADER\tLAG\tLAST CONTACT", members, func(m raftMember) string {
				lag := "-"
				if m.Lag != nil {
					lag = fmt.Sprint(*m.Lag)
				}
				return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", m.ID, m.Address, yes(m.Voter), yes(m.Leader), lag, ago(m.LastContactMS))
			})
		},
	}
	cmd.Flags().BoolVar(&local, "local", false, "the copy of the relay that answers, also without a leader")
	return cmd
}

// ago writes a time since in milliseconds.
func ago(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return time.Duration(*ms * float64(time.Millisecond)).Round(time.Millisecond).String()
}
