package relay_test

import (
	"context"
	"slices"
	"testing"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// A relay that was given up as lost and is back says so, takes nothing, sends
// agencies to other relays, and still answers for what it accepted.
func TestLostRelayThatIsBack(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.start("nam", nil)
	m.serving("bac", "nam")
	m.putAgency("G22", "bac")
	m.putAgency("H26", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := m.agency("bac", "G22")
	h := document("G22", "1", "x", "H26")
	if _, err := submit(ctx, client, h, "x"); err != nil {
		t.Fatal(err)
	}
	m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: "bac", Lost: true}}})

	if ready, reasons := m.readyz("bac"); ready || !slices.Contains(reasons, "given up as lost by an operator") {
		t.Errorf("readyz: %t, %q", ready, reasons)
	}
	if _, err := submit(ctx, client, document("G22", "2", "x", "H26"), "x"); !has(err, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING) || !envelope.Temporary(err) {
		t.Errorf("submit: got %v, want NOT_SERVING, temporary", err)
	}
	if again, err := submit(ctx, client, h, "x"); err != nil || !again.GetRepeat() {
		t.Errorf("repeat: got %v, %v, want the receipt", again, err)
	}
	track, err := client.Track(ctx, &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: "1"}})
	if err != nil || track.GetReceipt().GetRelayId() != "bac" || len(track.GetDeliveries()) != 1 {
		t.Errorf("track: got %v, %v", track, err)
	}
	// The home of G22 is nam by now, which does not hear this relay.
	elsewhere := func(call string, err error) {
		t.Helper()
		if !has(err, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING) || !envelope.Temporary(err) {
			t.Errorf("%s: got %v, want NOT_SERVING, temporary", call, err)
		}
	}
	stream, err := client.Receive(ctx, &exchangev1.ReceiveRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	elsewhere("receive", err)
	_, err = client.Confirm(ctx, &exchangev1.ConfirmRequest{EnvelopeIds: [][]byte{make([]byte, 16)}})
	elsewhere("confirm", err)
}
