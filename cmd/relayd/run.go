package main

import (
	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/relayd/node"
)

func newRun() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use: "run --config relay.yaml", Short: "Run a relay until it is interrupted", Args: cobra.NoArgs,
		Long: `Run a relay until it is interrupted. It stops by itself, with exit status 1, when
its disk fails to write: it never goes on with a guess.

GET /healthz and /readyz on the http address of the configuration tell whether it
lives and whether it serves; /metrics is for Prometheus.`,
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
			return n.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&config, "config", "relay.yaml", "configuration of the relay")
	return cmd
}
