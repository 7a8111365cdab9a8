package ingress_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
)

// An urgent lane goes before the others and never holds one up for ever: after
// sixteen, one that waits below has its turn, the least urgent lane first.
func TestNoLaneStarves(t *testing.T) {
	const each = 50
	for _, test := range []struct {
		name  string
		lanes []envelope.Lane
		want  string // the lanes in order of arrival
	}{
		{"two lanes", []envelope.Lane{3, 0}, runs(16, 3, 1, 0, 16, 3, 1, 0, 16, 3, 1, 0, 2, 3, 47, 0)},
		{"three lanes, each in its turn", []envelope.Lane{3, 1, 0},
			runs(16, 3, 1, 0, 16, 3, 1, 1, 16, 3, 1, 0, 2, 3, 14, 1, 1, 0, 16, 1, 1, 0, 16, 1, 1, 0, 3, 1, 45, 0)},
		{"one lane", []envelope.Lane{2}, runs(50, 2)},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMesh(t, ingress.Limits{})
			for _, lane := range test.lanes {
				for i := range each {
					m.deliver(fmt.Sprintf("%d/%02d", lane, i), exchangev1.Priority(lane))
				}
			}
			var got string
			next := map[byte]int{}
			for _, id := range documents(m.drain("bac", "agency/H26", &exchangev1.ReceiveRequest{MaxUnconfirmed: 1000})) {
				got += id[:1]
				if want := fmt.Sprintf("%c/%02d", id[0], next[id[0]]); id != want {
					t.Fatalf("got %s, want %s: order within the lane", id, want)
				}
				next[id[0]]++
			}
			if got != test.want {
				t.Errorf("order of lanes:\ngot  %s\nwant %s", got, test.want)
			}
		})
	}
}

// runs writes "16, 3, 1, 0" as sixteen times 3 and one 0.
func runs(counts ...int) (s string) {
	for i := 0; i < len(counts); i += 2 {
		for range counts[i] {
			s += fmt.Sprint(counts[i+1])
		}
	}
	return s
}

// What an operator holds is passed by until it is released, and then comes,
// also where much was sent since; what is released soon after is not left out.
func TestHeldByAnOperator(t *testing.T) {
	inBubble(t, &exchangev1.ReceiveRequest{}, func(m *mesh, sent <-chan string) {
		inbox := m.relays["bac"].spool
		held := map[string]envelope.ID{}
		for name, priority := range map[string]exchangev1.Priority{"một": 0, "hai": 0, "khẩn": 1} {
			held[name] = m.deliverHeld(name, priority)
		}
		for range 20 {
			m.deliver(fmt.Sprint("sau ", time.Now()), 0)
			time.Sleep(time.Second)
		}
		time.Sleep(10 * time.Second)
		if ids := got(sent); len(ids) != 20 || slices.ContainsFunc(ids, func(id string) bool { return !held[id].IsZero() }) {
			t.Errorf("got %q, want twenty, and nothing that is held", ids)
		}
		inbox.hold(held["khẩn"], false)
		if ids := got(sent); !slices.Equal(ids, []string{"khẩn"}) {
			t.Errorf("released: got %q, want it at once", ids)
		}
		inbox.hold(held["một"], false)
		time.Sleep(100 * time.Millisecond)
		inbox.hold(held["hai"], false)
		time.Sleep(time.Second)
		ids := got(sent)
		slices.Sort(ids)
		if !slices.Equal(ids, []string{"hai", "một"}) {
			t.Errorf("a second after both were released: got %q", ids)
		}
	})
}

// deliverHeld is deliver for an envelope that is held when it arrives.
func (m *mesh) deliverHeld(id string, priority exchangev1.Priority) envelope.ID {
	m.t.Helper()
	inbox := m.relays["bac"].spool
	set := func(held bool) {
		inbox.mu.Lock()
		defer inbox.mu.Unlock()
		inbox.holdNew = held
	}
	set(true)
	defer set(false)
	return m.deliver(id, priority)
}
