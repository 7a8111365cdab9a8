package ingress_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
)

// What is damaged at home comes from the ingress, from where the good bytes
// end; where the ingress has lost it too, the recipient learns why.
func TestFetchGoesOnWithAnotherHolder(t *testing.T) {
	const text = "văn bản chính"
	m := newMesh(t, ingress.Limits{})
	whole, half, lost := m.deliver("whole", 0, text), m.deliver("half", 0, text), m.deliver("lost", 0, text)
	home, origin := m.relays["bac"].spool, m.relays["nam"].spool
	for _, id := range []envelope.ID{whole, half, lost} {
		origin.content[id] = [][]byte{[]byte(text)}
	}
	origin.damaged = map[envelope.ID]bool{lost: true}
	home.mu.Lock()
	home.damaged = map[envelope.ID]bool{whole: true, lost: true}
	home.content[half] = [][]byte{[]byte(text[:7])}
	home.mu.Unlock()

	for _, test := range []struct {
		name     string
		id       envelope.ID
		relay    string
		from, to uint64
		want     string
		reason   exchangev1.ErrorReason
	}{
		{name: "all of it", id: whole, relay: "bac", want: text},
		{name: "through the relay that the agency is attached to", id: whole, relay: "nam", want: text},
		{name: "a range", id: whole, relay: "bac", from: 4, to: 10, want: text[4:10]},
		{name: "behind the good bytes", id: half, relay: "bac", want: text},
		{name: "lost at both", id: lost, relay: "bac", reason: exchangev1.ErrorReason_ERROR_REASON_DAMAGED},
	} {
		t.Run(test.name, func(t *testing.T) {
			req := &exchangev1.FetchRequest{AgencyCode: "H26", EnvelopeId: test.id[:], Offset: test.from}
			if test.to > 0 {
				req.Length = test.to - test.from
			}
			stream, err := m.relays[routingRelay(test.relay)].agency.Fetch(as(t.Context(), "agency/H26"), req)
			var got bytes.Buffer
			for err == nil {
				var piece *exchangev1.FetchResponse
				if piece, err = stream.Recv(); err == nil {
					if at := test.from + uint64(got.Len()); piece.GetOffset() != at {
						t.Fatalf("piece at %d, want %d", piece.GetOffset(), at)
					}
					got.Write(piece.GetData())
				}
			}
			if test.reason != 0 && !has(err, test.reason) || test.reason == 0 && !errors.Is(err, io.EOF) {
				t.Errorf("ended with %v", err)
			}
			if got.String() != test.want {
				t.Errorf("got %q, want %q", got.String(), test.want)
			}
		})
	}
}
