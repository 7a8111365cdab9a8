package agency

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// StatusOf makes the header of a status about a document that Track told of: what
// its recipient says of it ("01" to "06", "15", "16"), reached at that time. It
// goes to the sender of the document. Note is needed for 02 and 16 (QCVN 102;
// QD28 Art. 10(2)(h)).
func StatusOf(track *exchangev1.TrackResponse, code, note string, at time.Time) *exchangev1.Header {
	about := track.GetHeader()
	return &exchangev1.Header{
		Kind: exchangev1.Kind_KIND_STATUS,
		Recipients: []*exchangev1.Recipient{{To: &exchangev1.Recipient_Agency{
			Agency: &exchangev1.Organization{Code: about.GetSender().GetCode()},
		}}},
		Status: &exchangev1.Status{
			Code: code, Description: note, At: envelope.LocalTimeOf(at),
			ResponseFor: responseFor(about), EnvelopeId: track.GetReceipt().GetEnvelopeId(),
		},
	}
}

func responseFor(about *exchangev1.Header) *exchangev1.ResponseFor {
	d := about.GetDocument()
	r := &exchangev1.ResponseFor{
		AgencyCode: about.GetSender().GetCode(), DocumentId: about.GetDocumentId(), IssuedOn: asWritten(d.GetIssuedOn()),
	}
	if code := d.GetCode(); code != nil {
		r.Code = code.GetNumber() + "/" + code.GetNotation()
	}
	return r
}

// asWritten is a date of another document as its sender wrote it: one that does
// not exist must not keep anybody from speaking of the document.
func asWritten(d *exchangev1.Date) *exchangev1.Date {
	if d.GetRaw() == "" {
		return d
	}
	return &exchangev1.Date{Raw: d.GetRaw()}
}

// RecallOf makes the header of a document that takes back one of the agency's own
// that Track told of, at every recipient where it has not come to an end: those who
// did not fetch it yet never get it, the others are asked (ND30 Art. 18; edXML
// BussinessDocType 1).
func RecallOf(track *exchangev1.TrackResponse, reason string, at time.Time) *exchangev1.Header {
	about := track.GetHeader()
	h := &exchangev1.Header{
		Kind:      exchangev1.Kind_KIND_DOCUMENT,
		Priority:  exchangev1.Priority_PRIORITY_HOA_TOC,
		CreatedAt: timestamppb.New(at),
		Document: &exchangev1.Document{
			Code: about.GetDocument().GetCode(), TypeName: about.GetDocument().GetTypeName(),
			Subject: about.GetDocument().GetSubject(), IssuedOn: asWritten(about.GetDocument().GetIssuedOn()),
		},
		Business: &exchangev1.Business{
			Type: exchangev1.BusinessType_BUSINESS_TYPE_REVOKE, TargetDocumentId: about.GetDocumentId(), Reason: reason,
		},
	}
	for _, d := range track.GetDeliveries() {
		ended := d.GetPhase() == exchangev1.Phase_PHASE_RETURNED || d.GetPhase() == exchangev1.Phase_PHASE_RECALLED
		if ended || slices.Contains(notThere, d.GetReason()) && d.GetTransport() == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL {
			continue
		}
		h.Recipients = append(h.Recipients, &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{
			Agency: &exchangev1.Organization{Code: d.GetAgencyCode()},
		}})
	}
	return h
}

// notThere are the reasons for which a recipient has nothing to give back.
var notThere = []exchangev1.ErrorReason{exchangev1.ErrorReason_ERROR_REASON_RECALLED}
