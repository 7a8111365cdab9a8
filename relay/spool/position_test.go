package spool_test

import (
	"math"
	"testing"

	"github.com/truclienthong/truc/relay/envelope"
)

// A reader that wants one lane of a queue asks for what is behind the last of
// the lane before; it must not get that lane again.
func TestQueueBehindTheLastOfALane(t *testing.T) {
	n := start(t, config(t))
	ordinary := newParcel(1, 2000).onward("nam", "G22")
	n.mustPut(ordinary)
	urgent := newParcel(2, 2000).onward("nam", "G22")
	urgent.Lane = 1
	n.mustPut(urgent)
	page, err := n.Queue("nam", envelope.Position{Lane: 1, Sequence: math.MaxUint64}, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(page) != 1 || page[0].ID != ordinary.ID {
		t.Errorf("behind lane 1: %+v, want the ordinary envelope alone", page)
	}
	n.end()
}
