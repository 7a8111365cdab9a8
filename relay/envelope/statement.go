package envelope

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

// statementPrefix begins the document id of a report that tells the ingress of a
// document what an envelope says of it; the envelope's id follows, and which of
// its sayings it is.
const statementPrefix = "statement:"

// StatementReport builds the report by which the relay that accepted an envelope
// tells the ingress of a document what that envelope says of it. Owner and
// document are the document's sender and the id that it gave it. The report about
// one saying has one id, however often it is written. When the relay accepted the
// envelope travels beside the header, as the custody's AcceptedAt.
func StatementReport(said Said, number int, owner routing.AgencyCode, document string, self, ingress routing.RelayID) (*Custody, error) {
	h := &exchangev1.Header{
		Kind:       exchangev1.Kind_KIND_STATUS,
		Sender:     organization(owner),
		DocumentId: fmt.Sprintf("%s%s:%d", statementPrefix, said.Source, number),
		Status: &exchangev1.Status{
			Code:        said.Code,
			Description: said.Note,
			At:          LocalTimeOf(said.At),
			ResponseFor: &exchangev1.ResponseFor{AgencyCode: string(owner), DocumentId: document},
			EnvelopeId:  said.ID[:],
		},
		Business: &exchangev1.Business{Type: lifecycle.BusinessOf(said.Act)},
	}
	if said.By == lifecycle.Recipient {
		h.Sender = organization(said.Agencies[0])
		h.Recipients = []*exchangev1.Recipient{{To: &exchangev1.Recipient_Agency{Agency: organization(owner)}}}
	} else {
		for _, a := range said.Agencies {
			h.Recipients = append(h.Recipients, &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{Agency: organization(a)}})
		}
	}
	canonical, err := Canonical(h)
	if err != nil {
		return nil, fmt.Errorf("what %s says of %s: %w", said.Source, said.ID, err)
	}
	return NewCustody(h, canonical, Acceptance{
		Ingress: self, AcceptedAt: said.Heard, ExpiresAt: said.Heard.Add(DefaultLifetime), Report: true,
		Onward: []Onward{{Relay: ingress}},
	})
}

func organization(code routing.AgencyCode) *exchangev1.Organization {
	return &exchangev1.Organization{Code: string(code)}
}

// IsStatement reports whether a relay's report tells what an envelope says of a
// document, and not how a delivery ended.
func IsStatement(h *exchangev1.Header) bool {
	return strings.HasPrefix(h.GetDocumentId(), statementPrefix) &&
		h.GetStatus().GetTransport() == exchangev1.TransportStatus_TRANSPORT_STATUS_UNSPECIFIED
}

// CheckReport reports whether a relay's report, of either kind, can be read.
func CheckReport(c *Custody) error {
	h, err := ParseCanonical(c.Header)
	if err != nil {
		return fmt.Errorf("report %s: %w", c.ID, err)
	}
	if IsStatement(h) {
		_, _, _, err = ParseStatement(c)
	} else {
		_, err = ParseReport(c)
	}
	return err
}

// ParseStatement reads such a report back from the custody of it.
func ParseStatement(c *Custody) (said Said, owner routing.AgencyCode, document string, err error) {
	fail := func(format string, args ...any) (Said, routing.AgencyCode, string, error) {
		return Said{}, "", "", fmt.Errorf("statement %s: %w", c.ID, fmt.Errorf(format, args...))
	}
	h, err := ParseCanonical(c.Header)
	if err != nil {
		return fail("%w", err)
	}
	if !IsStatement(h) {
		return fail("document id is %q", h.GetDocumentId())
	}
	source, _, _ := strings.Cut(strings.TrimPrefix(h.GetDocumentId(), statementPrefix), ":")
	if said.Source, err = ParseID(source); err != nil {
		return fail("document id: %w", err)
	}
	s := h.GetStatus()
	if said.ID, err = IDFromBytes(s.GetEnvelopeId()); err != nil {
		return fail("%w", err)
	}
	if owner, err = routing.ParseAgencyCode(s.GetResponseFor().GetAgencyCode()); err != nil {
		return fail("owner: %w", err)
	}
	said.Statement = lifecycle.Statement{
		Code: s.GetCode(), Note: s.GetDescription(), At: c.AcceptedAt, Heard: c.AcceptedAt,
	}
	if at := s.GetAt().GetAt(); at != nil {
		said.At = at.AsTime()
	}
	var about bool
	if said.Act, about = lifecycle.ActOfBusiness(h.GetBusiness().GetType()); !about {
		said.Act = lifecycle.ActOf(said.Code)
	}
	speaker, err := routing.ParseAgencyCode(h.GetSender().GetCode())
	if err != nil {
		return fail("sender: %w", err)
	}
	said.By = lifecycle.Speaker(said.Act)
	if said.Act == lifecycle.Other && speaker == owner {
		said.By = lifecycle.Sender
	}
	if said.By == lifecycle.Sender {
		for _, r := range h.GetRecipients() {
			a, err := routing.ParseAgencyCode(r.GetAgency().GetCode())
			if err != nil {
				return fail("recipient: %w", err)
			}
			said.Agencies = append(said.Agencies, a)
		}
	} else {
		said.Agencies = []routing.AgencyCode{speaker}
	}
	return said, owner, s.GetResponseFor().GetDocumentId(), nil
}

// vietnam is where every time without a zone is meant (QD28 Art. 14(4)).
var vietnam = time.FixedZone("UTC+7", 7*60*60)

// Vietnam is the zone of Vietnam, which has no summer time.
func Vietnam() *time.Location { return vietnam }

// LocalTimeOf is an instant as the standard writes it.
func LocalTimeOf(t time.Time) *exchangev1.LocalTime {
	return &exchangev1.LocalTime{At: timestamppb.New(t), Raw: t.In(vietnam).Format("2006/01/02 15:04:05")}
}
