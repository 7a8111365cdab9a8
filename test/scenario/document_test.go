package scenario

import (
	"fmt"
	"testing"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/mesh"
)

func documents() mesh.Files {
	return mesh.Files{
		"12-BC-UBND.pdf":  sample.PDF("Bao cao 12/BC-UBND", 230_000),
		"12-BC-UBND.docx": sample.DOCX("Báo cáo", 40_000, "Kính gửi: Văn phòng Chính phủ."),
	}
}

// A commune writes to a ministry and to a province: real files, three relays,
// and a trace that tells each hop once. The sender may be attached to any relay,
// so at least one of the two recipients is at home elsewhere.
func TestCommuneToMinistry(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{})
	homes := map[string]string{"G22": "bac", "H13": "nam"}
	for code := range homes {
		m.Agency(code).Receive()
	}
	sent := m.Agency("H17.97.08").Send(documents(), "G22", "H13")
	m.Settle()

	trace, err := m.Operator("nam").Custody.Trace(t.Context(), &adminv1.TraceRequest{EnvelopeId: idBytes(sent.ID())})
	if err != nil {
		t.Fatal(err)
	}
	ingress := sent.Receipt.Relay
	want := []step{{ingress, exchangev1.TraceAction_TRACE_ACTION_ACCEPTED, ""}}
	for _, home := range homes {
		want = append(want, step{home, exchangev1.TraceAction_TRACE_ACTION_ARRIVED, ""})
		if home != ingress {
			want = append(want, step{ingress, exchangev1.TraceAction_TRACE_ACTION_HANDED_ON, home},
				step{home, exchangev1.TraceAction_TRACE_ACTION_TAKEN, ingress})
		}
	}
	for _, s := range want {
		if n := count(trace.GetEvents(), s); n != 1 {
			t.Errorf("%d events %v in the trace, want 1; trace:\n%v", n, s, trace.GetEvents())
		}
	}
	if trace.GetReceipt().GetCopies() < 2 {
		t.Errorf("copies %d after the hand-over, want 2", trace.GetReceipt().GetCopies())
	}
}

// The same document again, here and at another relay, is one envelope; the same
// document id with other content is refused.
func TestOnceInTheBooks(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{})
	sender, recipient := m.Agency("H17.97.08"), m.Agency("G22")
	files := documents()
	document := sender.Document(files, "G22")
	first, err := sender.TrySend(t.Context(), document, files, "G22")
	if err != nil {
		t.Fatal(err)
	}
	again, err := sender.Client.Submit(t.Context(), document)
	if err != nil || !again.Repeat || again.ID != first.ID() || !again.AcceptedAt.Equal(first.Receipt.AcceptedAt) {
		t.Errorf("handed over again: %+v, %v; want the receipt of %v", again, err, first.Receipt.AcceptedAt)
	}
	// Its relay is gone before the sender's system asks a third time.
	m.StopRelay("trung")
	other, err := sender.Client.Submit(t.Context(), document)
	if err != nil || other.ID != first.ID() || other.Relay == "trung" {
		t.Errorf("handed over at another relay: %+v, %v; want envelope %s", other, err, first.ID())
	}
	recipient.Receive()
	m.StartRelay("trung")
	m.Settle()

	changed := sender.Document(files, "G22")
	changed.Header.DocumentId = document.Header.GetDocumentId()
	changed.Header.Document.Subject = "khác"
	_, err = sender.Client.Submit(t.Context(), changed)
	if r, ok := envelope.AsRefusal(err); !ok || !r.Has(exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED) {
		t.Errorf("same document id with another subject: %v, want DOCUMENT_ID_REUSED", err)
	}
}

// Ten documents of each priority cross, from every relay to every relay, the
// same relay included.
func TestAllToAll(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{})
	codes := []string{"G22", "H17", "H13.16.03", "H26.12.05"}
	for _, code := range codes {
		m.Agency(code).Receive()
	}
	for priority := range int32(4) {
		for _, from := range codes {
			sender := m.Agency(from)
			files := mesh.Files{"cv.pdf": sample.PDF(fmt.Sprint(from, priority), 3000)}
			document := sender.Document(files, codes...)
			document.Header.Priority = exchangev1.Priority(priority)
			if _, err := sender.TrySend(t.Context(), document, files, codes...); err != nil {
				t.Fatal(err)
			}
		}
	}
}

type step struct {
	relay  string
	action exchangev1.TraceAction
	peer   string
}

func count(events []*exchangev1.TraceEvent, s step) (n int) {
	for _, e := range events {
		if e.GetRelayId() == s.relay && e.GetAction() == s.action && (s.peer == "" || e.GetPeerRelayId() == s.peer) {
			n++
		}
	}
	return n
}

func idBytes(id envelope.ID) []byte { return id[:] }
