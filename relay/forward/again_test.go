package forward_test

import (
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// What an operator wants tried now does not wait until the queue is read from
// its beginning by itself, nor for the end of a destination's pause.
func TestAgain(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		first := true
		m.nodes[nam].spool.onBegin = func(envelope.ID) error {
			if first {
				first = false
				refusal := envelope.Refuse(rateLimited, "much later")
				refusal.RetryAfter = time.Hour
				return refusal
			}
			return nil
		}
		id := m.nodes[bac].send("waits", atNam)
		m.start()
		spool := m.nodes[bac].spool
		until(t, "deferred", func() bool { return spool.deferrals(id) == 1 })
		began := time.Now()
		if err := spool.Defer(t.Context(), id, nam, 1, began, "tried again"); err != nil {
			t.Fatal(err)
		}
		m.nodes[bac].forwarder.Again(nam)
		until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) })
		if took := time.Since(began); took > time.Second {
			t.Errorf("tried again after %s", took)
		}
		m.nodes[bac].forwarder.Again("tay") // a relay that nothing was queued for
	})
}
