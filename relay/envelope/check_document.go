package envelope

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// document checks what the law wants of the description of a document (QD28
// Art. 10(2), ND30 Annex VI), and dates that do not exist.
func (c *checker) document(h *exchangev1.Header) {
	d := h.GetDocument()
	if h.GetKind() == exchangev1.Kind_KIND_DOCUMENT {
		c.described(d, h.GetBusiness())
	}
	c.date("header.document.issued_on", d.GetIssuedOn())
	c.date("header.document.due_on", d.GetDueOn())
	for i, answered := range d.GetResponseFor() {
		c.date("header.document.response_for["+strconv.Itoa(i)+"].issued_on", answered.GetIssuedOn())
	}
	c.date("header.status.response_for.issued_on", h.GetStatus().GetResponseFor().GetIssuedOn())
	c.documentKind(d)
}

// described asks for what a document of its business type cannot do without. One
// that only takes an earlier one back, or changes its recipients, describes nothing.
func (c *checker) described(d *exchangev1.Document, b *exchangev1.Business) {
	switch {
	case b.GetType() == exchangev1.BusinessType_BUSINESS_TYPE_REVOKE,
		b.GetType() == exchangev1.BusinessType_BUSINESS_TYPE_UPDATE && !b.GetUpdatesContent():
	case d == nil:
		c.problem("header.document", invalid, "is missing: describe the document, at least by its subject (trích yếu)")
	case strings.TrimSpace(d.GetSubject()) == "":
		c.problem("header.document.subject", invalid, "is missing: the subject (trích yếu) goes into the book of incoming documents")
	}
}

// date refuses a date that does not exist. Where a sender's text is none, as occurs,
// year, month and day are all 0 and the text stands in raw.
func (c *checker) date(field string, d *exchangev1.Date) {
	year, month, day := int(d.GetYear()), time.Month(d.GetMonth()), int(d.GetDay())
	switch {
	case d == nil, year == 0 && month == 0 && day == 0:
	case year < 0 || year > 9999 || month < 0 || month > 12 || day < 0 || day > 31:
		// Found with the other numbers.
	case year == 0 || month == 0 || day == 0:
		c.problem(field, invalid, "lacks year, month or day: give all three, or none of them and the sender's text in raw")
	case time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Day() != day:
		c.problem(field, invalid, "is %02d/%02d/%d, a day that does not exist", day, month, year)
	}
}

// businessNames checks what a document names that acts on earlier ones.
func (c *checker) businessNames(h *exchangev1.Header) {
	b := h.GetBusiness()
	switch b.GetType() {
	case exchangev1.BusinessType_BUSINESS_TYPE_REPLACE:
		if len(b.GetReplaces()) == 0 {
			c.problem("header.business.replaces", invalid, "is empty: name the document that is replaced")
		}
	case exchangev1.BusinessType_BUSINESS_TYPE_UPDATE:
		if b.GetUpdatesRecipients() && len(b.GetRecipientChanges()) == 0 {
			c.problem("header.business.recipient_changes", invalid, "is empty, but updates_recipients is set: name who is added or removed")
		}
		if !b.GetUpdatesContent() && !b.GetUpdatesRecipients() && len(b.GetRecipientChanges()) == 0 && len(h.GetParts()) == 0 {
			c.problem("header.business", invalid, "updates nothing: set updates_content or updates_recipients, and say what changes")
		}
	}
	for i, r := range b.GetReplaces() {
		field := fmt.Sprintf("header.business.replaces[%d]", i)
		if r.GetDocumentId() != "" && r.GetDocumentId() == h.GetDocumentId() {
			c.problem(field+".document_id", invalid, "is the id of this document, which cannot replace itself")
		}
		c.once(field+".agency_codes[%d]", r.GetAgencyCodes())
	}
	c.changes(b.GetRecipientChanges())
}

// changes refuses an agency that is named twice, which may be contradictory.
func (c *checker) changes(changes []*exchangev1.RecipientChange) {
	before := make(map[string]bool, len(changes))
	for i, change := range changes {
		code := change.GetAgencyCode()
		field := fmt.Sprintf("header.business.recipient_changes[%d].agency_code", i)
		c.code(field, code)
		switch added, seen := before[code]; {
		case code == "" || !seen:
			before[code] = change.GetAdded()
		case added == change.GetAdded():
			c.problem(field, invalid, "names %s, which stands earlier in the list", clip(code))
		default:
			c.problem(field, invalid, "both adds and removes %s: say one of them", clip(code))
		}
	}
}

// once refuses codes that are malformed or named twice.
func (c *checker) once(field string, codes []string) {
	before := make(map[string]bool, len(codes))
	for i, code := range codes {
		at := fmt.Sprintf(field, i)
		c.code(at, code)
		if code != "" && before[code] {
			c.problem(at, invalid, "names %s, which stands earlier in the list", clip(code))
		}
		before[code] = true
	}
}
