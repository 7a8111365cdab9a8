package forward_test

import (
	"sync/atomic"
	"testing"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Code that panics about one envelope, on either side, stops that one alone, and
// it goes on once the fault is mended.
func TestPanicStopsOneEnvelope(t *testing.T) {
	for name, side := range map[string]func(m *mesh, fault func(envelope.ID)){
		"that hands it on": func(m *mesh, fault func(envelope.ID)) {
			m.nodes[bac].spool.onRead = func(id envelope.ID) error { fault(id); return nil }
		},
		"that takes it": func(m *mesh, fault func(envelope.ID)) { m.nodes[nam].spool.onCommit = fault },
	} {
		for size, content := range map[string][]byte{"small": bulk(10), "large": bulk(large)} {
			t.Run(name+", "+size, func(t *testing.T) {
				inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
					id := m.nodes[bac].accept(letter("bad", 0, content), [][]byte{content}, atNam)
					var mended atomic.Bool
					side(m, func(at envelope.ID) {
						if at == id && !mended.Load() {
							panic("a fault")
						}
					})
					m.start()
					other := m.nodes[bac].send("other", atNam)
					until(t, "other delivered", func() bool { return m.nodes[nam].has(other, atNam) })
					until(t, "tried again", func() bool { return m.nodes[bac].spool.deferrals(id) >= 3 })
					mended.Store(true)
					until(t, "delivered", func() bool { return m.nodes[nam].has(id, atNam) })
				})
			})
		}
	}
}
