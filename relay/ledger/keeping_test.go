package ledger_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/truclienthong/truc/relay/envelope"
)

// measured is how many confirmations were held against the limit of the law.
func (m *mesh) measured() (n int64) {
	m.t.Helper()
	var data metricdata.ResourceMetrics
	if err := m.metrics.Collect(m.t.Context(), &data); err != nil {
		m.t.Fatal(err)
	}
	for _, scope := range data.ScopeMetrics {
		for _, instrument := range scope.Metrics {
			if sum, ok := instrument.Data.(metricdata.Sum[int64]); ok && instrument.Name == "truc.ledger.accepted" {
				for _, p := range sum.DataPoints {
					n += p.Value
				}
			}
		}
	}
	return n
}

// Statements of one recipient that come at the same time are measured once.
func TestConfirmationsAtOnceAreMeasuredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		m.travel()
		const sync = time.Second
		m.spools["bac"].slow = sync
		var judged [3]envelope.Judgement
		var records [3]*envelope.Record
		for i := range judged {
			h := status("H43", "03")
			h.DocumentId += fmt.Sprint(i)
			var err error
			if judged[i], err = m.ledgers["bac"].Judge(t.Context(), "H43", h); err != nil || len(judged[i].Problems) > 0 {
				t.Fatal(judged[i], err)
			}
			_, canonical, err := envelope.HeaderID(h)
			if err != nil {
				t.Fatal(err)
			}
			c, err := envelope.NewCustody(h, canonical, envelope.Acceptance{Ingress: "bac", AcceptedAt: noon, FromSender: true})
			if err != nil {
				t.Fatal(err)
			}
			records[i] = &envelope.Record{Custody: *c}
		}
		for i := range judged {
			go func() {
				if err := judged[i].Hear(t.Context(), records[i]); err != nil {
					t.Error(err)
				}
			}()
		}
		time.Sleep(3*sync + sync/2)
		synctest.Wait()
		if said := len(m.spools["bac"].said); said != 3 {
			t.Errorf("kept %d statements, want all three", said)
		}
		if n := m.measured(); n != 1 {
			t.Errorf("measured %d times, want once", n)
		}
	})
}
