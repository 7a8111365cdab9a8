package relay_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// Promise 4, where one relay does not know what the other accepts: a sender
// hands two documents with one id over at two relays. Their recipient gets one
// of them once, and the sender learns which one failed, and why.
func TestOneDocumentPerIDAtTwoIngresses(t *testing.T) {
	m := newMesh(t)
	for _, id := range []string{"bac", "trung", "nam"} {
		m.start(id, nil)
	}
	m.serving("bac", "trung", "nam")
	m.putAgency("G22", "bac")
	m.putAgency("H29", "nam")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ingresses := []string{"bac", "trung"}
	sender := map[string]exchangev1.ExchangeServiceClient{"bac": m.agency("bac", "G22"), "trung": m.agency("trung", "G22")}
	recipient := m.agency("nam", "H29")
	ended := func(relay, id string) *exchangev1.Delivery {
		t.Helper()
		var delivery *exchangev1.Delivery
		until(t, ctx, "ended at "+relay, func() (bool, string) {
			tracked, err := sender[relay].Track(ctx, &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: id}})
			if err != nil || len(tracked.GetDeliveries()) != 1 {
				return false, fmt.Sprint(tracked, err)
			}
			delivery = tracked.GetDeliveries()[0]
			switch delivery.GetTransport() {
			case exchangev1.TransportStatus_TRANSPORT_STATUS_DONE, exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL:
				return true, ""
			}
			return false, delivery.String()
		})
		return delivery
	}
	for round := range 3 {
		id := fmt.Sprint(round)
		var sending sync.WaitGroup
		for _, relay := range ingresses {
			sending.Go(func() {
				if _, err := submit(ctx, sender[relay], document("G22", id, "văn bản tại "+relay, "H29"), "văn bản tại "+relay); err != nil {
					t.Errorf("submit at %s: %v", relay, err)
				}
			})
			if round > 0 {
				sending.Wait() // in the first round both at once
			}
		}
		sending.Wait()
		_, content, err := receiveOne(ctx, recipient)
		if err != nil {
			t.Fatal(err)
		}
		for _, relay := range ingresses {
			got := ended(relay, id)
			want, reason := exchangev1.TransportStatus_TRANSPORT_STATUS_DONE, exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED
			if content != "văn bản tại "+relay {
				want, reason = exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL, exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED
			}
			if got.GetTransport() != want || got.GetReason() != reason {
				t.Errorf("H29 received %q; at %s the delivery ended %s, %s, want %s, %s", content, relay, got.GetTransport(), got.GetReason(), want, reason)
			}
		}
	}
	rest, err := recipient.Receive(ctx, &exchangev1.ReceiveRequest{Drain: true})
	if err == nil {
		if arrival, _ := rest.Recv(); arrival != nil {
			t.Errorf("H29 also has %v", arrival)
		}
	}
}
