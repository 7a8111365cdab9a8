package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/ledger"
	"github.com/truclienthong/truc/relay/lifecycle"
)

func newStats(options *cli.Options) *cobra.Command {
	var month, by, relay string
	var asCSV bool
	cmd := &cobra.Command{
		Use: "stats", Short: "Count the documents of a month", Args: cobra.NoArgs,
		Long: `Count the documents of a month (Decision 28/2018/QĐ-TTg, Article 11): by relay, or
by agency, tier or kind of document.

Every relay counts what it accepted, from the same records as relayctl audit: the
deliveries of a month are those of relayctl audit --since its first day, less those
since the first day of the next. A document belongs to the month in which a relay
accepted it from its sender, Vietnam time. Relays remember what they accepted for
400 days (retention_record), and one that leaves takes its books with it: have the
statistics of its months first.

In each row
  sent         documents that the key sent; signed, of these, with a digital signature
               that their header tells of; on time, handed over the day they were
               signed or the morning of the next working day, or late (QĐ 28 Art. 6);
               the others do not say when they were signed or issued
  deliveries   of the documents that the key sent, one for each recipient: delivered,
               pending, expired, refused for good by a relay, recalled
  addressed    deliveries to the key; received, of these, confirmed by its connector;
               accepted on time, confirmed by its officers (01 to 06) the day they
               arrived, or late (NĐ 30 Art. 21); phases, what its officers said
  statuses     status messages, which are no documents, and count apart

A relay or a kind is both ends of what it counts. Tier "?" are agencies that the
directory does not know any more; kind "other" are documents of none of the 29
kinds of NĐ 30 Art. 7, "status" the status messages.

Exit status 1, and the reason, when the sums differ, and when a relay does not
answer: then what it accepted is not counted.

Fields with -o json, one object: month, by, adds_up, differences (what does not),
total, rows (by key; none without --by), relays (by relay id), silent (relays that
did not answer). In each row: key, name (of an agency), sent, digitally_signed,
digitally_signed_share (0 to 1; null where nothing was sent), on_time, late,
on_time_share (of those of which it is known), priorities (thuong, khan,
thuong_khan, hoa_toc, hoa_toc_hen_gio), deliveries, delivered, pending, expired,
refused, recalled, addressed, received, phases (sent, arrived, accepted, assigned,
processing, finished, returned, recalled), accepted_on_time, accepted_late,
statuses (sent, deliveries, delivered, pending, expired, refused, recalled,
addressed, received).

With --csv the same columns in UTF-8, with a first line of names; priorities,
phases and statuses are named priority_thuong, phase_sent, statuses_sent and so on.
There is no line for the total: it is the sum. A name that a spreadsheet would take
for a formula has ' before it.`,
		Example: `  relayctl stats
  relayctl stats --month 2026-10 --by agency --csv > 2026-10.csv
  relayctl stats --month 2026-10 --by tier -o json | jq '.rows[] | [.key, .sent]'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := options.Output(cmd)
			if asCSV && out.JSON() {
				return cli.Usage("--csv and -o json: one of them")
			}
			request, err := statsRequest(month, by, relay, time.Now())
			if err != nil {
				return err
			}
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := c.Custody.Stats(cmd.Context(), request)
			if err != nil {
				return err
			}
			s := statsOf(r, by)
			if asCSV {
				err = s.csv(cmd.OutOrStdout())
			} else {
				err = out.Print(s, func(w io.Writer) error { return s.text(w, out) })
			}
			if err != nil {
				return err
			}
			return s.verdict()
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&month, "month", "", "month as 2026-10, Vietnam time (default: this month)")
	flags.StringVar(&by, "by", "", "agency, tier or kind (default: relay)")
	flags.StringVar(&relay, "relay", "", "only what this relay accepted")
	flags.BoolVar(&asCSV, "csv", false, "comma-separated values")
	must(cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions(statsKeys, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

var statsKeys = []string{ledger.ByAgency, ledger.ByTier, ledger.ByKind}

func statsRequest(month, by, relay string, now time.Time) (*adminv1.StatsRequest, error) {
	if by != "" && !slices.Contains(statsKeys, by) {
		return nil, cli.Usage("--by %q: %s", by, strings.Join(statsKeys, ", "))
	}
	if month != "" {
		m, err := lifecycle.ParseMonth(month)
		if err != nil {
			return nil, cli.Usage("--month %q: a month as 2026-10", month)
		}
		if m.Begin().After(now) {
			return nil, cli.Usage("--month %s: is still to come", month)
		}
	}
	return &adminv1.StatsRequest{Month: month, By: by, RelayId: relay}, nil
}

// verdict is nil where everything was counted and adds up.
func (s statistics) verdict() error {
	var wrong []string
	if !s.AddsUp {
		wrong = append(wrong, fmt.Sprintf("the counts do not add up (%s)", cli.OneLine(s.Differences[0])))
	}
	if len(s.Silent) > 0 {
		wrong = append(wrong, "of relays that do not answer nothing is counted: "+strings.Join(s.Silent, ", "))
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("not all of %s: %s", s.Month, strings.Join(wrong, "; "))
}
