package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/truclienthong/truc/cmd/internal/cli"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
)

// sendFlags describe the document.
type sendFlags struct {
	to                         []string
	subject, summary           string
	number, notation, typeName string
	place, issued, due         string
	signer, position, mandate  string
	priority                   int
	notBefore                  string
	documentID                 string
	wait                       time.Duration
	outbox                     outboxFlags
	change                     changeFlags
}

// sendResult is what send prints with -o json.
type sendResult struct {
	EnvelopeID string        `json:"envelope_id"`
	Relay      string        `json:"relay"`
	AcceptedAt string        `json:"accepted_at"`
	Copies     uint32        `json:"copies"`
	Recipients uint32        `json:"recipients"`
	Repeat     bool          `json:"repeat"`
	DocumentID string        `json:"document_id"`
	Outbox     string        `json:"outbox"`
	Warnings   []sendWarning `json:"warnings"`
}

type sendWarning struct {
	Field       string `json:"field"`
	Description string `json:"description"`
}

func newSend(options *cli.Options) *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use:   "send --to CODE[,CODE|@GROUP…] --subject TEXT [flags] FILE…",
		Short: "Send one document with its files",
		Long: `Send one document with its files. The first file is the main document (văn bản chính),
the others are attachments. The command ends with code 0 once a relay has the
document safely on disk: from then on delivery is the mesh's duty.

A failure on the way is tried again for two minutes, at another relay where need
be, and goes on where it stopped. Before anything is sent, a copy is made durable
in the outbox, a folder beside the profile. It is removed when two relays have the
document; until then it is handed over again where the relay that had it is lost.
With one copy after --wait, the command ends with code 0, says so, and leaves the
copy in the outbox. So your own files are free once the command has ended with
code 0. With --no-outbox keep them until "connector track" shows 2 copies.

Ending with code 1 and "kept" means: no relay has accepted the document, or it is
not known, and the outbox has it. Do not send it anew. It is handed over by the
next "connector send", by "connector receive --watch" and by "connector outbox
--tend"; or run the same command with the same --document-id, also after a crash:
what was accepted already is not sent twice, and you get the first receipt. The
same --document-id with other content is refused. Without "kept", code 1 means
that nobody has it.

What earlier commands left in the outbox is looked after on the side. How that
goes does not change the exit code.

State secrets (Mật, Tối mật, Tuyệt mật) must not be sent over the axis. A document
that bears such a mark in its header, or as a stamp or field in a PDF or DOCX file,
is refused with code 1 before anything of it leaves this machine; the reason names
the field or file. Pictures and scanned pages, files locked with a password and those
above 32 MiB cannot be looked into: look yourself.

With --update ID the document changes one that was sent before, with --replace
ID[,ID…] it takes the place of others; --reason says why. ID is the envelope id, or
your own document id. The recipients, whom --to names, are asked, and agree or refuse
("connector track"). With --update, --add names agencies that get the document too,
--remove those that are to give it back. Where a document is being taken back nothing
can be changed; where it was, or was returned, a replacement stands alone.

Groups: @centrals, @provinces, @districts, @communes are all agencies of a tier;
@communes-of/H26 and the like those below an agency; operators may keep others.

Fields with -o json: envelope_id, relay, accepted_at, copies, recipients (after
groups were resolved), repeat (it had been accepted before), document_id, outbox
(the folder of the copy that is still kept, "" for none), warnings (a list of field
and description: longer than the standard, a number that was given to another document
of the year, files that could not be looked into for marks of state secrets, …).`,
		Example: `  connector send --to H26 --subject "V/v họp giao ban" congvan.pdf
  connector send --to 000.00.00.G22,H26.12.05 --subject "Báo cáo quý III" --type "Báo cáo" \
      --number 45 --notation BC-UBND --date 2025-10-20 --due 2025-10-31 baocao.pdf solieu.xlsx
  connector send --to H26 --update 0198c1de-7a52-8f00-9d6c-2b6d1f0e4a11 --reason "Sai số liệu" \
      --subject "Báo cáo quý III (sửa)" baocao.pdf
  connector send --to @provinces --priority 3 --subject "Công điện về bão số 5" congdien.pdf`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			header, err := f.header()
			if err != nil {
				return err
			}
			if f.wait < 0 {
				return cli.Usage("--wait %s: not less than 0", f.wait)
			}
			return withClient(cmd, options, func(client *agency.Client, config agency.Config) error {
				if err := f.change.apply(cmd, client, header); err != nil {
					return err
				}
				outbox, err := f.outbox.open(client, config, slog.New(slog.DiscardHandler))
				if err != nil {
					return fmt.Errorf("%w; name another folder with --outbox, or send without one with --no-outbox", err)
				}
				return send(cmd, options, sending{client, outbox, f.wait}, header, files)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.to, "to", nil, "recipients: agency codes in either form, or @GROUP; separated by commas or given several times")
	flags.StringVar(&f.subject, "subject", "", "subject (trích yếu)")
	flags.StringVar(&f.summary, "content", "", "summary of the content")
	flags.StringVar(&f.number, "number", "", "number of the document (số)")
	flags.StringVar(&f.notation, "notation", "", "notation (ký hiệu), for example UBND-VP")
	flags.StringVar(&f.typeName, "type", "", `kind of document, one of the 29 of Decree 30/2020/NĐ-CP ("Công văn", "Báo cáo", …) or a normative one; others are accepted with a warning`)
	flags.StringVar(&f.place, "place", "", "place of issue")
	flags.StringVar(&f.issued, "date", "", "date of issue, YYYY-MM-DD")
	flags.StringVar(&f.due, "due", "", "date by which an answer is due, YYYY-MM-DD")
	flags.StringVar(&f.signer, "signer", "", "full name of who signed")
	flags.StringVar(&f.position, "signer-position", "", "position of who signed")
	flags.StringVar(&f.mandate, "signer-competence", "", "TM., KT., TL. or TUQ.")
	flags.IntVar(&f.priority, "priority", 0, "0 thường, 1 khẩn, 2 thượng khẩn, 3 hỏa tốc, 4 hỏa tốc hẹn giờ")
	flags.StringVar(&f.notBefore, "not-before", "", "hour before which it is not delivered, with --priority 4: YYYY-MM-DDTHH:MM in Vietnam time, or RFC 3339")
	flags.StringVar(&f.documentID, "document-id", "", "your own id of the document, unique for your agency (default: generated and printed)")
	flags.DurationVar(&f.wait, "wait", 10*time.Second, "how long to wait for a second relay to have it")
	f.outbox.add(cmd)
	f.change.add(cmd)
	must(cmd.MarkFlagRequired("to"))
	must(cmd.MarkFlagRequired("subject"))
	return cmd
}

// header makes the header of a document out of the flags. It holds no time of
// now, so that the same command gives the same envelope again.
func (f *sendFlags) header() (*exchangev1.Header, error) {
	h := &exchangev1.Header{
		Kind:       exchangev1.Kind_KIND_DOCUMENT,
		DocumentId: f.documentID,
		Priority:   exchangev1.Priority(f.priority),
		Document: &exchangev1.Document{
			Place: f.place, TypeName: f.typeName, Subject: f.subject, Summary: f.summary,
		},
	}
	if strings.TrimSpace(f.subject) == "" {
		return nil, cli.Usage("--subject is empty")
	}
	if f.priority < 0 || f.priority > 4 {
		return nil, cli.Usage("--priority %d: 0 to 4", f.priority)
	}
	for _, to := range f.to {
		recipient, err := parseRecipient(to)
		if err != nil {
			return nil, err
		}
		h.Recipients = append(h.Recipients, recipient)
	}
	if f.number != "" || f.notation != "" {
		h.Document.Code = &exchangev1.Code{Number: f.number, Notation: f.notation}
	}
	if f.signer != "" || f.position != "" || f.mandate != "" {
		h.Document.Signer = &exchangev1.Signer{FullName: f.signer, Position: f.position, Competence: f.mandate}
	}
	var err error
	if h.Document.IssuedOn, err = parseDate("--date", f.issued); err != nil {
		return nil, err
	}
	if h.Document.DueOn, err = parseDate("--due", f.due); err != nil {
		return nil, err
	}
	if h.NotBefore, err = parseHour(f.notBefore); err != nil {
		return nil, err
	}
	return h, nil
}

func parseRecipient(to string) (*exchangev1.Recipient, error) {
	to = strings.TrimSpace(to)
	group, isGroup := strings.CutPrefix(to, "@")
	switch {
	case to == "" || isGroup && group == "":
		return nil, cli.Usage("--to: a recipient is empty")
	case isGroup:
		return &exchangev1.Recipient{To: &exchangev1.Recipient_Group{Group: group}}, nil
	}
	return &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: to}}}, nil
}

func parseDate(flag, text string) (*exchangev1.Date, error) {
	if text == "" {
		return nil, nil
	}
	for _, layout := range []string{"2006-01-02", "2006/01/02", "02/01/2006"} {
		if d, err := time.Parse(layout, text); err == nil {
			// The form of the standard, whichever was typed.
			return &exchangev1.Date{Year: int32(d.Year()), Month: int32(d.Month()), Day: int32(d.Day()), Raw: d.Format("2006/01/02")}, nil
		}
	}
	return nil, cli.Usage("%s %q: no date of the form YYYY-MM-DD", flag, text)
}

func parseHour(text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return timestamppb.New(at), nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02 15:04:05"} {
		if at, err := time.ParseInLocation(layout, text, cli.Vietnam); err == nil {
			return timestamppb.New(at), nil
		}
	}
	return nil, cli.Usage("--not-before %q: no time of the form YYYY-MM-DDTHH:MM", text)
}

// sending is with what a document is sent.
type sending struct {
	client *agency.Client
	// outbox is nil for none.
	outbox *agency.Outbox
	wait   time.Duration
}

// submit hands the document over, by way of the outbox if there is one.
func (s sending) submit(ctx context.Context, document agency.Document) (*agency.Receipt, error) {
	if s.outbox == nil {
		return s.client.Submit(ctx, document)
	}
	return s.outbox.Submit(ctx, document)
}

// await waits a while for the second copy. It returns the folder where the
// document is kept until then, "" for none.
func (s sending) await(ctx context.Context, receipt *agency.Receipt) string {
	if s.outbox == nil || receipt.Copies >= 2 {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	// What goes wrong is tried again by whoever tends the outbox next.
	kept, waits, _ := s.outbox.Await(ctx, receipt.ID)
	receipt.Copies = max(receipt.Copies, kept.Copies)
	if !waits {
		return ""
	}
	return kept.Dir
}

// noSender says what to do where neither profile nor certificate name an agency.
func noSender(err error) error {
	refusal, ok := envelope.AsRefusal(err)
	if ok && slices.ContainsFunc(refusal.Problems, func(p envelope.Problem) bool {
		return p.Field == "header.sender.code" && p.Description == "is missing"
	}) {
		return errors.New(`it is not known which agency sends: add "agency: CODE" to the profile, and use that agency's certificate`)
	}
	return err
}

func send(cmd *cobra.Command, options *cli.Options, by sending, header *exchangev1.Header, files []string) error {
	stderr := cmd.ErrOrStderr()
	document := agency.Document{Header: header}
	var total uint64
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		document.Parts = append(document.Parts, agency.FileSource(file))
		total += uint64(info.Size())
	}
	if header.GetDocumentId() == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("generate a document id: %w", err)
		}
		header.DocumentId = id.String()
		// Before anything is sent, so that it is known after a crash.
		fmt.Fprintf(stderr, "document id %s; to send this document again, use --document-id %s\n", id, id)
	}
	progress := newProgress(stderr, "reading", total)
	document.Progress = progress.show
	receipt, err := by.submit(cmd.Context(), document)
	progress.end()
	if kept := (*agency.KeptError)(nil); errors.As(err, &kept) {
		fmt.Fprintf(stderr, "not accepted yet; kept in %s\n", kept.Dir)
		fmt.Fprintf(stderr, "it is handed over by the next 'connector send', 'connector receive --watch' or 'connector outbox --tend'; remove the folder to give it up\n")
		return kept.Err
	}
	if errors.Is(err, syscall.ENOSPC) && by.outbox != nil {
		return fmt.Errorf("the outbox has no room, and nobody has the document: %w; make room, or name another folder with --outbox", err)
	}
	if err != nil {
		return noSender(err)
	}
	if by.outbox != nil {
		behind := tendBehind(cmd.Context(), by.outbox, receipt)
		defer behind.end(stderr)
	}
	dir := by.await(cmd.Context(), receipt)
	switch {
	case dir != "":
		fmt.Fprintf(stderr, "on one relay so far: a copy is kept in %s until a second has it; 'connector send', 'connector receive --watch' and 'connector outbox --tend' look after it\n", dir)
	case by.outbox == nil && receipt.Copies < 2:
		fmt.Fprintf(stderr, "on one relay so far: keep the files until 'connector track %s' shows 2 copies\n", receipt.ID)
	}
	result := sendResult{
		EnvelopeID: receipt.ID.String(), Relay: receipt.Relay, AcceptedAt: cli.Stamp(receipt.AcceptedAt), Copies: receipt.Copies,
		Recipients: receipt.Recipients, Repeat: receipt.Repeat, DocumentID: receipt.DocumentID, Outbox: dir, Warnings: []sendWarning{},
	}
	for _, w := range receipt.Warnings {
		result.Warnings = append(result.Warnings, sendWarning{w.GetField(), w.GetDescription()})
	}
	return options.Output(cmd).Print(result, func(w io.Writer) error {
		for _, warning := range result.Warnings {
			fmt.Fprintf(stderr, "note: %s %s\n", warning.Field, cli.OneLine(warning.Description))
		}
		how := "accepted"
		if result.Repeat {
			how = "had been accepted"
		}
		_, err := fmt.Fprintf(w, "%s\n%s by relay %s at %s, copies %d, recipients %d\n", result.EnvelopeID,
			how, result.Relay, cli.ShowTime(receipt.AcceptedAt), result.Copies, result.Recipients)
		return err
	})
}
