package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/internal/operator"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// retired is the JSON of `relayctl relay retire`.
type retired struct {
	Done     string `json:"done"`
	ID       string `json:"id"`
	Version  uint64 `json:"version"`
	Agencies uint32 `json:"agencies"`
	Member   bool   `json:"raft_member"`
	Next     string `json:"next"`
}

const retireHelp = `Take a relay out of the mesh for good. It has to be drained: the relay is asked, and
refused while anything is left with it ("relayctl relay drain ID").

With --lost a relay that is gone with its disk is given up: its agencies move to
their standbys, what had been accepted elsewhere is sent to their new homes, and
others take over what it had accepted as far as they have a copy. It is asked for
once more; --yes gives up without a question. Only where it comes back with its disk
can it be made active again. A relay that still answers is not lost: drain it, or
stop it first.

It stays in the list of relays and its id is not used again. As long as it is a
member of Raft it counts for the quorum: the last line names the command that takes
it out.

Fields with -o json: done (retired, lost), id, version (of the directory after it),
agencies (that got another home or standby), raft_member, next (the next command, or "").`

func newRelayRetire(options *cli.Options) *cobra.Command {
	var lost, sure bool
	cmd := &cobra.Command{
		Use: "retire ID", Short: "Take a relay out of the mesh for good", Args: cobra.ExactArgs(1), Long: retireHelp,
		Example: "  relayctl relay retire tay\n  relayctl relay retire tay --lost --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := lookUp(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			v, err := c.Relay(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			relay := v.GetRelay()
			switch {
			case !operator.InService(relay):
				err = envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, "relay %s is %s already",
					relay.GetId(), word(relay.GetState().String(), "RELAY_STATE_"))
			case lost:
				err = confirmLost(cmd, c, v, sure)
			default:
				err = checkDrained(cmd.Context(), c, relay)
			}
			if err != nil {
				return err
			}
			return retire(cmd, options, c, relay.GetId(), lost)
		},
	}
	cmd.Flags().BoolVar(&lost, "lost", false, "give up a relay that is gone with what it held")
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	return cmd
}

// checkDrained refuses a relay that has something left, or does not say that it
// has not.
func checkDrained(ctx context.Context, c *operator.Conn, relay *directoryv1.Relay) error {
	id := relay.GetId()
	if relay.GetState() != directoryv1.RelayState_RELAY_STATE_DRAINING {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE,
			"relay %[1]s is active: drain it first (`relayctl relay drain %[1]s`), or give it up with --lost if it is gone with its disk", id)
	}
	there, err := c.To(relay)
	if err != nil {
		return err
	}
	defer there.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	stream, err := there.Custody.Drain(ctx, &adminv1.DrainRequest{RelayId: id})
	var first *adminv1.DrainResponse
	if err == nil {
		first, err = stream.Recv()
	}
	switch {
	case err != nil && !envelope.Temporary(err):
		return fmt.Errorf("relay %s: %w", id, err)
	case err != nil:
		return fmt.Errorf("relay %s drains, and does not answer: %w; only it can say that nothing is left. Start it again, or give it up with --lost if it is gone with its disk", id, err)
	case !first.GetDone():
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE,
			"relay %[1]s still has %[2]d envelopes that are nowhere else: `relayctl relay drain %[1]s` watches it", id, first.GetRemaining())
	}
	_, err = statementOf(c, id, first.GetStatement())
	return err
}

// confirmLost refuses to give up a relay that answers, and asks whether to give
// up another.
func confirmLost(cmd *cobra.Command, c *operator.Conn, v *adminv1.RelayView, sure bool) error {
	relay := v.GetRelay()
	if err := c.Reach(cmd.Context(), relay.GetId(), relay.GetAddress()); err == nil {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE,
			"relay %[1]s answers at %[2]s, so it is not lost: drain it (`relayctl relay drain %[1]s`), or stop it first if its disk is gone", relay.GetId(), relay.GetAddress())
	}
	if err := cmd.Context().Err(); err != nil {
		return err
	}
	if sure {
		return nil
	}
	if in, ok := cmd.InOrStdin().(*os.File); !ok || !term.IsTerminal(int(in.Fd())) {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE,
			"giving up relay %s cannot be taken back; say --yes", relay.GetId())
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Give up relay %s, home of %d agencies, with what only it held? This cannot be taken back. Type its id: ", relay.GetId(), v.GetHomes())
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != relay.GetId() {
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, "not confirmed, nothing was changed")
	}
	return nil
}

func retire(cmd *cobra.Command, options *cli.Options, c *operator.Conn, id string, lost bool) error {
	r, err := c.Change(cmd.Context(), &directoryv1.Command{Change: &directoryv1.Command_RetireRelay{
		RetireRelay: &directoryv1.RetireRelay{RelayId: id, Lost: lost}}})
	if err != nil {
		return err
	}
	result := retired{Done: "retired", ID: id, Version: r.GetVersion(), Agencies: r.GetAgencies()}
	if lost {
		result.Done = "lost"
	}
	members, err := c.Raft.Members(cmd.Context(), &adminv1.MembersRequest{Consistency: adminv1.Consistency_CONSISTENCY_LOCAL})
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: whether relay %s is a member of Raft is not known: %s\n", id, plain(err))
	}
	voter := false
	for _, m := range members.GetMembers() {
		if m.GetRelayId() == id {
			result.Member, voter = true, m.GetVoter()
			result.Next = "relayctl raft remove " + id
		}
	}
	return options.Output(cmd).Print(result, func(w io.Writer) error {
		if _, err := fmt.Fprintf(w, "%s: %s, %d agencies got another home or standby (directory version %d)\n", id, result.Done, result.Agencies, result.Version); err != nil {
			return err
		}
		var err error
		switch {
		case voter:
			_, err = fmt.Fprintf(w, "it still votes. next: %s\n", result.Next)
		case result.Member:
			_, err = fmt.Fprintf(w, "it is still a member of Raft. next: %s\n", result.Next)
		case !lost:
			_, err = fmt.Fprintln(w, "it can be stopped; revoke its certificate")
		default:
			_, err = fmt.Fprintln(w, "revoke its certificate")
		}
		return err
	})
}
