package envelope

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/routing"
)

// Limits are the bounds a relay may set; a zero field means the default.
// Everything else is fixed by the contract (envelope.proto).
type Limits struct {
	// MaxPartSize is the largest part, in bytes.
	MaxPartSize uint64
	// MaxParts is the most parts of one envelope.
	MaxParts int
	// MaxRecipients bounds the entries of the header, and at ingress the
	// agencies after groups are resolved.
	MaxRecipients int
	// MaxInline is the largest content, in bytes of all parts, that rides
	// inside an offer, an arrival or an eager submit.
	MaxInline int
	// MaxHeaderSize is the largest encoded header, in bytes.
	MaxHeaderSize int
}

// DefaultLimits are those of the contract.
func DefaultLimits() Limits {
	return Limits{
		MaxPartSize:   1 << 30,
		MaxParts:      200,
		MaxRecipients: 20_000,
		MaxInline:     256 << 10,
		MaxHeaderSize: 4 << 20,
	}
}

// OrDefaults returns l with the defaults in place of zeros.
func (l Limits) OrDefaults() Limits {
	d := DefaultLimits()
	if l.MaxPartSize == 0 {
		l.MaxPartSize = d.MaxPartSize
	}
	if l.MaxParts == 0 {
		l.MaxParts = d.MaxParts
	}
	if l.MaxRecipients == 0 {
		l.MaxRecipients = d.MaxRecipients
	}
	if l.MaxInline == 0 {
		l.MaxInline = d.MaxInline
	}
	if l.MaxHeaderSize == 0 {
		l.MaxHeaderSize = d.MaxHeaderSize
	}
	return l
}

// Reasons used by the rules below, shortened for reading.
const (
	invalid = exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	secret  = exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET
	large   = exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE
)

// maxProblems bounds the answer to a header that is wrong all over.
const maxProblems = 100

// Check returns everything that refuses a header which an agency hands over,
// and everything that is accepted though the standard says otherwise.
// Field paths begin with "header". It neither asks the directory nor looks at
// a clock.
func Check(h *exchangev1.Header, limits Limits) ([]Problem, []*exchangev1.Warning) {
	if h == nil {
		return []Problem{{Field: "header", Reason: invalid, Description: "is missing"}}, nil
	}
	c := &checker{limits: limits.OrDefaults()}
	if size := proto.Size(h); size > c.limits.MaxHeaderSize {
		// Nothing more is said about a header that is too large to look at.
		c.problem("header", large, "has %d bytes, at most %d are allowed", size, c.limits.MaxHeaderSize)
		return c.problems, nil
	}
	c.fields("header", h.ProtoReflect(), 0)
	c.envelope(h)
	c.secrecy(h)
	c.recipients(h.GetRecipients(), h.GetKind())
	c.document(h)
	if h.Business != nil {
		c.business(h.Business)
		c.businessNames(h)
	}
	if h.Status != nil {
		c.status(h.Status)
	}
	if n := len(h.GetParts()); n > c.limits.MaxParts {
		c.problem("header.parts", invalid, "has %d files, at most %d are allowed", n, c.limits.MaxParts)
	}
	for i, p := range h.GetParts() {
		c.part("header.parts["+strconv.Itoa(i)+"]", p)
	}
	for i, s := range h.GetSignatures() {
		if s.GetPart() < -1 || int(s.GetPart()) >= len(h.GetParts()) {
			c.problem(fmt.Sprintf("header.signatures[%d].part", i), invalid,
				"is %d: -1 for the header, or the index of a part", s.GetPart())
		}
	}
	return c.problems, c.warnings
}

// checker collects what is found.
type checker struct {
	limits   Limits
	problems []Problem
	warnings []*exchangev1.Warning
}

func (c *checker) problem(field string, reason exchangev1.ErrorReason, format string, args ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, Problem{Field: field, Reason: reason, Description: fmt.Sprintf(format, args...)})
	}
}

func (c *checker) warn(field, format string, args ...any) {
	if len(c.warnings) < maxProblems {
		c.warnings = append(c.warnings, &exchangev1.Warning{Field: field, Description: fmt.Sprintf(format, args...)})
	}
}

// envelope checks what concerns the header as a whole.
func (c *checker) envelope(h *exchangev1.Header) {
	if h.Sender == nil {
		c.problem("header.sender", invalid, "is missing: name the agency that sends")
	} else {
		c.code("header.sender.code", h.Sender.GetCode())
	}
	switch h.GetKind() {
	case exchangev1.Kind_KIND_UNSPECIFIED:
		c.problem("header.kind", invalid, "is missing: document or status")
	case exchangev1.Kind_KIND_DOCUMENT:
		if h.Status != nil {
			c.problem("header.status", invalid, "is set, but the envelope is a document")
		}
	case exchangev1.Kind_KIND_STATUS:
		if h.Status == nil {
			c.problem("header.status", invalid, "is missing from a status")
		}
		if h.Document != nil {
			c.problem("header.document", invalid, "is set, but the envelope is a status")
		}
		if h.Business != nil {
			c.problem("header.business", invalid, "is set, but the envelope is a status")
		}
	}
	if h.NotBefore != nil && h.GetPriority() != exchangev1.Priority_PRIORITY_HOA_TOC_HEN_GIO {
		c.problem("header.not_before", invalid, "is set, but only a document hỏa tốc hẹn giờ (priority 4) waits for an hour")
	}
	c.instant("header.not_before", h.NotBefore)
	c.instant("header.expires_at", h.ExpiresAt)
	if h.NotBefore != nil && h.ExpiresAt != nil && !h.ExpiresAt.AsTime().After(h.NotBefore.AsTime()) {
		c.problem("header.expires_at", invalid, "is not after header.not_before")
	}
	if d := h.GetDocument(); d.GetIssuedCopies() > 999 {
		c.problem("header.document.issued_copies", invalid, "is %d, at most 999 are allowed", d.GetIssuedCopies())
	}
	if d := h.GetDocument(); d.GetPages() > 999 {
		c.warn("header.document.pages", "is %d, the standard allows at most 999", d.GetPages())
	}
}

// instant checks a time that relays act on, and therefore keep.
func (c *checker) instant(field string, at *timestamppb.Timestamp) {
	if at.IsValid() && !Keepable(at.AsTime()) {
		c.problem(field, invalid, "is in the year %d: relays keep 1970 to 2261", at.AsTime().Year())
	}
}

func (c *checker) recipients(recipients []*exchangev1.Recipient, kind exchangev1.Kind) {
	switch n := len(recipients); {
	case n == 0:
		c.problem("header.recipients", exchangev1.ErrorReason_ERROR_REASON_NO_RECIPIENT, "names nobody: at least one recipient is needed")
	case kind == exchangev1.Kind_KIND_STATUS && n > 1:
		c.problem("header.recipients", invalid, "names %d, but a status has exactly one recipient", n)
	case n > c.limits.MaxRecipients:
		c.problem("header.recipients", exchangev1.ErrorReason_ERROR_REASON_TOO_MANY_RECIPIENTS, "names %d, at most %d are allowed", n, c.limits.MaxRecipients)
	}
	for i, r := range recipients {
		if len(c.problems) >= maxProblems {
			return
		}
		field := "header.recipients[" + strconv.Itoa(i) + "]"
		switch to := r.GetTo().(type) {
		case *exchangev1.Recipient_Agency:
			c.code(field+".agency.code", to.Agency.GetCode())
		case *exchangev1.Recipient_Group:
			if kind == exchangev1.Kind_KIND_STATUS {
				c.problem(field+".group", invalid, "is set, but a status goes to one agency")
			}
		default:
			c.problem(field, invalid, "names neither an agency nor a group")
		}
	}
}

func (c *checker) business(b *exchangev1.Business) {
	switch b.GetType() {
	case exchangev1.BusinessType_BUSINESS_TYPE_REVOKE, exchangev1.BusinessType_BUSINESS_TYPE_UPDATE, exchangev1.BusinessType_BUSINESS_TYPE_REPLACE:
		if b.GetReason() == "" {
			c.problem("header.business.reason", invalid, "is missing: say why the earlier document is taken back, changed or replaced")
		}
	}
	seen := make(map[string]bool, len(b.GetReplaces()))
	for i, r := range b.GetReplaces() {
		if id := r.GetDocumentId(); seen[id] {
			c.problem(fmt.Sprintf("header.business.replaces[%d].document_id", i), invalid, "names a document that stands earlier in the list")
		} else {
			seen[id] = true
		}
	}
}

// needReason are the codes that must say why: refusal, recall, refusal of a
// change.
var needReason = map[string]bool{"02": true, "13": true, "16": true}

func (c *checker) status(s *exchangev1.Status) {
	code := s.GetCode()
	switch {
	case s.GetTransport() != exchangev1.TransportStatus_TRANSPORT_STATUS_UNSPECIFIED:
		c.problem("header.status.transport", invalid, "is set, but only relays state what became of a delivery; use header.status.code")
	case len(code) != 2 || code[0] < '0' || code[0] > '9' || code[1] < '0' || code[1] > '9':
		c.problem("header.status.code", invalid, "is %q: two digits are needed, for example \"03\"", clip(code))
	case needReason[code] && s.GetDescription() == "":
		c.problem("header.status.description", invalid, "is missing: status %s needs a reason", code)
	}
	if s.GetReason() != exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		c.problem("header.status.reason", invalid, "is set, but only relays give it; use header.status.description")
	}
	if s.ResponseFor == nil && len(s.GetEnvelopeId()) == 0 {
		c.problem("header.status.response_for", invalid, "is missing: name the document the status is about, here or by header.status.envelope_id")
	}
}

func (c *checker) part(field string, p *exchangev1.Part) {
	for _, fault := range nameFaults(p.GetName()) {
		c.problem(field+".name", invalid, "%s", fault)
	}
	if p.GetSize() > c.limits.MaxPartSize {
		c.problem(field+".size", large, "is %d bytes, at most %d are allowed", p.GetSize(), c.limits.MaxPartSize)
	}
}

// code checks the form of an agency code where one is needed; its length was
// checked with the other fields.
func (c *checker) code(field, code string) {
	if code == "" || len(code) > routing.MaxCodeLength {
		return
	}
	parsed, err := routing.ParseAgencyCode(code)
	switch {
	case err != nil:
		c.problem(field, invalid, "%v", err)
	case string(parsed) != code:
		c.problem(field, invalid, "has blanks around it")
	}
}

// clip keeps a value that is quoted back short.
func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
