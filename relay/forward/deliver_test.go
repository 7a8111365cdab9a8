package forward_test

import (
	"fmt"
	"testing"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

func TestOneCopyPerDestination(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		for _, code := range []routing.AgencyCode{"H01", "H02", "H03"} {
			m.putAgency(code, nam)
		}
		m.start()
		id := m.nodes[bac].send("1", atTrung, atNam, "H01", "H02", "H03")
		until(t, "handed on", func() bool { return m.nodes[bac].spool.queued() == 0 })

		for relay, codes := range map[routing.RelayID][]routing.AgencyCode{
			trung: {atTrung}, nam: {atNam, "H01", "H02", "H03"},
		} {
			if got := m.nodes[relay].spool.commitsOf(id); got != 1 {
				t.Errorf("%s took custody %d times, want once", relay, got)
			}
			for _, code := range codes {
				if got := m.nodes[relay].spool.inbox(code); len(got) != 1 || got[0] != id {
					t.Errorf("inbox of %s at %s: %v, want the envelope once", code, relay, got)
				}
			}
		}
		if got := len(m.nodes[bac].spool.handOns()); got != 2 {
			t.Errorf("handed on %d times, want once for each destination relay", got)
		}
	})
}

func TestManyArriveOnce(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, nam}, func(t *testing.T, m *mesh) {
		m.start()
		const n = 700 // more than a window and several pages
		ids := make([]envelope.ID, n)
		for i := range ids {
			ids[i] = m.nodes[bac].send(fmt.Sprint(i), atNam)
		}
		until(t, "all handed on", func() bool { return m.nodes[bac].spool.queued() == 0 })
		if got := len(m.nodes[nam].spool.inbox(atNam)); got != n {
			t.Errorf("inbox holds %d, want %d", got, n)
		}
		for _, id := range ids {
			if got := m.nodes[nam].spool.commitsOf(id); got != 1 {
				t.Fatalf("%s committed %d times, want once", id, got)
			}
		}
		if got := m.nodes[nam].sessionsOpened(); got != 1 {
			t.Errorf("%d sessions were opened, want 1", got)
		}
	})
}
