package main

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
)

// speakFlags are those of commands that say something of a document.
type speakFlags struct {
	documentID string
	wait       time.Duration
	outbox     outboxFlags
}

func (f *speakFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.documentID, "document-id", "", "your own id of this message, to give it again after a failure (default: generated and printed)")
	flags.DurationVar(&f.wait, "wait", 10*time.Second, "how long to wait for a second relay to have it")
	f.outbox.add(cmd)
}

// say sends what header makes of what the mesh knows of a document.
func (f *speakFlags) say(cmd *cobra.Command, options *cli.Options, id string, header func(*exchangev1.TrackResponse) (*exchangev1.Header, error)) error {
	if f.wait < 0 {
		return cli.Usage("--wait %s: not less than 0", f.wait)
	}
	return withClient(cmd, options, func(client *agency.Client, config agency.Config) error {
		about, err := track(cmd, client, id)
		if err != nil {
			return err
		}
		h, err := header(about)
		if err != nil {
			return err
		}
		h.DocumentId = f.documentID
		outbox, err := f.outbox.open(client, config, slog.New(slog.DiscardHandler))
		if err != nil {
			return fmt.Errorf("%w; name another folder with --outbox, or go without one with --no-outbox", err)
		}
		return send(cmd, options, sending{client, outbox, f.wait}, h, nil)
	})
}

func newStatus(options *cli.Options) *cobra.Command {
	var f speakFlags
	var note string
	cmd := &cobra.Command{
		Use:   "status ID CODE [--note TEXT]",
		Short: "Tell the sender of a document what became of it here",
		Long: `Tell the sender of a received document what became of it here. ID is the envelope id.

CODE is one of
  01  đã đến: it has arrived, nobody has acted yet
  02  từ chối tiếp nhận: returned to the sender; needs --note
  03  đã tiếp nhận: entered into the book of incoming documents
  04  phân công xử lý: assigned
  05  đang xử lý: being worked on
  06  hoàn thành: finished
  15  đồng ý cập nhật / lấy lại: agreed to the recall or change that was asked
  16  từ chối cập nhật / lấy lại: refused; needs --note

A status is refused where it is about a document that this agency did not get. One
that comes late or out of order is kept, and moves nothing: "connector track" shows
all of them. So is an answer (15, 16) to what nobody has asked, with a warning. Agreeing to a recall
means that the document and what is known of it have been destroyed here (ND30 Art. 18).

The result, the outbox and the exit codes are those of "connector send".`,
		Example: `  connector status 0198c1de-7a52-8f00-9d6c-2b6d1f0e4a11 03
  connector status 0198c1de-7a52-8f00-9d6c-2b6d1f0e4a11 02 --note "Không thuộc thẩm quyền"`,
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: cobra.FixedCompletions([]string{"01", "02", "03", "04", "05", "06", "15", "16"},
			cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			code := args[1]
			switch code {
			case "01", "03", "04", "05", "06", "15":
			case "02", "16":
				if strings.TrimSpace(note) == "" {
					return cli.Usage("status %s needs a reason: --note TEXT", code)
				}
			case "13":
				return cli.Usage(`13 is what the sender of a document says: use "connector recall"`)
			default:
				return cli.Usage("%q is none of 01 to 06, 15 and 16", code)
			}
			return f.say(cmd, options, args[0], func(about *exchangev1.TrackResponse) (*exchangev1.Header, error) {
				return agency.StatusOf(about, code, note, time.Now()), nil
			})
		},
	}
	cmd.Flags().StringVar(&note, "note", "", "reason or remark")
	f.add(cmd)
	return cmd
}

func newRecall(options *cli.Options) *cobra.Command {
	var f speakFlags
	var reason string
	cmd := &cobra.Command{
		Use:   "recall ID --reason TEXT",
		Short: "Take a document back that was sent",
		Long: `Take a document back that was sent. ID is its envelope id, or your own document id.

Recipients that did not fetch it yet never get it: the recall is complete there at
once. The others are asked, and agree (15) or refuse (16); "connector track ID" shows
both, and after a refusal the recall can be asked again. Where it was returned or
taken back already there is nothing to ask.

The result, the outbox and the exit codes are those of "connector send".`,
		Example: `  connector recall 0198c1de-7a52-8f00-9d6c-2b6d1f0e4a11 --reason "Sai nơi nhận"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return cli.Usage("--reason is empty")
			}
			return f.say(cmd, options, args[0], func(about *exchangev1.TrackResponse) (*exchangev1.Header, error) {
				h := agency.RecallOf(about, reason, time.Now())
				if len(h.GetRecipients()) == 0 {
					return nil, fmt.Errorf("document %s was returned or taken back at every recipient", about.GetHeader().GetDocumentId())
				}
				return h, nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why it is taken back")
	f.add(cmd)
	must(cmd.MarkFlagRequired("reason"))
	return cmd
}
