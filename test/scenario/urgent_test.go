package scenario

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"

	"github.com/truclienthong/truc/cmd/relayd/node"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/test/faults"
	"github.com/truclienthong/truc/test/mesh"
	"github.com/truclienthong/truc/test/torture/tally"
)

// urgents is how many hỏa tốc are sent one after the other.
const urgents = 10

// Hỏa tốc documents overtake a backlog of ordinary ones, in the queue of the
// relay that accepted them and in the inbox of the recipient: 10,000 in the long
// form (TORTURE=long), which prints how long they took with and without.
func TestUrgentOvertakesABacklog(t *testing.T) {
	backlog := tally.Pick(400, 10_000)
	for _, place := range []string{"queue", "inbox"} {
		t.Run(place, func(t *testing.T) {
			m := mesh.Start(t, mesh.Config{Links: true, Adjust: func(_ string, c *node.Config) {
				c.Limits.Rate, c.CopyWait = -1, node.Duration(time.Millisecond)
			}})
			o := &overtaking{t: t, m: m, sender: onlyBy(t, m, "H17.97.08", "trung"), arrived: make(map[string]chan struct{})}
			stop := o.receive()
			alone := o.series()
			stop()

			// The backlog: at trung, which reaches nobody, or in the inbox at bac.
			links := slices.Concat(m.Between("trung", "bac"), m.Between("trung", "nam"))
			if place == "queue" {
				faults.Links(links).Cut()
				o.send(o.sender, backlog)
				faults.Links(links).Heal()
			} else {
				o.send(onlyBy(t, m, "H17.97.08", "bac"), backlog)
			}
			begun := time.Now()
			defer o.receive()()
			m.Await("the backlog moves", func(context.Context) error {
				if o.ordinary.Load() == 0 {
					return fmt.Errorf("nothing has arrived")
				}
				return nil
			})
			before := o.ordinary.Load()
			amid := o.series()
			passed := o.ordinary.Load() - before
			t.Logf("%d ordinary in the %s: hỏa tốc took %s at the median and %s at most, without backlog %s and %s; %d ordinary went before the first, %d while %d went one after the other",
				backlog, place, amid.median, amid.longest, alone.median, alone.longest, amid.passed, passed, urgents)
			// A hỏa tốc in its turn among them would have let all of them pass.
			if amid.passed > int64(backlog)/4 {
				t.Errorf("%d of %d ordinary documents went before the first hỏa tốc", amid.passed, backlog)
			}
			// The backlog is not forgotten.
			for last := o.ordinary.Load(); last < int64(backlog); last = o.ordinary.Load() {
				m.Await("more of the backlog arrives", func(context.Context) error {
					if o.ordinary.Load() == last {
						return fmt.Errorf("%d of %d have arrived", last, backlog)
					}
					return nil
				})
			}
			t.Logf("the backlog was delivered in %s", time.Since(begun).Round(time.Millisecond))
		})
	}
}

// overtaking counts what arrives at G22.
type overtaking struct {
	t        *testing.T
	m        *mesh.Mesh
	sender   *agency.Client
	ordinary atomic.Int64

	mu      sync.Mutex
	arrived map[string]chan struct{} // hỏa tốc, by document id
}

// receive takes and confirms what arrives until the returned function is called.
func (o *overtaking) receive() (stop func()) {
	ctx, cancel := context.WithCancel(o.t.Context())
	arrivals := make(chan *agency.Arrival)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for a := range arrivals {
				h := a.Envelope.GetHeader()
				if h.GetPriority() == exchangev1.Priority_PRIORITY_HOA_TOC {
					o.mu.Lock()
					close(o.arrived[h.GetDocumentId()])
					o.mu.Unlock()
				}
				if err := a.Confirm(ctx); err != nil && ctx.Err() == nil {
					o.t.Errorf("confirm %s: %v", a.ID, err)
				}
				if h.GetPriority() == exchangev1.Priority_PRIORITY_THUONG {
					o.ordinary.Add(1)
				}
			}
		})
	}
	group.Go(func() {
		defer close(arrivals)
		for a, err := range o.m.Agency("G22").Client.Receive(ctx, agency.ReceiveOptions{MaxUnconfirmed: 32}) {
			if err != nil {
				break
			}
			arrivals <- a
		}
	})
	return func() { cancel(); group.Wait() }
}

func (o *overtaking) document(priority exchangev1.Priority) agency.Document {
	d := o.m.Agency("H17.97.08").Document(mesh.Files{"cv.pdf": make([]byte, 2<<10)}, "G22")
	d.Header.Priority = priority
	return d
}

// send hands over n ordinary documents.
func (o *overtaking) send(by *agency.Client, n int) {
	var sending sync.WaitGroup
	var next atomic.Int64
	for range 32 {
		sending.Go(func() {
			for next.Add(1) <= int64(n) {
				if _, err := by.Submit(o.t.Context(), o.document(exchangev1.Priority_PRIORITY_THUONG)); err != nil {
					o.t.Error(err)
					return
				}
			}
		})
	}
	sending.Wait()
	if o.t.Failed() {
		o.t.FailNow()
	}
}

// times of a series, and how many ordinary documents arrived between the submit of
// the first and its arrival.
type times struct {
	median, longest time.Duration
	passed          int64
}

// series sends hỏa tốc one after the other, each when the last has arrived.
func (o *overtaking) series() (s times) {
	o.t.Helper()
	var took []time.Duration
	for i := range urgents {
		d := o.document(exchangev1.Priority_PRIORITY_HOA_TOC)
		arrived := make(chan struct{})
		o.mu.Lock()
		o.arrived[d.Header.GetDocumentId()] = arrived
		o.mu.Unlock()
		begun, before := time.Now(), o.ordinary.Load()
		if _, err := o.sender.Submit(o.t.Context(), d); err != nil {
			o.t.Fatal(err)
		}
		select {
		case <-arrived:
		case <-time.After(90 * time.Second):
			o.t.Fatalf("hỏa tốc %d has not arrived after 90 s", i)
		}
		took = append(took, time.Since(begun))
		if i == 0 {
			s.passed = o.ordinary.Load() - before
		}
	}
	slices.Sort(took)
	s.median, s.longest = took[len(took)/2].Round(100*time.Microsecond), took[len(took)-1].Round(100*time.Microsecond)
	return s
}
