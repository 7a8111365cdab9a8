package spool_test

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
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

// A queue that is read all the time, also at the instant between the counting of
// its first entry and its appearance, shows that entry in the end.
func TestQueueReadWhileItBegins(t *testing.T) {
	n := start(t, config(t))
	for i := range uint64(200) {
		relay := routing.RelayID(fmt.Sprintf("relay-%d", i))
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := n.Queue(relay, envelope.Position{}, 10); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		n.mustPut(newParcel(i, 100).onward(relay, "G22"))
		close(stop)
		readers.Wait()
		if got := len(n.queueOf(relay)); got != 1 {
			t.Fatalf("round %d: %d entries in the queue, want 1", i, got)
		}
	}
}
