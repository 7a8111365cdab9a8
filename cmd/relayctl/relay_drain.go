package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/internal/operator"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

const (
	// explainEvery is how often a drain that does not end says what keeps it.
	explainEvery = 10 * time.Second
	// askAgain is how long it waits before it asks a relay anew.
	askAgain = time.Second
	// learnWithin is how long a relay gets to hear of a change of the directory.
	learnWithin = 15 * time.Second
)

// drainStatement is what a relay signs once it has handed everything over.
type drainStatement struct {
	Statement        string `json:"statement"`
	Relay            string `json:"relay"`
	Region           string `json:"region"`
	DirectoryVersion uint64 `json:"directory_version"`
	At               string `json:"at"`
	Remaining        uint64 `json:"remaining"`
	Accepted         int64  `json:"accepted"`
	Delivered        int64  `json:"delivered"`
	Pending          int64  `json:"pending"`
	Expired          int64  `json:"expired"`
	Refused          int64  `json:"refused"`
	Recalled         int64  `json:"recalled"`
	DeadLetters      int64  `json:"dead_letters"`
}

const drainHelp = `Have a relay hand over what it has: its agencies move to their standbys, it takes
nothing new, what waits in its queues and inboxes goes to other relays, and what
only it has gets a second copy. It goes on serving those who ask for what they sent.

The command shows how many envelopes are nowhere else yet, until none is. Then the
relay signs a statement with its own key (CMS SignedData), which is verified here
and with --statement written to a file, for the archive:

  openssl cms -verify -inform DER -in FILE -CAfile root.crt -purpose any

Interrupting the command stops nothing: the relay goes on, the same command watches
it again, and "relayctl relay activate ID" makes it active again. A relay that
cannot be reached keeps a drain from ending while something waits for it.

Fields with -o json, one line at the end: statement ("drained"), relay, region,
directory_version, at, remaining (0); of the deliveries accepted at it: accepted,
delivered, pending (on their way, now with others), expired, refused, recalled; and
dead_letters (envelopes given up, whose content leaves with the relay).`

func newRelayDrain(options *cli.Options) *cobra.Command {
	var file string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "drain ID", Short: "Have a relay hand over what it has", Args: cobra.ExactArgs(1), Long: drainHelp,
		Example: "  relayctl relay drain tay --statement tay-drained.p7m",
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
			if !operator.InService(v.GetRelay()) {
				return gone(v.GetRelay())
			}
			r, err := c.Change(cmd.Context(), &directoryv1.Command{Change: &directoryv1.Command_SetRelayState{
				SetRelayState: &directoryv1.SetRelayState{RelayId: args[0], MoveAgencies: true,
					State: directoryv1.RelayState_RELAY_STATE_DRAINING}}})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "relay %s drains; %d agencies moved (directory version %d)\n", args[0], r.GetAgencies(), r.GetVersion())
			ctx, cancel := cmd.Context(), context.CancelFunc(func() {})
			if timeout > 0 {
				ctx, cancel = context.WithTimeoutCause(ctx, timeout, errors.New("the time given with --timeout is over"))
			}
			defer cancel()
			signed, err := watchDrain(ctx, cmd.ErrOrStderr(), c, v.GetRelay())
			if err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "relay %[1]s goes on draining: `relayctl relay drain %[1]s` watches it again, `relayctl relay activate %[1]s` makes it active again\n", args[0])
				return err
			}
			return filed(cmd, options.Output(cmd), c, args[0], signed, file)
		},
	}
	cmd.Flags().StringVar(&file, "statement", "", "write the signed statement to this file")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up watching after this long; 0: never")
	return cmd
}

// gone refuses what only a relay in service can do.
func gone(relay *directoryv1.Relay) error {
	return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE,
		"relay %[1]s is %[2]s; `relayctl relay activate %[1]s` brings it back first", relay.GetId(), word(relay.GetState().String(), "RELAY_STATE_"))
}

// watchDrain tells how far a relay is until it has handed everything over, and
// returns its signed statement. A relay that does not answer just now is asked
// again.
func watchDrain(ctx context.Context, w io.Writer, c *operator.Conn, relay *directoryv1.Relay) ([]byte, error) {
	there, err := c.To(relay)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	d := drainWatch{w: w, there: there, relay: relay.GetId(), began: time.Now()}
	for {
		signed, err := d.follow(ctx)
		switch {
		case err == nil:
			return signed, nil
		case over(ctx):
			<-ctx.Done()
			d.explain(context.WithoutCancel(ctx))
			return nil, context.Cause(ctx)
		case wrongState(err) && time.Since(d.began) < learnWithin:
			// It has not heard that it drains.
		case !envelope.Temporary(err):
			return nil, err
		default:
			d.say("relay %s does not answer, asking again: %s", d.relay, cli.OneLine(plain(err)))
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			d.explain(context.WithoutCancel(ctx))
			return nil, context.Cause(ctx)
		}
	}
}

// over reports whether a context has ended, or is about to: gRPC looks at the
// clock by itself.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// drainWatch is one drain as it is watched.
type drainWatch struct {
	w     io.Writer
	there *operator.Conn
	relay string
	began time.Time
	// said is the last line, explained when it was last said what keeps it.
	said      string
	explained time.Time
}

func (d *drainWatch) say(format string, args ...any) {
	if line := fmt.Sprintf(format, args...); line != d.said {
		fmt.Fprintln(d.w, line)
		d.said = line
	}
}

func (d *drainWatch) follow(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := d.there.Custody.Drain(ctx, &adminv1.DrainRequest{RelayId: d.relay})
	if err != nil {
		return nil, err
	}
	d.explained = time.Now()
	for {
		r, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if r.GetDone() {
			return r.GetStatement(), nil
		}
		d.say("%s still nowhere else", cli.Count(int(r.GetRemaining()), "envelope"))
		if time.Since(d.explained) > explainEvery {
			d.explained = time.Now()
			d.explain(ctx)
		}
	}
}

// explain says what waits at the relay, and which of its destinations it does
// not reach.
func (d *drainWatch) explain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	shape, err := d.there.Custody.ShapeQueue(ctx, &adminv1.ShapeQueueRequest{})
	if err != nil {
		return
	}
	relays, err := d.there.Directory.ListRelays(ctx, &adminv1.ListRelaysRequest{})
	if err != nil {
		return
	}
	reached := make(map[string]bool)
	for _, v := range relays.GetRelays() {
		reached[v.GetRelay().GetId()] = v.GetReachable()
	}
	var waits []string
	var inboxes uint64
	for _, row := range shape.GetRows() {
		n := shapeOf(d.relay, nil, row).Total
		switch id := row.GetRelayId(); {
		case row.GetExpired():
		case id == "":
			inboxes += n
		case id == d.relay:
			waits = append(waits, fmt.Sprintf("%d to find another home", n))
		case !reached[id]:
			waits = append(waits, fmt.Sprintf("%d for relay %s, which it does not reach", n, id))
		default:
			waits = append(waits, fmt.Sprintf("%d for relay %s", n, id))
		}
	}
	if held, err := d.held(ctx); err == nil && held > 0 {
		waits = append(waits, fmt.Sprintf("%d of all held by an operator", held))
	}
	if inboxes > 0 {
		waits = append(waits, fmt.Sprintf("%d in inboxes", inboxes))
	}
	if len(waits) == 0 {
		waits = []string{"for other relays to confirm what they took"}
		for _, v := range relays.GetRelays() {
			if id := v.GetRelay().GetId(); operator.InService(v.GetRelay()) && id != d.relay && !v.GetReachable() {
				waits = append(waits, fmt.Sprintf("relay %s is not reached", id))
			}
		}
	}
	d.say("  waits: %s", strings.Join(waits, "; "))
}

// held counts the entries that an operator holds there.
func (d *drainWatch) held(ctx context.Context) (n int, err error) {
	err = eachWaiting(ctx, operator.Member{ID: d.relay, Conn: d.there}, &adminv1.ListQueueRequest{Held: true},
		func(waitingRow) error { n++; return nil })
	return n, err
}

// filed verifies a statement, prints it and writes it to a file.
func filed(cmd *cobra.Command, out *cli.Output, c *operator.Conn, id string, signed []byte, file string) error {
	statement, err := statementOf(c, id, signed)
	if err != nil {
		return err
	}
	if file != "" {
		if err := os.WriteFile(file, signed, 0o644); err != nil {
			return fmt.Errorf("relay %s has handed everything over, and its statement was not written: %w", id, err)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "signed statement written to %s\n", file)
	}
	if statement.DeadLetters > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %[1]d dead letters leave with it; `relayctl queue list --expired --relay %[2]s` lists them, and \"relayctl queue retry\" sends them again\n",
			statement.DeadLetters, id)
	}
	return out.Print(statement, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "relay %s (%s) has handed everything over at %s, directory version %d; signed by it\n"+
			"accepted %d deliveries: %d delivered, %d pending with others, %d expired, %d refused, %d recalled\nnext: relayctl relay retire %s\n",
			statement.Relay, statement.Region, statement.At, statement.DirectoryVersion, statement.Accepted, statement.Delivered,
			statement.Pending, statement.Expired, statement.Refused, statement.Recalled, id)
		return err
	})
}

// statementOf reads the statement of a relay, if that relay has signed it and
// says that it has nothing left.
func statementOf(c *operator.Conn, id string, signed []byte) (drainStatement, error) {
	var statement drainStatement
	verified, err := c.VerifyStatement(id, signed)
	if err != nil {
		return statement, fmt.Errorf("relay %s says that it has handed everything over: %w", id, err)
	}
	if err := json.Unmarshal(verified.Content, &statement); err != nil {
		return statement, fmt.Errorf("relay %s: %w: %w", id, operator.ErrStatement, err)
	}
	if statement.Statement != "drained" || statement.Relay != id || statement.Remaining != 0 {
		return statement, fmt.Errorf("relay %s: %w: it says %q of relay %q with %d left", id, operator.ErrStatement,
			statement.Statement, statement.Relay, statement.Remaining)
	}
	return statement, nil
}

func newRelayActivate(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "activate ID", Short: "Make a relay active again that drains or was taken out", Args: cobra.ExactArgs(1),
		Long: `Make a relay active again that drains, was retired, or was given up as lost and
came back. It takes envelopes again; agencies that moved away stay where they are:
"relayctl agency move CODE ID" brings them back.

A relay that comes back with its disk needs no command to hand over what it still
holds: it does so by itself, also while it counts as lost.

` + changedFields,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := lookUp(cmd, options)
			if err != nil {
				return err
			}
			_, err = c.Relay(cmd.Context(), args[0])
			c.Close()
			if err != nil {
				return err
			}
			return changeDirectory(cmd, options, "active", args[0], &directoryv1.Command{Change: &directoryv1.Command_SetRelayState{
				SetRelayState: &directoryv1.SetRelayState{RelayId: args[0], State: directoryv1.RelayState_RELAY_STATE_ACTIVE}}})
		},
	}
}
