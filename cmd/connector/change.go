package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
)

// changeFlags say what a document does to earlier ones.
type changeFlags struct {
	update   string
	replaces []string
	reason   string
	// added and removed are recipients of the document that is updated.
	added, removed []string
}

func (f *changeFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.update, "update", "", "document that this one changes: its envelope id, or your own document id")
	flags.StringSliceVar(&f.replaces, "replace", nil, "documents that this one takes the place of")
	flags.StringVar(&f.reason, "reason", "", "why, with --update and --replace")
	flags.StringSliceVar(&f.added, "add", nil, "with --update: agencies that get the document too")
	flags.StringSliceVar(&f.removed, "remove", nil, "with --update: agencies that are to give the document back")
	cmd.MarkFlagsMutuallyExclusive("update", "replace")
}

// apply makes the header say so.
func (f *changeFlags) apply(cmd *cobra.Command, client *agency.Client, h *exchangev1.Header) error {
	changes := f.update != "" || len(f.replaces) > 0
	switch {
	case changes && strings.TrimSpace(f.reason) == "":
		return cli.Usage("--update and --replace need a reason: --reason TEXT")
	case !changes && f.reason != "":
		return cli.Usage("--reason is for --update and --replace")
	case f.update == "" && len(f.added)+len(f.removed) > 0:
		return cli.Usage("--add and --remove are for --update")
	case !changes:
		return nil
	}
	h.Business = &exchangev1.Business{Reason: f.reason}
	if f.update == "" {
		h.Business.Type = exchangev1.BusinessType_BUSINESS_TYPE_REPLACE
		for _, id := range f.replaces {
			document, err := documentOf(cmd, client, id)
			if err != nil {
				return err
			}
			h.Business.Replaces = append(h.Business.Replaces, &exchangev1.Replaced{DocumentId: document})
		}
		return nil
	}
	document, err := documentOf(cmd, client, f.update)
	if err != nil {
		return err
	}
	b := h.Business
	b.Type, b.TargetDocumentId = exchangev1.BusinessType_BUSINESS_TYPE_UPDATE, document
	b.UpdatesContent, b.UpdatesRecipients = true, len(f.added)+len(f.removed) > 0
	for i, codes := range [][]string{f.added, f.removed} {
		for _, code := range codes {
			code = strings.TrimSpace(code)
			b.RecipientChanges = append(b.RecipientChanges, &exchangev1.RecipientChange{AgencyCode: code, Added: i == 0})
			recipient, err := parseRecipient(code)
			if err != nil {
				return err
			}
			named := slices.ContainsFunc(h.Recipients, func(r *exchangev1.Recipient) bool { return r.GetAgency().GetCode() == code })
			if !named {
				h.Recipients = append(h.Recipients, recipient)
			}
		}
	}
	return nil
}

// documentOf is the document id of what an id of either kind names.
func documentOf(cmd *cobra.Command, client *agency.Client, id string) (string, error) {
	if _, err := envelope.ParseID(id); err != nil {
		return id, nil
	}
	about, err := track(cmd, client, id)
	if err != nil {
		return "", err
	}
	return about.GetHeader().GetDocumentId(), nil
}
