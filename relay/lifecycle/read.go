package lifecycle

import (
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// Saying is what an envelope says of a document.
type Saying struct {
	// Envelope is the id of the document's envelope, 16 bytes, where the header
	// gives it; else Owner and Document do: its sender, as written, and the id that
	// the sender gave it.
	Envelope        []byte
	Owner, Document string
	// At are the recipients at whom it is said, as written; nil: at all whom the
	// envelope that says it reaches, or, by a recipient, at itself.
	At []string
	// Removes are recipients who lose the document by an update.
	Removes []string
	Statement
}

// Speaks reports whether an envelope says something of another document.
func Speaks(h *exchangev1.Header) bool {
	switch h.GetKind() {
	case exchangev1.Kind_KIND_STATUS:
		return h.GetStatus().GetTransport() == exchangev1.TransportStatus_TRANSPORT_STATUS_UNSPECIFIED
	case exchangev1.Kind_KIND_DOCUMENT:
		_, about := ActOfBusiness(h.GetBusiness().GetType())
		return about
	}
	return false
}

// Read returns what the header of an envelope says of other documents, which a
// relay accepted then. A status is about one document, a revocation and an update
// are, a replacement may be about many.
func Read(h *exchangev1.Header, accepted time.Time) []Saying {
	if !Speaks(h) {
		return nil
	}
	if h.GetKind() == exchangev1.Kind_KIND_STATUS {
		return []Saying{ofStatus(h, accepted)}
	}
	b := h.GetBusiness()
	act, _ := ActOfBusiness(b.GetType())
	say := Saying{Owner: h.GetSender().GetCode(), Statement: Statement{
		Act: act, By: Sender, At: accepted, Heard: accepted, Note: b.GetReason(),
	}}
	if h.CreatedAt != nil {
		say.Statement.At = h.GetCreatedAt().AsTime()
	}
	if act != Replaces {
		say.Document = b.GetTargetDocumentId()
		if say.Document == "" {
			say.Document = h.GetDocumentId()
		}
		for _, change := range b.GetRecipientChanges() {
			if act == Updates && !change.GetAdded() {
				say.Removes = append(say.Removes, change.GetAgencyCode())
			}
		}
		return []Saying{say}
	}
	var all []Saying
	for _, r := range b.GetReplaces() {
		say.Document, say.At = r.GetDocumentId(), r.GetAgencyCodes()
		all = append(all, say)
	}
	return all
}

// ofStatus reads a status. 13 is the sender's, and names the recipient in
// ResponseFor (QCVN 102); every other code is the recipient's, but one that is
// not in the standard may be the sender's: then ResponseFor names the sender
// itself.
func ofStatus(h *exchangev1.Header, accepted time.Time) Saying {
	s := h.GetStatus()
	speaker, about := h.GetSender().GetCode(), s.GetResponseFor()
	say := Saying{
		Envelope: s.GetEnvelopeId(), Owner: about.GetAgencyCode(), Document: about.GetDocumentId(),
		Statement: Statement{Act: ActOf(s.GetCode()), Code: s.GetCode(), At: accepted, Heard: accepted, Note: s.GetDescription()},
	}
	if at := s.GetAt().GetAt(); at != nil {
		say.Statement.At = at.AsTime()
	}
	if say.Owner == "" && len(h.GetRecipients()) == 1 {
		say.Owner = h.GetRecipients()[0].GetAgency().GetCode()
	}
	if say.Act == AsksRecall || say.Act == Other && say.Owner == speaker {
		say.By, say.Owner = Sender, speaker
	}
	return say
}
