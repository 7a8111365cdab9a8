package forward_test

import (
	"fmt"
	"slices"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/routing"
)

const (
	khan       = exchangev1.Priority_PRIORITY_KHAN
	thuongKhan = exchangev1.Priority_PRIORITY_THUONG_KHAN
	hoaToc     = exchangev1.Priority_PRIORITY_HOA_TOC
)

// Of entries that all wait, every seventeenth is of a lower lane, the lowest
// first and then each in its turn; the others go in lane order.
func TestLowerLanesHaveTheirTurns(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.nodes[bac].tune = func(c *forward.Config) { c.Window = 1 }
		sent := make(map[exchangev1.Priority][]envelope.ID)
		send := func(p exchangev1.Priority, n int) {
			for i := range n {
				content := []byte(fmt.Sprint(p, i))
				sent[p] = append(sent[p], m.nodes[bac].accept(letter(string(content), p, content), [][]byte{content}, atNam))
			}
		}
		send(khan, 3)
		send(thuongKhan, 3)
		send(hoaToc, 60)
		m.start()
		until(t, "all delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
		h, tk, k := sent[hoaToc], sent[thuongKhan], sent[khan]
		want := slices.Concat(h[:16], k[:1], h[16:32], tk[:1], h[32:48], k[1:2], h[48:], tk[1:], k[2:])
		if got := m.nodes[nam].spool.inbox(atNam); !slices.Equal(got, want) {
			t.Errorf("arrived in order\n%v, want\n%v", got, want)
		}
	})
}

// Hỏa tốc comes in as fast as it is taken: the lanes below still go on, those
// whose content travels in chunks too.
func TestNoLaneStarves(t *testing.T) {
	for name, size := range map[string]int{"small": 1000, "large": 300 << 10} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
				m.nodes[bac].tune = func(c *forward.Config) { c.Window, c.Transfers = 1, 1 }
				content, sent := bulk(size), 0
				send := func(p exchangev1.Priority) envelope.ID {
					sent++
					return m.nodes[bac].accept(letter(fmt.Sprint(sent), p, content), [][]byte{content}, atNam)
				}
				first := []envelope.ID{send(khan), send(khan), send(thuongKhan)}
				for range 3 {
					send(hoaToc)
				}
				m.nodes[nam].spool.onCommit = func(envelope.ID) {
					if sent < 150 {
						send(hoaToc)
					}
				}
				m.start()
				until(t, "all delivered", func() bool { return m.nodes[bac].spool.queued() == 0 })
				inbox := m.nodes[nam].spool.inbox(atNam)
				for i, id := range first {
					if at, most := slices.Index(inbox, id), 2+17*len(first); at > most {
						t.Errorf("%d of the lower lanes arrived as number %d, want at most %d", i, at, most)
					}
				}
			})
		})
	}
}

// What cannot be offered now has no turn, and costs the lanes above nothing.
func TestHeldHasNoTurn(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.nodes[bac].tune = func(c *forward.Config) { c.Window = 1 }
		content := []byte("x")
		held := m.nodes[bac].accept(letter("held", khan, content), [][]byte{content}, atNam)
		m.nodes[bac].spool.queues[nam][0].Held = true
		free := m.nodes[bac].accept(letter("free", khan, content), [][]byte{content}, atNam)
		for i := range 20 {
			m.nodes[bac].accept(letter(fmt.Sprint(i), hoaToc, content), [][]byte{content}, atNam)
		}
		m.start()
		until(t, "all delivered but one", func() bool { return m.nodes[bac].spool.queued() == 1 })
		inbox := m.nodes[nam].spool.inbox(atNam)
		if at := slices.Index(inbox, free); at != 16 || slices.Contains(inbox, held) {
			t.Errorf("the free one arrived as number %d, want 16, and the held one not", at)
		}
	})
}
