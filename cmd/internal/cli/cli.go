// Package cli is what the command line tools share: how a command tree is run,
// how its exit code comes about, what -o json prints, and how a refusal reads.
//
// It promises scripts three things. The exit code is 0 for done, 1 for refused
// or failed, 2 for wrong usage, and nothing else. Standard output carries
// results only; every reason, progress line and log line goes to standard
// error. With -o json each result is one object on one line, with stable field
// names.
//
// A tool looks like this:
//
//	func main() { os.Exit(cli.Run(newRoot())) }
//
//	func newRoot() *cobra.Command {
//		root := &cobra.Command{Use: "tool", Short: "…"}
//		options := cli.AddOptions(root)
//		root.AddCommand(&cobra.Command{Use: "list", RunE: func(cmd *cobra.Command, args []string) error {
//			out := options.Output(cmd)
//			return out.Print(row, func(w io.Writer) error { … })
//		}})
//		return root
//	}
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/relay/envelope"
)

// The exit codes of every tool (DESIGN §9).
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// usageError marks an error as the caller's wrong usage.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

// Usage returns an error that ends the tool with exit code 2. Commands use it
// for what flags and argument counts alone cannot express.
func Usage(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// Run executes the command tree with the arguments of the process and returns
// the exit code. The context of the commands ends at the first interrupt or
// termination signal; a second one kills the process.
func Run(root *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return Execute(ctx, root, os.Args[1:], os.Stdout, os.Stderr)
}

// Execute is Run with everything of the process passed in, for tests.
func Execute(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	started := false
	prepare(root, &started)
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)

	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitDone
	}
	var usage *usageError
	// Whatever fails before a command's own code runs is about flags,
	// arguments or the command's name.
	if errors.As(err, &usage) || !started {
		fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), err)
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
		return ExitUsage
	}
	if ctx.Err() != nil {
		err = context.Canceled
	}
	PrintError(stderr, root.Name(), err)
	return ExitFailed
}

// prepare makes every command note that it started, and lets a command that
// only groups others refuse to be called alone.
func prepare(cmd *cobra.Command, started *bool) {
	for _, sub := range cmd.Commands() {
		prepare(sub, started)
	}
	switch {
	case cmd.RunE != nil:
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return run(cmd, args)
		}
	case cmd.Run == nil:
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return Usage("unknown command %q", args[0])
			}
			cmd.SetOut(cmd.ErrOrStderr())
			if err := cmd.Help(); err != nil {
				return err
			}
			return Usage("which command?")
		}
	}
}

// PrintError writes the reason of a failure for people: one line for each fault
// where there are several (fields of a refusal, relays that were tried), and
// what to do next where it is known.
func PrintError(w io.Writer, tool string, err error) {
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(w, "%s: interrupted\n", tool)
		return
	}
	r, ok := envelope.AsRefusal(err)
	if !ok {
		printLines(w, tool+": ", err.Error())
		return
	}
	switch {
	case len(r.Problems) > 0:
		fmt.Fprintf(w, "%s: refused, %s\n", tool, Count(len(r.Problems), "problem"))
		for _, p := range r.Problems {
			fmt.Fprintf(w, "  %s: %s\n", p.Field, OneLine(p.Description))
		}
	case envelope.Temporary(err):
		printLines(w, tool+": ", err.Error())
	default:
		printLines(w, tool+": refused: ", err.Error())
	}
	if r.Quota != "" {
		fmt.Fprintf(w, "  quota: %s\n", r.Quota)
	}
	if r.RetryAfter > 0 {
		fmt.Fprintf(w, "  try again in %s\n", r.RetryAfter)
	}
}

// printLines writes a text of one or more lines, those after the first
// indented, without the spelling of the transport.
func printLines(w io.Writer, prefix, text string) {
	for line := range strings.Lines(Plain(strings.TrimSpace(text))) {
		fmt.Fprintf(w, "%s%s\n", prefix, strings.TrimSpace(OneLine(line)))
		prefix = "  "
	}
}

// What gRPC puts before the words of a relay, and around those of the system
// where a relay cannot be reached.
var (
	statusSpelling = regexp.MustCompile(`rpc error: code = \w+ desc = `)
	dialSpelling   = regexp.MustCompile(`connection error: desc = "transport: (?:Error while dialing: )?((?:[^"\\]|\\.)*)"`)
)

// Plain is the text of an error without the spelling of the transport.
func Plain(text string) string {
	return dialSpelling.ReplaceAllString(statusSpelling.ReplaceAllString(text, ""), "$1")
}

// Count says how many there are of something.
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// OneLine keeps a text on its line, and a text from afar from driving the
// terminal.
func OneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
}
