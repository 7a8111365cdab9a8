package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/relayd/node"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
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
		newRaftAdd(options, "add-voter", "Add a relay as voter, or promote a non-voter",
			func(ctx context.Context, c adminv1.RaftServiceClient, id, address string) (uint64, error) {
				r, err := c.AddVoter(ctx, &adminv1.AddVoterRequest{RelayId: id, Address: address})
				return r.GetIndex(), err
			}),
		newRaftAdd(options, "add-nonvoter", "Add a relay that copies the directory without a vote",
			func(ctx context.Context, c adminv1.RaftServiceClient, id, address string) (uint64, error) {
				r, err := c.AddNonvoter(ctx, &adminv1.AddNonvoterRequest{RelayId: id, Address: address})
				return r.GetIndex(), err
			}),
		newRaftMember(options, "demote", "Turn a voter into a non-voter",
			func(ctx context.Context, c adminv1.RaftServiceClient, id string) (uint64, error) {
				r, err := c.Demote(ctx, &adminv1.DemoteRequest{RelayId: id})
				return r.GetIndex(), err
			}),
		newRaftMember(options, "remove", "Take a relay out of Raft",
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
last contact are known where the relay that answers is the leader.`,
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

// done is the JSON of commands that change the members of Raft.
type done struct {
	Done  string `json:"done"`
	ID    string `json:"id,omitempty"`
	Index uint64 `json:"index,omitempty"`
}

func newRaftAdd(options *cli.Options, name, short string,
	call func(context.Context, adminv1.RaftServiceClient, string, string) (uint64, error)) *cobra.Command {
	return &cobra.Command{
		Use: name + " ID ADDRESS", Short: short, Args: cobra.ExactArgs(2),
		Example: "  relayctl raft " + name + " tay 10.0.4.1:7400",
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeMember(cmd, options, name, args[0], func(ctx context.Context, c adminv1.RaftServiceClient) (uint64, error) {
				return call(ctx, c, args[0], args[1])
			})
		},
	}
}

func newRaftMember(options *cli.Options, name, short string,
	call func(context.Context, adminv1.RaftServiceClient, string) (uint64, error)) *cobra.Command {
	return &cobra.Command{
		Use: name + " ID", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeMember(cmd, options, name, args[0], func(ctx context.Context, c adminv1.RaftServiceClient) (uint64, error) {
				return call(ctx, c, args[0])
			})
		},
	}
}

func changeMember(cmd *cobra.Command, options *cli.Options, name, id string,
	call func(context.Context, adminv1.RaftServiceClient) (uint64, error)) error {
	c, err := connect(cmd, options)
	if err != nil {
		return err
	}
	defer c.Close()
	index, err := call(cmd.Context(), c.Raft)
	if err != nil {
		return err
	}
	return options.Output(cmd).Print(done{Done: name, ID: id, Index: index}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s %s: done at index %d\n", name, id, index)
		return err
	})
}

func newRaftTransfer(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "transfer-leader [ID]", Short: "Hand leadership to a voter, or to any", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			request := new(adminv1.TransferLeaderRequest)
			if len(args) == 1 {
				request.RelayId = args[0]
			}
			r, err := c.Raft.TransferLeader(cmd.Context(), request)
			if err != nil {
				return err
			}
			result := struct {
				Leader string `json:"leader"`
			}{r.GetLeaderId()}
			return options.Output(cmd).Print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "leader: %s\n", orDash(result.Leader))
				return err
			})
		},
	}
}

func newRaftSnapshot(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "snapshot", Short: "Make the relay that answers write a snapshot now", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := c.Raft.Snapshot(cmd.Context(), &adminv1.SnapshotRequest{})
			if err != nil {
				return err
			}
			result := struct {
				Index uint64 `json:"index"`
				Size  uint64 `json:"size"`
			}{r.GetIndex(), r.GetSize()}
			return options.Output(cmd).Print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "snapshot at index %d, %d bytes\n", result.Index, result.Size)
				return err
			})
		},
	}
}

func newRaftBackup(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Write a consistent copy of the directory to a file", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			size, err := backup(cmd.Context(), c.Raft, args[0])
			if err != nil {
				return err
			}
			result := struct {
				File string `json:"file"`
				Size int64  `json:"size"`
			}{args[0], size}
			return options.Output(cmd).Print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s: %d bytes\n", args[0], size)
				return err
			})
		},
	}
}

// backup writes aside and renames, so that the file is whole or absent.
func backup(ctx context.Context, c adminv1.RaftServiceClient, file string) (size int64, err error) {
	stream, err := c.Backup(ctx, &adminv1.BackupRequest{})
	if err != nil {
		return 0, err
	}
	aside, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			aside.Close()
			os.Remove(aside.Name())
		}
	}()
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		n, err := aside.Write(piece.GetData())
		size += int64(n)
		if err != nil {
			return 0, err
		}
	}
	if err := aside.Sync(); err != nil {
		return 0, err
	}
	if err := aside.Close(); err != nil {
		return 0, err
	}
	return size, os.Rename(aside.Name(), file)
}

func newRaftRestore(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "restore FILE", Short: "Put a backup in place of the directory on every relay", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			stream, err := c.Raft.Restore(cmd.Context())
			if err != nil {
				return err
			}
			buffer := make([]byte, 256<<10)
			for {
				n, err := file.Read(buffer)
				if n > 0 {
					// A failed send hides its reason; CloseAndRecv has it.
					if stream.Send(&adminv1.RestoreRequest{Data: buffer[:n]}) != nil {
						break
					}
				}
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return err
				}
			}
			r, err := stream.CloseAndRecv()
			if err != nil {
				return err
			}
			result := struct {
				DirectoryVersion uint64 `json:"directory_version"`
				Agencies         uint64 `json:"agencies"`
			}{r.GetDirectoryVersion(), r.GetAgencies()}
			return options.Output(cmd).Print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "restored: directory version %d, %d agencies\n", result.DirectoryVersion, result.Agencies)
				return err
			})
		},
	}
}

func newRaftRecover(options *cli.Options) *cobra.Command {
	var config, peers string
	cmd := &cobra.Command{
		Use: "recover --peers FILE --config relay.yaml", Short: "After quorum loss: set the members by hand (offline)", Args: cobra.NoArgs,
		Long: `When more than half of the voters are lost for good, stop the relays that are
left, run this on each of them with the same peers file, and start them again.
The directory goes on from what the relay with the longest log has.

The peers file is YAML or JSON:

  - {id: bac,   address: "bac.example.vn:7400",   voter: true}
  - {id: trung, address: "trung.example.vn:7400", voter: true}`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := node.Load(config)
			if err != nil {
				return err
			}
			members, err := node.Recover(c, peers)
			if err != nil {
				return err
			}
			return options.Output(cmd).Print(done{Done: "recover", ID: c.ID}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s: %d members set; start the relay again\n", c.ID, members)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&peers, "peers", "", "file with the members of now")
	cmd.Flags().StringVar(&config, "config", "relay.yaml", "configuration of the stopped relay on this machine")
	must(cmd.MarkFlagRequired("peers"))
	return cmd
}

// ago writes a time since in milliseconds.
func ago(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return time.Duration(*ms * float64(time.Millisecond)).Round(time.Millisecond).String()
}
