package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/truclienthong/truc/cmd/internal/cli"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// audited is the JSON of an audit.
type audited struct {
	Balanced bool         `json:"balanced"`
	Totals   auditRow     `json:"totals"`
	Rows     []auditRow   `json:"rows"`
	Missing  []string     `json:"missing"`
	Findings []auditFound `json:"findings"`
	Silent   []string     `json:"silent"`
}

type auditRow struct {
	Relay     string `json:"relay"`
	Accepted  uint64 `json:"accepted"`
	Delivered uint64 `json:"delivered"`
	Pending   uint64 `json:"pending"`
	Expired   uint64 `json:"expired"`
	Refused   uint64 `json:"refused"`
	Recalled  uint64 `json:"recalled"`
	Balanced  bool   `json:"balanced"`
}

type auditFound struct {
	EnvelopeID string `json:"envelope_id"`
	Agency     string `json:"agency"`
	Relay      string `json:"relay"`
	Problem    string `json:"problem"`
}

func newAudit(options *cli.Options) *cobra.Command {
	var since string
	cmd := &cobra.Command{
		Use: "audit", Short: "Prove that nothing accepted is missing", Args: cobra.NoArgs,
		Long: `Prove that nothing accepted is missing: at every relay, deliveries accepted =
delivered + pending + expired + refused + recalled, counted again from the records,
and for every delivery that is pending some relay has custody. Documents go on
meanwhile; what is nowhere is looked for three times, a second apart.

What a relay or a disk lost is sent again from the relay that accepted it, young
documents within seconds, old ones within ten minutes; until then it is missing.

Exit status 1, and the reason, when a count does not add up, when something is
missing, and when a relay does not answer: then nothing is proved of what only that
relay can know. A relay given up as lost is not asked: what it alone had is lost
with it and nowhere counted.

Fields with -o json, one object: balanced, totals and rows (relay, accepted,
delivered, pending, expired, refused, recalled, balanced), missing (envelope ids),
findings (envelope_id, agency, relay that says so, problem; at most 1,000),
silent (relays that did not answer).`,
		Example: `  relayctl audit
  relayctl audit --since 2026-10-01
  relayctl audit --since 24h -o json | jq -r '.missing[]'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			request := new(adminv1.AuditRequest)
			if since != "" {
				now := time.Now()
				at, err := parseSince(since, now)
				if err != nil {
					return err
				}
				if at.After(now) {
					return cli.Usage("--since %s: is still to come, so nothing would be proved", since)
				}
				request.Since = timestamppb.New(at)
			}
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := c.Custody.Audit(cmd.Context(), request)
			if err != nil {
				return err
			}
			a := auditOf(r)
			out := options.Output(cmd)
			if err := out.Print(a, func(w io.Writer) error { return a.text(w, out) }); err != nil {
				return err
			}
			return a.verdict()
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "only what was accepted since: 2026-10-01, 2026-10-01T08:00, or 24h ago (Vietnam time)")
	return cmd
}

// parseSince reads a day, an instant, or how long ago.
func parseSince(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, form := range []string{time.DateOnly, "2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339, time.RFC3339Nano} {
		if at, err := time.ParseInLocation(form, text, cli.Vietnam); err == nil {
			return at, nil
		}
	}
	return time.Time{}, cli.Usage("--since %q: a day as 2026-10-01, a time as 2026-10-01T08:00, or how long ago as 24h", text)
}

func auditOf(r *adminv1.AuditResponse) audited {
	a := audited{Rows: []auditRow{}, Missing: []string{}, Findings: []auditFound{}, Silent: append([]string{}, r.GetSilentRelayIds()...)}
	a.Totals.Relay = "total"
	for _, row := range r.GetRows() {
		one := auditRow{Relay: row.GetRelayId(), Accepted: row.GetAccepted(), Delivered: row.GetDelivered(), Pending: row.GetPending(),
			Expired: row.GetExpired(), Refused: row.GetRefused(), Recalled: row.GetRecalled()}
		one.Balanced = one.adds()
		a.Rows = append(a.Rows, one)
		a.Totals.Accepted += one.Accepted
		a.Totals.Delivered += one.Delivered
		a.Totals.Pending += one.Pending
		a.Totals.Expired += one.Expired
		a.Totals.Refused += one.Refused
		a.Totals.Recalled += one.Recalled
	}
	a.Totals.Balanced = a.Totals.adds()
	a.Balanced = a.Totals.Balanced
	for _, row := range a.Rows {
		a.Balanced = a.Balanced && row.Balanced
	}
	for _, id := range r.GetMissingEnvelopeIds() {
		a.Missing = append(a.Missing, idText(id))
	}
	for _, f := range r.GetFindings() {
		a.Findings = append(a.Findings, auditFound{EnvelopeID: idText(f.GetEnvelopeId()), Agency: f.GetAgencyCode(),
			Relay: f.GetRelayId(), Problem: f.GetProblem()})
	}
	return a
}

// idText writes an envelope id; "" for none.
func idText(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	id, err := envelope.IDFromBytes(raw)
	if err != nil {
		return hex.EncodeToString(raw)
	}
	return id.String()
}

func (r auditRow) adds() bool {
	return r.Accepted == r.Delivered+r.Pending+r.Expired+r.Refused+r.Recalled
}

func (a audited) text(w io.Writer, out *cli.Output) error {
	if err := list(out, "RELAY\tACCEPTED\tDELIVERED\tPENDING\tEXPIRED\tREFUSED\tRECALLED\tADDS UP", append(a.Rows, a.Totals), func(r auditRow) string {
		return fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s", r.Relay, r.Accepted, r.Delivered, r.Pending, r.Expired, r.Refused, r.Recalled, yes(r.Balanced))
	}); err != nil {
		return err
	}
	for _, id := range a.Missing {
		if slices.ContainsFunc(a.Findings, func(f auditFound) bool { return f.EnvelopeID == id }) {
			continue // said below, with the reason
		}
		if _, err := fmt.Fprintf(w, "missing: %s\n", id); err != nil {
			return err
		}
	}
	for _, f := range a.Findings {
		about := strings.TrimSpace(f.EnvelopeID + " " + f.Agency)
		if about != "" {
			about += " "
		}
		if _, err := fmt.Fprintf(w, "relay %s: %s%s\n", f.Relay, about, cli.OneLine(f.Problem)); err != nil {
			return err
		}
	}
	return nil
}

// verdict is nil where everything is proved.
func (a audited) verdict() error {
	var wrong []string
	if n := len(a.Missing); n > 0 {
		wrong = append(wrong, fmt.Sprintf("%d envelopes are missing", n))
	}
	if !a.Balanced {
		wrong = append(wrong, "the counts do not add up")
	}
	if n := len(a.Findings); n > 0 {
		wrong = append(wrong, fmt.Sprintf("%d findings", n))
	}
	if len(a.Silent) > 0 {
		wrong = append(wrong, "of relays that do not answer nothing is proved: "+strings.Join(a.Silent, ", "))
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("not proved: %s", strings.Join(wrong, "; "))
}
