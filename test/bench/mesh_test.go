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

	"github.com/truclienthong/truc/cmd/relayd/node"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/test/mesh"
)

// BenchmarkEndToEnd sends documents from an agency at one relay to an agency at
// another: submit, receipt, forward, fetch, verify, confirm. In flight is the
// number of documents between submit and confirmation at any moment. It reports
// whole envelopes per second, and the times from submit to receipt and from
// submit to the recipient having the verified bytes.
func BenchmarkEndToEnd(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"2KB", 2 << 10}, {"100KB", 100 << 10}, {"1MB", 1 << 20}} {
		for _, inFlight := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/inflight=%d", size.name, inFlight), func(b *testing.B) {
				endToEnd(b, size.bytes, inFlight)
			})
		}
	}
}

// letter is one document on its way.
type letter struct {
	begun     time.Time
	receipt   time.Duration
	delivery  time.Duration
	confirmed chan struct{}
}

func endToEnd(b *testing.B, size, inFlight int) {
	// One agency sends here what thousands do elsewhere.
	m := mesh.Start(b, mesh.Config{Adjust: func(_ string, c *node.Config) { c.Limits.Rate = -1 }})
	sender, recipient := m.Agency("H17.97.08"), m.Agency("G22")
	content := make([]byte, size)
	source := rand.New(rand.NewPCG(1, 2))
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(content[i:], source.Uint64())
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var letters sync.Map // by document id
	var receiving sync.WaitGroup
	receiving.Go(func() { receive(ctx, b, recipient.Client, inFlight, &letters) })

	all := make([]*letter, b.N)
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
				l := &letter{begun: time.Now(), confirmed: make(chan struct{})}
				all[i] = l
				letters.Store(document.Header.GetDocumentId(), l)
				if _, err := sender.Client.Submit(ctx, document); err != nil {
					b.Error(err)
					return
				}
				l.receipt = time.Since(l.begun)
				select {
				case <-l.confirmed:
				case <-time.After(time.Minute):
					b.Errorf("document %d was not delivered within a minute", i)
					return
				}
			}
		})
	}
	sending.Wait()
	b.StopTimer()
	cancel()
	receiving.Wait()
	if b.Failed() {
		return
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "envelopes/s")
	report(b, all, "receipt", func(l *letter) time.Duration { return l.receipt })
	report(b, all, "delivery", func(l *letter) time.Duration { return l.delivery })
}

// receive reads, verifies and confirms what arrives, as many at once as are in
// flight.
func receive(ctx context.Context, b *testing.B, client *agency.Client, workers int, letters *sync.Map) {
	arrivals := make(chan *agency.Arrival)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for a := range arrivals {
				l, ok := letters.Load(a.Envelope.GetHeader().GetDocumentId())
				if !ok {
					b.Errorf("envelope %s was not sent", a.ID)
					continue
				}
				if err := take(ctx, a, l.(*letter)); err != nil && ctx.Err() == nil {
					b.Error(err)
				}
			}
		})
	}
	for arrival, err := range client.Receive(ctx, agency.ReceiveOptions{}) {
		if err != nil {
			break
		}
		arrivals <- arrival
	}
	close(arrivals)
	group.Wait()
}

func take(ctx context.Context, a *agency.Arrival, l *letter) error {
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
	l.delivery = time.Since(l.begun)
	if err := a.Confirm(ctx); err != nil {
		return err
	}
	close(l.confirmed)
	return nil
}

func report(b *testing.B, letters []*letter, what string, of func(*letter) time.Duration) {
	times := make([]time.Duration, len(letters))
	for i, l := range letters {
		times[i] = of(l)
	}
	slices.Sort(times)
	ms := func(q float64) float64 {
		return float64(times[int(q*float64(len(times)-1))]) / float64(time.Millisecond)
	}
	b.ReportMetric(ms(0.5), "ms-p50-"+what)
	b.ReportMetric(ms(0.99), "ms-p99-"+what)
}
