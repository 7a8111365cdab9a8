// Package ledger answers what became of an envelope: to its sender and
// recipients (Track), to other relays (Inquire, Reconcile), to operators for
// the whole mesh (Trace). It takes what other relays report about deliveries of
// envelopes that were accepted here (Apply), and proves that nothing accepted
// here is missing (Audit), and counts it (Stats). It keeps the life of the documents that were accepted
// here: what their senders and recipients say of them (statement.go).
//
// It promises:
//   - A sender sees every delivery of its envelope, a recipient only its own;
//     to all others the envelope does not exist.
//   - An answer that needs other relays comes within a bounded time and names
//     the relays that were silent: what is not said is not claimed.
//   - Where relays know different things, what is settled wins over what is
//     pending, and then what is newer.
//   - A report is applied once, however often it comes, and is durable when
//     Apply returns.
//
// It keeps no state: everything it says stands in the spools of the mesh.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// Spool is what this relay holds. All calls may run together; what is not
// known is refused with NOT_FOUND.
type Spool interface {
	Record(id envelope.ID) (*envelope.Record, error)
	// ByDocument finds an envelope by its sender's id of the document.
	ByDocument(sender routing.AgencyCode, documentID string) (envelope.ID, bool, error)
	Events(id envelope.ID) ([]envelope.Event, error)
	// Settle ends deliveries, durable on return; a repeat changes nothing.
	Settle(ctx context.Context, settlements []envelope.Settlement) (int, error)
	// Say keeps what an envelope says of a document, durable on return; a repeat
	// changes nothing.
	Say(ctx context.Context, said envelope.Said) error
}

// Directory is this relay's copy of the directory.
type Directory interface {
	View() routing.View
}

// Peers reaches other relays.
type Peers interface {
	// Peer returns the connection to a relay, without waiting for the relay.
	Peer(relay routing.RelayID) (relayv1.PeerServiceClient, error)
}

// Config is all that the ledger needs.
type Config struct {
	// Self is the relay whose spool it reads.
	Self      routing.RelayID
	Spool     Spool
	Directory Directory
	Peers     Peers
	// Report takes custody of a report to another relay, durable on return; a
	// repeat changes nothing.
	Report func(ctx context.Context, report *envelope.Custody) error
	// Caller tells who calls; nil: by the certificate of the channel.
	Caller func(ctx context.Context) (tls.Identity, bool)
	// AskTimeout bounds how long other relays are waited for; 0: 3 seconds.
	AskTimeout time.Duration
	// Calendar knows the working days of the limits of the law.
	Calendar lifecycle.Calendar
	// Remembers is for how long the spool knows what was accepted; 0: 400 days.
	Remembers time.Duration
	// Clock tells the time; nil: time.Now.
	Clock  func() time.Time
	Logger *slog.Logger
	Meter  metric.Meter
	Tracer trace.Tracer
}

// Ledger answers questions; it runs nothing of its own.
type Ledger struct {
	config  Config
	reports metric.Int64Counter
	asked   metric.Float64Histogram
	// accepted counts first confirmations by their limit, acceptedAfter how long
	// they took.
	accepted               metric.Int64Counter
	acceptedAfter          metric.Float64Histogram
	turns                  *turns
	recalls, confirmations early
}

const (
	defaultAskTimeout = 3 * time.Second
	defaultRemembers  = 400 * 24 * time.Hour
)

// New checks the configuration.
func New(c Config) (*Ledger, error) {
	if c.Self == "" || c.Spool == nil || c.Directory == nil || c.Peers == nil || c.Report == nil {
		return nil, errors.New("ledger: self, spool, directory, peers and report are all needed")
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.AskTimeout <= 0 {
		c.AskTimeout = defaultAskTimeout
	}
	if c.Remembers <= 0 {
		c.Remembers = defaultRemembers
	}
	if c.Caller == nil {
		c.Caller = tls.FromContext
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
	l := &Ledger{config: c, turns: newTurns()}
	var failed [4]error
	l.reports, failed[0] = c.Meter.Int64Counter("truc.ledger.reports",
		metric.WithUnit("{report}"), metric.WithDescription("Reports of other relays about deliveries, by outcome."))
	l.asked, failed[1] = c.Meter.Float64Histogram("truc.ledger.ask.duration",
		metric.WithUnit("s"), metric.WithDescription("Time that asking other relays about one envelope took."))
	l.accepted, failed[2] = c.Meter.Int64Counter("truc.ledger.accepted",
		metric.WithUnit("{delivery}"), metric.WithDescription("First confirmations of recipients (01 to 06) of documents accepted here, by lane and by whether they came the day the document arrived (ND30 Art. 21(2)); unknown where they overtook the news of its arrival."))
	l.acceptedAfter, failed[3] = c.Meter.Float64Histogram("truc.ledger.accepted.duration",
		metric.WithUnit("s"), metric.WithDescription("From the arrival of documents to the first confirmation of the recipient, by lane."),
		metric.WithExplicitBucketBoundaries(10, 60, 300, 900, 3600, 4*3600, 8*3600, 24*3600, 48*3600, 72*3600, 7*24*3600))
	if err := errors.Join(failed[:]...); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return l, nil
}
