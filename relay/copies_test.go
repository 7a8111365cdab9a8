package relay_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/tls"
)

// linked waits until a relay reaches all the others, so that a test sees what a
// mesh does that has been running for a while.
func (m *mesh) linked(ctx context.Context, id string) {
	m.t.Helper()
	until(m.t, ctx, "links of "+id, func() (bool, string) {
		for other := range m.relays {
			if other == id {
				continue
			}
			probe, err := relayv1.NewPeerServiceClient(m.dial(id, tls.KindRelay, other)).Probe(ctx, &relayv1.ProbeRequest{})
			if err != nil {
				return false, err.Error()
			}
			up := 0
			for _, link := range probe.GetLinks() {
				if link.GetUp() {
					up++
				}
			}
			if up < len(m.relays)-1 {
				return false, fmt.Sprint(probe.GetLinks())
			}
		}
		return true, ""
	})
}

// Promise 2: while another relay runs, a receipt means that two relays have the
// envelope, wherever sender and recipient are at home; without one it comes all
// the same, and says one.
func TestReceiptMeansTwoCopies(t *testing.T) {
	m := newMesh(t)
	for _, id := range []string{"bac", "trung", "nam"} {
		m.start(id, func(c *relay.Config) { c.CopyWait, c.Forward.ProbeInterval = 3*time.Second, 200*time.Millisecond })
	}
	m.serving("bac", "trung", "nam")
	for code, home := range map[string]string{"G22": "bac", "H26": "bac", "H29": "nam"} {
		m.putAgency(code, home)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	m.linked(ctx, "bac")
	sender := m.agency("bac", "G22")
	holders := func(envelope []byte, relays ...string) (n uint32) {
		t.Helper()
		for _, id := range relays {
			peer := relayv1.NewPeerServiceClient(m.dial(id, tls.KindRelay, "bac"))
			if answer, err := peer.Inquire(ctx, &relayv1.InquireRequest{EnvelopeId: envelope}); err == nil && answer.GetHoldsContent() {
				n++
			}
		}
		return n
	}
	send := func(document string, to ...string) (receipt *exchangev1.Receipt, took time.Duration) {
		t.Helper()
		began := time.Now()
		accepted, err := submit(ctx, sender, documentOf(document, to...), document)
		if err != nil {
			t.Fatalf("%s: %v", document, err)
		}
		return accepted.GetReceipt(), time.Since(began)
	}
	copies := func(document string) uint32 {
		answer, err := sender.Track(ctx, &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: document}})
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetReceipt().GetCopies()
	}
	for document, to := range map[string][]string{"home here": {"H26"}, "home elsewhere": {"H29"}, "both": {"H26", "H29"}} {
		receipt, _ := send(document, to...)
		if receipt.GetCopies() != 2 || holders(receipt.GetEnvelopeId(), "bac", "trung", "nam") != 2 || copies(document) != 2 {
			t.Errorf("%s: receipt of %d copies, %d relays hold it, track says %d; want 2",
				document, receipt.GetCopies(), holders(receipt.GetEnvelopeId(), "bac", "trung", "nam"), copies(document))
		}
	}

	m.relays["nam"].stop()
	until(t, ctx, "the dead destination found out", func() (bool, string) {
		links, err := relayv1.NewPeerServiceClient(m.dial("bac", tls.KindRelay, "trung")).Probe(ctx, &relayv1.ProbeRequest{})
		for _, link := range links.GetLinks() {
			if link.GetRelayId() == "nam" {
				return !link.GetUp(), fmt.Sprint(link)
			}
		}
		return false, fmt.Sprint(links, err)
	})
	if receipt, _ := send("home is dead", "H29"); receipt.GetCopies() != 2 || holders(receipt.GetEnvelopeId(), "bac", "trung") != 2 {
		t.Errorf("home is dead: receipt of %d copies, %d relays hold it; want 2", receipt.GetCopies(), holders(receipt.GetEnvelopeId(), "bac", "trung"))
	}

	m.relays["trung"].stop()
	receipt, took := send("nobody there", "H26")
	if receipt.GetCopies() != 1 || took > 5*time.Second {
		t.Errorf("alone: receipt of %d copies after %s, want 1 after 3s at most", receipt.GetCopies(), took)
	}
	m.start("trung", nil)
	until(t, ctx, "the second copy, once there is where", func() (bool, string) {
		n := copies("nobody there")
		return n >= 2, fmt.Sprint(n)
	})
}

// A relay that stops answers the submits that wait for a second copy: what they
// handed over is accepted.
func TestStopAnswersWhoWaitsForTheCopy(t *testing.T) {
	m := newMesh(t)
	d := new(disk)
	n := m.start("bac", func(c *relay.Config) { c.CopyWait = time.Minute })
	m.start("nam", func(c *relay.Config) { c.Spool.FS = d })
	m.serving("bac", "nam")
	m.putAgency("G22", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m.linked(ctx, "bac")
	client := m.agency("bac", "G22")
	d.stuck.Lock()
	defer d.stuck.Unlock()
	type answer struct {
		accepted *exchangev1.SubmitAccepted
		err      error
	}
	answered := make(chan answer, 1)
	go func() {
		accepted, err := submit(ctx, client, documentOf("1", "G22"), "1")
		answered <- answer{accepted, err}
	}()
	until(t, ctx, "acceptance", func() (bool, string) {
		_, err := client.Track(ctx, &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: "1"}})
		return err == nil, fmt.Sprint(err)
	})
	began := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- n.stop() }()
	if a := <-answered; a.err != nil || a.accepted.GetReceipt().GetCopies() != 1 {
		t.Errorf("got %v, %v, want the receipt of one copy", a.accepted, a.err)
	}
	if err := <-stopped; err != nil || time.Since(began) > 8*time.Second {
		t.Errorf("stop: %v after %s", err, time.Since(began))
	}
}

func documentOf(id string, to ...string) *exchangev1.Header { return document("G22", id, id, to...) }
