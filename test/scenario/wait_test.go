package scenario

import (
	"context"
	"time"
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
