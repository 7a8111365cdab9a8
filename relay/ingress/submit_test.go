package ingress_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

// What is damaged at the only relay that has it is not taken for accepted when
// its sender comes again: it is to go to another relay, which takes the bytes.
func TestRepeatOfWhatIsDamaged(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	id := envelope.ID(m.mustSend("bac", "agency/G22", document("G22", "1", nil, "H26")).GetReceipt().GetEnvelopeId())
	m.relays["bac"].spool.hurt(id, 1)
	if again := m.mustSend("bac", "agency/G22", document("G22", "1", nil, "H26")); !again.GetRepeat() || again.GetReceipt().GetCopies() != 1 {
		t.Errorf("another relay has it too: got %v, want a repeat with one copy", again)
	}
	m.relays["bac"].spool.hurt(id, 0)
	_, err := m.send("bac", "agency/G22", document("G22", "1", nil, "H26"))
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_DAMAGED) || !envelope.Temporary(err) {
		t.Errorf("nobody else has it: got %v, want DAMAGED for now", err)
	}
}

// A home that took an envelope over from its ingress knows of its own recipients.
// Sent again by the sender, who kept it, it goes to the others too.
func TestRepeatOfWhatWasTakenOver(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	id := envelope.ID(m.mustSend("bac", "agency/G22", document("G22", "1", nil, "H26", "H29")).GetReceipt().GetEnvelopeId())
	m.relays["bac"].spool.takenOver(id, "nam", "H26")
	for _, repeat := range []bool{false, true} {
		again := m.mustSend("bac", "agency/G22", document("G22", "1", nil, "H26", "H29"))
		if again.GetRepeat() != repeat || again.GetReceipt().GetRecipients() != 2 || envelope.ID(again.GetReceipt().GetEnvelopeId()) != id {
			t.Errorf("sent again: got %v, want the same envelope for both recipients, repeat %v", again, repeat)
		}
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

// What the open submits of one caller hold in memory is bounded, and is free
// again when they end; other callers do not notice.
func TestRoomPerCaller(t *testing.T) {
	content := strings.Repeat("x", 5000)
	m := newMesh(t, ingress.Limits{RoomPerCaller: 8000})
	one, two := document("G22", "1", []string{content}, "H26"), document("G22", "2", []string{content}, "H26")
	_, err := m.sendMessages("bac", "agency/G22", startOf(one), func(*exchangev1.SubmitResume) []*exchangev1.SubmitRequest {
		_, err := m.send("bac", "agency/G22", two, content)
		if r, ok := envelope.AsRefusal(err); !ok || r.Reason != exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED || r.RetryAfter == 0 || r.Quota == "" {
			t.Errorf("second: got %v, want RATE_LIMITED with quota and retry hint", err)
		}
		m.mustSend("bac", "agency/H26", document("H26", "1", []string{content}, "G22"), content)
		return []*exchangev1.SubmitRequest{chunk(0, 0, content), commit()}
	})
	if err != nil {
		t.Fatal(err)
	}
	m.mustSend("bac", "agency/G22", two, content)
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

func TestRelayThatDoesNotAccept(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	m.relays["bac"].accepting = envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING, "draining")
	_, err := m.send("bac", "agency/G22", document("G22", "1", nil, "H26"))
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING) || !envelope.Temporary(err) {
		t.Errorf("got %v, want NOT_SERVING, temporary", err)
	}
}

// Who is not in the directory is not for a relay to say that has no directory yet.
func TestRelayWithoutADirectory(t *testing.T) {
	m := newDirectory(t)
	m.directory = routing.NewDirectory()
	m.start("bac", ingress.Limits{})
	for _, who := range []string{"agency/G22", "gateway/sss"} {
		_, err := m.send("bac", who, document("G22", "1", nil, "H26"))
		if !has(err, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING) || !envelope.Temporary(err) {
			t.Errorf("%s: got %v, want NOT_SERVING, temporary", who, err)
		}
	}
}

func has(err error, reason exchangev1.ErrorReason) bool {
	r, ok := envelope.AsRefusal(err)
	return ok && r.Has(reason)
}
