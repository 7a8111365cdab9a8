package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
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
	var limit int
	var after string
	cmd := &cobra.Command{
		Use:   "agencies [--under CODE] [--tier N] [--search TEXT] [--code CODE]",
		Short: "Find agencies in the directory",
		Long: `Find agencies in the directory, in order of code. Without conditions all are listed.
With --limit so many at a time: where there are more, standard error names the
--after that goes on. It is the last code of the page.

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
			if limit < 0 {
				return cli.Usage("--limit %d: 0, for all, or more", limit)
			}
			return withClient(cmd, options, func(client *agency.Client, _ agency.Config) error {
				return listAgencies(cmd, options, client, query, limit, after)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&query.Code, "code", "", "the agency with this code, in either form")
	flags.StringVar(&query.Under, "under", "", "agencies at or below this code")
	flags.IntVar(&query.Tier, "tier", 0, "1 central, 2 province, 3 district, 4 commune; 0 all")
	flags.StringVar(&query.Search, "search", "", "beginnings of words of the name, in any order, with or without diacritics")
	flags.IntVar(&limit, "limit", 0, "at most so many; 0: all")
	flags.StringVar(&after, "after", "", "go on after this one, from a list before")
	cmd.MarkFlagsMutuallyExclusive("code", "under")
	cmd.MarkFlagsMutuallyExclusive("code", "tier")
	cmd.MarkFlagsMutuallyExclusive("code", "search")
	return cmd
}

// listAgencies writes rows as they come: the directory may list a hundred
// thousand.
func listAgencies(cmd *cobra.Command, options *cli.Options, client *agency.Client, query agency.Query, limit int, after string) error {
	out := options.Output(cmd)
	for listed := 0; ; {
		size := agency.MaxPage
		if limit > 0 {
			size = min(size, limit-listed)
		}
		page, next, err := client.LookupPage(cmd.Context(), query, size, after)
		if err != nil {
			return err
		}
		for _, info := range page {
			if err := printAgency(out, info); err != nil {
				return err
			}
		}
		listed += len(page)
		switch {
		case query.Code != "" && listed == 0:
			return fmt.Errorf("no agency has the code %s", query.Code)
		case next == "":
			return nil
		case listed == limit:
			fmt.Fprintf(cmd.ErrOrStderr(), "there are more: --after %s\n", next)
			return nil
		}
		after = next
	}
}

func printAgency(out *cli.Output, info *exchangev1.AgencyInfo) error {
	result := agencyResult{
		Code: info.GetCode(), Aliases: append([]string{}, info.GetAliases()...), Name: info.GetName(), Tier: info.GetTier(),
		Parent: info.GetParentCode(), Home: info.GetHomeRelayId(), Suspended: info.GetSuspended(),
	}
	return out.Print(result, func(w io.Writer) error {
		mark := ""
		if result.Suspended {
			mark = "  (suspended)"
		}
		_, err := fmt.Fprintf(w, "%-16s %d  %s%s\n", result.Code, result.Tier, cli.OneLine(result.Name), mark)
		return err
	})
}
