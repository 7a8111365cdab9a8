package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

const selectorHelp = `A selector is code=CODE, under=CODE, tier=N, group=NAME, or several of them
joined by "," (all must hold), for example under=H26,tier=4.`

// parseSelector reads "under=H26,tier=4"; "all" or nothing selects every agency.
func parseSelector(s string) (*directoryv1.Selector, error) {
	selector := new(directoryv1.Selector)
	if s == "" || s == "all" {
		return selector, nil
	}
	for condition := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(condition, "=")
		if !ok || value == "" {
			return nil, cli.Usage("selector %q: %q is no condition. %s", s, condition, selectorHelp)
		}
		switch name {
		case "code":
			selector.Code = value
		case "under":
			selector.Under = value
		case "group":
			selector.Group = strings.TrimPrefix(value, "@")
		case "tier":
			if _, err := fmt.Sscanf(value, "%d", &selector.Tier); err != nil || selector.Tier < 1 || selector.Tier > 4 {
				return nil, cli.Usage("selector %q: tier is 1 to 4", s)
			}
		default:
			return nil, cli.Usage("selector %q: unknown condition %q. %s", s, name, selectorHelp)
		}
	}
	return selector, nil
}

func selectorText(s *directoryv1.Selector) string {
	var conditions []string
	add := func(name, value string) {
		if value != "" {
			conditions = append(conditions, name+"="+value)
		}
	}
	add("code", s.GetCode())
	add("under", s.GetUnder())
	if s.GetTier() > 0 {
		add("tier", fmt.Sprint(s.GetTier()))
	}
	add("group", s.GetGroup())
	if len(conditions) == 0 {
		return "all"
	}
	return strings.Join(conditions, ",")
}

func newGroup(options *cli.Options) *cobra.Command {
	group := &cobra.Command{
		Use:   "group",
		Short: "Named sets of agencies to write to",
		Long: `Named sets of agencies: "connector send --to @NAME" writes to all members. Besides
those kept here there are always @centrals, @provinces, @districts, @communes, and
the same below an agency: @communes-of/H26.`,
	}
	group.AddCommand(newGroupList(options), newGroupSet(options), newGroupRemove(options))
	return group
}

// groupRow is the JSON of a group.
type groupRow struct {
	Name      string   `json:"name"`
	Agencies  []string `json:"agencies"`
	Selectors []string `json:"selectors"`
	Version   uint64   `json:"version"`
}

func newGroupList(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List groups by name", Args: cobra.NoArgs,
		Long: `List the groups that are kept in the directory, by name.

Fields with -o json, one line per group: name, agencies (codes), selectors, version.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := lookUp(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := c.Directory.ListGroups(cmd.Context(), &adminv1.ListGroupsRequest{})
			if err != nil {
				return err
			}
			var rows []groupRow
			for _, g := range r.GetGroups() {
				row := groupRow{Name: g.GetName(), Agencies: append([]string{}, g.GetAgencyCodes()...), Selectors: []string{}, Version: g.GetVersion()}
				for _, s := range g.GetSelectors() {
					row.Selectors = append(row.Selectors, selectorText(s))
				}
				rows = append(rows, row)
			}
			return list(options.Output(cmd), "NAME\tAGENCIES\tSELECTORS", rows, func(g groupRow) string {
				return fmt.Sprintf("%s\t%s\t%s", g.Name, orDash(strings.Join(g.Agencies, " ")), orDash(strings.Join(g.Selectors, " ")))
			})
		},
	}
}

func newGroupSet(options *cli.Options) *cobra.Command {
	var selectors []string
	cmd := &cobra.Command{
		Use: "set NAME [CODE…]", Short: "Set the members of a group, in place of those before", Args: cobra.MinimumNArgs(1),
		Long:    "Set the members of a group: agencies by code, and by condition.\n\n" + selectorHelp + "\n\n" + changedFields,
		Example: "  relayctl group set border-provinces H14 H22 H37\n  relayctl group set hanoi-wards --select under=H26,tier=4",
		RunE: func(cmd *cobra.Command, args []string) error {
			group := &directoryv1.Group{Name: strings.TrimPrefix(args[0], "@"), AgencyCodes: args[1:]}
			for _, s := range selectors {
				selector, err := parseSelector(s)
				if err != nil {
					return err
				}
				group.Selectors = append(group.Selectors, selector)
			}
			if len(group.AgencyCodes) == 0 && len(group.Selectors) == 0 {
				return cli.Usage("a group needs members: codes, or --select")
			}
			return changeDirectory(cmd, options, "set", group.Name, &directoryv1.Command{
				Change: &directoryv1.Command_SetGroup{SetGroup: &directoryv1.SetGroup{Group: group}}})
		},
	}
	cmd.Flags().StringArrayVar(&selectors, "select", nil, "members by condition; may be repeated")
	return cmd
}

func newGroupRemove(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Forget a group", Args: cobra.ExactArgs(1),
		Long: "Forget a group.\n\n" + changedFields,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := strings.TrimPrefix(args[0], "@")
			return changeDirectory(cmd, options, "removed", name, &directoryv1.Command{
				Change: &directoryv1.Command_RemoveGroup{RemoveGroup: &directoryv1.RemoveGroup{Name: name}}})
		},
	}
}
