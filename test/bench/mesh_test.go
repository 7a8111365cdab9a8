// Package bench measures the mesh as a whole, with durability fully on: real
// sockets, mutual TLS, sync before the receipt, hashes checked at every hop.
//
//	go test -run '^$' -bench . ./test/bench
package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/test/mesh"
)

// BenchmarkEndToEnd sends documents from an agency at one relay to an agency at
// another: submit, receipt, forward, fetch, verify, confirm. It reports whole
// envelopes per second, and the times from submit to receipt and from submit to
// the recipient having the verified bytes.
func BenchmarkEndToEnd(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"2KB", 2 << 10}, {"100KB", 100 << 10}, {"1MB", 1 << 20}} {
		for _, inFlight := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/inflight=%d", size.name, inFlight), func(b *testing.B) {
				endToEnd(b, size.bytes, inFlight)
			})
		}
	}
}

func endToEnd(b *testing.B, size, inFlight int) {
	m := mesh.Start(b, mesh.Config{})
	sender, recipient := m.Agency("H17.97.08"), m.Agency("G22")
	content := make([]byte, size)
	source := rand.New(rand.NewPCG(1, 2))
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(content[i:], source.Uint64())
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var begun sync.Map // document id to the time of its submit
	arrived := make(chan time.Duration, b.N)
	var receiving sync.WaitGroup
	receiving.Go(func() { receive(ctx, b, recipient.Client, inFlight, &begun, arrived) })

	receipts := make([]time.Duration, b.N)
	var next atomic.Int64
	b.SetBytes(int64(size))
	b.ResetTimer()
	var sending sync.WaitGroup
	for range inFlight {
		sending.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return
				}
				own := slices.Clone(content)
				binary.LittleEndian.PutUint64(own, uint64(i))
				document := sender.Document(mesh.Files{"cv.pdf": own}, "G22")
				start := time.Now()
				begun.Store(document.Header.GetDocumentId(), start)
				if _, err := sender.Client.Submit(ctx, document); err != nil {
					b.Error(err)
					return
				}
				receipts[i] = time.Since(start)
			}
		})
	}
	sending.Wait()
	delivered := make([]time.Duration, 0, b.N)
	for range b.N {
		select {
		case d := <-arrived:
			delivered = append(delivered, d)
		case <-time.After(time.Minute):
			b.Fatalf("%d of %d arrived", len(delivered), b.N)
		}
	}
	b.StopTimer()
	cancel()
	receiving.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "envelopes/s")
	report(b, receipts, "receipt")
	report(b, delivered, "delivery")
}

// receive reads, verifies and confirms what arrives, as many at once as are
// sent at once.
func receive(ctx context.Context, b *testing.B, client *agency.Client, workers int, begun *sync.Map, arrived chan<- time.Duration) {
	arrivals := make(chan *agency.Arrival)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for a := range arrivals {
				if err := take(ctx, a); err != nil && ctx.Err() == nil {
					b.Error(err)
					continue
				}
				if start, ok := begun.Load(a.Envelope.GetHeader().GetDocumentId()); ok && ctx.Err() == nil {
					arrived <- time.Since(start.(time.Time))
				}
			}
		})
	}
	for arrival, err := range client.Receive(ctx, agency.ReceiveOptions{InlineLimit: 256 << 10}) {
		if err != nil {
			break
		}
		arrivals <- arrival
	}
	close(arrivals)
	group.Wait()
}

func take(ctx context.Context, a *agency.Arrival) error {
	for i := range a.Envelope.GetHeader().GetParts() {
		part, err := a.Part(ctx, i)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, part)
		part.Close()
		if err != nil {
			return err
		}
	}
	return a.Confirm(ctx)
}

func report(b *testing.B, times []time.Duration, what string) {
	slices.Sort(times)
	ms := func(q float64) float64 {
		return float64(times[int(q*float64(len(times)-1))]) / float64(time.Millisecond)
	}
	b.ReportMetric(ms(0.5), "ms-p50-"+what)
	b.ReportMetric(ms(0.99), "ms-p99-"+what)
}
