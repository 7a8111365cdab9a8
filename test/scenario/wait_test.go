package scenario

import (
	"context"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/truclienthong/truc/cmd/relayd/node"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
)

// every looks at a condition that nothing announces; false: ctx ended.
func every(ctx context.Context, holds func() bool) bool {
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for !holds() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// inParallel does something n times, so many at once.
func inParallel[T any](t *testing.T, n, atOnce int, do func(i int) (T, error)) []T {
	t.Helper()
	results := make([]T, n)
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i := range n {
		group.Go(func() (err error) {
			results[i], err = do(i)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return results
}

// receiveOnce receives and confirms envelopes until all of them have come, each
// once, and nothing else.
func receiveOnce(t *testing.T, client *agency.Client, ids []envelope.ID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	due := map[envelope.ID]bool{}
	for _, id := range ids {
		due[id] = true
	}
	var mu sync.Mutex
	var confirming errgroup.Group
	confirming.SetLimit(64)
	for len(due) > 0 {
		for arrival, err := range client.Receive(ctx, agency.ReceiveOptions{}) {
			if err != nil {
				t.Fatalf("%d are still to come: %v", len(due), err)
			}
			mu.Lock()
			if !due[arrival.ID] {
				t.Errorf("envelope %s came again, or is none of these", arrival.ID)
			}
			delete(due, arrival.ID)
			left := len(due)
			mu.Unlock()
			confirming.Go(func() error { return arrival.Confirm(ctx) })
			if left == 0 {
				break
			}
		}
	}
	if err := confirming.Wait(); err != nil {
		t.Error(err)
	}
}

// unlimited lets one agency hand over as fast as it can.
func unlimited(_ string, c *node.Config) { c.Limits.Rate, c.Limits.Burst = -1, -1 }
