package main

import (
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/relayd/node"
)

func newRun() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use: "run --config relay.yaml", Short: "Run a relay until it is interrupted", Args: cobra.NoArgs,
		Long: `Run a relay until it is interrupted (Ctrl-C or SIGTERM): it then stops taking
calls, ends those under way, closes its stores and ends with exit status 0. It
stops by itself, with exit status 1, when its disk fails to write: it never goes
on with a guess. Certificates and the trust file are read again when they change.

The log goes to standard error, in the form that "log" in relay.yaml says (format
text or json, level debug, info, warn or error), with times in Vietnam time.

GET /healthz and /readyz on the http address of the configuration tell whether it
lives and whether it takes documents (or why not); /metrics is for Prometheus.
docs/operating.md says what they mean.`,
		Example: "  relayd run --config /etc/truc/relay.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := node.Load(config)
			if err != nil {
				return err
			}
			logger := node.NewLogger(c, cmd.ErrOrStderr())
			n, err := node.New(cmd.Context(), c, node.Options{Logger: logger, Version: version()})
			if err != nil {
				return err
			}
			frugal()
			return n.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&config, "config", "relay.yaml", "configuration of the relay")
	return cmd
}

// garbageShare is how much garbage may gather before it is collected, in per
// cent of what is in use. Most of what is in use are arenas of the index, which
// are allocated whole, hold no pointers and are touched little by little: with
// the runtime's 100 per cent a transfer of 1 GB would leave 100 MB of garbage
// beside 30 MB of relay, and collecting earlier costs next to nothing.
const garbageShare = 25

// frugal keeps resident memory small, unless the operator has set GOGC.
func frugal() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbageShare)
	}
}
