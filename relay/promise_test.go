package relay_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls"
)

// Promise 3: the ingress keeps the content while one recipient has not confirmed,
// also where it has handed everything on and keeps nothing that is done.
func TestIngressRemembers(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.start("nam", nil)
	m.serving("bac", "nam")
	m.putAgency("G22", "bac")
	for _, code := range []string{"H29", "H43"} {
		m.putAgency(code, "nam")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	peer := relayv1.NewPeerServiceClient(m.dial("bac", tls.KindRelay, "nam"))
	held := func(id []byte) bool {
		t.Helper()
		answer, err := peer.Inquire(ctx, &relayv1.InquireRequest{EnvelopeId: id})
		if err != nil || answer.GetReceipt() == nil {
			t.Fatalf("inquire: %v, %v", answer, err)
		}
		return answer.GetHoldsContent()
	}
	send := func(id string, to ...string) []byte {
		t.Helper()
		accepted, err := submit(ctx, m.agency("bac", "G22"), document("G22", id, id, to...), id)
		if err != nil {
			t.Fatal(err)
		}
		return accepted.GetReceipt().GetEnvelopeId()
	}
	kept := send("kept", "H29", "H43")
	if _, _, err := receiveOne(ctx, m.agency("nam", "H43")); err != nil {
		t.Fatal(err)
	}
	later := send("later", "H43")
	if _, _, err := receiveOne(ctx, m.agency("nam", "H43")); err != nil {
		t.Fatal(err)
	}
	// What was confirmed by all is let go, so what is held is held on purpose.
	until(t, ctx, "the later one let go", func() (bool, string) { return !held(later), "held" })
	if !held(kept) {
		t.Error("the ingress let content go that H29 has not confirmed")
	}
	if _, content, err := receiveOne(ctx, m.agency("bac", "H29")); err != nil || content != "kept" {
		t.Fatalf("H29: got %q, %v", content, err)
	}
	until(t, ctx, "all let go", func() (bool, string) { return !held(kept), "held" })
}

// Promise 4: of many documents with one id that come in at once, one is accepted,
// and its repeats get its receipt.
func TestOneDocumentPerID(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.serving("bac")
	m.putAgency("G22", "bac")
	m.putAgency("H26", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := m.agency("bac", "G22")
	const rounds, rivals = 20, 4
	for round := range rounds {
		answers := make([]*exchangev1.SubmitAccepted, 2*rivals)
		failures := make([]error, 2*rivals)
		var sending sync.WaitGroup
		for i := range answers {
			sending.Go(func() {
				content := strings.Repeat(fmt.Sprint(i/2), 1000) // each content twice
				answers[i], failures[i] = submit(ctx, client, document("G22", fmt.Sprint(round), content, "H26"), content)
			})
		}
		sending.Wait()
		accepted := map[envelope.ID]int{}
		for i, err := range failures {
			switch {
			case err == nil:
				accepted[envelope.ID(answers[i].GetReceipt().GetEnvelopeId())]++
			case has(err, exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED),
				has(err, exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT): // the same on another stream
			default:
				t.Errorf("round %d: %v", round, err)
			}
		}
		if len(accepted) != 1 {
			t.Fatalf("round %d: %d documents with one id were accepted", round, len(accepted))
		}
	}
	stream, err := m.agency("bac", "H26").Receive(ctx, &exchangev1.ReceiveRequest{Drain: true})
	if err != nil {
		t.Fatal(err)
	}
	inbox := 0
	for ; err == nil; inbox++ {
		_, err = stream.Recv()
	}
	if inbox--; inbox != rounds {
		t.Errorf("inbox: %d documents, want %d", inbox, rounds)
	}
}

// Promise 5: bytes that are not those of the header are taken neither from an
// agency nor from a relay, small or large, and the right ones are afterwards.
func TestOtherBytesAreRefused(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.start("nam", nil)
	m.serving("bac", "nam")
	m.putAgency("G22", "bac")
	m.putAgency("H29", "nam")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := m.agency("bac", "G22")
	for _, size := range []int{10, 3 << 20} {
		content := strings.Repeat("a", size)
		h := document("G22", fmt.Sprint(size), content, "H29")
		if _, err := submit(ctx, client, h, content[1:]+"b"); !has(err, exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH) {
			t.Errorf("%d bytes of an agency: got %v, want HASH_MISMATCH", size, err)
		}
		if _, err := submit(ctx, client, h, content[1:]); !has(err, exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH) {
			t.Errorf("one byte less than %d: got %v, want SIZE_MISMATCH", size, err)
		}
		if _, err := submit(ctx, client, h, content+"a"); !has(err, exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH) {
			t.Errorf("one byte more than %d: got %v, want SIZE_MISMATCH", size, err)
		}
		if _, err := submit(ctx, client, h, content); err != nil {
			t.Errorf("%d bytes as declared: %v", size, err)
		}
	}
	h := document("G22", "hop", "right", "H29")
	id, canonical, err := envelope.HeaderID(h)
	if err != nil {
		t.Fatal(err)
	}
	offer := &relayv1.Offer{EnvelopeId: id[:], Header: canonical, IngressRelayId: "bac", AcceptedAt: timestamppb.Now(), DestinationRelayId: "nam",
		AgencyCodes: []string{"H29"}, Purpose: relayv1.Purpose_PURPOSE_DELIVER, Content: [][]byte{[]byte("wrong")}}
	if answer := m.offerAs(ctx, "bac", "nam", offer); answer.GetRefused().GetReason() != exchangev1.ErrorReason_ERROR_REASON_HASH_MISMATCH {
		t.Errorf("other bytes of a relay: got %v, want HASH_MISMATCH", answer)
	}
	offer.Content = [][]byte{[]byte("right")}
	if answer := m.offerAs(ctx, "bac", "nam", offer); answer.GetAccepted() == nil {
		t.Errorf("the right bytes: got %v", answer)
	}
}
