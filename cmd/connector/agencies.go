package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/relay/agency"
)

// agencyResult is what agencies prints with -o json, one per agency.
type agencyResult struct {
	Code      string   `json:"code"`
	Aliases   []string `json:"aliases"`
	Name      string   `json:"name"`
	Tier      uint32   `json:"tier"`
	Parent    string   `json:"parent"`
	Home      string   `json:"home"`
	Suspended bool     `json:"suspended"`
}

func newAgencies(options *cli.Options) *cobra.Command {
	var query agency.Query
	cmd := &cobra.Command{
		Use:   "agencies [--under CODE] [--tier N] [--search TEXT] [--code CODE]",
		Short: "Find agencies in the directory",
		Long: `Find agencies in the directory, in order of code. Without conditions all are listed.

Fields with -o json, one line per agency: code, aliases (older codes), name, tier
(1 central, 2 province, 3 district, 4 commune), parent, home (its home relay),
suspended (takes no documents just now). A --code that nobody has is exit code 1.`,
		Example: `  connector agencies --search "ha noi"
  connector agencies --under H26 --tier 4 -o json
  connector agencies --code 000.00.00.G22`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if query.Tier < 0 || query.Tier > 4 {
				return cli.Usage("--tier %d: 1 central, 2 province, 3 district, 4 commune, 0 all", query.Tier)
			}
			return withClient(cmd, options, func(client *agency.Client, _ agency.Config) error {
				return listAgencies(cmd, options, client, query)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&query.Code, "code", "", "the agency with this code, in either form")
	flags.StringVar(&query.Under, "under", "", "agencies at or below this code")
	flags.IntVar(&query.Tier, "tier", 0, "1 central, 2 province, 3 district, 4 commune; 0 all")
	flags.StringVar(&query.Search, "search", "", "words in the name, with or without diacritics")
	cmd.MarkFlagsMutuallyExclusive("code", "under")
	cmd.MarkFlagsMutuallyExclusive("code", "tier")
	cmd.MarkFlagsMutuallyExclusive("code", "search")
	return cmd
}

func listAgencies(cmd *cobra.Command, options *cli.Options, client *agency.Client, query agency.Query) error {
	out := options.Output(cmd)
	found := false
	// Rows are written as they come: the directory may list a hundred thousand.
	for info, err := range client.Lookup(cmd.Context(), query) {
		if err != nil {
			return err
		}
		found = true
		result := agencyResult{
			Code: info.GetCode(), Aliases: append([]string{}, info.GetAliases()...), Name: info.GetName(), Tier: info.GetTier(),
			Parent: info.GetParentCode(), Home: info.GetHomeRelayId(), Suspended: info.GetSuspended(),
		}
		err := out.Print(result, func(w io.Writer) error {
			mark := ""
			if result.Suspended {
				mark = "  (suspended)"
			}
			_, err := fmt.Fprintf(w, "%-16s %d  %s%s\n", result.Code, result.Tier, cli.OneLine(result.Name), mark)
			return err
		})
		if err != nil {
			return err
		}
	}
	if query.Code != "" && !found {
		return fmt.Errorf("no agency has the code %s", query.Code)
	}
	return nil
}
