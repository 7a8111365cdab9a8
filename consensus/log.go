package consensus

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// bridge hands the lines of Raft's logger to slog.
type bridge struct {
	logger *slog.Logger
	name   string
	args   []any
}

var _ hclog.Logger = (*bridge)(nil)

func (b *bridge) Log(level hclog.Level, msg string, args ...any) {
	l, ok := slogLevel[level]
	if !ok || !b.logger.Enabled(context.Background(), l) {
		return
	}
	b.logger.Log(context.Background(), l, msg, attributes(args)...)
}

// slogLevel places Raft's lines. Its errors are mostly members that do not
// answer, which is expected in a mesh; what must stop the node comes to us as
// an error and is logged as one.
var slogLevel = map[hclog.Level]slog.Level{
	hclog.Trace: slog.LevelDebug - 4,
	hclog.Debug: slog.LevelDebug,
	hclog.Info:  slog.LevelInfo,
	hclog.Warn:  slog.LevelWarn,
	hclog.Error: slog.LevelWarn,
}

// attributes formats what hclog formats late.
func attributes(args []any) []any {
	out := make([]any, len(args))
	for i, arg := range args {
		if f, ok := arg.(hclog.Format); ok && len(f) > 0 {
			arg = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
		out[i] = arg
	}
	return out
}

func (b *bridge) Trace(msg string, args ...any) { b.Log(hclog.Trace, msg, args...) }
func (b *bridge) Debug(msg string, args ...any) { b.Log(hclog.Debug, msg, args...) }
func (b *bridge) Info(msg string, args ...any)  { b.Log(hclog.Info, msg, args...) }
func (b *bridge) Warn(msg string, args ...any)  { b.Log(hclog.Warn, msg, args...) }
func (b *bridge) Error(msg string, args ...any) { b.Log(hclog.Error, msg, args...) }

func (b *bridge) enabled(l hclog.Level) bool {
	return b.logger.Enabled(context.Background(), slogLevel[l])
}
func (b *bridge) IsTrace() bool { return b.enabled(hclog.Trace) }
func (b *bridge) IsDebug() bool { return b.enabled(hclog.Debug) }
func (b *bridge) IsInfo() bool  { return b.enabled(hclog.Info) }
func (b *bridge) IsWarn() bool  { return b.enabled(hclog.Warn) }
func (b *bridge) IsError() bool { return b.enabled(hclog.Error) }

// SetLevel does nothing: slog's handler decides.
func (b *bridge) SetLevel(hclog.Level) {}

func (b *bridge) GetLevel() hclog.Level {
	for _, l := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn} {
		if b.enabled(l) {
			return l
		}
	}
	return hclog.Error
}

func (b *bridge) ImpliedArgs() []any { return b.args }
func (b *bridge) Name() string       { return b.name }

func (b *bridge) With(args ...any) hclog.Logger {
	return &bridge{
		logger: b.logger.With(attributes(args)...), name: b.name,
		args: append(append([]any(nil), b.args...), args...),
	}
}

func (b *bridge) Named(name string) hclog.Logger {
	if b.name != "" {
		name = b.name + "." + name
	}
	return b.ResetNamed(name)
}

func (b *bridge) ResetNamed(name string) hclog.Logger {
	return &bridge{logger: b.logger, name: name, args: b.args}
}

func (b *bridge) StandardLogger(opts *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(b.StandardWriter(opts), "", 0)
}

func (b *bridge) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lines{b.logger} }

type lines struct{ logger *slog.Logger }

func (l lines) Write(p []byte) (int, error) {
	l.logger.Info(string(p))
	return len(p), nil
}
