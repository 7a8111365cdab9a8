package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/relayd/node"
)

func newFsck(options *cli.Options) *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use: "fsck --config relay.yaml", Short: "Prove that the spool of a stopped relay is whole", Args: cobra.NoArgs,
		Long: `Prove that the spool of a stopped relay is whole: every accepted envelope is there
with all its bytes, no queue entry is without an envelope and no envelope without
its entries. Exit status 1 when anything is found; nothing is changed.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := node.Load(config)
			if err != nil {
				return err
			}
			out := options.Output(cmd)
			found := 0
			err = node.Fsck(c, func(f node.Finding) {
				found++
				_ = out.Print(f, func(w io.Writer) error {
					_, err := fmt.Fprintln(w, f)
					return err
				})
			})
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
