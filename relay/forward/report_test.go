package forward_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// A relay on the way gives up, and the ingress learns of it.
func TestReportReachesIngress(t *testing.T) {
	inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
		m.nodes[nam].spool.onBegin = func(envelope.ID) error { return envelope.Refuse(tooLarge, "larger than is taken") }
		m.start()
		m.cutLink(bac, nam)
		id := m.nodes[bac].send("1", atNam)
		until(t, "reported", func() bool { return len(m.nodes[bac].reports.list()) > 0 })
		settled := settledAs(t, m.nodes[trung].spool, id, atNam, tooLarge)
		if settled.Report == nil {
			t.Fatal("no report was written")
		}
		got := m.nodes[bac].reports.list()[0]
		if got.ID != id || got.Agency != atNam || got.Transport != fail || got.Reason != tooLarge {
			t.Errorf("reported %+v", got)
		}
		until(t, "duty done", func() bool { return m.nodes[trung].spool.queued() == 0 })
		if n := len(m.nodes[bac].reports.list()); n != 1 {
			t.Errorf("reported %d times, want once", n)
		}
	})
}

// The ledger cannot take a report now, or never.
func TestReportRefused(t *testing.T) {
	for name, c := range map[string]struct {
		cause error
		gone  bool
	}{
		"for now":   {cause: errors.New("disk"), gone: false},
		"too early": {cause: envelope.Refuse(notHome, "it still waits here"), gone: false},
		"for good":  {cause: envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND, "unknown"), gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, []routing.RelayID{bac, trung, nam}, func(t *testing.T, m *mesh) {
				m.nodes[nam].spool.onBegin = func(envelope.ID) error { return envelope.Refuse(tooLarge, "larger than is taken") }
				m.nodes[bac].reports.refuse = c.cause
				m.start()
				m.cutLink(bac, nam)
				m.nodes[bac].send("1", atNam)
				until(t, "given up", func() bool { return len(m.nodes[trung].spool.settlements()) == 1 })
				pass(time.Minute)
				synctest.Wait()
				if gone := m.nodes[trung].spool.queued() == 0; gone != c.gone {
					t.Errorf("report left the queue: %t, want %t", gone, c.gone)
				}
				m.nodes[bac].reports.mu.Lock()
				m.nodes[bac].reports.refuse = nil
				m.nodes[bac].reports.mu.Unlock()
				if !c.gone {
					until(t, "reported", func() bool { return len(m.nodes[bac].reports.list()) == 1 })
				}
			})
		})
	}
}
