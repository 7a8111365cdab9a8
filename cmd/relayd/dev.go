package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/relayd/dev"
)

func newDev(options *cli.Options) *cobra.Command {
	var dir string
	var portBase int
	var initOnly, exitAfterDemo bool
	cmd := &cobra.Command{
		Use: "dev", Short: "Try everything: three relays, their authority, sample agencies, real files", Args: cobra.NoArgs,
		Long: `Set up and run a mesh of three relays (bac, trung, nam) on this machine, with its
own authority and sample agencies of four tiers, send real files between them,
print each journey, then serve until Ctrl-C.

DIR receives relays/{bac,trung,nam}/relay.yaml, profiles/operator.yaml,
profiles/<agency code>.yaml, agencies.csv and the authority. Run again with the
same DIR it goes on with the same mesh.

Fields with -o json: with --init-only one line with dir, operator (its profile) and
agencies (the CSV); else one line per journey with envelope_id, from, to, subject,
priority, receipt_ms, repeat_got_original_receipt, files (name, size, sha256,
verified_at_recipients) and events (after_ms, relay, action, peer, agency).`,
		Example: "  relayd dev\n  relayd dev --dir /tmp/mesh --port-base 9400\n  relayd dev --init-only && relayd run --config truc-dev/relays/bac/relay.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if portBase < 1 || portBase > 65_000 {
				return cli.Usage("--port-base %d: 1 to 65000", portBase)
			}
			absolute, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			layout := dev.Default(absolute, portBase)
			out := options.Output(cmd)
			if initOnly {
				if err := layout.Write(); err != nil {
					return err
				}
				return out.Print(struct {
					Dir      string `json:"dir"`
					Operator string `json:"operator"`
					Agencies string `json:"agencies"`
				}{dir, layout.Profile("operator"), layout.AgenciesFile()}, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "three relays, their authority and profiles are in %s; run each with\n", dir)
					for _, r := range layout.Relays {
						if err == nil {
							_, err = fmt.Fprintf(w, "  relayd run --config %s\n", layout.RelayConfig(r.ID))
						}
					}
					return err
				})
			}
			return dev.Run(cmd.Context(), layout, dev.Options{
				Version: version(), Print: out.Print, JSON: out.JSON(), ExitAfterDemo: exitAfterDemo,
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "dir", "truc-dev", "directory of the mesh")
	flags.IntVar(&portBase, "port-base", 7400, "ports from here: three for relays; ten above, three for HTTP")
	flags.BoolVar(&initOnly, "init-only", false, "only write files")
	flags.BoolVar(&exitAfterDemo, "exit-after-demo", false, "end after the journeys")
	return cmd
}
