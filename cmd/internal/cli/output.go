package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// ProfileVariable names the profile where --profile does not.
const ProfileVariable = "TRUC_PROFILE"

// Options are the flags every command takes.
type Options struct {
	format  string
	profile string
	verbose bool
}

// AddOptions gives root and its commands -o, --profile and --verbose.
func AddOptions(root *cobra.Command) *Options {
	o := new(Options)
	flags := root.PersistentFlags()
	flags.StringVarP(&o.format, "output", "o", "text", "text, or json: one object per line with stable field names")
	flags.StringVar(&o.profile, "profile", "", "profile file (or environment variable "+ProfileVariable+")")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "say on standard error what is being done")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if o.format != "text" && o.format != "json" {
			return Usage("--output %q: text or json", o.format)
		}
		return nil
	}
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	must(root.MarkPersistentFlagFilename("profile", "yaml", "yml"))
	return o
}

// must is for what fails only when this program names a flag that it did not
// declare.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Profile returns the path of the profile, from the flag or the environment.
func (o *Options) Profile() (string, error) {
	if o.profile != "" {
		return o.profile, nil
	}
	if path := os.Getenv(ProfileVariable); path != "" {
		return path, nil
	}
	return "", Usage("no profile: name one with --profile FILE or %s", ProfileVariable)
}

// Logger writes warnings to the command's standard error, with --verbose also
// what goes well.
func (o *Options) Logger(cmd *cobra.Command) *slog.Logger {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				// Whoever reads it is there when it happens.
				return slog.Attr{}
			}
			return a
		},
	}))
}

// Output writes a command's results.
type Output struct {
	w    io.Writer
	json bool
}

// Output returns the writer of results for cmd.
func (o *Options) Output(cmd *cobra.Command) *Output {
	return &Output{w: cmd.OutOrStdout(), json: o.format == "json"}
}

// JSON reports whether results are wanted as JSON.
func (out *Output) JSON() bool { return out.json }

// Print writes one result: v as one line of JSON, or what text writes.
func (out *Output) Print(v any, text func(w io.Writer) error) error {
	if !out.json {
		return text(out.w)
	}
	e := json.NewEncoder(out.w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// Table writes rows of text in aligned columns; cells are separated by tabs.
func (out *Output) Table(write func(w io.Writer) error) error {
	t := tabwriter.NewWriter(out.w, 0, 8, 2, ' ', 0)
	if err := write(t); err != nil {
		return err
	}
	return t.Flush()
}

// Terminal reports whether w is a terminal, where progress may be drawn.
func Terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
