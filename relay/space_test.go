package relay_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls"
)

const reserve = 1 << 30

// leave makes so much of the disk free, and returns once the relay has seen it.
func (d *disk) leave(t *testing.T, ctx context.Context, free uint64) {
	t.Helper()
	d.used.Store(diskSize - free)
	from := d.looks.Load()
	until(t, ctx, "two looks at the disk", func() (bool, string) {
		looks := d.looks.Load() - from
		return looks >= 3, fmt.Sprint(looks)
	})
}

// Promise 10: down to its reserve of the disk, a relay takes nothing new and says
// so; what it has goes on, and it takes new envelopes again when there is room.
func TestReserveOfTheDisk(t *testing.T) {
	m := newMesh(t)
	d := new(disk)
	m.start("bac", func(c *relay.Config) {
		c.Spool.FS, c.Spool.Reserve, c.LookEvery = d, reserve, 20*time.Millisecond
	})
	m.start("nam", nil)
	m.serving("bac", "nam")
	for code, home := range map[string]string{"G22": "bac", "H26": "bac", "H29": "nam"} {
		m.putAgency(code, home)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sender := m.agency("bac", "G22")
	local, away := document("G22", "1", "x", "H26"), document("G22", "2", "x", "H29")
	for _, h := range []*exchangev1.Header{local, away} {
		if _, err := submit(ctx, sender, h, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := submit(ctx, m.agency("nam", "H29"), document("H29", "3", "x", "H26"), "x"); err != nil {
		t.Fatal(err)
	}
	until(t, ctx, "document 3 is at bac before its disk is full", func() (bool, string) {
		waiting := entriesOf(t, ctx, m.custody("bac"), &adminv1.ListQueueRequest{AgencyCode: "H26"})
		return len(waiting) == 2, fmt.Sprint(waiting)
	})
	peer := relayv1.NewPeerServiceClient(m.dial("bac", tls.KindRelay, "nam"))
	arrived := func(id string) {
		t.Helper()
		if arrival, content, err := receiveOne(ctx, m.agency("bac", "H26")); err != nil || content != "x" || arrival.GetEnvelope().GetHeader().GetDocumentId() != id {
			t.Errorf("got %v, %v, want document %s", arrival, err, id)
		}
	}
	refused := func(when string) {
		t.Helper()
		ready, reasons := m.readyz("bac")
		if ready || len(reasons) != 1 || !strings.Contains(reasons[0], "disk") {
			t.Errorf("%s: ready %t, %q, want the disk", when, ready, reasons)
		}
		_, err := submit(ctx, sender, document("G22", when, "x", "H26"), "x")
		if r, ok := envelope.AsRefusal(err); !ok || r.Reason != exchangev1.ErrorReason_ERROR_REASON_DISK_FULL || r.RetryAfter != 30*time.Second || !envelope.Temporary(err) {
			t.Errorf("%s: submit: got %v, want DISK_FULL, again after 30s", when, err)
		}
		h := document("H29", when, "x", "H26")
		id, canonical, err := envelope.HeaderID(h)
		if err != nil {
			t.Fatal(err)
		}
		offer := &relayv1.Offer{EnvelopeId: id[:], Header: canonical, IngressRelayId: "nam", AcceptedAt: timestamppb.Now(), DestinationRelayId: "bac",
			AgencyCodes: []string{"H26"}, Purpose: relayv1.Purpose_PURPOSE_DELIVER, Content: [][]byte{[]byte("x")}}
		if answer := m.offerAs(ctx, "nam", "bac", offer); answer.GetRefused().GetReason() != exchangev1.ErrorReason_ERROR_REASON_DISK_FULL {
			t.Errorf("%s: offer of a relay: got %v, want DISK_FULL", when, answer)
		}
		if probe, err := peer.Probe(ctx, &relayv1.ProbeRequest{}); err != nil || probe.GetAccepting() {
			t.Errorf("%s: probe: got %v, %v, want not accepting", when, probe, err)
		}
	}

	d.leave(t, ctx, reserve-1)
	refused("below")
	if again, err := submit(ctx, sender, local, "x"); err != nil || !again.GetRepeat() {
		t.Errorf("repeat: got %v, %v, want the receipt", again, err)
	}
	// What is in custody goes on: receive, fetch, confirm, reports out and in.
	arrived("1")
	arrived("3")
	if _, _, err := receiveOne(ctx, m.agency("nam", "H29")); err != nil {
		t.Fatal(err)
	}
	done := func(at, who, document string) {
		t.Helper()
		client := m.agency(at, who)
		until(t, ctx, document+" reported to "+at, func() (bool, string) {
			answer, err := client.Track(ctx, &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: document}})
			if err != nil || len(answer.GetDeliveries()) != 1 {
				return false, fmt.Sprint(answer, err)
			}
			state := answer.GetDeliveries()[0].GetTransport()
			return state == exchangev1.TransportStatus_TRANSPORT_STATUS_DONE, state.String()
		})
	}
	done("bac", "G22", "2")
	done("nam", "H29", "3")

	d.leave(t, ctx, reserve+reserve/8)
	refused("a little above")
	d.leave(t, ctx, reserve+reserve/2)
	if ready, reasons := m.readyz("bac"); !ready {
		t.Errorf("far above: %q", reasons)
	}
	if _, err := submit(ctx, sender, document("G22", "4", "x", "H26"), "x"); err != nil {
		t.Errorf("far above: %v", err)
	}
}

// A transfer that has begun goes on below the reserve, not below half of it, and
// is resumed when there is room.
func TestReserveCutsATransfer(t *testing.T) {
	m := newMesh(t)
	d := new(disk)
	m.start("bac", func(c *relay.Config) {
		c.Spool.FS, c.Spool.Reserve, c.LookEvery = d, reserve, 20*time.Millisecond
	})
	m.serving("bac")
	m.putAgency("G22", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sender := m.agency("bac", "G22")
	const piece = 1 << 20
	content := strings.Repeat("0123456789abcdef", 4*piece/16)
	h := document("G22", "1", content, "G22")
	stream, err := sender.Submit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Start{Start: &exchangev1.SubmitStart{Header: h}}})
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	chunk := func(i int) {
		stream.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Chunk{
			Chunk: &exchangev1.Chunk{Offset: uint64(i * piece), Data: []byte(content[i*piece : (i+1)*piece])}}})
	}
	chunk(0)
	d.leave(t, ctx, reserve*3/4)
	chunk(1)
	d.leave(t, ctx, reserve/4)
	chunk(2)
	if _, err := stream.Recv(); !has(err, exchangev1.ErrorReason_ERROR_REASON_DISK_FULL) || !envelope.Temporary(err) {
		t.Fatalf("got %v, want DISK_FULL, temporary", err)
	}
	d.leave(t, ctx, 2*reserve)
	if stream, err = sender.Submit(ctx); err != nil {
		t.Fatal(err)
	}
	stream.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Start{Start: &exchangev1.SubmitStart{Header: h}}})
	answer, err := stream.Recv()
	if err != nil || answer.GetResume().GetOffsets()[0] == 0 {
		t.Fatalf("resume: got %v, %v, want to go on where it was cut", answer, err)
	}
	for i := int(answer.GetResume().GetOffsets()[0] / piece); i < 4; i++ {
		chunk(i)
	}
	stream.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Commit{Commit: &exchangev1.SubmitCommit{}}})
	if answer, err := stream.Recv(); err != nil || answer.GetAccepted() == nil {
		t.Errorf("commit: got %v, %v", answer, err)
	}
}

// An inbox that is full takes nothing from other relays either, which try again;
// what it has taken is answered as such.
func TestFullInboxAndOtherRelays(t *testing.T) {
	m := newMesh(t)
	m.start("bac", func(c *relay.Config) { c.Ingress.Inbox = 1 })
	m.start("nam", nil)
	m.serving("bac", "nam")
	m.putAgency("H26", "bac")
	m.putAgency("H27", "bac")
	m.putAgency("H29", "nam")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	accepted := timestamppb.Now()
	offer := func(name string, to ...string) *relayv1.PassResponse {
		t.Helper()
		if to == nil {
			to = []string{"H26"}
		}
		h := document("H29", name, "x", to...)
		id, canonical, err := envelope.HeaderID(h)
		if err != nil {
			t.Fatal(err)
		}
		return m.offerAs(ctx, "nam", "bac", &relayv1.Offer{EnvelopeId: id[:], Header: canonical, IngressRelayId: "nam", AcceptedAt: accepted,
			DestinationRelayId: "bac", AgencyCodes: to, Purpose: relayv1.Purpose_PURPOSE_DELIVER, Content: [][]byte{[]byte("x")}})
	}
	if answer := offer("1"); answer.GetAccepted() == nil {
		t.Fatalf("first: got %v", answer)
	}
	if answer := offer("2"); answer.GetRefused().GetReason() != exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED || !answer.GetRefused().GetTemporary() {
		t.Errorf("second: got %v, want RATE_LIMITED, temporary", answer)
	}
	if answer := offer("1"); !answer.GetAccepted().GetRepeat() {
		t.Errorf("first again: got %v, want a repeat", answer)
	}
	// One full inbox is no reason to keep it from another recipient.
	if answer := offer("3", "H26", "H27"); len(answer.GetAccepted().GetRefused()) != 1 || answer.GetAccepted().GetRefused()[0].GetAgencyCode() != "H26" {
		t.Errorf("for two, one of whom has no room: got %v, want it taken for the other", answer)
	}
	if _, _, err := receiveOne(ctx, m.agency("bac", "H26")); err != nil {
		t.Fatal(err)
	}
	if answer := offer("2"); answer.GetAccepted() == nil {
		t.Errorf("second, once the inbox is empty: got %v", answer)
	}
}
