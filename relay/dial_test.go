package relay_test

import (
	"context"
	"net"
	"testing"

	"github.com/truclienthong/truc/relay"
)

// Relays behind network address translation advertise addresses that nobody in
// this network can dial.
func TestDialMapsAdvertisedAddresses(t *testing.T) {
	m := newMesh(t)
	const bac, nam = "127.0.0.1:1", "127.0.0.1:2"
	listeners := map[string]net.Listener{}
	for _, advertised := range []string{bac, nam} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[advertised] = listener
	}
	dial := map[string]string{bac: listeners[bac].Addr().String(), nam: listeners[nam].Addr().String()}
	for id, advertised := range map[string]string{"bac": bac, "nam": nam} {
		m.startAt(listeners[advertised], id, func(c *relay.Config) { c.Address, c.Dial = advertised, dial })
	}
	m.serving("bac", "nam")
	m.putAgency("G22", "bac")
	m.putAgency("H26", "nam")

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := submit(ctx, m.agency("bac", "G22"), document("G22", "1", "nội dung", "H26"), "nội dung"); err != nil {
		t.Fatal(err)
	}
	if _, content, err := receiveOne(ctx, m.agency("nam", "H26")); err != nil || content != "nội dung" {
		t.Fatalf("received %q, %v; want the document", content, err)
	}
}
