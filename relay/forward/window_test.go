package forward_test

import (
	"fmt"
	"testing"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
)

// Content that rides inside offers is in memory until they are answered: what is
// under way to one peer is bounded in bytes, on either side.
func TestWindowsInBytes(t *testing.T) {
	const size, fit = 200 << 10, 3
	for name, tune := range map[string]func(m *mesh){
		"of the sender":   func(m *mesh) { m.nodes[bac].tune = func(f *forward.Config) { f.InlineWindow = fit * size } },
		"of the receiver": func(m *mesh) { m.nodes[nam].tune = func(f *forward.Config) { f.MaxInline = fit * size } },
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				free := make(chan struct{})
				tune(m)
				m.nodes[nam].spool.onCommit = func(envelope.ID) { <-free }
				content := bulk(size)
				for i := range 4 * fit {
					m.nodes[bac].accept(letter(fmt.Sprint(i), 0, content), [][]byte{content}, atNam)
				}
				m.start()
				until(t, "window full", func() bool {
					m.nodes[nam].spool.mu.Lock()
					defer m.nodes[nam].spool.mu.Unlock()
					return m.nodes[nam].spool.begun == fit
				})
				close(free)
				until(t, "all delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
				if got := m.nodes[nam].spool.mostBegun; got != fit {
					t.Errorf("%d were under way at most, want %d", got, fit)
				}
			})
		})
	}
}
