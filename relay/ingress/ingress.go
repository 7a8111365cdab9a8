// Package ingress is the relay as agencies see it: it serves ExchangeService,
// and the home side of the calls that another relay passes on for an agency
// attached there.
//
// It promises:
//   - An envelope is accepted whole or not at all. Every rule is checked before
//     the first byte is taken, all problems are named at once, and the receipt
//     is sent only after the spool's commit, which is durable.
//   - Where another relay can be used, the receipt waits for the second copy, a
//     bounded time (copies.go); it states the copies of the moment it is sent.
//   - What shows the mark of a state secret is not accepted, and its bytes are not
//     kept: the header is looked at before they come, the files once they are here
//     (secrecy.go). No document comes in another way; those of other relays were
//     looked at where they came in.
//   - A repeat gets the original receipt, whatever changed since in the
//     directory, the quota or the disk, as long as the caller may still speak for
//     the sender.
//   - A stream that is cut leaves nothing accepted; calling again resumes.
//   - Receive sends what waits, urgent lanes first but none of them for ever, and
//     again on every new call until it is confirmed. An envelope sent twice is
//     possible, one left out is not, but for those that an operator holds.
//   - A stream ends when the caller loses its right or the agency its home
//     here, at the next change of the directory, not at the next call.
//   - Memory per stream is bounded by one page of the inbox, the window of
//     unconfirmed ids and one chunk of content; that of all submits of a caller
//     by RoomPerCaller; as many files are looked into at once as there are
//     processors. What one agency may send and leave lying is bounded too
//     (limits.go), and who says nothing for a while is let go.
//
// It does not promise an order between envelopes of one lane across relays, and
// it keeps no state of its own: what must survive is in the spool.
//
// Submit reads in the order of DESIGN §6 step 2; follow it from submit.go.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/envelope/secrecy"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// Spool is the store that takes custody. All calls may run together. What is
// not known is refused with NOT_FOUND.
type Spool interface {
	// Begin opens the transfer of an envelope, or finds the one that was cut.
	Begin(ctx context.Context, c *envelope.Custody) (Incoming, error)
	// Record returns what is known of an envelope that was committed.
	Record(id envelope.ID) (*envelope.Record, error)
	// ByDocument finds an envelope by its sender's id of the document.
	ByDocument(sender routing.AgencyCode, documentID string) (envelope.ID, bool, error)
	// ByNumber finds the first document that was accepted here under a number; every
	// document is there once its commit has returned.
	ByNumber(n envelope.Number) (envelope.ID, bool, error)
	// Content opens the bytes of a part from an offset.
	Content(id envelope.ID, part int, offset uint64) (io.ReadCloser, error)
	// Settle ends deliveries, durable on return; it counts those that were
	// open, so a repeat adds nothing.
	Settle(ctx context.Context, settlements []envelope.Settlement) (int, error)
}

// Incoming is one envelope on its way into the spool; one caller at a time.
type Incoming interface {
	// Repeat returns the record when nothing is left to take on.
	Repeat() (*envelope.Record, bool)
	// Offsets tells per part how many bytes are here already.
	Offsets() []uint64
	// Write adds bytes at the part's offset; data is not kept.
	Write(ctx context.Context, part int, offset uint64, data []byte) error
	// Content reads what a part has so far, before the commit.
	Content(ctx context.Context, part int) (io.ReadCloser, error)
	// Abandon gives up what was written, so that none of it is kept.
	Abandon(ctx context.Context) error
	// Commit checks every part and makes the envelope exist in one durable step.
	Commit(ctx context.Context) (*envelope.Record, error)
	// Close lets go; what was written stays for a resume for a while.
	Close() error
}

// Inboxes are the inboxes of the agencies that have this relay as home.
type Inboxes interface {
	// Inbox lists what waits after a position, by order of lanes and then
	// sequence.
	Inbox(agency routing.AgencyCode, after envelope.Position, max int) ([]envelope.InboxEntry, error)
	// InboxChanged is closed at the next arrival; take it before reading.
	InboxChanged(agency routing.AgencyCode) <-chan struct{}
}

// Directory is this relay's copy of the directory.
type Directory interface {
	View() routing.View
	// Changed is closed at the next change; take it before View.
	Changed() <-chan struct{}
}

// Peers reaches other relays.
type Peers interface {
	// Peer returns the connection to a relay; it does not wait for the relay
	// to answer. The error is a temporary refusal.
	Peer(relay routing.RelayID) (relayv1.PeerServiceClient, error)
	// Reachable reports whether the relay answered lately.
	Reachable(relay routing.RelayID) bool
}

// Ledger answers what became of an envelope.
type Ledger interface {
	// Track answers for an agency for which the caller may speak.
	Track(ctx context.Context, agency routing.AgencyCode, req *exchangev1.TrackRequest) (*exchangev1.TrackResponse, error)
	// Judge holds what an envelope says of documents against their lives; the
	// error is temporary.
	Judge(ctx context.Context, sender routing.AgencyCode, header *exchangev1.Header) (envelope.Judgement, error)
	// Confirmed is told that an agency has confirmed what is not known here, its
	// home, and returns what of it was taken back elsewhere; the error is temporary.
	Confirmed(ctx context.Context, agency routing.AgencyCode, ids []envelope.ID) (takenBack []envelope.ID, err error)
	// Away is told that an agency asks here, at its home, for what is not known
	// here; the error is temporary, nil where no relay has it.
	Away(ctx context.Context, agency routing.AgencyCode, id envelope.ID) error
}

// Copies tells of the relays that hold an envelope.
type Copies interface {
	// CopiesChanged is closed when one more is known to hold it, and now and then
	// for nothing; take it before Record.
	CopiesChanged(id envelope.ID) <-chan struct{}
}

// Usage counts what lies here, as of now.
type Usage interface {
	// Usage is what was accepted here from the sender and has not ended.
	Usage(sender routing.AgencyCode) (envelopes, bytes int64, err error)
	// Waiting is how many entries the inbox of an agency has here.
	Waiting(agency routing.AgencyCode) (int64, error)
}

// Config is all that the service needs.
type Config struct {
	// Self is the relay it serves for, Region and Address what it tells agencies.
	Self            routing.RelayID
	Region, Address string
	// TrustDomain is told to connectors at Attach.
	TrustDomain string

	Spool     Spool
	Inboxes   Inboxes
	Copies    Copies
	Usage     Usage
	Directory Directory
	Peers     Peers
	Ledger    Ledger

	// Accepting refuses new envelopes while it returns an error; nil: always
	// accepting.
	Accepting func() error
	// Usable reports whether a relay is reached directly and takes envelopes,
	// and the round trip to it; nil: none is.
	Usable func(relay routing.RelayID) (roundTrip time.Duration, ok bool)
	// CopyWait is how long a receipt waits for the second copy; 0: 5 s.
	CopyWait time.Duration
	// Queued is about how many envelopes wait to be handed on to a relay; nil:
	// queues are not limited.
	Queued func(relay routing.RelayID) int64
	// Ending is closed when the relay stops: who waits then is answered. Nil: it
	// does not stop before its calls.
	Ending <-chan struct{}
	// Caller finds the verified identity of a call; nil: that of the
	// connection.
	Caller func(context.Context) (tls.Identity, bool)
	Limits Limits
	// Calendar knows the working days by which sending is measured.
	Calendar lifecycle.Calendar
	Clock    func() time.Time
	Logger   *slog.Logger
	Meter    metric.Meter
	Tracer   trace.Tracer
}

// Service serves agencies.
type Service struct {
	exchangev1.UnimplementedExchangeServiceServer

	config  Config
	streams *streams
	rooms   *rooms
	submits *limiters // submits begun, by sender
	bytes   *limiters // bytes of content, by sender
	pledges *pledges
	secrets *secrecy.Guard
	metrics *metrics
}

var _ exchangev1.ExchangeServiceServer = (*Service)(nil)

// The sizes that the wire contract fixes.
const (
	maxChunk           = 1 << 20
	maxInline          = 256 << 10
	maxUnconfirmed     = 10_000
	defaultUnconfirmed = 256
	maxConfirm         = 1_000
)

// New checks the configuration; nothing runs until a call comes in.
func New(c Config) (*Service, error) {
	var missing error
	for _, need := range []struct {
		name string
		set  bool
	}{
		{"Self", c.Self != ""}, {"Spool", c.Spool != nil}, {"Inboxes", c.Inboxes != nil},
		{"Copies", c.Copies != nil}, {"Usage", c.Usage != nil},
		{"Directory", c.Directory != nil}, {"Peers", c.Peers != nil}, {"Ledger", c.Ledger != nil},
	} {
		if !need.set {
			missing = errors.Join(missing, fmt.Errorf("ingress: %s is missing", need.name))
		}
	}
	if missing != nil {
		return nil, missing
	}
	if err := c.Limits.complete(); err != nil {
		return nil, fmt.Errorf("ingress: %w", err)
	}
	if c.CopyWait < 0 {
		return nil, errors.New("ingress: CopyWait must not be negative")
	}
	if c.CopyWait == 0 {
		c.CopyWait = defaultCopyWait
	}
	if c.Usable == nil {
		c.Usable = func(routing.RelayID) (time.Duration, bool) { return 0, false }
	}
	if c.Queued == nil {
		c.Queued = func(routing.RelayID) int64 { return 0 }
	}
	if c.Accepting == nil {
		c.Accepting = func() error { return nil }
	}
	if c.Caller == nil {
		c.Caller = tls.FromContext
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Meter == nil {
		c.Meter = metricnoop.Meter{}
	}
	if c.Tracer == nil {
		c.Tracer = tracenoop.Tracer{}
	}
	m, err := newMetrics(c.Meter)
	if err != nil {
		return nil, fmt.Errorf("ingress: %w", err)
	}
	l := &c.Limits
	return &Service{
		config: c, streams: newStreams(l.StreamsPerAgency), rooms: newRooms(l.RoomPerCaller),
		submits: newLimiters(l.Rate, l.Burst), bytes: newLimiters(float64(l.ByteRate), int(max(l.ByteRate, maxChunk))),
		pledges: newPledges(), secrets: secrecy.NewGuard(runtime.GOMAXPROCS(0)), metrics: m,
	}, nil
}
