package forward_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// A relay that takes no envelopes, because it drains or its disk is full, still
// learns what became of those it accepted, past urgent ones that wait for it;
// else it could never end its duties.
func TestReportsReachARelayThatTakesNoEnvelopes(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		var decided atomic.Bool
		m.nodes[nam].spool.onBegin = func(envelope.ID) error {
			if !decided.Load() {
				return errors.New("not now")
			}
			return envelope.Refuse(tooLarge, "larger than is taken")
		}
		m.start()
		m.cutLink(bac, nam)
		id := m.nodes[bac].send("1", atNam)
		until(t, "on its way", func() bool { return m.nodes[trung].spool.queued() == 1 })
		m.nodes[bac].set(func() { m.nodes[bac].accepting = envelope.Refuse(notServing, "draining") })
		pass(10 * time.Second) // trung has heard of it
		content := []byte("hỏa tốc")
		waits := m.nodes[trung].accept(letter("2", exchangev1.Priority_PRIORITY_HOA_TOC, content), [][]byte{content}, atBac)
		decided.Store(true)
		until(t, "reported", func() bool { return len(m.nodes[bac].reports.list()) > 0 })
		if got := m.nodes[bac].reports.list()[0]; got.ID != id || got.Transport != fail {
			t.Errorf("reported %+v", got)
		}
		if m.nodes[bac].has(waits, atBac) {
			t.Error("a document was taken")
		}
		m.nodes[bac].set(func() { m.nodes[bac].accepting = nil })
		until(t, "delivered", func() bool { return m.nodes[bac].has(waits, atBac) })
	})
}
