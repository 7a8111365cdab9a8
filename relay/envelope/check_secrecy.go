package envelope

import (
	"path"
	"strconv"
	"strings"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope/secrecy"
)

// mark refuses because of a mark, if there is one.
func (c *checker) mark(field string, m secrecy.Mark) {
	if m != secrecy.None {
		c.problem(field, secret, "bears the mark %s: a state secret must not travel here (Decision 28/2018/QĐ-TTg Art. 1(2)); use the channel for secret documents", m)
	}
}

// secrecy refuses what shows the mark of a state secret, wherever in the header
// it shows (QD28 Art. 1(2)).
func (c *checker) secrecy(h *exchangev1.Header) {
	mark := c.mark
	switch s := h.GetSecrecy(); s {
	case exchangev1.Secrecy_SECRECY_MAT, exchangev1.Secrecy_SECRECY_TOI_MAT, exchangev1.Secrecy_SECRECY_TUYET_MAT:
		mark("header.secrecy", secrecy.Mark(s-exchangev1.Secrecy_SECRECY_NONE))
	}
	d := h.GetDocument()
	mark("header.document.subject", secrecy.InTitle(d.GetSubject()))
	mark("header.document.summary", max(secrecy.InTitle(d.GetSummary()), secrecy.InText(d.GetSummary())))
	mark("header.document.code.number", secrecy.InNotation(d.GetCode().GetNumber()))
	mark("header.document.code.notation", secrecy.InNotation(d.GetCode().GetNotation()))
	for i, title := range d.GetAppendixes() {
		mark("header.document.appendixes["+strconv.Itoa(i)+"]", secrecy.InTitle(title))
	}
	for i, p := range h.GetParts() {
		field := "header.parts[" + strconv.Itoa(i) + "]"
		mark(field+".name", secrecy.InTitle(strings.ReplaceAll(strings.TrimSuffix(p.GetName(), path.Ext(p.GetName())), "_", " - ")))
		mark(field+".description", secrecy.InTitle(p.GetDescription()))
	}
}
