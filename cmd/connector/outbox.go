package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/relay/agency"
)

// outboxFlags say where the agency's own copies are kept.
type outboxFlags struct {
	dir  string
	none bool
}

func (f *outboxFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "outbox", "", "folder for the copies kept here (default: outbox of the profile, else PROFILE.outbox beside it)")
	flags.BoolVar(&f.none, "no-outbox", false, "keep no copy here, for example where nothing can be written")
	cmd.MarkFlagsMutuallyExclusive("outbox", "no-outbox")
	must(cmd.MarkFlagDirname("outbox"))
}

// path is the folder; "" for none.
func (f *outboxFlags) path(config agency.Config) string {
	switch {
	case f.none:
		return ""
	case f.dir != "":
		return f.dir
	}
	return config.Outbox
}

// open opens the outbox; nil for none.
func (f *outboxFlags) open(client *agency.Client, config agency.Config, logger *slog.Logger) (*agency.Outbox, error) {
	dir := f.path(config)
	if dir == "" {
		return nil, nil
	}
	return agency.OpenOutbox(agency.OutboxConfig{Dir: dir, Client: client, Logger: logger})
}

// watch tends the outbox beside another command until the function it returns is
// called. A place without one, and where none can be made, has nothing to tend.
func (f *outboxFlags) watch(ctx context.Context, client *agency.Client, config agency.Config) (end func()) {
	outbox, err := f.open(client, config, config.Logger)
	if err != nil {
		config.Logger.Info("no outbox is looked after", "error", err)
	}
	if outbox == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := outbox.Run(ctx); err != nil {
			config.Logger.Warn("the outbox is no longer looked after", "error", err)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// outboxResult is what outbox prints with -o json, one per document.
type outboxResult struct {
	State      string `json:"state"`
	EnvelopeID string `json:"envelope_id"`
	DocumentID string `json:"document_id"`
	Agency     string `json:"agency"`
	Since      string `json:"since"`
	Size       uint64 `json:"size"`
	Relay      string `json:"relay"`
	Copies     uint32 `json:"copies"`
	Tries      int    `json:"tries"`
	LastTry    string `json:"last_try"`
	LastError  string `json:"last_error"`
	Reason     string `json:"reason"`
	Dir        string `json:"dir"`
}

func newOutbox(options *cli.Options) *cobra.Command {
	var where outboxFlags
	var tend bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "outbox [--tend] [--timeout D]",
		Short: "List the documents kept here until two relays have them",
		Long: `List the documents kept here until two relays have them, and those set aside.

"connector send" makes each document durable in the outbox before it hands it
over, and removes it once two relays have it or every delivery has ended. What
stays is looked after by the next "connector send" and by "connector receive
--watch": where the one relay that had it is lost, it is handed over again, as
the same envelope. With --tend this command does so until nothing waits any more,
or --timeout is over; exit code 1 then means that something waits still, or was
refused or found damaged.

Set aside are documents that the mesh refused for good after they had waited
(failed), and copies that are not what was written (damaged). Their folders hold
the files, and the reason in reason.json. Remove them once you have seen to it.
To give up a document that waits, remove its folder.

The folder is that of --outbox, else outbox of the profile, else that of the
profile with .outbox in place of .yaml.

Fields with -o json, one line per document: state (waiting, failed or damaged),
envelope_id, document_id, agency (who sent it), since (or when it was set aside),
size, relay and copies (of the last receipt; "" and 0 for none), tries, last_try,
last_error, reason (why it was set aside), dir.`,
		Example: `  connector outbox
  connector outbox --tend --timeout 10m -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return cli.Usage("--timeout %s: more than 0", timeout)
			}
			if where.none {
				return cli.Usage("--no-outbox leaves nothing to list")
			}
			// A relay that does not answer is reported before the time is over.
			return withPatientClient(cmd, options, timeout/4, func(client *agency.Client, config agency.Config) error {
				if _, err := os.Stat(where.path(config)); errors.Is(err, fs.ErrNotExist) {
					return nil // nothing was ever kept
				}
				outbox, err := where.open(client, config, slog.New(slog.DiscardHandler))
				if err != nil {
					return err
				}
				if !tend {
					return listOutbox(options.Output(cmd), outbox)
				}
				ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
				defer cancel()
				troubles := tendAll(ctx, outbox, cmd.ErrOrStderr())
				if cmd.Context().Err() != nil {
					return cmd.Context().Err()
				}
				return errors.Join(listOutbox(options.Output(cmd), outbox), troubles())
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&tend, "tend", false, "hand over again, and wait until nothing waits any more")
	flags.DurationVar(&timeout, "timeout", 2*time.Minute, "with --tend, end after so long")
	where.add(cmd)
	return cmd
}

// tendAll tends until nothing of the agency waits or the context ends. The
// function it returns says what is left or went wrong.
func tendAll(ctx context.Context, outbox *agency.Outbox, stderr io.Writer) (troubles func() error) {
	before, beforeErr := outbox.SetAside()
	said := ""
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := outbox.Tend(ctx)
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			cli.PrintError(stderr, "connector outbox", err)
		}
		if n, err := ownWaiting(outbox); n == 0 || err != nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			continue
		}
		break
	}
	return func() error {
		waiting, err := ownWaiting(outbox)
		after, afterErr := outbox.SetAside()
		if err := errors.Join(beforeErr, err, afterErr); err != nil {
			return err
		}
		var left []string
		if waiting > 0 {
			left = append(left, fmt.Sprintf("%d still wait for a second relay, or for any", waiting))
		}
		if n := len(after) - len(before); n > 0 {
			left = append(left, fmt.Sprintf("%d set aside now; see the reasons", n))
		}
		if len(left) == 0 {
			return nil
		}
		return errors.New(strings.Join(left, "; "))
	}
}

func ownWaiting(outbox *agency.Outbox) (int, error) {
	waiting, err := outbox.List()
	own := 0
	for _, w := range waiting {
		if w.Own {
			own++
		}
	}
	return own, err
}

func listOutbox(out *cli.Output, outbox *agency.Outbox) error {
	waiting, err := outbox.List()
	if err != nil {
		return err
	}
	aside, err := outbox.SetAside()
	if err != nil {
		return err
	}
	for _, w := range waiting {
		err := printKept(out, outboxResult{
			State: "waiting", EnvelopeID: w.ID.String(), DocumentID: w.DocumentID, Agency: w.Agency, Since: cli.Stamp(w.Since),
			Size: w.Size, Relay: w.Relay, Copies: w.Copies, Tries: w.Tries, LastTry: cli.Stamp(w.LastTry), LastError: w.LastError, Dir: w.Dir,
		})
		if err != nil {
			return err
		}
	}
	for _, a := range aside {
		result := outboxResult{
			State: "failed", EnvelopeID: a.EnvelopeID, DocumentID: a.DocumentID, Since: cli.Stamp(a.At),
			LastError: a.Message, Reason: a.Reason, Dir: a.Dir,
		}
		if a.Damaged {
			result.State = "damaged"
		}
		if err := printKept(out, result); err != nil {
			return err
		}
	}
	return nil
}

func printKept(out *cli.Output, r outboxResult) error {
	return out.Print(r, func(w io.Writer) error {
		where := "at no relay yet"
		switch {
		case r.State != "waiting":
			where = r.State
		case r.Relay != "":
			where = fmt.Sprintf("copies %d, at relay %s", r.Copies, r.Relay)
		}
		_, err := fmt.Fprintf(w, "%s  document %s  since %s  %s\n", orDash(r.EnvelopeID), cli.OneLine(orDash(r.DocumentID)), orDash(r.Since), where)
		if err == nil && r.LastError != "" {
			_, err = fmt.Fprintf(w, "  %s\n", cli.OneLine(r.LastError))
		}
		if err == nil {
			_, err = fmt.Fprintf(w, "  %s\n", r.Dir)
		}
		return err
	})
}

// leftovers are tended beside what was asked for, and never decide its exit
// code.
type leftovers struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	err    error
}

// grace is how long a command waits for leftovers when it is itself done. What
// was begun goes on at the next command, from where it got to.
const grace = 5 * time.Second

// tendBehind begins to tend what an earlier command left in the outbox, if
// anything.
func tendBehind(ctx context.Context, outbox *agency.Outbox, but ...*agency.Receipt) *leftovers {
	ctx, cancel := context.WithCancel(ctx)
	l := &leftovers{cancel: cancel}
	waiting, err := ownWaiting(outbox)
	if err != nil {
		l.err = err
		return l
	}
	for _, r := range but {
		if r.Copies < 2 {
			waiting-- // it has a look of its own
		}
	}
	if waiting > 0 {
		l.done.Go(func() {
			if err := outbox.Tend(ctx); ctx.Err() == nil {
				l.err = err
			}
		})
	}
	return l
}

// end ends the tending, after the grace, and notes what went wrong.
func (l *leftovers) end(stderr io.Writer) {
	timer := time.AfterFunc(grace, l.cancel)
	l.done.Wait()
	timer.Stop()
	l.cancel()
	if l.err == nil {
		return
	}
	for line := range strings.Lines(l.err.Error()) {
		fmt.Fprintf(stderr, "note: left in the outbox: %s\n", cli.OneLine(strings.TrimSpace(line)))
	}
}
