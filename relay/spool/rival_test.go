package spool_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
)

// Of two documents with one id that are committed at once, one is refused, also
// where the first becomes durable while the second is being decided on.
func TestRivalsForADocumentID(t *testing.T) {
	var calls atomic.Int32
	var first atomic.Pointer[chan struct{}] // closed when a commit has returned
	cfg := config(t)
	cfg.Clock = func() time.Time {
		// The second to decide has looked at the index, and waits here.
		if returned := first.Load(); returned != nil && calls.Add(1) == 2 {
			// The other cannot return where this one has the order by now.
			select {
			case <-*returned:
			case <-time.After(20 * time.Millisecond):
			}
		}
		return time.Now()
	}
	n := start(t, cfg)
	for round := range uint64(20) {
		rivals := []*parcel{newParcel(2*round, 100).inbox("H1").fromSender(), newParcel(2*round+1, 100).inbox("H1").fromSender()}
		returned, once := make(chan struct{}), sync.Once{}
		calls.Store(0)
		first.Store(&returned)
		var accepted atomic.Int32
		var committing sync.WaitGroup
		for _, p := range rivals {
			p.DocumentID = fmt.Sprint("rivals ", round)
			p.ID = envelope.ComputeID(string(p.Sender), p.DocumentID, p.Header)
			committing.Go(func() {
				if _, err := n.put(p); err == nil {
					accepted.Add(1)
				}
				once.Do(func() { close(returned) })
			})
		}
		committing.Wait()
		first.Store(nil)
		if got := accepted.Load(); got != 1 {
			t.Fatalf("round %d: %d of two documents with one id were accepted", round, got)
		}
	}
	n.end()
	check(t, cfg)
}
