package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/internal/operator"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls/pki"
)

func newAgency(options *cli.Options) *cobra.Command {
	agency := &cobra.Command{
		Use:   "agency",
		Short: "Agencies of the directory and their homes",
		Long: `Agencies of the directory. Both forms of a code are taken everywhere: G22 and
000.00.00.G22 are the same agency.`,
	}
	agency.AddCommand(newAgencyList(options), newAgencyShow(options), newAgencyAdd(options), newAgencyMove(options),
		newAgencySuspend(options, true), newAgencySuspend(options, false), newAgencyImport(options), newAgencyExport(options))
	return agency
}

const agencyFields = `Fields with -o json, one line per agency: code, aliases, name, tier (1 central, 2
province, 3 district, 4 commune), parent, home, standby, suspended, version (of the
directory, when it was last changed).`

// agencyRow is the JSON of an agency.
type agencyRow struct {
	Code      string   `json:"code"`
	Aliases   []string `json:"aliases"`
	Name      string   `json:"name"`
	Tier      uint32   `json:"tier"`
	Parent    string   `json:"parent"`
	Home      string   `json:"home"`
	Standby   string   `json:"standby"`
	Suspended bool     `json:"suspended"`
	Version   uint64   `json:"version"`
}

func agencyRowOf(a *directoryv1.Agency) agencyRow {
	return agencyRow{Code: a.GetCode(), Aliases: append([]string{}, a.GetAliases()...), Name: a.GetName(), Tier: a.GetTier(),
		Parent: a.GetParentCode(), Home: a.GetHomeRelayId(), Standby: a.GetStandbyRelayId(),
		Suspended: a.GetSuspended(), Version: a.GetVersion()}
}

func (a agencyRow) line() string {
	suspended := ""
	if a.Suspended {
		suspended = "suspended"
	}
	return fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%s", a.Code, a.Tier, a.Home, orDash(a.Standby), a.Name, suspended)
}

const agencyHead = "CODE\tTIER\tHOME\tSTANDBY\tNAME\t"

// eachPage calls use for each page of the list, in order of code, until limit
// agencies; 0: all.
func eachPage(ctx context.Context, c *operator.Conn, request *adminv1.ListAgenciesRequest, limit int, use func([]*directoryv1.Agency) error) (next string, err error) {
	for left := limit; ; {
		if request.PageSize = 1000; limit > 0 {
			request.PageSize = uint32(min(left, 1000))
		}
		r, err := c.Directory.ListAgencies(ctx, request)
		if err != nil {
			return "", err
		}
		if err := use(r.GetAgencies()); err != nil {
			return "", err
		}
		left -= len(r.GetAgencies())
		if next = r.GetNextPageToken(); next == "" || limit > 0 && left <= 0 {
			return next, nil
		}
		request.PageToken = next
	}
}

func newAgencyList(options *cli.Options) *cobra.Command {
	var request adminv1.ListAgenciesRequest
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List agencies by code", Args: cobra.NoArgs,
		Long: `List agencies by code; without conditions all of them.

With --limit so many at a time: where there are more, standard error names the
--after that goes on. It is the last code of the page.

` + agencyFields,
		Example: "  relayctl agency list --under H26 --tier 4\n  relayctl agency list --search \"ba dinh\" --limit 20",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if request.Tier > 4 {
				return cli.Usage("--tier %d: 1 central, 2 province, 3 district, 4 commune", request.Tier)
			}
			if limit < 0 {
				return cli.Usage("--limit %d: 0, for all, or more", limit)
			}
			c, err := lookUp(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			var rows []agencyRow
			out := options.Output(cmd)
			next, err := eachPage(cmd.Context(), c, &request, limit, func(page []*directoryv1.Agency) error {
				for _, a := range page {
					if out.JSON() {
						if err := out.Print(agencyRowOf(a), nil); err != nil {
							return err
						}
						continue
					}
					rows = append(rows, agencyRowOf(a))
				}
				return nil
			})
			if err == nil && !out.JSON() {
				err = list(out, agencyHead, rows, agencyRow.line)
			}
			if err == nil && next != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "there are more: --after %s\n", next)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&request.Under, "under", "", "this agency and those below it")
	cmd.Flags().Uint32Var(&request.Tier, "tier", 0, "1 central, 2 province, 3 district, 4 commune")
	cmd.Flags().StringVar(&request.Search, "search", "", "beginnings of words of the name, in any order, with or without diacritics")
	cmd.Flags().IntVar(&limit, "limit", 0, "at most so many; 0: all")
	cmd.Flags().StringVar(&request.PageToken, "after", "", "go on after this one, from a list before")
	return cmd
}

func newAgencyShow(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "show CODE", Short: "Show one agency", Args: cobra.ExactArgs(1),
		Long: "Show one agency.\n\n" + agencyFields,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := lookUp(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			found, err := agencyOf(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			a := agencyRowOf(found)
			out := options.Output(cmd)
			return out.Print(a, func(io.Writer) error {
				return out.Table(func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "code\t%s\naliases\t%s\nname\t%s\ntier\t%d\nparent\t%s\nhome\t%s\nstandby\t%s\nsuspended\t%s\n",
						a.Code, orDash(strings.Join(a.Aliases, " ")), a.Name, a.Tier, orDash(a.Parent), a.Home, orDash(a.Standby), yes(a.Suspended))
					return err
				})
			})
		},
	}
}

// agencyOf finds an agency by its code, in either form.
func agencyOf(ctx context.Context, c *operator.Conn, code string) (*directoryv1.Agency, error) {
	r, err := c.Directory.ListAgencies(ctx, &adminv1.ListAgenciesRequest{Code: code})
	if err != nil {
		return nil, err
	}
	if len(r.GetAgencies()) == 0 {
		return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND,
			"agency %s is not in the directory; `relayctl agency list --search WORDS` finds codes by name", code)
	}
	return r.GetAgencies()[0], nil
}

func newAgencyAdd(options *cli.Options) *cobra.Command {
	var agency directoryv1.Agency
	var certificates []string
	cmd := &cobra.Command{
		Use: "add --code CODE --name NAME --tier N", Short: "Add an agency", Args: cobra.NoArgs,
		Long: `Add an agency. Without --home its home is that of the nearest superior agency
that has one, else the relay with the fewest. A certificate from an outside
authority that carries no name of the mesh is bound to it with --certificate.

` + changedFields,
		Example: `  relayctl agency add --code H26.12.07 --name "UBND phường Trúc Bạch" --tier 4 --parent H26.12`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, file := range certificates {
				hash, err := pki.KeyHashOfFile(file)
				if err != nil {
					return err
				}
				agency.KeyHashes = append(agency.KeyHashes, hash[:])
			}
			return changeDirectory(cmd, options, "added", agency.Code, &directoryv1.Command{
				Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{Agency: &agency, CreateOnly: true}}})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&agency.Code, "code", "", "identification code")
	flags.StringVar(&agency.Name, "name", "", "name")
	flags.Uint32Var(&agency.Tier, "tier", 0, "1 central, 2 province, 3 district, 4 commune")
	flags.StringVar(&agency.ParentCode, "parent", "", "code of the superior agency")
	flags.StringVar(&agency.HomeRelayId, "home", "", "home relay")
	flags.StringVar(&agency.StandbyRelayId, "standby", "", "standby relay")
	flags.StringSliceVar(&agency.Aliases, "alias", nil, "other codes that mean it")
	flags.StringSliceVar(&certificates, "certificate", nil, "PEM files of certificates from outside authorities to bind to it")
	for _, name := range []string{"code", "name", "tier"} {
		must(cmd.MarkFlagRequired(name))
	}
	return cmd
}

func newAgencyMove(options *cli.Options) *cobra.Command {
	var standby string
	cmd := &cobra.Command{
		Use: "move CODE RELAY", Short: "Give an agency another home", Args: cobra.ExactArgs(2),
		Long: `Give an agency another home. Documents go on: those that wait at the old home are
handed to the new one.

` + changedFields,
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeDirectory(cmd, options, "moved to "+args[1], args[0], &directoryv1.Command{
				Change: &directoryv1.Command_MoveAgency{MoveAgency: &directoryv1.MoveAgency{
					AgencyCode: args[0], HomeRelayId: args[1], StandbyRelayId: standby}}})
		},
	}
	cmd.Flags().StringVar(&standby, "standby", "", "new standby; without it the old home")
	return cmd
}

func newAgencySuspend(options *cli.Options, suspended bool) *cobra.Command {
	name, short, what := "resume", "Let a suspended agency send and receive again", "resumed"
	if suspended {
		name, short, what = "suspend", "Let an agency neither send nor receive; what waits for it stays", "suspended"
	}
	return &cobra.Command{
		Use: name + " CODE", Short: short, Args: cobra.ExactArgs(1), Long: short + ".\n\n" + changedFields,
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeDirectory(cmd, options, what, args[0], &directoryv1.Command{
				Change: &directoryv1.Command_SuspendAgency{SuspendAgency: &directoryv1.SuspendAgency{
					AgencyCode: args[0], Suspended: suspended}}})
		},
	}
}

func newAgencyExport(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "export", Short: "Write all agencies as CSV that import reads", Args: cobra.NoArgs,
		Long: `Write all agencies to standard output as CSV that import reads. What import does
not set is not in it: suspensions and bound certificates. The whole directory is
what "relayctl raft backup" writes.

With -o json one line per agency, with the fields of "relayctl agency list".`,
		Example: "  relayctl agency export > agencies.csv",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := lookUp(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			out := options.Output(cmd)
			table := csv.NewWriter(cmd.OutOrStdout())
			if !out.JSON() {
				if err := table.Write([]string{"code", "name", "tier", "parent_code", "home", "standby", "aliases"}); err != nil {
					return err
				}
			}
			_, err = eachPage(cmd.Context(), c, new(adminv1.ListAgenciesRequest), 0, func(page []*directoryv1.Agency) error {
				for _, a := range page {
					row := agencyRowOf(a)
					if out.JSON() {
						if err := out.Print(row, nil); err != nil {
							return err
						}
						continue
					}
					if err := table.Write([]string{row.Code, row.Name, fmt.Sprint(row.Tier), row.Parent, row.Home, row.Standby,
						strings.Join(row.Aliases, ";")}); err != nil {
						return err
					}
				}
				return nil
			})
			table.Flush()
			if err == nil {
				err = table.Error()
			}
			return err
		},
	}
}
