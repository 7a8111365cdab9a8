package ingress_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
)

// problem is one expected field violation.
type problem struct {
	field  string
	reason exchangev1.ErrorReason
}

func TestBadInput(t *testing.T) {
	const (
		invalid  = exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
		large    = exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE
		mismatch = exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH
	)
	small := ingress.Limits{Header: envelope.Limits{MaxPartSize: 1000, MaxParts: 3, MaxRecipients: 3}}
	type c struct {
		name   string
		who    string
		header func(*exchangev1.Header)
		// messages after start; nil: the content and commit.
		messages []*exchangev1.SubmitRequest
		start    *exchangev1.SubmitRequest
		code     codes.Code
		problems []problem
	}
	for _, test := range []c{
		{name: "recipients unknown, suspended and malformed, all at once",
			header: func(h *exchangev1.Header) {
				h.Recipients = document("", "", nil, "H99", "H60", "a/b").Recipients
			},
			code: codes.InvalidArgument,
			problems: []problem{
				{"header.recipients[2].agency.code", invalid},
				{"header.recipients[0]", exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT},
				{"header.recipients[1]", exchangev1.ErrorReason_ERROR_REASON_SUSPENDED_RECIPIENT},
			}},
		{name: "header and recipients at fault, all at once",
			header: func(h *exchangev1.Header) {
				h.DocumentId, h.ExpiresAt = "", timestamppb.New(noon)
				h.Recipients = document("", "", nil, "H99").Recipients
			},
			code: codes.InvalidArgument,
			problems: []problem{
				{"header.document_id", invalid}, {"header.expires_at", invalid},
				{"header.recipients[0]", exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT},
			}},
		{name: "an hour after the end of its lifetime", code: codes.InvalidArgument,
			header: func(h *exchangev1.Header) {
				h.Priority, h.NotBefore = exchangev1.Priority_PRIORITY_HOA_TOC_HEN_GIO, timestamppb.New(noon.AddDate(1, 0, 0))
			},
			problems: []problem{{"header.not_before", invalid}}},
		{name: "unknown group", code: codes.InvalidArgument,
			header:   func(h *exchangev1.Header) { h.Recipients = document("", "", nil, "@nobody").Recipients },
			problems: []problem{{"header.recipients[0]", exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT}}},
		{name: "no recipient", code: codes.InvalidArgument,
			header:   func(h *exchangev1.Header) { h.Recipients = nil },
			problems: []problem{{"header.recipients", exchangev1.ErrorReason_ERROR_REASON_NO_RECIPIENT}}},
		{name: "too many recipients named", code: codes.InvalidArgument,
			header: func(h *exchangev1.Header) {
				h.Recipients = document("", "", nil, "H26", "H29", "H43", "G09").Recipients
			},
			problems: []problem{{"header.recipients", exchangev1.ErrorReason_ERROR_REASON_TOO_MANY_RECIPIENTS}}},
		{name: "too many recipients in groups", code: codes.InvalidArgument,
			header:   func(h *exchangev1.Header) { h.Recipients = document("", "", nil, "@provinces", "G09").Recipients },
			problems: []problem{{"header.recipients", exchangev1.ErrorReason_ERROR_REASON_TOO_MANY_RECIPIENTS}}},
		{name: "sender is not the caller", who: "agency/H26", code: codes.PermissionDenied,
			problems: []problem{{"header.sender.code", exchangev1.ErrorReason_ERROR_REASON_SENDER_NOT_CALLER}}},
		{name: "gateway not authorised", who: "gateway/sss", code: codes.PermissionDenied,
			problems: []problem{{"header.sender.code", exchangev1.ErrorReason_ERROR_REASON_GATEWAY_NOT_AUTHORIZED}}},
		{name: "gateway unknown", who: "gateway/other", code: codes.PermissionDenied,
			problems: []problem{{"", exchangev1.ErrorReason_ERROR_REASON_GATEWAY_NOT_AUTHORIZED}}},
		{name: "gateway names nobody", who: "gateway/sss", code: codes.InvalidArgument,
			header:   func(h *exchangev1.Header) { h.Sender = nil },
			problems: []problem{{"header.sender.code", invalid}}},
		{name: "sender suspended", who: "agency/H60", code: codes.PermissionDenied,
			header:   func(h *exchangev1.Header) { h.Sender.Code = "H60" },
			problems: []problem{{"", exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED}}},
		{name: "sender unknown", who: "agency/H98", code: codes.PermissionDenied,
			problems: []problem{{"", exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED}}},
		{name: "operator", who: "operator/an", code: codes.PermissionDenied,
			problems: []problem{{"", exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY}}},
		{name: "relay", who: "relay/nam", code: codes.PermissionDenied,
			problems: []problem{{"", exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY}}},
		{name: "nobody", who: "-", code: codes.Unauthenticated,
			problems: []problem{{"", exchangev1.ErrorReason_ERROR_REASON_NO_IDENTITY}}},
		{name: "forbidden recipients, each named", code: codes.PermissionDenied,
			header: func(h *exchangev1.Header) {
				h.Recipients = document("", "", nil, "H26", "K01").Recipients
			},
			problems: []problem{{"header.recipients[1]", exchangev1.ErrorReason_ERROR_REASON_FORBIDDEN_BY_RULE}}},
		{name: "forbidden within a group", code: codes.PermissionDenied,
			header: func(h *exchangev1.Header) {
				h.Recipients = document("", "", nil, "H26", "@centrals").Recipients[1:]
			},
			problems: []problem{{"header.recipients[0]", exchangev1.ErrorReason_ERROR_REASON_FORBIDDEN_BY_RULE}}},
		{name: "marked secret, first of all problems", code: codes.PermissionDenied,
			header: func(h *exchangev1.Header) {
				h.DocumentId, h.Secrecy = "", exchangev1.Secrecy_SECRECY_MAT
			},
			problems: []problem{{"header.secrecy", exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET}, {"header.document_id", invalid}}},
		{name: "path as a file name", code: codes.InvalidArgument,
			header:   func(h *exchangev1.Header) { h.Parts[0].Name = "../etc/passwd" },
			problems: []problem{{"header.parts[0].name", invalid}}},
		{name: "control character in a file name", code: codes.InvalidArgument,
			header:   func(h *exchangev1.Header) { h.Parts[0].Name = "a\x01.pdf" },
			problems: []problem{{"header.parts[0].name", invalid}}},
		{name: "unknown kind", code: codes.InvalidArgument,
			header:   func(h *exchangev1.Header) { h.Kind = 9 },
			problems: []problem{{"header.kind", invalid}}},
		{name: "unknown priority", code: codes.InvalidArgument,
			header:   func(h *exchangev1.Header) { h.Priority = 5 },
			problems: []problem{{"header.priority", invalid}}},
		{name: "part over the limit", code: codes.InvalidArgument,
			header:   func(h *exchangev1.Header) { h.Parts[0].Size = 1001 },
			problems: []problem{{"header.parts[0].size", large}}},
		{name: "too many parts", code: codes.InvalidArgument,
			header:   func(h *exchangev1.Header) { h.Parts = document("", "", []string{"1", "2", "3", "4"}).Parts },
			problems: []problem{{"header.parts", invalid}}},
		{name: "hash of the wrong length", code: codes.InvalidArgument,
			header:   func(h *exchangev1.Header) { h.Parts[0].Sha256 = []byte{1} },
			problems: []problem{{"header.parts[0].sha256", invalid}}},
		{name: "agency speaks for the mesh", code: codes.InvalidArgument,
			header: func(h *exchangev1.Header) {
				h.Kind, h.Document, h.Parts = exchangev1.Kind_KIND_STATUS, nil, nil
				h.Status = &exchangev1.Status{Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_DONE,
					ResponseFor: &exchangev1.ResponseFor{AgencyCode: "H26"}}
			},
			problems: []problem{{"header.status.transport", invalid}}},

		{name: "no start", start: commit(), code: codes.InvalidArgument, problems: []problem{{"start", invalid}}},
		{name: "no header", start: startOf(nil), code: codes.InvalidArgument, problems: []problem{{"header", invalid}}},
		{name: "stream cut short", messages: []*exchangev1.SubmitRequest{}, code: codes.Aborted,
			problems: []problem{{"", exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT}}},
		{name: "second start", messages: []*exchangev1.SubmitRequest{startOf(document("G22", "2", nil, "H26"))},
			code: codes.InvalidArgument, problems: []problem{{"message", invalid}}},
		{name: "empty message", messages: []*exchangev1.SubmitRequest{{}},
			code: codes.InvalidArgument, problems: []problem{{"message", invalid}}},
		{name: "chunk of no part", messages: []*exchangev1.SubmitRequest{chunk(1, 0, "x")},
			code: codes.InvalidArgument, problems: []problem{{"chunk.part", invalid}}},
		{name: "chunk with a gap", messages: []*exchangev1.SubmitRequest{chunk(0, 1, "x")},
			code: codes.InvalidArgument, problems: []problem{{"chunk.offset", invalid}}},
		{name: "chunk twice", messages: []*exchangev1.SubmitRequest{chunk(0, 0, "nội"), chunk(0, 0, "nội")},
			code: codes.InvalidArgument, problems: []problem{{"chunk.offset", invalid}}},
		{name: "empty chunk", messages: []*exchangev1.SubmitRequest{chunk(0, 0, "")},
			code: codes.InvalidArgument, problems: []problem{{"chunk.data", invalid}}},
		{name: "chunk over 1 MiB", messages: []*exchangev1.SubmitRequest{chunk(0, 0, strings.Repeat("x", 1<<20+1))},
			code: codes.InvalidArgument, problems: []problem{{"chunk.data", large}}},
		{name: "more bytes than declared", messages: []*exchangev1.SubmitRequest{chunk(0, 0, "nội dung và hơn nữa")},
			code: codes.InvalidArgument, problems: []problem{{"chunk.data", mismatch}}},
		{name: "fewer bytes than declared", messages: []*exchangev1.SubmitRequest{chunk(0, 0, "nội"), commit()},
			code: codes.InvalidArgument, problems: []problem{{"", mismatch}}},
		{name: "other bytes than declared", messages: []*exchangev1.SubmitRequest{chunk(0, 0, "nội dunh"), commit()},
			code: codes.InvalidArgument, problems: []problem{{"", exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMesh(t, small)
			h := document("G22", "1", []string{"nội dung"}, "H26")
			if test.header != nil {
				test.header(h)
			}
			start := startOf(h)
			if test.start != nil {
				start = test.start
			}
			messages := []*exchangev1.SubmitRequest{chunk(0, 0, "nội dung"), commit()}
			if test.messages != nil {
				messages = test.messages
			}
			who := test.who
			switch who {
			case "":
				who = "agency/G22"
			case "-":
				who = "agency/"
			}
			accepted, err := m.sendMessages("bac", who, start, func(*exchangev1.SubmitResume) []*exchangev1.SubmitRequest { return messages })
			if accepted != nil || err == nil {
				t.Fatalf("got accepted %v, want a refusal", accepted)
			}
			refused(t, err, test.code, test.problems)
			if !m.relays["bac"].spool.empty() {
				t.Error("something was accepted")
			}
		})
	}
}

// refused checks code, reasons, fields, and that people are told something.
func refused(t *testing.T, err error, code codes.Code, want []problem) {
	t.Helper()
	r, ok := envelope.AsRefusal(err)
	if !ok {
		t.Fatalf("got %v, want a refusal", err)
	}
	if got := status.Code(err); got != code {
		t.Errorf("code: got %s, want %s (%v)", got, code, err)
	}
	if r.Reason != want[0].reason {
		t.Errorf("reason: got %s, want %s", r.Reason, want[0].reason)
	}
	if r.Message == "" {
		t.Error("no message for people")
	}
	var got []problem
	for _, p := range r.Problems {
		got = append(got, problem{p.Field, p.Reason})
		if p.Description == "" {
			t.Errorf("%s: no description", p.Field)
		}
	}
	if want[0].field == "" {
		return
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems: got %v, want %v", got, want)
	}
}
