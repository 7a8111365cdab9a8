package relay

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/routing"
)

// Who is believed about this relay: with several peers, not one alone.
func TestHearsay(t *testing.T) {
	for _, c := range []struct {
		name  string
		peers int
		say   map[routing.RelayID]uint64
		out   bool
	}{
		{"nobody", 2, nil, false},
		{"the only peer", 1, map[routing.RelayID]uint64{"r1": 100}, true},
		{"one of two", 2, map[routing.RelayID]uint64{"r1": 100}, false},
		{"both", 2, map[routing.RelayID]uint64{"r1": 100, "r2": 100}, true},
		{"two of four", 4, map[routing.RelayID]uint64{"r1": 100, "r4": 100}, true},
		{"with an older directory", 1, map[routing.RelayID]uint64{"r1": 1}, false},
		{"one that this relay does not know", 1, map[routing.RelayID]uint64{"x": 100}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := directoryWith(t, "self", c.peers)
			var h hearsay
			for peer, version := range c.say {
				if !h.hear(peer, true, version) {
					t.Errorf("%s says nothing new", peer)
				}
			}
			if got := h.takenOut("self", d.View()); (got != "") != c.out {
				t.Errorf("taken out: %q, want %t", got, c.out)
			}
			for peer := range c.say {
				h.hear(peer, false, 100)
			}
			if got := h.takenOut("self", d.View()); got != "" {
				t.Errorf("after it was taken back: %q", got)
			}
		})
	}
}

// directoryWith is a directory with a relay and peers r1, r2, ….
func directoryWith(t *testing.T, self string, peers int) *routing.Directory {
	t.Helper()
	d := routing.NewDirectory()
	ids := []string{self}
	for i := range peers {
		ids = append(ids, fmt.Sprintf("r%d", i+1))
	}
	for _, id := range ids {
		command, err := proto.Marshal(&directoryv1.Command{Version: 1, At: timestamppb.Now(), Change: &directoryv1.Command_PutRelay{
			PutRelay: &directoryv1.PutRelay{Relay: &directoryv1.Relay{Id: id, Region: "Bắc", Address: id + ":7400"}}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Apply(command); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(d.View().Relays()); n != len(ids) {
		t.Fatalf("%d relays, want %d", n, len(ids))
	}
	return d
}
