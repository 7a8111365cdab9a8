package main

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/internal/operator"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// done is the JSON of commands that change the members of Raft.
type done struct {
	Done  string `json:"done"`
	ID    string `json:"id,omitempty"`
	Index uint64 `json:"index,omitempty"`
}

const doneHelp = `Fields with -o json: done (the command), id, index (of the Raft log, where it was
done). Asking for what is so already is no error.`

const addVoterHelp = `Add a relay as voter, promote a non-voter, or change the address of a voter. A new
voter first copies the directory without a vote; where it does not catch up in
time it stays a non-voter, which the refusal says.

Have three, five or seven voters. A relay that lost its disk must be removed first
and come back without "voters" in its relay.yaml: docs/operating.md.

` + addressHelp

const addNonvoterHelp = `Add a relay that has a full copy of the directory without a vote, or change the
address of a non-voter.

` + addressHelp

const addressHelp = `ADDRESS is the host:port that the relay's relay.yaml advertises. The address of a
member is only changed to one where that relay answers; --unchecked does without,
for an address that this machine cannot reach.

` + doneHelp

func newRaftAdd(options *cli.Options, name, short, long string,
	call func(context.Context, adminv1.RaftServiceClient, string, string) (uint64, error)) *cobra.Command {
	var unchecked bool
	cmd := &cobra.Command{
		Use: name + " ID ADDRESS", Short: short, Long: long, Args: cobra.ExactArgs(2),
		Example: "  relayctl raft " + name + " tay 10.0.4.1:7400",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, address := args[0], args[1]
			if _, err := routing.ParseRelayID(id); err != nil {
				return cli.Usage("%v", err)
			}
			if _, _, err := net.SplitHostPort(address); err != nil {
				return cli.Usage("address %q is no host:port", address)
			}
			return changeMember(cmd, options, name, id, func(ctx context.Context, c *operator.Conn) (uint64, error) {
				if !unchecked {
					if err := checkAddress(cmd, c, id, address); err != nil {
						return 0, err
					}
				}
				return call(ctx, c.Raft, id, address)
			})
		},
	}
	cmd.Flags().BoolVar(&unchecked, "unchecked", false, "take the address without asking there for the relay")
	return cmd
}

// checkAddress refuses to send a member to an address where it is not: the
// others would no longer find it, and a mesh of three could lose its quorum by
// a typing error. For a relay that is new the address only gets a warning, it
// may be started later.
func checkAddress(cmd *cobra.Command, c *operator.Conn, id, address string) error {
	r, err := c.Raft.Members(cmd.Context(), &adminv1.MembersRequest{Consistency: adminv1.Consistency_CONSISTENCY_LOCAL})
	if err != nil {
		return err
	}
	var now string
	for _, m := range r.GetMembers() {
		if m.GetRelayId() == id {
			now = m.GetAddress()
		}
	}
	if now == address {
		return nil
	}
	err = c.Reach(cmd.Context(), id, address)
	switch {
	case err == nil:
	case now != "":
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE,
			"%s is a member at %s, and does not answer at %s: %v; start it there first, or say --unchecked", id, now, address, err)
	default:
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %s does not answer at %s yet; start it, or remove it again\n", id, address)
	}
	return nil
}

const demoteHelp = `Turn a voter into a non-voter: it keeps its copy of the directory, its agencies and
its documents. A leader hands leadership over first.

` + doneHelp

const removeHelp = `Take a relay out of Raft. A leader hands leadership over first. It no longer learns
of changes of the directory: drain and retire it before ("relayctl relay drain",
"relayctl relay retire"), and stop it then. It stays in "relayctl relay list".

` + doneHelp

func newRaftMember(options *cli.Options, name, short, long string,
	call func(context.Context, adminv1.RaftServiceClient, string) (uint64, error)) *cobra.Command {
	return &cobra.Command{
		Use: name + " ID", Short: short, Long: long, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeMember(cmd, options, name, args[0], func(ctx context.Context, c *operator.Conn) (uint64, error) {
				return call(ctx, c.Raft, args[0])
			})
		},
	}
}

func changeMember(cmd *cobra.Command, options *cli.Options, name, id string,
	call func(context.Context, *operator.Conn) (uint64, error)) error {
	c, err := connect(cmd, options)
	if err != nil {
		return err
	}
	defer c.Close()
	index, err := call(cmd.Context(), c)
	if err != nil {
		return withoutLeader(err)
	}
	return options.Output(cmd).Print(done{Done: name, ID: id, Index: index}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s %s: done at index %d\n", name, id, index)
		return err
	})
}

// withoutLeader says what to do next where there is no leader to ask.
func withoutLeader(err error) error {
	if r, ok := envelope.AsRefusal(err); ok && r.Reason == exchangev1.ErrorReason_ERROR_REASON_NO_LEADER {
		return fmt.Errorf("%w; \"relayctl raft members --local\" shows the voters: start those that are down. Lost for good: docs/operating.md, Quorum loss", err)
	}
	return err
}

func newRaftTransfer(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "transfer-leader [ID]", Short: "Hand leadership to a voter, or to any", Args: cobra.MaximumNArgs(1),
		Long: `Hand leadership to a voter, or without ID to the one furthest on; for example before
the leader's machine is serviced.

Fields with -o json: leader ("" where the relay that answers does not know it yet).`,
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
				return withoutLeader(err)
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
