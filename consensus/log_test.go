package consensus_test

import (
	"context"
	"log/slog"
	"sync"
)

// logTo keeps lines as "LEVEL message follower".
func logTo(mu *sync.Mutex, lines *[]string) *slog.Logger { return slog.New(keeper{mu, lines}) }

type keeper struct {
	mu    *sync.Mutex
	lines *[]string
}

func (keeper) Enabled(context.Context, slog.Level) bool { return true }
func (k keeper) WithAttrs([]slog.Attr) slog.Handler     { return k }
func (k keeper) WithGroup(string) slog.Handler          { return k }

func (k keeper) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "follower" {
			line += " " + a.Value.String()
		}
		return true
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	*k.lines = append(*k.lines, line)
	return nil
}
