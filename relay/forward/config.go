package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// Queues is the spool's view of what waits to be handed on. The channels are
// closed at the next addition; they are taken before reading. All methods may
// be called at once.
type Queues interface {
	Destinations() ([]routing.RelayID, error)
	DestinationsChanged() <-chan struct{}
	// Queue lists entries by lane order, then sequence, also those whose next
	// try is later.
	Queue(relay routing.RelayID, after envelope.Position, max int) ([]envelope.QueueEntry, error)
	QueueChanged(relay routing.RelayID) <-chan struct{}
}

// Holdings is what the spool holds of envelopes. All methods may be called at
// once.
type Holdings interface {
	Record(envelope.ID) (*envelope.Record, error)
	// Content reads a part from an offset on; an error in the middle means that
	// the copy here is damaged.
	Content(id envelope.ID, part int, offset uint64) (io.ReadCloser, error)
}

// Inboxes is the spool's view of what waits for recipients here. All methods
// may be called at once.
type Inboxes interface {
	// InboxAgencies lists agencies whose inbox holds something, behind one of them.
	InboxAgencies(after routing.AgencyCode, max int) ([]routing.AgencyCode, error)
	// Inbox lists entries by lane order, then sequence.
	Inbox(agency routing.AgencyCode, after envelope.Position, max int) ([]envelope.InboxEntry, error)
}

// Facts records what became of duties. Each is durable on return, except
// Defer, and harmless when repeated. They are called many at once and share
// the spool's sync.
type Facts interface {
	HandOn(context.Context, envelope.HandedOn) error
	Settle(context.Context, []envelope.Settlement) (int, error)
	Reroute(context.Context, envelope.Reroute) error
	Defer(ctx context.Context, id envelope.ID, destination routing.RelayID, tries uint32, next time.Time, lastError string) error
}

// Incoming is one envelope on its way into the spool.
type Incoming interface {
	// Repeat gives the record when every duty is known here already.
	Repeat() (*envelope.Record, bool)
	// Offsets says what is here already, per part, in bytes.
	Offsets() []uint64
	// Write keeps nothing of data after it returns.
	Write(ctx context.Context, part int, offset uint64, data []byte) error
	// Commit checks size and SHA-256 of every part, and makes the envelope and
	// its duties durable in one step.
	Commit(context.Context) (*envelope.Record, error)
	// Close may be called twice; what was not committed stays for a resume.
	Close() error
}

// Directory is the local copy of the directory.
type Directory interface {
	View() routing.View
	// Changed is closed at the next change; it is taken before View.
	Changed() <-chan struct{}
}

// Peers keeps connections to other relays, each proven to be the relay that it
// is asked for.
type Peers interface {
	// Conn returns the connection for urgent or for ordinary envelopes; never
	// the same one. It does not wait for the connection to be made. A relay that
	// comes back is probed within seconds only if the connection's own back-off
	// stays in seconds too.
	Conn(relay routing.RelayID, urgent bool) (grpc.ClientConnInterface, error)
}

// Reports is the ledger, which takes what other relays state about deliveries.
type Reports interface {
	// Apply is durable on return and harmless when repeated.
	Apply(ctx context.Context, report *envelope.Custody) error
	// Ready refuses for a while what must not come into inboxes here yet, by a
	// refusal without reason that names a pause; others go on meanwhile.
	Ready(ctx context.Context, c *envelope.Custody) error
	// Heard is told of what has just come into inboxes here, before that is
	// acknowledged, and whether it says something of a document; it is durable on
	// return and harmless when repeated.
	Heard(ctx context.Context, record *envelope.Record, speaks bool) error
}

// Config is everything a Forwarder needs. Fields without a comment on a
// default are required.
type Config struct {
	Self      routing.RelayID
	Directory Directory
	Peers     Peers
	Queues    Queues
	Inboxes   Inboxes
	Holdings  Holdings
	Facts     Facts
	Reports   Reports
	// Begin opens an envelope for taking it into custody.
	Begin func(context.Context, *envelope.Custody) (Incoming, error)
	// Accepting returns why no envelope is taken just now (draining, starting,
	// disk above its watermark), as an *envelope.Refusal, or nil. Nil function:
	// envelopes are taken.
	Accepting func() error
	// Room returns why an inbox here takes nothing more just now, or nil. Nil
	// function: there is room.
	Room func(routing.AgencyCode) error
	// OnRepeat is called when a peer has had an envelope before that this relay
	// is the ingress of: what became of it there is worth asking. It does not
	// wait for anything. May be nil.
	OnRepeat func()
	// OnProbe is called with each answer of a peer to a probe: whether the peer's
	// directory, of that version, has this relay as retired or lost. May be nil.
	OnProbe func(peer routing.RelayID, takenOut bool, version uint64)
	// Caller finds the verified identity of a call; nil: that of the connection.
	Caller func(context.Context) (tls.Identity, bool)

	// Window is the most offers with content inside that are under way in one
	// session to a peer; 256.
	Window int
	// InlineWindow is the most content in bytes inside offers under way in one
	// session; 8 MiB, at least InlineLimit.
	InlineWindow int64
	// Transfers is the most envelopes for one destination and stream whose
	// content travels in chunks at once; 8.
	Transfers int
	// ChunkSize is the size of chunks sent, in bytes, 256 KiB to 1 MiB; 256 KiB.
	// They begin smaller, and stay so on a slow link.
	ChunkSize int

	// MaxOffers is the most offers with content inside that are being taken at
	// once from all peers; 1,024. More wait unread.
	MaxOffers int
	// MaxInline is the most content in bytes of those; 64 MiB.
	MaxInline int64
	// MaxTransfers is the most offers without content inside that are being
	// taken at once from all peers; 128. More are refused for the moment.
	MaxTransfers int

	// BackoffBase and BackoffCap bound the wait after failures, which doubles;
	// 200 ms and 60 s.
	BackoffBase, BackoffCap time.Duration
	// AnswerTimeout is how long a peer may be silent when an answer or room is
	// due before its session is cut; 30 s.
	AnswerTimeout time.Duration
	// ProbeInterval and ProbeTimeout govern the measuring of links; 1 s and 2 s.
	ProbeInterval, ProbeTimeout time.Duration
	// Rescan is how often a queue is read from its beginning without a reason;
	// 15 s.
	Rescan time.Duration

	// Clock tells the time; nil: time.Now. Waiting is done with timers of the
	// runtime.
	Clock func() time.Time
	// Random makes jitter; nil: seeded by the runtime.
	Random rand.Source

	// Logger, Meter and Tracer may be nil.
	Logger *slog.Logger
	Meter  metric.Meter
	Tracer trace.Tracer
}

func (c *Config) complete() error {
	if _, err := routing.ParseRelayID(string(c.Self)); err != nil {
		return fmt.Errorf("own id: %w", err)
	}
	if c.Directory == nil || c.Peers == nil || c.Queues == nil || c.Inboxes == nil || c.Holdings == nil ||
		c.Facts == nil || c.Reports == nil || c.Begin == nil {
		return errors.New("directory, peers, spool and reports are all needed")
	}
	if c.Accepting == nil {
		c.Accepting = func() error { return nil }
	}
	if c.Room == nil {
		c.Room = func(routing.AgencyCode) error { return nil }
	}
	if c.OnRepeat == nil {
		c.OnRepeat = func() {}
	}
	if c.OnProbe == nil {
		c.OnProbe = func(routing.RelayID, bool, uint64) {}
	}
	if c.Caller == nil {
		c.Caller = tls.FromContext
	}
	setDefault(&c.Window, 256)
	setDefault(&c.InlineWindow, 8<<20)
	setDefault(&c.Transfers, 8)
	setDefault(&c.ChunkSize, 256<<10)
	setDefault(&c.MaxOffers, 1024)
	setDefault(&c.MaxInline, 64<<20)
	setDefault(&c.MaxTransfers, 128)
	setDefault(&c.BackoffBase, 200*time.Millisecond)
	setDefault(&c.BackoffCap, time.Minute)
	setDefault(&c.AnswerTimeout, 30*time.Second)
	setDefault(&c.ProbeInterval, time.Second)
	setDefault(&c.ProbeTimeout, 2*time.Second)
	setDefault(&c.Rescan, 15*time.Second)
	switch {
	case c.Window < 1 || c.Transfers < 1 || c.MaxOffers < 1 || c.MaxTransfers < 1:
		return errors.New("windows are at least 1")
	case c.InlineWindow < InlineLimit || c.MaxInline < InlineLimit:
		return fmt.Errorf("room for content inside offers is at least %d bytes", InlineLimit)
	case c.ChunkSize < 256<<10 || c.ChunkSize > maxChunk:
		return fmt.Errorf("chunk size %d: 262144 to %d bytes", c.ChunkSize, maxChunk)
	case c.BackoffBase < 0 || c.BackoffCap < c.BackoffBase:
		return fmt.Errorf("back-off from %s to %s", c.BackoffBase, c.BackoffCap)
	case c.AnswerTimeout < 0 || c.ProbeInterval < 0 || c.ProbeTimeout < 0 || c.Rescan < 0:
		return errors.New("times are not negative")
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Random == nil {
		c.Random = rand.NewPCG(rand.Uint64(), rand.Uint64())
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Meter == nil {
		c.Meter = metricnoop.NewMeterProvider().Meter("")
	}
	if c.Tracer == nil {
		c.Tracer = tracenoop.NewTracerProvider().Tracer("")
	}
	return nil
}

// linkAge is how long a measurement told by another relay counts.
func (c *Config) linkAge() time.Duration {
	return 10*c.ProbeInterval + c.ProbeTimeout
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
