package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// traced is the JSON of a trace.
type traced struct {
	EnvelopeID string          `json:"envelope_id"`
	Sender     string          `json:"sender"`
	Ingress    string          `json:"ingress"`
	AcceptedAt string          `json:"accepted_at"`
	Copies     uint32          `json:"copies"`
	Size       uint64          `json:"size"`
	Holders    []string        `json:"holders"`
	Silent     []string        `json:"silent_relays"`
	Parts      []tracedPart    `json:"parts"`
	Deliveries []tracedOutcome `json:"deliveries"`
	Events     []tracedEvent   `json:"events"`
}

type tracedPart struct {
	Size   uint64 `json:"size"`
	SHA256 string `json:"sha256"`
}

type tracedOutcome struct {
	Agency    string `json:"agency"`
	Home      string `json:"home"`
	Transport string `json:"transport"`
	Status    string `json:"status"`
	Reason    string `json:"reason"`
	Note      string `json:"note"`
	UpdatedAt string `json:"updated_at"`
}

type tracedEvent struct {
	At     string `json:"at"`
	Relay  string `json:"relay"`
	Action string `json:"action"`
	Peer   string `json:"peer"`
	Agency string `json:"agency"`
	Note   string `json:"note"`
}

func newTrace(options *cli.Options) *cobra.Command {
	var local bool
	cmd := &cobra.Command{
		Use: "trace ID", Short: "Find one envelope anywhere in the mesh", Args: cobra.ExactArgs(1),
		Long: `Find one envelope anywhere in the mesh: where it was accepted, the relays it
passed, who has confirmed it, and which relays hold its content still. Times are
Vietnam time. With --local "accepted" is when the relay that answers took it.

Fields with -o json: envelope_id, sender, ingress, accepted_at, copies, size (bytes
of all parts), holders, silent_relays (asked, did not answer), parts (size, sha256),
deliveries (agency, home, transport, status, reason, note, updated_at), events (at,
relay, action, peer, agency, note). transport and status are those of "connector
track --help".`,
		Example: "  relayctl trace 0193fca0-5a1c-8000-8000-000000000000",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := envelope.ParseID(args[0])
			if err != nil {
				return cli.Usage("%v", err)
			}
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := c.Custody.Trace(cmd.Context(), &adminv1.TraceRequest{EnvelopeId: id[:], Local: local})
			if err != nil {
				return fmt.Errorf("envelope %s: %w", id, err)
			}
			t := tracedOf(id, r)
			return options.Output(cmd).Print(t, func(w io.Writer) error { return t.text(w, options.Output(cmd)) })
		},
	}
	cmd.Flags().BoolVar(&local, "local", false, "only what the relay that answers knows")
	return cmd
}

func tracedOf(id envelope.ID, r *adminv1.TraceResponse) traced {
	t := traced{
		EnvelopeID: id.String(), Sender: r.GetSenderCode(), Ingress: r.GetReceipt().GetRelayId(),
		AcceptedAt: stamp(r.GetReceipt().GetAcceptedAt()), Copies: r.GetReceipt().GetCopies(),
		Holders: append([]string{}, r.GetHolderRelayIds()...), Silent: append([]string{}, r.GetSilentRelayIds()...),
		Parts: []tracedPart{}, Deliveries: []tracedOutcome{}, Events: []tracedEvent{},
	}
	for _, p := range r.GetParts() {
		t.Size += p.GetSize()
		t.Parts = append(t.Parts, tracedPart{Size: p.GetSize(), SHA256: hex.EncodeToString(p.GetSha256())})
	}
	for _, d := range r.GetDeliveries() {
		row := tracedOutcome{Agency: d.GetAgencyCode(), Home: d.GetHomeRelayId(), Note: d.GetNote(), UpdatedAt: stamp(d.GetUpdatedAt()),
			Transport: word(d.GetTransport().String(), "TRANSPORT_STATUS_")}
		if d.GetStatus() != 0 {
			row.Status = fmt.Sprintf("%02d", d.GetStatus())
		}
		if d.GetReason() != 0 {
			row.Reason = word(d.GetReason().String(), "ERROR_REASON_")
		}
		t.Deliveries = append(t.Deliveries, row)
	}
	for _, e := range r.GetEvents() {
		t.Events = append(t.Events, tracedEvent{At: stamp(e.GetAt()), Relay: e.GetRelayId(), Peer: e.GetPeerRelayId(),
			Agency: e.GetAgencyCode(), Note: e.GetNote(), Action: word(e.GetAction().String(), "TRACE_ACTION_")})
	}
	return t
}

func (t traced) text(w io.Writer, out *cli.Output) error {
	if _, err := fmt.Fprintf(w, "envelope %s from %s, %s, %d bytes\naccepted at %s %s, copies %d, held by %s\n\n",
		t.EnvelopeID, orDash(t.Sender), cli.Count(len(t.Parts), "part"), t.Size, orDash(t.Ingress), t.AcceptedAt, t.Copies,
		orDash(strings.Join(t.Holders, " "))); err != nil {
		return err
	}
	if err := list(out, "RECIPIENT\tHOME\tTRANSPORT\tSTATUS\tSINCE\tNOTE", t.Deliveries, func(d tracedOutcome) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", d.Agency, d.Home, d.Transport, orDash(d.Status), d.UpdatedAt,
			strings.TrimSpace(d.Reason+" "+d.Note))
	}); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	if err := list(out, "TIME\tRELAY\tWHAT\tPEER\tAGENCY\tNOTE", t.Events, func(e tracedEvent) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", e.At, e.Relay, e.Action, orDash(e.Peer), orDash(e.Agency), e.Note)
	}); err != nil {
		return err
	}
	if len(t.Silent) > 0 {
		_, err := fmt.Fprintf(w, "\nrelays that did not answer: %s\n", strings.Join(t.Silent, " "))
		return err
	}
	return nil
}
