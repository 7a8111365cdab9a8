package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/internal/operator"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// steer is one of the commands that steer envelopes.
type steer struct {
	name, done, short, long string
	operation               adminv1.SteerOperation
	// nothing says why an envelope that is known was not concerned.
	nothing string
	// many is a "queue list" that finds envelopes to steer.
	many string
}

var steers = []steer{
	{name: "hold", done: "held", operation: adminv1.SteerOperation_STEER_OPERATION_HOLD,
		short: "Keep envelopes where they are", nothing: "it is delivered, or was given up: nothing is left to hold", many: "--to nam",
		long: `Keep envelopes where they are: what waits for a relay is not handed on, and what is
in an inbox is not delivered, until they are released. Their lifetime goes on.`},
	{name: "release", done: "released", operation: adminv1.SteerOperation_STEER_OPERATION_RELEASE,
		short: "Let held envelopes go on", nothing: "it is not held", many: "--held", long: `Let envelopes that are held go on.`},
	{name: "retry", done: "retried", operation: adminv1.SteerOperation_STEER_OPERATION_RETRY,
		short: "Try envelopes again now, also dead letters", nothing: "nothing of it waits for a relay; what is in an inbox waits for its recipient", many: "--expired",
		long: `Try envelopes again now. Dead letters, which were given up, become deliveries again,
by the directory of now and with a lifetime that begins now.`},
	{name: "expire", done: "given up", operation: adminv1.SteerOperation_STEER_OPERATION_EXPIRE,
		short: "Give up what waits of envelopes", nothing: "nothing of it waits", many: "--held --to nam",
		long: `Give up what waits of envelopes: the sender sees that it was not delivered, and the
content is kept as a dead letter, which "relayctl queue retry" sends again.`},
}

const (
	// steersAtOnce is how many envelopes are steered at the same time.
	steersAtOnce = 32
	// progressEvery is how often a long command says how far it is.
	progressEvery = 2 * time.Second
)

// steered is the JSON of what was done to one envelope.
type steered struct {
	EnvelopeID string      `json:"envelope_id"`
	Done       string      `json:"done"`
	Entries    uint32      `json:"entries"`
	Relays     []steeredAt `json:"relays"`
	Error      string      `json:"error"`
	err        error       // the same, for the exit code
}

type steeredAt struct {
	Relay   string `json:"relay"`
	Entries uint32 `json:"entries"`
}

func newQueueSteer(options *cli.Options, s steer) *cobra.Command {
	var only, reason string
	cmd := &cobra.Command{
		Use: s.name + " ID…", Short: s.short, Args: cobra.MinimumNArgs(1),
		Long: s.long + `

ID - reads ids from standard input, one on a line. Every relay in service is told;
where one does not answer, what it has is not concerned, and the exit status is 1:
the others have done it, which is printed too.

Fields with -o json, one line per envelope: envelope_id, done (what was done, ""
where nothing was), entries (of queues and inboxes, or dead letters), relays (relay,
entries), error.`,
		Example: "  relayctl queue " + s.name + " 0193fca0-5a1c-8000-8000-000000000000 --reason \"…\"\n" +
			"  relayctl queue list " + s.many + " -o json | jq -r .envelope_id | relayctl queue " + s.name + " - --reason \"…\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := envelopeIDs(cmd, args)
			if err != nil {
				return err
			}
			m, err := connectAll(cmd, options, only)
			if err != nil {
				return err
			}
			defer m.Close()
			return steerAll(cmd, options.Output(cmd), m, s, ids, reason)
		},
	}
	cmd.Flags().StringVar(&only, "relay", "", "tell this relay only")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the trace of the envelope")
	return cmd
}

// envelopeIDs reads the ids of a command, each once.
func envelopeIDs(cmd *cobra.Command, args []string) ([]envelope.ID, error) {
	var ids []envelope.ID
	known := make(map[envelope.ID]bool)
	add := func(text string) error {
		id, err := envelope.ParseID(text)
		if err != nil {
			return cli.Usage("%v", err)
		}
		if !known[id] {
			known[id] = true
			ids = append(ids, id)
		}
		return nil
	}
	for _, arg := range args {
		if arg != "-" {
			if err := add(arg); err != nil {
				return nil, err
			}
			continue
		}
		lines := bufio.NewScanner(cmd.InOrStdin())
		for lines.Scan() {
			if text := strings.TrimSpace(lines.Text()); text != "" {
				if err := add(text); err != nil {
					return nil, err
				}
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read ids: %w", err)
		}
	}
	return ids, nil
}

// steerAll steers many envelopes and prints what came of each, in their order
// as far as they are done.
func steerAll(cmd *cobra.Command, out *cli.Output, m *operator.Mesh, s steer, ids []envelope.ID, reason string) error {
	var finished atomic.Int64
	var mu sync.Mutex // owns the counts, failure and the writing
	defer progress(cmd.ErrOrStderr(), &mu, len(ids), &finished)()
	failed, inPart := 0, 0
	var failure error
	work, ctx := errgroup.WithContext(cmd.Context())
	work.SetLimit(steersAtOnce)
	for _, id := range ids {
		work.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			result := steerOne(ctx, m, s, id, reason)
			finished.Add(1)
			mu.Lock()
			defer mu.Unlock()
			if result.err != nil {
				failure = result.err
				if result.Done != "" {
					inPart++
				} else {
					failed++
				}
				if !out.JSON() {
					cli.PrintError(cmd.ErrOrStderr(), id.String(), result.err)
				}
				if !out.JSON() && result.Done == "" {
					return nil
				}
			}
			return out.Print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s: %s, %d at %s\n", id, result.Done, result.Entries, result.where())
				return err
			})
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	switch {
	case failed+inPart == 0:
		return nil
	case len(ids) == 1 && out.JSON():
		return failure
	}
	var left []string
	if failed > 0 {
		left = append(left, fmt.Sprintf("%d of %d envelopes were not %s", failed, len(ids), s.done))
	}
	if inPart > 0 {
		left = append(left, fmt.Sprintf("%d of %d envelopes were %s, but not at every relay", inPart, len(ids), s.done))
	}
	return errors.New(strings.Join(left, "; "))
}

// steerOne tells every relay about one envelope.
func steerOne(ctx context.Context, m *operator.Mesh, s steer, id envelope.ID, reason string) steered {
	result := steered{EnvelopeID: id.String(), Relays: []steeredAt{}}
	request := &adminv1.SteerQueueRequest{EnvelopeId: id[:], Operation: s.operation, Reason: reason}
	var mu sync.Mutex
	known := false
	failures := m.Each(ctx, func(ctx context.Context, member operator.Member) error {
		r, err := member.Conn.Custody.SteerQueue(ctx, request)
		mu.Lock()
		defer mu.Unlock()
		known = known || err == nil || !operator.NotFound(err)
		if err == nil && r.GetEntries() > 0 {
			result.Entries += r.GetEntries()
			result.Relays = append(result.Relays, steeredAt{member.ID, r.GetEntries()})
		}
		return err
	})
	slices.SortFunc(result.Relays, func(a, b steeredAt) int { return strings.Compare(a.Relay, b.Relay) })
	failures = slices.DeleteFunc(failures, func(f operator.Failure) bool { return operator.NotFound(f.Err) })
	refused := slices.DeleteFunc(slices.Clone(failures), func(f operator.Failure) bool { return !wrongState(f.Err) })
	if result.Entries > 0 {
		result.Done = s.done
	}
	switch {
	case len(failures) > len(refused):
		result.err = firstOf(slices.DeleteFunc(failures, func(f operator.Failure) bool { return wrongState(f.Err) }))
	case result.Entries > 0 && len(m.Silent) > 0:
		result.err = incomplete(m, "what they have of it was not "+s.done)
	case result.Entries > 0:
	case len(refused) > 0:
		result.err = refused[0].Err
	case len(m.Silent) > 0:
		result.err = incomplete(m, "it may wait there, and was not "+s.done)
	case !known:
		result.err = unknownEnvelope(id)
	default:
		result.err = envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE, "nothing to do for %s: %s", id, s.nothing)
	}
	if result.err != nil {
		result.Error = cli.OneLine(plain(result.err))
	}
	return result
}

// wrongState reports whether a relay has nothing to do because of what became
// of the envelope.
func wrongState(err error) bool {
	r, ok := envelope.AsRefusal(err)
	return ok && r.Reason == exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE
}

// plain is the message of an error without the spelling of the transport.
func plain(err error) string {
	if r, ok := envelope.AsRefusal(err); ok {
		return cli.Plain(r.Message)
	}
	return cli.Plain(err.Error())
}

func (r steered) where() string {
	var relays []string
	for _, at := range r.Relays {
		relays = append(relays, at.Relay)
	}
	return strings.Join(relays, ", ")
}

// progress says now and then how many of many are done; mu owns the writing.
func progress(w io.Writer, mu *sync.Mutex, of int, finished *atomic.Int64) (stop func()) {
	ended := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				mu.Lock()
				fmt.Fprintf(w, "%d of %d\n", finished.Load(), of)
				mu.Unlock()
			case <-ended:
				return
			}
		}
	})
	return sync.OnceFunc(func() { close(ended); telling.Wait() })
}
