package envelope_test

import (
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
)

// A document has arrived when its recipient's connector confirmed it, and not when
// it was handed on, or given up.
func TestAcceptedIsMeasuredFromTheArrival(t *testing.T) {
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, envelope.Vietnam())
	life := new(lifecycle.Life)
	life.Hear(lifecycle.Heard{Source: [16]byte{1}, Statement: lifecycle.Statement{
		Act: lifecycle.SaysAccepted, Code: "03", At: at.Add(time.Hour), Heard: at.Add(time.Hour)}})
	done, fail := exchangev1.TransportStatus_TRANSPORT_STATUS_DONE, exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL
	for _, test := range []struct {
		name     string
		delivery envelope.Delivery
		want     lifecycle.Keeping
		took     time.Duration
	}{
		{"confirmed and accepted", envelope.Delivery{Place: envelope.Settled, Transport: done, UpdatedAt: at, Life: life}, lifecycle.OnTime, time.Hour},
		{"confirmed, nothing said", envelope.Delivery{Place: envelope.Settled, Transport: done, UpdatedAt: at}, lifecycle.TooLate, 39 * time.Hour},
		{"given up", envelope.Delivery{Place: envelope.Settled, Transport: fail, UpdatedAt: at}, lifecycle.Unknown, 0},
		{"handed on", envelope.Delivery{Place: envelope.Elsewhere, UpdatedAt: at}, lifecycle.Unknown, 0},
		{"in the inbox", envelope.Delivery{Place: envelope.InInbox, UpdatedAt: at}, lifecycle.Unknown, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, took := test.delivery.Accepted(lifecycle.Calendar{}, at.Add(39*time.Hour))
			if got != test.want || took != test.took {
				t.Errorf("got %s, %s, want %s, %s", got, took, test.want, test.took)
			}
		})
	}
}
