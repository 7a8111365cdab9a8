package simulation

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/test/history"
	"github.com/truclienthong/truc/tls"
)

// world is one mesh in its bubble, from its first moment to its last.
type world struct {
	seed uint64
	// dir is for the outboxes, which are on a real disk.
	dir     string
	plan    *plan
	net     *network
	ledger  *ledger
	nodes   []*node
	desks   []*desk
	letters []*letter
	history history.History

	begun   time.Time
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup // everything that ends with ctx
	sending sync.WaitGroup // documents that are not handed in yet
	faults  sync.WaitGroup // events that are not over yet
	unsaid  atomic.Int32   // recipients that still have something to say
	// healed is closed when everything is mended.
	healed chan struct{}

	mu    sync.Mutex // owns what follows
	found []history.Violation
	trace []string
	level slog.Level
	hits  []*hit
	// clean: no disk was lost, no agency moved, no clock jumped far:
	// who has confirmed must never be given the same again.
	clean bool
	// diskLost: a disk was lost, and with it the memory of what had ended.
	diskLost bool
	// expires: a clock was so far ahead that envelopes expired.
	expires bool

	// words is what was said of documents.
	words []*word

	operator map[string]*grpc.ClientConn // of the goroutine that finishes
}

func newWorld(p *plan, dir string, level slog.Level) *world {
	w := &world{
		seed: p.seed, dir: dir, plan: p, net: newNetwork(p.seed), ledger: newLedger(p.seed), begun: time.Now(),
		healed: make(chan struct{}), level: level, clean: true, operator: map[string]*grpc.ClientConn{},
	}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// build makes the mesh as it is at the beginning.
func (w *world) build() error {
	for i, id := range w.plan.relays {
		n := w.addNode(i, id)
		n.lag = w.plan.lags[i]
		n.disk.slow = w.plan.slow
		if err := w.ledger.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{
			Relay: &directoryv1.Relay{Id: id, Region: "sim", Address: addressOf(id)},
		}}}); err != nil {
			return err
		}
	}
	w.net.add(operatorHost, tls.Identity{TrustDomain: trustDomain, Kind: tls.KindOperator, Name: "an"})
	for i, d := range w.plan.desks {
		if err := w.ledger.change(&directoryv1.Command{Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{
			Agency: &directoryv1.Agency{Code: d.code, Name: d.code, Tier: 1, HomeRelayId: d.home, StandbyRelayId: d.standby},
		}}}); err != nil {
			return err
		}
		w.addDesk(i, d)
	}
	hosts := append([]string{operatorHost}, w.plan.relays...)
	for _, d := range w.desks {
		hosts = append(hosts, d.host)
	}
	for _, a := range w.plan.relays {
		for _, b := range hosts {
			if a != b {
				w.net.shape(a, b, w.plan.delay, w.plan.jitter, 0)
				w.net.shape(b, a, w.plan.delay, w.plan.jitter, 0)
			}
		}
	}
	for _, n := range w.nodes {
		n.known = len(w.ledger.commands)
		if err := n.start(); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) node(id string) *node {
	for _, n := range w.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

// since is the time of the simulation.
func (w *world) since() time.Duration { return time.Since(w.begun) }

// sleep waits until a moment of the simulation; false where it ended before.
func (w *world) sleep(d time.Duration) bool {
	if d <= 0 {
		return w.ctx.Err() == nil
	}
	select {
	case <-time.After(d):
		return true
	case <-w.ctx.Done():
		return false
	}
}

func (w *world) violate(rule, format string, args ...any) {
	v := history.Violation{Rule: rule, What: fmt.Sprintf(format, args...)}
	w.say("VIOLATION %s", v)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.found = append(w.found, v)
}

// traceLines is how much of the end is kept.
const traceLines = 3000

// say adds a line to the trace.
func (w *world) say(format string, args ...any) {
	line := fmt.Sprintf("%10.3fs ", w.since().Seconds()) + fmt.Sprintf(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.trace) >= 2*traceLines {
		w.trace = append(w.trace[:0], w.trace[len(w.trace)-traceLines:]...)
	}
	w.trace = append(w.trace, line)
}

// traceHandler writes what relays and clients log into the trace.
type traceHandler struct {
	w     *world
	who   string
	attrs string
}

func (h *traceHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.w.level }

func (h *traceHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := h.attrs
	r.Attrs(func(a slog.Attr) bool {
		attrs += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	h.w.say("%s %s: %s%s", r.Level, h.who, r.Message, attrs)
	return nil
}

func (h *traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	all := h.attrs
	for _, a := range attrs {
		all += fmt.Sprintf(" %s=%v", a.Key, a.Value)
	}
	return &traceHandler{h.w, h.who, all}
}

func (h *traceHandler) WithGroup(string) slog.Handler { return h }
