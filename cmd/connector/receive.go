package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
)

// receiveFlags say where to and for how long.
type receiveFlags struct {
	out     string
	watch   bool
	most    int
	timeout time.Duration
	outbox  outboxFlags
}

// waits reports whether to wait for what is still to come.
func (f receiveFlags) waits() bool { return f.watch || f.most > 0 && f.timeout > 0 }

// receiveResult is what receive prints with -o json, one per envelope.
type receiveResult struct {
	EnvelopeID string        `json:"envelope_id"`
	Kind       string        `json:"kind"`
	Sender     string        `json:"sender"`
	Agency     string        `json:"agency"`
	DocumentID string        `json:"document_id"`
	Subject    string        `json:"subject"`
	StatusCode string        `json:"status_code,omitempty"`
	Priority   int           `json:"priority"`
	Dir        string        `json:"dir"`
	Files      []receiveFile `json:"files"`
	ArrivedAt  string        `json:"arrived_at"`
	Confirmed  bool          `json:"confirmed"`
}

type receiveFile struct {
	Name   string `json:"name"`
	Path   string `json:"path"`
	Size   uint64 `json:"size"`
	SHA256 string `json:"sha256"`
}

func newReceive(options *cli.Options) *cobra.Command {
	var f receiveFlags
	cmd := &cobra.Command{
		Use:   "receive --out DIR [--watch] [--max N] [--timeout D]",
		Short: "Receive what waits in the inbox into a folder",
		Long: `Receive what waits in the inbox into a folder, urgent documents first.

Each envelope gets a folder DIR/<envelope id> with its files and envelope.json, the
description. The folder appears at once when everything in it is on disk and was
compared with the sender's SHA-256; only then is the envelope confirmed, and leaves
the inbox. Interrupted at any moment, the command goes on where it stopped when it
is run again. While at work it uses hidden folders in DIR; leave them alone.

A document that its sender took back before it was confirmed is removed again, which
standard error tells, and is not printed. Until an envelope is confirmed, its folder
holds the hidden file .unconfirmed.

An envelope is printed once it is confirmed. One that could not be saved stays in
the inbox, the reason is on standard error, and the exit code is 1. One that takes
long does not hold up those behind it, except with --max.

Without --watch the command ends when the inbox is empty. With --watch it goes on
with what arrives, until Ctrl-C or --timeout. With --max and --timeout it waits up
to that long for that many. Ending for one of these reasons is exit code 0.

With --watch it also looks after what "connector send" left in the outbox (see
"connector outbox --help"), on the side.

Fields with -o json, one line per envelope: envelope_id, kind (document or status),
sender, agency (the code addressed), document_id, subject, status_code (of a
status), priority, dir, files (a list of name, path, size, sha256), arrived_at,
confirmed.

envelope.json holds envelope_id, agency, arrived_at, files (name as sent, file in
the folder, size, sha256) and envelope (Envelope of proto/truc/exchange/v1 in the
JSON form of protobuf, with the field names of the contract).`,
		Example: `  connector receive --out /srv/vanban/den
  connector receive --out /srv/vanban/den --watch -o json | while read -r line; do …; done
  connector receive --out /srv/vanban/den --max 1 --timeout 1m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.out == "" {
				return cli.Usage("--out is empty")
			}
			if f.most < 0 || f.timeout < 0 {
				return cli.Usage("--max and --timeout cannot be negative")
			}
			return withClient(cmd, options, func(client *agency.Client, config agency.Config) error {
				if f.watch {
					defer f.outbox.watch(cmd.Context(), client, config)()
				}
				r := &receiver{flags: f, cmd: cmd, out: options.Output(cmd)}
				return r.run(cmd.Context(), client)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.out, "out", "", "folder for what is received; made where missing")
	flags.BoolVar(&f.watch, "watch", false, "go on with what arrives")
	flags.IntVar(&f.most, "max", 0, "end after so many envelopes (default: no limit)")
	flags.DurationVar(&f.timeout, "timeout", 0, "end after so long, for example 30s or 5m (default: no limit)")
	f.outbox.add(cmd)
	must(cmd.MarkFlagRequired("out"))
	must(cmd.MarkFlagDirname("out"))
	return cmd
}

// errTimeout is the end that --timeout asks for.
var errTimeout = errors.New("--timeout is over")

// receiver saves and confirms what arrives.
type receiver struct {
	flags receiveFlags
	cmd   *cobra.Command

	// beside are the envelopes that are worked on beside the stream: those that
	// take long, and those that are tried again.
	beside sync.WaitGroup

	// mu guards what follows, and the output.
	mu     sync.Mutex
	out    *cli.Output
	failed int
}

func (r *receiver) run(ctx context.Context, client *agency.Client) error {
	// A folder that cannot be written to is found before anything comes.
	if err := os.MkdirAll(r.flags.out, 0o750); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if r.flags.timeout > 0 {
		// No deadline, which would travel to the relay: it would end the stream
		// a little before we do, and that reads like a failure.
		defer time.AfterFunc(r.flags.timeout, func() { cancel(errTimeout) }).Stop()
	}
	if r.flags.timeout > 0 {
		// Waiting for what a mesh may send is one thing, not reaching it until
		// the time is over another: a failure.
		if _, err := client.Attach(ctx); context.Cause(ctx) == errTimeout {
			return fmt.Errorf("no relay of the profile could be reached: %w", errTimeout)
		} else if err != nil {
			return err
		}
	}
	r.destroyTakenBack(ctx, client)
	if r.flags.watch {
		r.beside.Go(func() {
			for tick := time.NewTicker(lookBack); ; {
				select {
				case <-ctx.Done():
					tick.Stop()
					return
				case <-tick.C:
					r.destroyTakenBack(ctx, client)
				}
			}
		})
	}
	err := r.loop(ctx, client)
	if !r.flags.watch && r.flags.most == 0 && err == nil {
		r.beside.Wait()
		err = ctx.Err()
	}
	switch {
	case r.asked(ctx):
		err = nil
	case err != nil && context.Cause(ctx) == errTimeout:
		err = fmt.Errorf("%w before the inbox was empty; run it again, it goes on where it stopped", errTimeout)
	}
	cancel(nil)
	r.beside.Wait()
	if err == nil && r.failed > 0 {
		return fmt.Errorf("%d not saved or not confirmed; they stay in the inbox", r.failed)
	}
	return err
}

// asked reports whether the context ended as was asked for: by --timeout where
// there was something to wait for, by Ctrl-C while watching.
func (r *receiver) asked(ctx context.Context) bool {
	if context.Cause(ctx) == errTimeout {
		return r.flags.waits()
	}
	return ctx.Err() != nil && r.flags.watch
}

func (r *receiver) loop(ctx context.Context, client *agency.Client) error {
	taken := 0
	for arrival, err := range client.Receive(ctx, agency.ReceiveOptions{Drain: !r.flags.waits()}) {
		if err != nil {
			return err
		}
		done := make(chan bool, 1)
		r.beside.Go(func() { done <- r.handle(ctx, arrival) })
		if r.flags.most == 0 {
			r.await(ctx, done)
		} else if <-done {
			if taken++; taken == r.flags.most {
				return nil
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// slow is after how long the next envelope is begun beside one that takes
// longer: because it is large, or its home is mending its content. The relay
// bounds how many it gives out unconfirmed, and with that how many there are.
const slow = 3 * time.Second

// await waits until an envelope was taken, but not long.
func (r *receiver) await(ctx context.Context, done <-chan bool) {
	timer := time.NewTimer(slow)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-done:
	case <-timer.C:
	}
}

// handle takes an envelope, or says why not. A watching connector tries it again,
// on the side, so that it neither stops the others nor waits for a restart.
func (r *receiver) handle(ctx context.Context, arrival *agency.Arrival) bool {
	err := r.take(ctx, arrival)
	if err == nil {
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	r.say(err)
	r.beside.Go(func() {
		for r.flags.watch && rest(ctx) {
			if err = r.take(ctx, arrival); err == nil {
				return
			}
			if ctx.Err() == nil {
				r.say(err)
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failed++
	})
	return false
}

// take saves, confirms and prints one envelope, in this order.
func (r *receiver) take(ctx context.Context, arrival *agency.Arrival) error {
	var total uint64
	for _, part := range arrival.Envelope.GetHeader().GetParts() {
		total += part.GetSize()
	}
	progress := newProgress(r.cmd.ErrOrStderr(), "receiving", total)
	arrival.Progress = progress.show
	saved, err := arrival.Save(ctx, r.flags.out)
	progress.end()
	if err != nil {
		return err
	}
	if err := arrival.Confirm(ctx); err != nil {
		if recalled := (*agency.RecalledError)(nil); errors.As(err, &recalled) {
			r.takenBack(agency.TakenBack{ID: arrival.ID, Sender: arrival.Envelope.GetHeader().GetSender().GetCode()})
			return nil
		}
		return err
	}
	header := arrival.Envelope.GetHeader()
	result := receiveResult{
		EnvelopeID: arrival.ID.String(), Kind: "document", Sender: header.GetSender().GetCode(), Agency: arrival.Agency,
		DocumentID: header.GetDocumentId(), Subject: header.GetDocument().GetSubject(), StatusCode: header.GetStatus().GetCode(),
		Priority: int(header.GetPriority()), Dir: saved.Dir, Files: []receiveFile{}, ArrivedAt: cli.Stamp(arrival.ArrivedAt), Confirmed: true,
	}
	what := result.Subject
	if header.GetKind() == exchangev1.Kind_KIND_STATUS {
		result.Kind = "status"
		what = "status " + result.StatusCode
	}
	for _, f := range saved.Files {
		result.Files = append(result.Files, receiveFile(f))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Print(result, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s  from %s  %s\n  %s\n", result.EnvelopeID, result.Sender, cli.OneLine(what), result.Dir)
		return err
	})
}

// takenBack tells of an envelope that is not in the books yet, and was removed.
func (r *receiver) takenBack(t agency.TakenBack) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.cmd.ErrOrStderr(), "%s: taken back by %s before it was confirmed; removed\n", t.ID, t.Sender)
}

// lookBack is how often a watching connector looks for what was taken back.
const lookBack = 10 * time.Minute

// destroyTakenBack removes what was saved, not confirmed, and taken back since.
func (r *receiver) destroyTakenBack(ctx context.Context, client *agency.Client) {
	all, err := client.DestroyTakenBack(ctx, r.flags.out)
	for _, t := range all {
		r.takenBack(t)
	}
	if err != nil && ctx.Err() == nil {
		r.say(fmt.Errorf("documents that were taken back may be in %s: %w", r.flags.out, err))
	}
}

// retryAfter is how long a watching connector lets an envelope rest that could
// not be saved, for example because the disk was full.
const retryAfter = 30 * time.Second

// say prints a reason.
func (r *receiver) say(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cli.PrintError(r.cmd.ErrOrStderr(), "connector receive", err)
}

// rest waits for the next try; false when the context ended.
func rest(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(retryAfter):
		return true
	}
}
