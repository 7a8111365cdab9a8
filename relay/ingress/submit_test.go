package ingress_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
	"github.com/truclienthong/truc/routing"
)

func TestSubmitSpreadsOverHomes(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	h := document("G22", "2025/1", []string{"tệp một", ""}, "@provinces", "000.00.00.G22", "G22")
	accepted := m.mustSend("bac", "agency/G22", h, "tệp một", "")
	if accepted.GetRepeat() || accepted.GetReceipt().GetRelayId() != "bac" || accepted.GetReceipt().GetRecipients() != 4 {
		t.Errorf("accepted: got %v, want 4 recipients, no repeat, relay bac", accepted)
	}
	record := m.relays["bac"].spool.custody(envelope.ID(accepted.GetReceipt().GetEnvelopeId()))
	if want := []routing.AgencyCode{"G22", "H26"}; !slices.Equal(record.Inboxes, want) {
		t.Errorf("inboxes here: got %v, want %v", record.Inboxes, want)
	}
	want := []envelope.Onward{{Relay: "nam", Agencies: []routing.AgencyCode{"H29", "H43"}}}
	if diff := cmp.Diff(want, record.Onward); diff != "" {
		t.Errorf("one copy for each other home (-want +got):\n%s", diff)
	}
	if !record.FromSender || record.Ingress != "bac" || !record.AcceptedAt.Equal(noon) || !record.ExpiresAt.Equal(noon.Add(30*24*time.Hour)) {
		t.Errorf("custody: got from sender %t, ingress %s, accepted %s, expires %s", record.FromSender, record.Ingress, record.AcceptedAt, record.ExpiresAt)
	}
}

func TestSenderByAliasIsResolved(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	accepted := m.mustSend("bac", "agency/000.00.00.G22", document("G22", "1", nil, "H26"))
	if got := m.relays["bac"].spool.custody(envelope.ID(accepted.GetReceipt().GetEnvelopeId())).Sender; got != "G22" {
		t.Errorf("certificate by alias: sender %s, want G22", got)
	}
	accepted = m.mustSend("bac", "agency/G22", document("000.00.00.G22", "2", nil, "H26"))
	if got := m.relays["bac"].spool.custody(envelope.ID(accepted.GetReceipt().GetEnvelopeId())).Sender; got != "G22" {
		t.Errorf("header by alias: sender %s, want G22", got)
	}
	m.mustSend("bac", "gateway/sss", document("G09", "3", nil, "H26"))
}

// A repeat gets the original receipt whatever happened since.
func TestRepeatGetsTheOriginalReceipt(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	h := document("G22", "1", []string{"nội dung"}, "H26", "@provinces")
	h.ExpiresAt = timestamppb.New(noon.Add(time.Hour))
	first := m.mustSend("bac", "agency/G22", h, "nội dung")
	for _, since := range []struct {
		name string
		do   func()
	}{
		{"nothing", func() {}},
		{"recipient suspended", func() { m.suspend("H26", true) }},
		{"recipient moved", func() { m.suspend("H26", false); m.move("H26", "nam") }},
		{"expired", func() { m.clock.advance(2 * time.Hour) }},
		{"a rule forbids it", func() {
			m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRule{PutRule: &directoryv1.PutRule{Rule: &directoryv1.Rule{
				Id: "never", Effect: directoryv1.Effect_EFFECT_DENY, From: &directoryv1.Selector{}, To: &directoryv1.Selector{}}}}})
		}},
	} {
		since.do()
		again := m.mustSend("bac", "agency/G22", h, "nội dung")
		if !again.GetRepeat() {
			t.Errorf("since: %s: repeat not recognised", since.name)
		}
		if diff := cmp.Diff(first.GetReceipt(), again.GetReceipt(), protocmp.Transform()); diff != "" {
			t.Errorf("since: %s: receipt changed (-first +again):\n%s", since.name, diff)
		}
	}
	m.suspend("G22", true)
	if _, err := m.send("bac", "agency/G22", h, "nội dung"); !has(err, exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED) {
		t.Errorf("suspended sender: got %v, want AGENCY_SUSPENDED", err)
	}
}

func TestDocumentIDWithOtherContent(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	m.mustSend("bac", "agency/G22", document("G22", "1", []string{"một"}, "H26"), "một")
	_, err := m.send("bac", "agency/G22", document("G22", "1", []string{"hai"}, "H26"), "hai")
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED) {
		t.Errorf("got %v, want DOCUMENT_ID_REUSED", err)
	}
	m.mustSend("bac", "gateway/sss", document("G09", "1", []string{"hai"}, "H26"), "hai")
}

func TestCutStreamIsResumed(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	const content = "phần đầu và phần cuối"
	h := document("G22", "1", []string{content, "hai"}, "H26")
	_, err := m.sendMessages("bac", "agency/G22", startOf(h), func(*exchangev1.SubmitResume) []*exchangev1.SubmitRequest {
		return []*exchangev1.SubmitRequest{chunk(0, 0, content[:8])}
	})
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT) || !envelope.Temporary(err) {
		t.Fatalf("cut: got %v, want STREAM_CUT, temporary", err)
	}
	if !m.relays["bac"].spool.empty() {
		t.Fatal("something was accepted of a cut stream")
	}
	var offsets []uint64
	_, err = m.sendMessages("bac", "agency/G22", startOf(h), func(r *exchangev1.SubmitResume) []*exchangev1.SubmitRequest {
		offsets = r.GetOffsets()
		return []*exchangev1.SubmitRequest{chunk(0, offsets[0], content[offsets[0]:]), chunk(1, 0, "hai"), commit()}
	})
	if err != nil || !slices.Equal(offsets, []uint64{8, 0}) {
		t.Errorf("resume: got offsets %v and %v, want [8 0] and no error", offsets, err)
	}
}

// An eager sender sends from zero without waiting, also after a cut.
func TestEagerSenderNeedsNoAnswer(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	h := document("G22", "1", []string{"một hai ba"}, "H26")
	m.sendMessages("bac", "agency/G22", startOf(h), func(*exchangev1.SubmitResume) []*exchangev1.SubmitRequest {
		return []*exchangev1.SubmitRequest{chunk(0, 0, "một h")}
	})
	start := startOf(h)
	start.GetStart().Eager = true
	accepted, err := m.sendMessages("bac", "agency/G22", start, func(r *exchangev1.SubmitResume) []*exchangev1.SubmitRequest {
		if !slices.Equal(r.GetOffsets(), []uint64{0}) {
			t.Errorf("offsets told to an eager sender: %v, want zeros", r.GetOffsets())
		}
		return []*exchangev1.SubmitRequest{chunk(0, 0, "một"), chunk(0, 5, " hai"), chunk(0, 9, " ba"), commit()}
	})
	if err != nil || accepted.GetRepeat() {
		t.Errorf("eager: got %v, %v", accepted, err)
	}
}

func TestSenderSuspendedWhileSending(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	h := document("G22", "1", []string{"x"}, "H26")
	_, err := m.sendMessages("bac", "agency/G22", startOf(h), func(*exchangev1.SubmitResume) []*exchangev1.SubmitRequest {
		m.suspend("G22", true)
		return []*exchangev1.SubmitRequest{chunk(0, 0, "x"), commit()}
	})
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED) || !m.relays["bac"].spool.empty() {
		t.Errorf("got %v, want AGENCY_SUSPENDED and nothing accepted", err)
	}
}

// No receipt without a commit that worked.
func TestFailedCommitGivesNoReceipt(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	m.relays["bac"].spool.failCommit = envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STORAGE_FAILED, "the store failed")
	accepted, err := m.send("bac", "agency/G22", document("G22", "1", []string{"x"}, "H26"), "x")
	if accepted != nil || !has(err, exchangev1.ErrorReason_ERROR_REASON_STORAGE_FAILED) || !envelope.Temporary(err) {
		t.Errorf("got %v, %v, want STORAGE_FAILED, temporary, and no receipt", accepted, err)
	}
}

func TestTraceContextIsKept(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	start := startOf(document("G22", "1", nil, "H26"))
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	start.GetStart().Traceparent, start.GetStart().Tracestate = parent, "vendor=1"
	accepted, err := m.sendMessages("bac", "agency/G22", start, func(*exchangev1.SubmitResume) []*exchangev1.SubmitRequest {
		return []*exchangev1.SubmitRequest{commit()}
	})
	if err != nil {
		t.Fatal(err)
	}
	record := m.relays["bac"].spool.custody(envelope.ID(accepted.GetReceipt().GetEnvelopeId()))
	if !strings.HasPrefix(record.TraceParent, parent[:35]) || record.TraceState != "vendor=1" {
		t.Errorf("trace: got %q, %q, want the sender's trace", record.TraceParent, record.TraceState)
	}
}

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

func TestRelayThatDoesNotAccept(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	m.relays["bac"].accepting = envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING, "draining")
	_, err := m.send("bac", "agency/G22", document("G22", "1", nil, "H26"))
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING) || !envelope.Temporary(err) {
		t.Errorf("got %v, want NOT_SERVING, temporary", err)
	}
}

func has(err error, reason exchangev1.ErrorReason) bool {
	r, ok := envelope.AsRefusal(err)
	return ok && r.Has(reason)
}
