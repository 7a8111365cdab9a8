package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/truclienthong/truc/cmd/internal/cli"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
)

// trackResult is what track prints with -o json.
type trackResult struct {
	EnvelopeID   string          `json:"envelope_id"`
	DocumentID   string          `json:"document_id"`
	Sender       string          `json:"sender"`
	Subject      string          `json:"subject"`
	Receipt      trackReceipt    `json:"receipt"`
	Deliveries   []trackDelivery `json:"deliveries"`
	Events       []trackEvent    `json:"events"`
	SilentRelays []string        `json:"silent_relays"`
}

type trackReceipt struct {
	Relay       string `json:"relay"`
	AcceptedAt  string `json:"accepted_at"`
	Copies      uint32 `json:"copies"`
	Recipients  uint32 `json:"recipients"`
	ContentSize uint64 `json:"content_size"`
}

type trackDelivery struct {
	Agency    string `json:"agency"`
	Home      string `json:"home"`
	Transport string `json:"transport"`
	Status    string `json:"status"`
	Phase     string `json:"phase"`
	Asked     string `json:"asked"`
	Reason    string `json:"reason"`
	Note      string `json:"note"`
	UpdatedAt string `json:"updated_at"`

	Statements []trackStatement `json:"statements"`
}

type trackStatement struct {
	Code       string `json:"code"`
	Business   string `json:"business"`
	By         string `json:"by"`
	At         string `json:"at"`
	AcceptedAt string `json:"accepted_at"`
	Note       string `json:"note"`
	EnvelopeID string `json:"envelope_id"`
	Moved      bool   `json:"moved"`
}

type trackEvent struct {
	At     string `json:"at"`
	Relay  string `json:"relay"`
	Action string `json:"action"`
	Peer   string `json:"peer"`
	Agency string `json:"agency"`
	Note   string `json:"note"`
}

func newTrack(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use:   "track ID",
		Short: "Tell what became of an envelope",
		Long: `Tell what became of an envelope: on how many relays it is, how far the delivery to
each recipient has come, and what happened at which relay. ID is the envelope id,
or your own document id. Only the sender and the recipients are answered.

copies is on how many relays the envelope is now; from 2 on no single loss harms
it.

transport is what the mesh says of a delivery: initial (accepted), processing (in
the recipient's inbox), done (safely at the recipient), fail (given up). reason
says why it failed: expired, refused_by_recipient, recalled and others, note what
was said to it. A failed delivery is no failure of this command.

status is the last code that counts, phase what all statements of the recipient come
to: sent (nothing was said yet), arrived (01), returned (02), accepted (03), assigned
(04), processing (05), finished (06), recalled. asked is what the sender asks and
the recipient has not answered yet: recall or change. statements are all that was
said, with the time, by whom, and whether it moved the phase.

Fields with -o json: envelope_id, document_id, sender, subject, receipt (relay,
accepted_at, copies, recipients, content_size), deliveries (agency, home,
transport, status, phase, asked, reason, note, updated_at, statements), events (at, relay, action, peer,
agency, note), silent_relays (asked for events, did not answer). Times are ISO 8601
in Vietnam time.`,
		Example: `  connector track 0198c1de-7a52-8f00-9d6c-2b6d1f0e4a11
  connector track "H26,2025/10/20,45/BC-UBND" -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, options, func(client *agency.Client, _ agency.Config) error {
				answer, err := track(cmd, client, args[0])
				if err != nil {
					return err
				}
				result, out := trackResultOf(answer), options.Output(cmd)
				return out.Print(result, func(w io.Writer) error { return result.write(w, out) })
			})
		},
	}
}

// track takes ID for an envelope id where it has that form and is known, else
// for a document id: agencies use the same form for theirs.
func track(cmd *cobra.Command, client *agency.Client, text string) (*exchangev1.TrackResponse, error) {
	if id, err := envelope.ParseID(text); err == nil {
		answer, err := client.Track(cmd.Context(), id)
		refusal, refused := envelope.AsRefusal(err)
		if !refused || !refusal.Has(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND) {
			return answer, err
		}
	}
	answer, err := client.TrackDocument(cmd.Context(), text)
	if err != nil {
		return nil, err
	}
	// By document id only the ingress is asked; by envelope id every relay that
	// the envelope passed.
	id, err := envelope.IDFromBytes(answer.GetReceipt().GetEnvelopeId())
	if err != nil {
		return answer, nil
	}
	return client.Track(cmd.Context(), id)
}

func trackResultOf(answer *exchangev1.TrackResponse) trackResult {
	receipt, header := answer.GetReceipt(), answer.GetHeader()
	result := trackResult{
		DocumentID: header.GetDocumentId(), Sender: header.GetSender().GetCode(), Subject: header.GetDocument().GetSubject(),
		Receipt: trackReceipt{
			Relay: receipt.GetRelayId(), AcceptedAt: stamp(receipt.GetAcceptedAt()), Copies: receipt.GetCopies(),
			Recipients: receipt.GetRecipients(), ContentSize: receipt.GetContentSize(),
		},
		Deliveries: []trackDelivery{}, Events: []trackEvent{}, SilentRelays: append([]string{}, answer.GetSilentRelayIds()...),
	}
	if id, err := envelope.IDFromBytes(receipt.GetEnvelopeId()); err == nil {
		result.EnvelopeID = id.String()
	}
	for _, d := range answer.GetDeliveries() {
		result.Deliveries = append(result.Deliveries, trackDelivery{
			Agency: d.GetAgencyCode(), Home: d.GetHomeRelayId(), Transport: name(d.GetTransport().String(), "TRANSPORT_STATUS_"),
			Status: statusCode(d.GetStatus()), Reason: name(d.GetReason().String(), "ERROR_REASON_"),
			Phase: name(d.GetPhase().String(), "PHASE_"), Asked: asked(d.GetAsked()),
			Note: d.GetNote(), UpdatedAt: stamp(d.GetUpdatedAt()), Statements: statements(d),
		})
	}
	for _, e := range answer.GetEvents() {
		result.Events = append(result.Events, trackEvent{
			At: stamp(e.GetAt()), Relay: e.GetRelayId(), Action: name(e.GetAction().String(), "TRACE_ACTION_"),
			Peer: e.GetPeerRelayId(), Agency: e.GetAgencyCode(), Note: e.GetNote(),
		})
	}
	return result
}

func asked(q exchangev1.Question) string {
	if q == exchangev1.Question_QUESTION_NOTHING {
		return ""
	}
	return name(q.String(), "QUESTION_")
}

func statements(d *exchangev1.Delivery) []trackStatement {
	all := []trackStatement{}
	for _, s := range d.GetStatements() {
		t := trackStatement{
			Code: s.GetCode(), By: "recipient", At: stamp(s.GetAt()), AcceptedAt: stamp(s.GetAcceptedAt()), Note: s.GetNote(), Moved: s.GetMoved(),
		}
		if s.GetBySender() {
			t.By = "sender"
		}
		if s.GetBusiness() != exchangev1.BusinessType_BUSINESS_TYPE_NEW {
			t.Business = name(s.GetBusiness().String(), "BUSINESS_TYPE_")
		}
		if id, err := envelope.IDFromBytes(s.GetEnvelopeId()); err == nil {
			t.EnvelopeID = id.String()
		}
		all = append(all, t)
	}
	return all
}

// stamp writes a time of the mesh; "" where there is none.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return cli.Stamp(t.AsTime())
}

// name writes an enum value in lower case without its prefix, "" for
// unspecified.
func name(value, prefix string) string {
	value = strings.TrimPrefix(value, prefix)
	if value == "UNSPECIFIED" {
		return ""
	}
	return strings.ToLower(value)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// statusCode writes a business status as its two digits.
func statusCode(code exchangev1.StatusCode) string {
	if code == exchangev1.StatusCode_STATUS_CODE_UNSPECIFIED {
		return ""
	}
	return fmt.Sprintf("%02d", int32(code))
}

func (t trackResult) write(w io.Writer, out *cli.Output) error {
	fmt.Fprintf(w, "%s\ndocument %s of %s  %s\n", t.EnvelopeID, cli.OneLine(t.DocumentID), t.Sender, cli.OneLine(t.Subject))
	fmt.Fprintf(w, "accepted by relay %s at %s, copies %d, recipients %d, bytes %d\n",
		t.Receipt.Relay, orDash(t.Receipt.AcceptedAt), t.Receipt.Copies, t.Receipt.Recipients, t.Receipt.ContentSize)
	err := out.Table(func(w io.Writer) error {
		fmt.Fprint(w, "\nrecipient\thome\ttransport\tstatus\tphase\tasked\tsince\treason\n")
		for _, d := range t.Deliveries {
			note := d.Reason
			if d.Reason != "" && d.Note != "" {
				note += ": "
			}
			note += d.Note
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.Agency, orDash(d.Home), d.Transport, orDash(d.Status),
				d.Phase, orDash(d.Asked), orDash(d.UpdatedAt), cli.OneLine(note))
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = out.Table(func(w io.Writer) error {
		fmt.Fprint(w, "\ntime\trelay\tevent\twith\tnote\n")
		for _, e := range t.Events {
			with := strings.TrimSpace(e.Peer + " " + e.Agency)
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", orDash(e.At), e.Relay, e.Action, orDash(with), cli.OneLine(e.Note))
		}
		return nil
	})
	if err == nil && len(t.SilentRelays) > 0 {
		_, err = fmt.Fprintf(w, "\nno answer from relay %s: its events are missing\n", strings.Join(t.SilentRelays, ", "))
	}
	return err
}
