package spool_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
)

// Sixteen writers commit envelopes, each durable before the next; with
// "settled" each is confirmed by its recipient a little later, as in a relay
// that keeps up.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{2 << 10, 100 << 10} {
		for _, settled := range []bool{false, true} {
			name := fmt.Sprintf("%dKB", size>>10)
			if settled {
				name += "-settled"
			}
			b.Run(name, func(b *testing.B) {
				s := start(b, spool.Config{Dir: b.TempDir(), Self: self})
				template := newParcel(1, size)
				content := template.content[0]
				var seed atomic.Uint64
				b.SetBytes(int64(size))
				b.SetParallelism(16 / runtime.GOMAXPROCS(0))
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					ctx := context.Background()
					for pb.Next() {
						c := template.Custody
						c.Header = fmt.Appendf(nil, "header %d", seed.Add(1))
						c.DocumentID = string(c.Header)
						c.ID = envelope.ComputeID("H26", "", c.Header)
						c.Inboxes = append(c.Inboxes, "A")
						in, err := s.Begin(ctx, &c)
						if err != nil {
							b.Error(err)
							return
						}
						if err := in.Write(ctx, 0, 0, content); err != nil {
							b.Error(err)
							return
						}
						if _, err := in.Commit(ctx); err != nil {
							b.Error(err)
							return
						}
						in.Close()
						if !settled {
							continue
						}
						if _, err := s.Settle(ctx, []envelope.Settlement{{ID: c.ID, Agency: "A", Transport: done}}); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
				b.StopTimer()
				s.end()
			})
		}
	}
}
