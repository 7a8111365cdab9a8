package envelope

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/routing"
)

// DefaultLifetime is how long the mesh tries to deliver an envelope whose
// sender names no end, and a relay's report.
const DefaultLifetime = 30 * 24 * time.Hour

// Acceptance is what a relay adds to a header when it takes custody.
type Acceptance struct {
	// Sender is the sender's resolved code; empty: as the header says.
	Sender routing.AgencyCode
	// Ingress is the relay that first accepted the envelope, AcceptedAt when.
	Ingress    routing.RelayID
	AcceptedAt time.Time
	// ExpiresAt, where zero, is what the header says, else AcceptedAt and
	// DefaultLifetime.
	ExpiresAt               time.Time
	TraceParent, TraceState string
	Visited                 []routing.RelayID
	FromSender, Report      bool
	Inboxes                 []routing.AgencyCode
	Onward                  []Onward
}

// NewCustody fills in the custody of an envelope from its header, the
// canonical bytes of that header, and what the relay adds. The header must have
// passed Check, or be that of an envelope another relay accepted.
func NewCustody(h *exchangev1.Header, canonical []byte, a Acceptance) (*Custody, error) {
	c := &Custody{
		ID:          ComputeID(h.GetSender().GetCode(), h.GetDocumentId(), canonical),
		Header:      canonical,
		Sender:      a.Sender,
		DocumentID:  h.GetDocumentId(),
		Lane:        LaneOf(h),
		Parts:       make([]PartSum, len(h.GetParts())),
		Ingress:     a.Ingress,
		AcceptedAt:  a.AcceptedAt,
		ExpiresAt:   a.ExpiresAt,
		TraceParent: a.TraceParent,
		TraceState:  a.TraceState,
		Visited:     a.Visited,
		FromSender:  a.FromSender,
		Report:      a.Report,
		Inboxes:     a.Inboxes,
		Onward:      a.Onward,
	}
	if c.Sender == "" {
		c.Sender = routing.AgencyCode(h.GetSender().GetCode())
	}
	for i, p := range h.GetParts() {
		if len(p.GetSha256()) != len(c.Parts[i].SHA256) {
			return nil, fmt.Errorf("envelope %s: part %d: SHA-256 has %d bytes", c.ID, i, len(p.GetSha256()))
		}
		c.Parts[i] = PartSum{Size: p.GetSize(), SHA256: [32]byte(p.GetSha256())}
	}
	if h.NotBefore != nil {
		c.NotBefore = h.GetNotBefore().AsTime()
	}
	if c.ExpiresAt.IsZero() {
		if h.ExpiresAt != nil {
			c.ExpiresAt = h.GetExpiresAt().AsTime()
		} else {
			c.ExpiresAt = a.AcceptedAt.Add(DefaultLifetime)
		}
	}
	return c, nil
}

// Keepable reports whether relays can keep a time: nanoseconds since 1970 in
// 63 bits.
func Keepable(t time.Time) bool { return !t.Before(time.Unix(0, 0)) && t.Year() < 2262 }

// ReportFor builds the report by which relay self tells the ingress relay how
// the delivery of r to s.Agency ended: a status envelope from the recipient to
// the original sender, with the duty to hand it on to the ingress relay. It
// returns nil where self is the ingress.
//
// The header does not hold when, so the report about one end of one delivery has
// one id however often it is written; when the delivery ended is the custody's
// AcceptedAt, which travels beside the header. A report that a delivery was given
// up holds the end of the lifetime that it had: it is about that life, and not
// about one that its ingress gave it since (Revive).
func ReportFor(r *Record, self routing.RelayID, s Settlement) (*Custody, error) {
	if r.Ingress == self {
		return nil, nil
	}
	h := &exchangev1.Header{
		Kind:   exchangev1.Kind_KIND_STATUS,
		Sender: &exchangev1.Organization{Code: string(s.Agency)},
		Recipients: []*exchangev1.Recipient{{To: &exchangev1.Recipient_Agency{
			Agency: &exchangev1.Organization{Code: string(r.Sender)},
		}}},
		DocumentId: "report:" + r.ID.String() + ":" + string(s.Agency) + ":" + transportName(s.Transport),
		Status: &exchangev1.Status{
			Description: s.Note,
			ResponseFor: &exchangev1.ResponseFor{AgencyCode: string(r.Sender), DocumentId: r.DocumentID},
			EnvelopeId:  r.ID[:],
			Transport:   s.Transport,
			Reason:      s.Reason,
		},
	}
	if s.Transport == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL && !r.ExpiresAt.IsZero() {
		h.ExpiresAt = timestamppb.New(r.ExpiresAt)
	}
	canonical, err := Canonical(h)
	if err != nil {
		return nil, fmt.Errorf("report on envelope %s for %s: %w", r.ID, s.Agency, err)
	}
	return NewCustody(h, canonical, Acceptance{
		Ingress:     self,
		AcceptedAt:  s.At,
		ExpiresAt:   s.At.Add(DefaultLifetime),
		TraceParent: r.TraceParent,
		TraceState:  r.TraceState,
		Report:      true,
		Onward:      []Onward{{Relay: r.Ingress}},
	})
}

// ParseReport reads a report back from the custody of it that the ingress
// relay takes.
func ParseReport(c *Custody) (Settlement, error) {
	h, err := ParseCanonical(c.Header)
	if err != nil {
		return Settlement{}, fmt.Errorf("report %s: %w", c.ID, err)
	}
	s := h.GetStatus()
	switch s.GetTransport() {
	case exchangev1.TransportStatus_TRANSPORT_STATUS_DONE, exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL:
	default:
		return Settlement{}, fmt.Errorf("report %s: transport status is %s, want done or fail", c.ID, s.GetTransport())
	}
	about, err := IDFromBytes(s.GetEnvelopeId())
	if err != nil {
		return Settlement{}, fmt.Errorf("report %s: %w", c.ID, err)
	}
	agency, err := routing.ParseAgencyCode(h.GetSender().GetCode())
	if err != nil {
		return Settlement{}, fmt.Errorf("report %s: %w", c.ID, err)
	}
	return Settlement{
		ID: about, Agency: agency, Transport: s.GetTransport(),
		Reason: s.GetReason(), Note: s.GetDescription(), At: c.AcceptedAt,
	}, nil
}

func transportName(t exchangev1.TransportStatus) string {
	switch t {
	case exchangev1.TransportStatus_TRANSPORT_STATUS_DONE:
		return "done"
	case exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL:
		return "fail"
	}
	return fmt.Sprint(int32(t))
}
