package relay_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay"
)

// Relays whose clocks differ by an hour pass documents in both directions, and
// each sender learns that its own arrived.
func TestClocksThatDiffer(t *testing.T) {
	m := newMesh(t)
	for id, off := range map[string]time.Duration{"bac": time.Hour, "trung": -time.Hour, "nam": 0} {
		m.start(id, func(c *relay.Config) { c.Clock = func() time.Time { return time.Now().Add(off) } })
	}
	m.serving("bac", "trung", "nam")
	homes := map[string]string{"G22": "bac", "H48": "trung", "H29": "nam"}
	for code, home := range homes {
		m.putAgency(code, home)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for from := range homes {
		for to := range homes {
			sender := m.agency(homes[from], from)
			id := from + "-" + to
			h := document(from, id, "x", to)
			if _, err := submit(ctx, sender, h, "x"); err != nil {
				t.Fatalf("%s: %v", id, err)
			}
			if _, content, err := receiveOne(ctx, m.agency(homes[to], to)); err != nil || content != "x" {
				t.Fatalf("%s: got %q, %v", id, content, err)
			}
			until(t, ctx, id+" done", func() (bool, string) {
				answer, err := sender.Track(ctx, &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: id}})
				if err != nil || len(answer.GetDeliveries()) != 1 {
					return false, fmt.Sprint(answer, err)
				}
				got := answer.GetDeliveries()[0].GetTransport()
				return got == exchangev1.TransportStatus_TRANSPORT_STATUS_DONE, got.String()
			})
		}
	}
}
