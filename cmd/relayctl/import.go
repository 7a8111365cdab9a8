package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/internal/operator"
	"github.com/truclienthong/truc/routing"
)

func newAgencyImport(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "import FILE.csv|-", Short: "Add or change many agencies: all of them or none", Args: cobra.ExactArgs(1),
		Long: `Add or change many agencies in one step. The file is CSV in UTF-8 with a header
row; columns code, name, tier and parent_code are needed, home, standby, aliases
(separated by ";") and code_qcvn102 are used where present. Wrong rows are named
by line, and then nothing is imported. Importing the same file again changes
nothing. "-" reads standard input.

An agency without home gets that of its nearest superior, else the relay with the
fewest. Agencies that are not in the file stay as they are.

Fields with -o json: read, changed (new or other than before), version (of the
directory after it).`,
		Example: "  relayctl agency import agencies.csv",
		RunE: func(cmd *cobra.Command, args []string) error {
			input := cmd.InOrStdin()
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer file.Close()
				input = file
			}
			agencies, err := routing.ReadAgencies(input)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.AwaitRelays(cmd.Context(), agencies, func(missing string) {
				fmt.Fprintf(cmd.ErrOrStderr(), "waiting up to %s for relays to register: %s\n", operator.RelaysWithin, missing)
			}); err != nil {
				return err
			}
			var progress func(int)
			if cli.Terminal(cmd.ErrOrStderr()) && len(agencies) > 5000 {
				progress = func(staged int) {
					fmt.Fprintf(cmd.ErrOrStderr(), "\r%d of %d agencies", staged, len(agencies))
					if staged == len(agencies) {
						fmt.Fprintln(cmd.ErrOrStderr())
					}
				}
			}
			result, err := c.Import(cmd.Context(), agencies, progress)
			if err != nil {
				return err
			}
			return options.Output(cmd).Print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%d agencies read, %d added or changed (directory version %d)\n",
					result.Read, result.Changed, result.Version)
				return err
			})
		},
	}
}
