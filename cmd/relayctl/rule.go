package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

func newRule(options *cli.Options) *cobra.Command {
	rule := &cobra.Command{
		Use:   "rule",
		Short: "Who may write to whom",
		Long: `Who may write to whom. What no rule allows is refused; a rule that denies wins
over every rule that allows.`,
	}
	rule.AddCommand(newRuleList(options), newRuleAdd(options), newRuleRemove(options))
	return rule
}

// ruleRow is the JSON of a rule.
type ruleRow struct {
	ID      string   `json:"id"`
	Effect  string   `json:"effect"`
	From    string   `json:"from"`
	To      string   `json:"to"`
	Kinds   []string `json:"kinds"`
	Note    string   `json:"note"`
	Version uint64   `json:"version"`
}

// word turns an enum's name into the word scripts see.
func word(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

func newRuleList(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List rules by id", Args: cobra.NoArgs,
		Long: `List rules by id.

Fields with -o json, one line per rule: id, effect (allow, deny), from, to
(selectors; "all"), kinds (empty: all), note, version (of the directory, when it was
set; 0: there from the start).`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := lookUp(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := c.Directory.ListRules(cmd.Context(), &adminv1.ListRulesRequest{})
			if err != nil {
				return err
			}
			var rows []ruleRow
			for _, rule := range r.GetRules() {
				row := ruleRow{ID: rule.GetId(), Effect: word(rule.GetEffect().String(), "EFFECT_"), From: selectorText(rule.GetFrom()),
					To: selectorText(rule.GetTo()), Kinds: []string{}, Note: rule.GetNote(), Version: rule.GetVersion()}
				for _, k := range rule.GetKinds() {
					row.Kinds = append(row.Kinds, word(k.String(), "KIND_"))
				}
				rows = append(rows, row)
			}
			return list(options.Output(cmd), "ID\tEFFECT\tFROM\tTO\tKINDS\tNOTE", rows, func(r ruleRow) string {
				kinds := "all"
				if len(r.Kinds) > 0 {
					kinds = strings.Join(r.Kinds, " ")
				}
				return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", r.ID, r.Effect, r.From, r.To, kinds, r.Note)
			})
		},
	}
}

func newRuleAdd(options *cli.Options) *cobra.Command {
	var from, to, note string
	var deny bool
	var kinds []string
	cmd := &cobra.Command{
		Use: "add ID", Short: "Add a rule, or change the one with this id", Args: cobra.ExactArgs(1),
		Long:    "Add a rule. It allows, unless --deny is given.\n\n" + selectorHelp + "\n\"all\" selects every agency.\n\n" + changedFields,
		Example: "  relayctl rule add no-commune-to-centre --deny --from tier=4 --to tier=1 --note \"by way of the province\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			rule := &directoryv1.Rule{Id: args[0], Effect: directoryv1.Effect_EFFECT_ALLOW, Note: note}
			if deny {
				rule.Effect = directoryv1.Effect_EFFECT_DENY
			}
			var err error
			if rule.From, err = parseSelector(from); err != nil {
				return err
			}
			if rule.To, err = parseSelector(to); err != nil {
				return err
			}
			for _, k := range kinds {
				kind, ok := exchangev1.Kind_value["KIND_"+strings.ToUpper(k)]
				if !ok || kind == 0 {
					return cli.Usage("--kind %q: document or status", k)
				}
				rule.Kinds = append(rule.Kinds, exchangev1.Kind(kind))
			}
			return changeDirectory(cmd, options, "added", rule.Id, &directoryv1.Command{
				Change: &directoryv1.Command_PutRule{PutRule: &directoryv1.PutRule{Rule: rule}}})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&from, "from", "", "senders")
	flags.StringVar(&to, "to", "", "recipients")
	flags.BoolVar(&deny, "deny", false, "forbid instead of allow")
	flags.StringSliceVar(&kinds, "kind", nil, "only document or status; without it both")
	flags.StringVar(&note, "note", "", "why it is there")
	must(cmd.MarkFlagRequired("from"))
	must(cmd.MarkFlagRequired("to"))
	return cmd
}

func newRuleRemove(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "remove ID", Short: "Forget a rule", Args: cobra.ExactArgs(1),
		Long: "Forget a rule.\n\n" + changedFields,
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeDirectory(cmd, options, "removed", args[0], &directoryv1.Command{
				Change: &directoryv1.Command_RemoveRule{RemoveRule: &directoryv1.RemoveRule{Id: args[0]}}})
		},
	}
}
