package envelope_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

var timeZero = time.Date(2025, 7, 1, 8, 30, 0, 0, time.UTC)

func toAgency(code string) *exchangev1.Recipient {
	return &exchangev1.Recipient{To: &exchangev1.Recipient_Agency{Agency: &exchangev1.Organization{Code: code}}}
}

func toGroup(name string) *exchangev1.Recipient {
	return &exchangev1.Recipient{To: &exchangev1.Recipient_Group{Group: name}}
}

// good is a header with every kind of content and nothing wrong.
func good() *exchangev1.Header {
	return &exchangev1.Header{
		Kind:       exchangev1.Kind_KIND_DOCUMENT,
		Sender:     &exchangev1.Organization{Code: "G22", Name: "Văn phòng Chính phủ"},
		Recipients: []*exchangev1.Recipient{toAgency("000.00.00.H26"), toGroup("provinces")},
		DocumentId: "000.00.00.G22,2015/09/30,7816/VPCP-TTĐT",
		Document: &exchangev1.Document{
			Code:        &exchangev1.Code{Number: "7816", Notation: "VPCP-TTĐT"},
			IssuedOn:    &exchangev1.Date{Year: 2015, Month: 9, Day: 30, Raw: "2015/09/30"},
			TypeName:    "Công văn",
			Subject:     "V/v gửi, nhận văn bản điện tử",
			ResponseFor: []*exchangev1.ResponseFor{{AgencyCode: "H26", Code: "12/UBND"}},
		},
		Business: &exchangev1.Business{},
		Parts: []*exchangev1.Part{
			{Name: "công văn.pdf", MediaType: "application/pdf", Size: 10, Sha256: bytes.Repeat([]byte{1}, 32), Role: exchangev1.PartRole_PART_ROLE_MAIN},
			{Name: "phụ lục.docx", Size: 0, Sha256: bytes.Repeat([]byte{2}, 32)},
		},
		CreatedAt: timestamppb.New(timeZero),
	}
}

func goodStatus() *exchangev1.Header {
	return &exchangev1.Header{
		Kind:       exchangev1.Kind_KIND_STATUS,
		Sender:     &exchangev1.Organization{Code: "H26"},
		Recipients: []*exchangev1.Recipient{toAgency("G22")},
		DocumentId: "status-1",
		Status: &exchangev1.Status{
			Code:        "03",
			ResponseFor: &exchangev1.ResponseFor{AgencyCode: "G22", DocumentId: "7816"},
		},
	}
}

func TestCheckAcceptsWhatTheContractAllows(t *testing.T) {
	for name, h := range map[string]*exchangev1.Header{
		"a document":          good(),
		"a status":            goodStatus(),
		"hẹn giờ":             with(good(), func(h *exchangev1.Header) { h.Priority = 4; h.NotBefore = timestamppb.New(timeZero) }),
		"no parts":            with(good(), func(h *exchangev1.Header) { h.Parts = nil }),
		"date no day":         with(good(), func(h *exchangev1.Header) { h.Document.DueOn = &exchangev1.Date{Raw: "2014/02/30"} }),
		"unknown status code": with(goodStatus(), func(h *exchangev1.Header) { h.Status.Code = "11" }),
		"stated not secret":   with(good(), func(h *exchangev1.Header) { h.Secrecy = exchangev1.Secrecy_SECRECY_NONE }),
		"lines in a summary":  with(good(), func(h *exchangev1.Header) { h.Document.Summary = "một\r\n\thai" }),
		"revoke":              with(good(), func(h *exchangev1.Header) { h.Business = &exchangev1.Business{Type: 1, Reason: "sai"} }),
		"longest name":        with(good(), func(h *exchangev1.Header) { h.Parts[0].Name = strings.Repeat("a", 200) }),
	} {
		problems, warnings := envelope.Check(h, envelope.Limits{})
		if len(problems) > 0 || len(warnings) > 0 {
			t.Errorf("%s: got problems %v, warnings %v; want none", name, problems, warnings)
		}
	}
}

func with(h *exchangev1.Header, change func(*exchangev1.Header)) *exchangev1.Header {
	change(h)
	return h
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	const (
		invalid = exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
		large   = exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE
	)
	type change = func(h *exchangev1.Header)
	for name, c := range map[string]struct {
		of     *exchangev1.Header
		change change
		field  string
		reason exchangev1.ErrorReason
	}{
		"no kind":           {good(), func(h *exchangev1.Header) { h.Kind = 0 }, "header.kind", invalid},
		"unknown kind":      {good(), func(h *exchangev1.Header) { h.Kind = 9 }, "header.kind", invalid},
		"unknown priority":  {good(), func(h *exchangev1.Header) { h.Priority = 5 }, "header.priority", invalid},
		"negative priority": {good(), func(h *exchangev1.Header) { h.Priority = -1 }, "header.priority", invalid},
		"unknown business":  {good(), func(h *exchangev1.Header) { h.Business.Type = 4 }, "header.business.type", invalid},
		"unknown secrecy":   {good(), func(h *exchangev1.Header) { h.Secrecy = 9 }, "header.secrecy", invalid},
		"unknown role":      {good(), func(h *exchangev1.Header) { h.Parts[1].Role = 9 }, "header.parts[1].role", invalid},
		"unknown encoding":  {good(), func(h *exchangev1.Header) { h.Parts[1].Encoding = 9 }, "header.parts[1].encoding", invalid},
		"Mật":               {good(), func(h *exchangev1.Header) { h.Secrecy = 2 }, "header.secrecy", exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET},
		"Tuyệt mật":         {good(), func(h *exchangev1.Header) { h.Secrecy = 4 }, "header.secrecy", exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET},

		"no sender":            {good(), func(h *exchangev1.Header) { h.Sender = nil }, "header.sender", invalid},
		"no sender code":       {good(), func(h *exchangev1.Header) { h.Sender.Code = "" }, "header.sender.code", invalid},
		"sender code a path":   {good(), func(h *exchangev1.Header) { h.Sender.Code = "../G22" }, "header.sender.code", invalid},
		"blank round a code":   {good(), func(h *exchangev1.Header) { h.Sender.Code = "G22 " }, "header.sender.code", invalid},
		"long code":            {good(), func(h *exchangev1.Header) { h.Sender.Code = strings.Repeat("1", 65) }, "header.sender.code", invalid},
		"no document id":       {good(), func(h *exchangev1.Header) { h.DocumentId = "" }, "header.document_id", invalid},
		"long document id":     {good(), func(h *exchangev1.Header) { h.DocumentId = strings.Repeat("đ", 257) }, "header.document_id", invalid},
		"no recipient":         {good(), func(h *exchangev1.Header) { h.Recipients = nil }, "header.recipients", exchangev1.ErrorReason_ERROR_REASON_NO_RECIPIENT},
		"nobody":               {good(), func(h *exchangev1.Header) { h.Recipients[1] = &exchangev1.Recipient{} }, "header.recipients[1]", invalid},
		"recipient no code":    {good(), func(h *exchangev1.Header) { h.Recipients[0] = toAgency("") }, "header.recipients[0].agency.code", invalid},
		"group no name":        {good(), func(h *exchangev1.Header) { h.Recipients[1] = toGroup("") }, "header.recipients[1].group", invalid},
		"too many recipients":  {good(), func(h *exchangev1.Header) { h.Recipients = slicesRepeat(toAgency("H26"), 20_001) }, "header.recipients", exchangev1.ErrorReason_ERROR_REASON_TOO_MANY_RECIPIENTS},
		"header too large":     {good(), func(h *exchangev1.Header) { h.Document.Subject = strings.Repeat("x", 4<<20) }, "header", large},
		"control character":    {good(), func(h *exchangev1.Header) { h.Document.Subject = "a\x00b" }, "header.document.subject", invalid},
		"escape in a name":     {good(), func(h *exchangev1.Header) { h.Sender.Name = "\x1b[2J" }, "header.sender.name", invalid},
		"not UTF-8":            {good(), func(h *exchangev1.Header) { h.Document.Place = "\xc3(" }, "header.document.place", invalid},
		"long reply":           {good(), func(h *exchangev1.Header) { h.Document.ReplyFors = []string{"a", strings.Repeat("x", 257)} }, "header.document.reply_fors[1]", invalid},
		"many appendixes":      {good(), func(h *exchangev1.Header) { h.Document.Appendixes = make([]string, 101) }, "header.document.appendixes", invalid},
		"many copies":          {good(), func(h *exchangev1.Header) { h.Document.IssuedCopies = 1000 }, "header.document.issued_copies", invalid},
		"month 13":             {good(), func(h *exchangev1.Header) { h.Document.IssuedOn.Month = 13 }, "header.document.issued_on.month", invalid},
		"answer to nobody":     {good(), func(h *exchangev1.Header) { h.Document.ResponseFor[0].AgencyCode = "" }, "header.document.response_for[0].agency_code", invalid},
		"no instant":           {good(), func(h *exchangev1.Header) { h.CreatedAt = &timestamppb.Timestamp{Nanos: -1} }, "header.created_at", invalid},
		"hour without hẹn giờ": {good(), func(h *exchangev1.Header) { h.Priority = 3; h.NotBefore = timestamppb.New(timeZero) }, "header.not_before", invalid},
		"ends before it may": {good(), func(h *exchangev1.Header) {
			h.Priority, h.NotBefore, h.ExpiresAt = 4, timestamppb.New(timeZero), timestamppb.New(timeZero)
		}, "header.expires_at", invalid},
		"trace too long":      {good(), func(h *exchangev1.Header) { h.TraceHeaders = slicesRepeat(&exchangev1.TraceHeader{}, 101) }, "header.trace_headers", invalid},
		"signature too large": {good(), func(h *exchangev1.Header) { h.SignatureRaw = make([]byte, 262_145) }, "header.signature_raw", invalid},
		"extension too large": {good(), func(h *exchangev1.Header) { h.ExtensionRaw = make([]byte, 65_537) }, "header.extension_raw", invalid},
		"signs no part":       {good(), func(h *exchangev1.Header) { h.Signatures = []*exchangev1.SignatureBlock{{Part: 2, Format: "pades"}} }, "header.signatures[0].part", invalid},
		"sealed to a short key": {good(), func(h *exchangev1.Header) {
			h.Seal = &exchangev1.Seal{Suite: "s", Keys: []*exchangev1.SealedKey{{AgencyCode: "H26", KeyHash: make([]byte, 31)}}}
		}, "header.seal.keys[0].key_hash", invalid},
		"revoke without reason":  {good(), func(h *exchangev1.Header) { h.Business.Type = 1 }, "header.business.reason", invalid},
		"update without reason":  {good(), func(h *exchangev1.Header) { h.Business.Type, h.Business.UpdatesContent = 2, true }, "header.business.reason", invalid},
		"replace without reason": {good(), func(h *exchangev1.Header) { h.Business = replacing("1"); h.Business.Reason = "" }, "header.business.reason", invalid},
		"replaces one twice": {good(), func(h *exchangev1.Header) {
			h.Business.Replaces = []*exchangev1.Replaced{{DocumentId: "1"}, {DocumentId: "2"}, {DocumentId: "1"}}
		}, "header.business.replaces[2].document_id", invalid},
		"expires never":        {good(), func(h *exchangev1.Header) { h.ExpiresAt = &timestamppb.Timestamp{Seconds: 253402300799} }, "header.expires_at", invalid},
		"expired before 1970":  {good(), func(h *exchangev1.Header) { h.ExpiresAt = &timestamppb.Timestamp{Seconds: -1} }, "header.expires_at", invalid},
		"status in a document": {good(), func(h *exchangev1.Header) { h.Status = goodStatus().Status }, "header.status", invalid},

		"status without body":   {goodStatus(), func(h *exchangev1.Header) { h.Status = nil }, "header.status", invalid},
		"document in a status":  {goodStatus(), func(h *exchangev1.Header) { h.Document = good().Document }, "header.document", invalid},
		"business in a status":  {goodStatus(), func(h *exchangev1.Header) { h.Business = &exchangev1.Business{} }, "header.business", invalid},
		"two recipients":        {goodStatus(), func(h *exchangev1.Header) { h.Recipients = append(h.Recipients, toAgency("G01")) }, "header.recipients", invalid},
		"status to a group":     {goodStatus(), func(h *exchangev1.Header) { h.Recipients[0] = toGroup("provinces") }, "header.recipients[0].group", invalid},
		"no status code":        {goodStatus(), func(h *exchangev1.Header) { h.Status.Code = "" }, "header.status.code", invalid},
		"one digit":             {goodStatus(), func(h *exchangev1.Header) { h.Status.Code = "3" }, "header.status.code", invalid},
		"three digits":          {goodStatus(), func(h *exchangev1.Header) { h.Status.Code = "003" }, "header.status.code", invalid},
		"other digits":          {goodStatus(), func(h *exchangev1.Header) { h.Status.Code = "٣" }, "header.status.code", invalid},
		"02 without reason":     {goodStatus(), func(h *exchangev1.Header) { h.Status.Code = "02" }, "header.status.description", invalid},
		"13 without reason":     {goodStatus(), func(h *exchangev1.Header) { h.Status.Code = "13" }, "header.status.description", invalid},
		"16 without reason":     {goodStatus(), func(h *exchangev1.Header) { h.Status.Code = "16" }, "header.status.description", invalid},
		"long description":      {goodStatus(), func(h *exchangev1.Header) { h.Status.Description = strings.Repeat("x", 1001) }, "header.status.description", invalid},
		"an agency's transport": {goodStatus(), func(h *exchangev1.Header) { h.Status.Transport = 3 }, "header.status.transport", invalid},
		"an agency's reason":    {goodStatus(), func(h *exchangev1.Header) { h.Status.Reason = 3 }, "header.status.reason", invalid},
		"short envelope id":     {goodStatus(), func(h *exchangev1.Header) { h.Status.EnvelopeId = make([]byte, 15) }, "header.status.envelope_id", invalid},
		"status about nothing":  {goodStatus(), func(h *exchangev1.Header) { h.Status.ResponseFor = nil }, "header.status.response_for", invalid},
		"status about nobody's": {goodStatus(), func(h *exchangev1.Header) { h.Status.ResponseFor.AgencyCode = "" }, "header.status.response_for.agency_code", invalid},

		"part too large": {good(), func(h *exchangev1.Header) { h.Parts[1].Size = 1<<30 + 1 }, "header.parts[1].size", large},
		"no hash":        {good(), func(h *exchangev1.Header) { h.Parts[1].Sha256 = nil }, "header.parts[1].sha256", invalid},
		"short hash":     {good(), func(h *exchangev1.Header) { h.Parts[1].Sha256 = make([]byte, 31) }, "header.parts[1].sha256", invalid},
		"too many parts": {good(), func(h *exchangev1.Header) { h.Parts = slicesRepeat(h.Parts[0], 201) }, "header.parts", invalid},
	} {
		t.Run(name, func(t *testing.T) {
			h := c.of
			c.change(h)
			problems, _ := envelope.Check(h, envelope.Limits{})
			if len(problems) != 1 {
				t.Fatalf("got %d problems %v, want one", len(problems), problems)
			}
			if p := problems[0]; p.Field != c.field || p.Reason != c.reason || p.Description == "" {
				t.Errorf("got %+v, want field %s, reason %s", p, c.field, c.reason)
			}
		})
	}
}

func slicesRepeat[T any](v T, n int) []T {
	s := make([]T, n)
	for i := range s {
		s[i] = v
	}
	return s
}

func TestCheckRefusesNamesThatDeceive(t *testing.T) {
	for _, name := range []string{
		"", ".", "..", "../x", "a/b", `a\b`, `C:\x`, "/etc/passwd", "x\x00.pdf", "x\n.pdf", "x\t.pdf", "x\u2028.pdf", "x\u0085.pdf",
		"hoadon\u202efdp.exe", "x\u2066.pdf", "x.pdf.", "x.pdf ", "…/" + "x", "\xff.pdf", "cong va\u0306n.pdf",
		strings.Repeat("x", 201), strings.Repeat("đ", 128), "..\\..", "x\x7f",
	} {
		h := good()
		h.Parts[1].Name = name
		problems, _ := envelope.Check(h, envelope.Limits{})
		if len(problems) == 0 || problems[0].Field != "header.parts[1].name" {
			t.Errorf("name %q: got %v, want a problem with header.parts[1].name", name, problems)
		}
	}
	for _, name := range []string{"a", ".profile", "văn bản số 12.pdf", "a..b", "x (1).tar.gz", envelope.CleanName("cong va\u0306n.pdf")} {
		h := good()
		h.Parts[1].Name = name
		if problems, _ := envelope.Check(h, envelope.Limits{}); len(problems) > 0 {
			t.Errorf("name %q: got %v, want it accepted", name, problems)
		}
	}
}

func TestCheckSaysEverythingAtOnce(t *testing.T) {
	h := good()
	h.Kind = 0
	h.Sender.Code = ""
	h.DocumentId = ""
	h.Secrecy = exchangev1.Secrecy_SECRECY_TOI_MAT
	h.Parts[0].Name = "../x."
	h.Parts[1].Sha256 = nil
	problems, _ := envelope.Check(h, envelope.Limits{})
	got := map[string]int{}
	for _, p := range problems {
		got[p.Field]++
	}
	want := map[string]int{"header.kind": 1, "header.sender.code": 1, "header.document_id": 1, "header.secrecy": 1, "header.parts[0].name": 2, "header.parts[1].sha256": 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("problems in %v, want %v", got, want)
	}
}

func TestCheckWarnsWhereLiveMessagesExceedTheStandard(t *testing.T) {
	h := good()
	h.Document.Code.Number = "20251020104803"
	h.Document.Subject = strings.Repeat("đ", 501)
	h.Document.Pages = 1000
	h.Recipients[0].GetAgency().Name = strings.Repeat("đ", 201)
	problems, warnings := envelope.Check(h, envelope.Limits{})
	if len(problems) > 0 {
		t.Errorf("got problems %v, want none", problems)
	}
	var fields []string
	for _, w := range warnings {
		fields = append(fields, w.GetField())
	}
	want := []string{"header.recipients[0].agency.name", "header.document.code.number", "header.document.subject", "header.document.pages"}
	if fmt.Sprint(fields) != fmt.Sprint(want) {
		t.Errorf("warned of %v, want %v", fields, want)
	}
}

func TestLimitsAreConfigurable(t *testing.T) {
	h := good()
	h.Parts[0].Size = 2 << 30
	if problems, _ := envelope.Check(h, envelope.Limits{MaxPartSize: 4 << 30}); len(problems) > 0 {
		t.Errorf("got %v, want a part of 2 GiB accepted under a limit of 4 GiB", problems)
	}
	h = good()
	problems, _ := envelope.Check(h, envelope.Limits{MaxParts: 1, MaxRecipients: 1, MaxHeaderSize: 1 << 20})
	if len(problems) != 2 {
		t.Errorf("got %v, want too many parts and too many recipients", problems)
	}
}

// Every field of the contract that holds text, bytes or many entries has a
// limit, so that none is forgotten when the contract grows: a header stuffed
// beyond all bounds in that field alone must not be accepted in silence.
func TestEveryFieldIsBounded(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	var walk func(path []protoreflect.FieldDescriptor, d protoreflect.MessageDescriptor)
	walk = func(path []protoreflect.FieldDescriptor, d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] || strings.HasPrefix(string(d.FullName()), "google.") {
			return
		}
		seen[d.FullName()] = true
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			here := append(append([]protoreflect.FieldDescriptor{}, path...), fd)
			h := new(exchangev1.Header)
			m := h.ProtoReflect()
			for _, step := range path {
				if step.IsList() {
					m = m.Mutable(step).List().AppendMutable().Message()
				} else {
					m = m.Mutable(step).Message()
				}
			}
			before, beforeWarned := envelope.Check(h, envelope.Limits{})
			switch {
			case fd.IsList():
				for range 20_001 {
					if fd.Kind() == protoreflect.MessageKind {
						m.Mutable(fd).List().AppendMutable()
					} else {
						m.Mutable(fd).List().Append(protoreflect.ValueOfString("x"))
					}
				}
			case fd.Kind() == protoreflect.StringKind:
				m.Set(fd, protoreflect.ValueOfString(strings.Repeat("x", 1001)))
			case fd.Kind() == protoreflect.BytesKind:
				m.Set(fd, protoreflect.ValueOfBytes(make([]byte, 262_145)))
			}
			if fd.IsList() || fd.Kind() == protoreflect.StringKind || fd.Kind() == protoreflect.BytesKind {
				after, warned := envelope.Check(h, envelope.Limits{})
				if fmt.Sprint(after) == fmt.Sprint(before) && fmt.Sprint(warned) == fmt.Sprint(beforeWarned) {
					t.Errorf("%s: nothing was said about an excessive value", fd.FullName())
				}
			}
			if fd.Kind() == protoreflect.MessageKind {
				walk(here, fd.Message())
			}
		}
	}
	walk(nil, new(exchangev1.Header).ProtoReflect().Descriptor())
}

func TestCheckedHeadersHaveIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHeader(t)
		before := proto.Clone(h)
		envelope.Check(h, envelope.Limits{})
		if !proto.Equal(before, h) {
			t.Fatal("Check changed the header")
		}
	})
}
