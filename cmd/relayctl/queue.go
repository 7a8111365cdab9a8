package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/internal/operator"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

func newQueue(options *cli.Options) *cobra.Command {
	queue := &cobra.Command{
		Use: "queue", Short: "What waits in the mesh, and steering it",
		Long: `What waits in the mesh: envelopes on their way to another relay, envelopes in
inboxes that no connector has confirmed, and dead letters: deliveries that were
given up and whose content is kept for 30 days, so that they can be tried again.

Every relay in service is asked; those that do not answer are named on standard
error. With --relay one relay is asked.`,
	}
	queue.AddCommand(newQueueList(options), newQueueShape(options), newQueueShow(options))
	for _, s := range steers {
		queue.AddCommand(newQueueSteer(options, s))
	}
	return queue
}

// connectAll connects to the relays that a command is about.
func connectAll(cmd *cobra.Command, options *cli.Options, only string) (*operator.Mesh, error) {
	c, err := connect(cmd, options)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	m, err := c.Mesh(cmd.Context(), only)
	if err != nil {
		return nil, err
	}
	for _, f := range m.Silent {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: relay %s does not answer\n", f.Relay)
	}
	if only != "" && len(m.Silent) > 0 {
		err := m.Silent[0].Err
		m.Close()
		return nil, fmt.Errorf("relay %s: %w", only, err)
	}
	return m, nil
}

// firstOf is the failure to tell of.
func firstOf(failures []operator.Failure) error {
	var all []error
	for _, f := range failures {
		all = append(all, fmt.Errorf("relay %s: %w", f.Relay, f.Err))
	}
	return errors.Join(all...)
}

const waitingFields = `Fields with -o json: envelope_id, at (the relay that says so), to (relay that it
waits for, "" in an inbox), agency (whose inbox it waits in, "" on the way),
priority (0 to 4), since, tries, next_try_at ("" now), last_error, held, expired (a
dead letter), late (not confirmed within the target of its priority, counted from
when the mesh accepted it, or from its hour; "targets" of relay.yaml, else a minute
for hỏa tốc, 5 thượng khẩn, 15 khẩn, 24 hours thường), size (bytes of all files),
recipients, bare (a second copy or a relay's report: nobody's delivery waits).`

// waitingRow is the JSON of an entry.
type waitingRow struct {
	EnvelopeID string `json:"envelope_id"`
	At         string `json:"at"`
	To         string `json:"to"`
	Agency     string `json:"agency"`
	Priority   int32  `json:"priority"`
	Since      string `json:"since"`
	Tries      uint32 `json:"tries"`
	NextTryAt  string `json:"next_try_at"`
	LastError  string `json:"last_error"`
	Held       bool   `json:"held"`
	Expired    bool   `json:"expired"`
	Late       bool   `json:"late"`
	Size       uint64 `json:"size"`
	Recipients uint32 `json:"recipients"`
	Bare       bool   `json:"bare"`
}

func waitingOf(e *adminv1.QueueEntry) waitingRow {
	row := waitingRow{
		At: e.GetAtRelayId(), To: e.GetRelayId(), Agency: e.GetAgencyCode(), Priority: int32(e.GetPriority()),
		Since: stamp(e.GetSince()), Tries: e.GetTries(), NextTryAt: stamp(e.GetNextTryAt()), LastError: e.GetLastError(),
		Held: e.GetHeld(), Expired: e.GetExpired(), Late: e.GetLate(), Size: e.GetSize(), Recipients: e.GetRecipients(), Bare: e.GetBare(),
	}
	if id, err := envelope.IDFromBytes(e.GetEnvelopeId()); err == nil {
		row.EnvelopeID = id.String()
	}
	return row
}

const waitingHead = "ENVELOPE\tAT\tFOR\tPRIORITY\tSINCE\tTRIES\tSTATE\tLAST ERROR"

func (r waitingRow) line() string {
	target := r.Agency
	switch {
	case target == "" && r.Bare:
		target = r.To + " (no delivery)"
	case target == "":
		target = fmt.Sprintf("%s (%d)", r.To, r.Recipients)
	case r.To != "":
		target += " at " + r.To
	}
	var state []string
	for _, s := range []struct {
		is   bool
		word string
	}{{r.Expired, "given up"}, {r.Held, "held"}, {r.Late, "late"}} {
		if s.is {
			state = append(state, s.word)
		}
	}
	return fmt.Sprintf("%s\t%s\t%s\t%d\t%s\t%d\t%s\t%s", r.EnvelopeID, r.At, target, r.Priority, r.Since, r.Tries,
		orDash(strings.Join(state, ", ")), cli.OneLine(r.LastError))
}

// textLimit is how many entries are shown to people who do not say how many.
const textLimit = 1_000

func newQueueList(options *cli.Options) *cobra.Command {
	var request adminv1.ListQueueRequest
	var only string
	cmd := &cobra.Command{
		Use: "list", Short: "List what waits, or what was given up", Args: cobra.NoArgs,
		Long: `List what waits: on the way to a relay, or in an inbox. With --expired list dead
letters instead. For people the oldest of each relay come first, 1,000 at the most;
with -o json all are written as they come.

` + waitingFields,
		Example: `  relayctl queue list --late
  relayctl queue list --agency H26.12.05
  relayctl queue list --expired -o json | jq -r .envelope_id | relayctl queue retry - --reason "Đà Nẵng is back"`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if request.GetRelayId() != "" && request.GetAgencyCode() != "" && !request.GetExpired() {
				return cli.Usage("--to is for what is on its way, --agency for an inbox: name one of them")
			}
			if err := checkNames(cmd, options, &request); err != nil {
				return err
			}
			m, err := connectAll(cmd, options, only)
			if err != nil {
				return err
			}
			defer m.Close()
			return listQueue(cmd, options.Output(cmd), m, &request)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&only, "relay", "", "ask this relay only")
	flags.StringVar(&request.RelayId, "to", "", "only what waits for this relay")
	flags.StringVar(&request.AgencyCode, "agency", "", "only what waits in the inbox of this agency, or was given up for it")
	flags.BoolVar(&request.Expired, "expired", false, "dead letters: what was given up and is kept")
	flags.BoolVar(&request.Held, "held", false, "only what an operator holds")
	flags.BoolVar(&request.Late, "late", false, "only what has missed the delivery target of its priority")
	flags.Uint32Var(&request.Limit, "limit", 0, "most entries of each relay; 0: all, 1,000 for people")
	return cmd
}

// checkNames refuses a relay or an agency that the directory does not have:
// nothing waits for a name that is misspelt, and that would look as if all were
// well.
func checkNames(cmd *cobra.Command, options *cli.Options, request *adminv1.ListQueueRequest) error {
	if request.GetRelayId() == "" && request.GetAgencyCode() == "" {
		return nil
	}
	c, err := connect(cmd, options)
	if err != nil {
		return err
	}
	defer c.Close()
	if id := request.GetRelayId(); id != "" {
		if _, err := c.Relay(cmd.Context(), id); err != nil {
			return err
		}
	}
	if code := request.GetAgencyCode(); code != "" {
		agency, err := agencyOf(cmd.Context(), c, code)
		if err != nil {
			return err
		}
		request.AgencyCode = agency.GetCode()
	}
	return nil
}

// listQueue writes entries of all relays, as they come or sorted for people.
func listQueue(cmd *cobra.Command, out *cli.Output, m *operator.Mesh, request *adminv1.ListQueueRequest) error {
	limit := request.GetLimit()
	if request.Limit == 0 {
		request.Limit = math.MaxUint32
		if !out.JSON() {
			// One more tells whether there are more.
			limit, request.Limit = textLimit, textLimit+1
		}
	}
	var mu sync.Mutex // owns rows and the writing of JSON
	var rows []waitingRow
	failures := m.Each(cmd.Context(), func(ctx context.Context, member operator.Member) error {
		return eachWaiting(ctx, member, request, func(row waitingRow) error {
			mu.Lock()
			defer mu.Unlock()
			if out.JSON() {
				return out.Print(row, nil)
			}
			rows = append(rows, row)
			return nil
		})
	})
	if len(failures) > 0 {
		return firstOf(failures)
	}
	if out.JSON() {
		return nil
	}
	slices.SortStableFunc(rows, func(a, b waitingRow) int { return cmp.Or(cmp.Compare(a.Since, b.Since), cmp.Compare(a.At, b.At)) })
	if len(rows) > int(limit) && limit == textLimit {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: more than %d wait; --limit N shows more, -o json all\n", limit)
		rows = rows[:limit]
	}
	return list(out, waitingHead, rows, waitingRow.line)
}

// eachWaiting gives the entries of one relay to fn.
func eachWaiting(ctx context.Context, member operator.Member, request *adminv1.ListQueueRequest, fn func(waitingRow) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := member.Conn.Custody.ListQueue(ctx, request)
	if err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(waitingOf(r.GetEntry())); err != nil {
			return err
		}
	}
}

func newQueueShow(options *cli.Options) *cobra.Command {
	var only string
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show where one envelope waits", Args: cobra.ExactArgs(1),
		Long: `Show where one envelope waits, and for what; also what of it was given up. Its
whole journey is what "relayctl trace ID" shows. Exit status 1 where a relay does
not answer: it may wait there.

One line per entry.

` + waitingFields,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := envelope.ParseID(args[0])
			if err != nil {
				return cli.Usage("%v", err)
			}
			m, err := connectAll(cmd, options, only)
			if err != nil {
				return err
			}
			defer m.Close()
			request := &adminv1.ListQueueRequest{EnvelopeId: id[:], Limit: math.MaxUint32}
			var mu sync.Mutex
			var rows []waitingRow
			failures := m.Each(cmd.Context(), func(ctx context.Context, member operator.Member) error {
				return eachWaiting(ctx, member, request, func(row waitingRow) error {
					mu.Lock()
					defer mu.Unlock()
					rows = append(rows, row)
					return nil
				})
			})
			unknown := len(failures)
			failures = slices.DeleteFunc(failures, func(f operator.Failure) bool { return operator.NotFound(f.Err) })
			unknown -= len(failures)
			if len(rows) > 0 {
				slices.SortFunc(rows, func(a, b waitingRow) int {
					return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.To, b.To), cmp.Compare(a.Agency, b.Agency))
				})
				if err := list(options.Output(cmd), waitingHead, rows, waitingRow.line); err != nil {
					return err
				}
			}
			switch {
			case len(failures) > 0:
				return firstOf(failures)
			case len(m.Silent) > 0:
				return incomplete(m, "it may wait there too")
			case len(rows) == 0 && unknown == len(m.Members):
				return unknownEnvelope(id)
			case len(rows) == 0:
				fmt.Fprintf(cmd.ErrOrStderr(), "note: nothing of %s waits; `relayctl trace %s` shows what became of it\n", id, id)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&only, "relay", "", "ask this relay only")
	return cmd
}

func unknownEnvelope(id envelope.ID) error {
	return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "no relay knows envelope %s", id)
}

// incomplete says that an answer lacks what some relays could add.
func incomplete(m *operator.Mesh, what string) error {
	var silent []string
	for _, f := range m.Silent {
		silent = append(silent, f.Relay)
	}
	return fmt.Errorf("not all relays answered (%s): %s", strings.Join(silent, ", "), what)
}
