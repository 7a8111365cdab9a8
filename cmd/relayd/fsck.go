package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/relayd/node"
	"github.com/truclienthong/truc/relay/spool"
)

func newFsck(options *cli.Options) *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use: "fsck --config relay.yaml", Short: "Prove that the spool of a stopped relay is whole", Args: cobra.NoArgs,
		Long: `Prove that the spool of a stopped relay is whole: every accepted envelope is there
with all its bytes, no queue entry is without an envelope and no envelope without
its entries. Exit status 1 when anything is found; nothing is changed.

It refuses while the relay runs, and where there is no spool.

Fields with -o json: one line per finding with envelope_id and agency ("" where it is
about none) and problem; where nothing is found, one line with findings, 0.`,
		Example: "  relayd fsck --config /etc/truc/relay.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := node.Load(config)
			if err != nil {
				return err
			}
			out := options.Output(cmd)
			found := 0
			err = node.Fsck(c, func(f node.Finding) {
				found++
				_ = out.Print(findingOf(f), func(w io.Writer) error {
					_, err := fmt.Fprintln(w, f)
					return err
				})
			})
			if errors.Is(err, spool.ErrLocked) {
				return fmt.Errorf("relay %s runs, its spool is in use: stop it first (%w)", c.ID, err)
			}
			if err != nil {
				return err
			}
			if found > 0 {
				return fmt.Errorf("%d findings", found)
			}
			return out.Print(struct {
				Findings int `json:"findings"`
			}{0}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "whole: no findings")
				return err
			})
		},
	}
	cmd.Flags().StringVar(&config, "config", "relay.yaml", "configuration of the relay")
	return cmd
}

// finding is the JSON of one finding.
type finding struct {
	EnvelopeID string `json:"envelope_id"`
	Agency     string `json:"agency"`
	Problem    string `json:"problem"`
}

func findingOf(f node.Finding) finding {
	row := finding{Agency: string(f.Agency), Problem: f.Problem}
	if !f.ID.IsZero() {
		row.EnvelopeID = f.ID.String()
	}
	return row
}
