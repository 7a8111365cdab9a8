package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

func newGateway(options *cli.Options) *cobra.Command {
	gateway := &cobra.Command{
		Use:   "gateway",
		Short: "Connectors that speak for several agencies",
		Long: `Connectors that speak for several agencies, as a shared security server does.
Issue the certificate with "relayctl ca issue gateway ID".`,
	}
	gateway.AddCommand(newGatewayList(options), newGatewaySet(options), newGatewayRemove(options))
	return gateway
}

// gatewayRow is the JSON of a gateway.
type gatewayRow struct {
	ID        string   `json:"id"`
	Agencies  []string `json:"agencies"`
	Suspended bool     `json:"suspended"`
	Version   uint64   `json:"version"`
}

func newGatewayList(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List gateways by id", Args: cobra.NoArgs,
		Long: `List gateways by id.

Fields with -o json, one line per gateway: id, agencies (codes), suspended, version.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := lookUp(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := c.Directory.ListGateways(cmd.Context(), &adminv1.ListGatewaysRequest{})
			if err != nil {
				return err
			}
			var rows []gatewayRow
			for _, g := range r.GetGateways() {
				rows = append(rows, gatewayRow{ID: g.GetId(), Agencies: append([]string{}, g.GetAgencyCodes()...),
					Suspended: g.GetSuspended(), Version: g.GetVersion()})
			}
			return list(options.Output(cmd), "ID\tSUSPENDED\tAGENCIES", rows, func(g gatewayRow) string {
				return fmt.Sprintf("%s\t%s\t%s", g.ID, yes(g.Suspended), strings.Join(g.Agencies, " "))
			})
		},
	}
}

func newGatewaySet(options *cli.Options) *cobra.Command {
	var suspended bool
	cmd := &cobra.Command{
		Use: "set ID CODE…", Short: "Set the agencies a gateway speaks for, in place of those before", Args: cobra.MinimumNArgs(2),
		Long:    "Set the agencies a gateway speaks for, in place of those before.\n\n" + changedFields,
		Example: "  relayctl gateway set ttdl-hanoi H26 H26.12 H26.12.05",
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeDirectory(cmd, options, "set", args[0], &directoryv1.Command{
				Change: &directoryv1.Command_PutGateway{PutGateway: &directoryv1.PutGateway{
					Gateway: &directoryv1.Gateway{Id: args[0], AgencyCodes: args[1:], Suspended: suspended}}}})
		},
	}
	cmd.Flags().BoolVar(&suspended, "suspended", false, "let it neither send nor receive")
	return cmd
}

func newGatewayRemove(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "remove ID", Short: "Forget a gateway", Args: cobra.ExactArgs(1),
		Long: "Forget a gateway.\n\n" + changedFields,
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeDirectory(cmd, options, "removed", args[0], &directoryv1.Command{
				Change: &directoryv1.Command_RemoveGateway{RemoveGateway: &directoryv1.RemoveGateway{Id: args[0]}}})
		},
	}
}
