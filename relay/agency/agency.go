// Package agency is the SDK with which an agency's software hands over
// documents, receives its own, and learns what became of them.
//
// A program loads a profile, makes one Client and keeps it:
//
//	config, err := agency.LoadProfile("H26.yaml")
//	client, err := agency.New(config)
//	defer client.Close()
//
//	receipt, err := client.Submit(ctx, agency.Document{
//		Header: header,                                        // who, to whom, what
//		Parts:  []agency.Source{agency.FileSource("12-UBND.pdf")},
//	})
//
//	for arrival, err := range client.Receive(ctx, agency.ReceiveOptions{}) {
//		saved, err := arrival.Save(ctx, "incoming") // whole or not at all
//		err = arrival.Confirm(ctx)                  // leaves the inbox
//	}
//
// What it promises:
//   - Submit returns a receipt only for the envelope that was asked for: the id
//     is computed here and compared. A failure on the way is tried again, from
//     where the relay has got to, at another relay where need be; calling
//     Submit again with the same document and document id, even after a crash,
//     never makes a second envelope.
//   - Receive gives every envelope until it is confirmed, and within one process
//     none twice. Bytes are compared with the sender's SHA-256 before they are
//     given out as whole.
//   - Save makes an envelope appear in its folder whole and durable, or not at
//     all, and only once.
//   - No part is ever held in memory, whatever its size.
//   - The client is attached to the fastest relay of its home region that works,
//     and moves when it fails.
//
// A Client keeps no queue: until Receipt.Copies is 2 or more, or Track says so,
// the caller keeps the files. An Outbox does that for its caller: it has the
// document on disk before a relay has, and hands it over again where the only
// relay that had it is lost.
//
//	outbox, err := agency.OpenOutbox(agency.OutboxConfig{Dir: config.Outbox, Client: client})
//	group.Go(func() error { return outbox.Run(ctx) }) // or Tend now and then
//	receipt, err := outbox.Submit(ctx, document)      // in place of client.Submit
//
// Errors that a relay answers are *envelope.Refusal, with every field at fault;
// envelope.Temporary tells whether another try may succeed. Temporary ones have
// been tried again already, for Config.Patience.
//
// A Client may be used from many goroutines.
package agency

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"

	"github.com/truclienthong/truc/relay/envelope/secrecy"
	"github.com/truclienthong/truc/tls"
)

// Config is what a client needs to know. LoadProfile fills in the first six.
type Config struct {
	// Relays are host:port of one or more relays; others are learned.
	Relays []string
	// Certificate, Key and Trust are files in PEM: the client's certificate
	// with its intermediates, its private key, and the authorities it believes.
	// Replaced files are taken up while the client runs.
	Certificate, Key, Trust string
	// Agency is the code of the agency to speak for; empty: the one that the
	// certificate names. A gateway names one of its agencies.
	Agency string
	// Outbox is the folder for an outbox. The client does not use it: who wants
	// one gives it to OpenOutbox.
	Outbox string

	// Patience is for how long failures that may pass are tried again without
	// any progress, before the call returns the last of them; 0: 2 minutes.
	// Receive without Drain has no end to its patience.
	Patience time.Duration
	// Logger gets a line for what goes wrong and is tried again; nil: none.
	Logger *slog.Logger
	// Tracer records a span per document; nil: none.
	Tracer trace.Tracer
	// Dial gives the options by which a relay is reached whose identity expect
	// agrees to, for simulations: in place of TLS over TCP with the files above,
	// which then are not read, and Agency has to be given. nil: TLS over TCP.
	Dial func(expect func(tls.Identity) error) []grpc.DialOption

	timing timing
}

// timing are the intervals of the client's inner life.
type timing struct {
	// firstBackoff and maxBackoff bound the wait before a relay that failed is
	// tried again.
	firstBackoff, maxBackoff time.Duration
	// answers bounds it where the relay itself answers, and cannot serve just
	// now.
	answers time.Duration
	// probe bounds one measurement of a relay.
	probe time.Duration
	// remeasure is how long a choice of relay stands unquestioned, away that of
	// one outside the home region.
	remeasure, away time.Duration
	// call bounds one try of a call that carries no content.
	call time.Duration
}

var defaultTiming = timing{
	firstBackoff: 200 * time.Millisecond,
	maxBackoff:   30 * time.Second,
	answers:      2 * time.Second,
	probe:        10 * time.Second,
	remeasure:    5 * time.Minute,
	away:         20 * time.Second,
	call:         30 * time.Second,
}

// Client speaks for one agency.
type Client struct {
	config   Config
	logger   *slog.Logger
	tracer   trace.Tracer
	endpoint *tls.Endpoint // nil where Config.Dial is set
	mesh     *mesh
	books    *books
	secrets  *secrecy.Guard

	stop    context.CancelFunc
	running sync.WaitGroup
}

// New reads the files of the configuration and checks it. It connects to no
// relay: the first call does. Close releases what it holds.
func New(config Config) (*Client, error) {
	if len(config.Relays) == 0 {
		return nil, errors.New("agency client: no relay is named")
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Tracer == nil {
		config.Tracer = noop.NewTracerProvider().Tracer("")
	}
	if config.Patience == 0 {
		config.Patience = 2 * time.Minute
	}
	if config.timing == (timing{}) {
		config.timing = defaultTiming
	}
	var endpoint *tls.Endpoint
	if config.Dial == nil {
		var err error
		if endpoint, err = tls.New(tls.Config{
			CertificateFile: config.Certificate, KeyFile: config.Key, TrustFile: config.Trust, Logger: config.Logger,
		}); err != nil {
			return nil, fmt.Errorf("agency client: %w", err)
		}
	} else if config.Agency == "" {
		return nil, errors.New("agency client: no agency is given, and no certificate names one")
	}
	mesh, err := newMesh(config, endpoint)
	if err != nil {
		return nil, fmt.Errorf("agency client: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &Client{
		config: config, logger: config.Logger, tracer: config.Tracer,
		endpoint: endpoint, mesh: mesh, books: newBooks(config.timing.backoff), secrets: secrecy.NewGuard(lookedInto), stop: stop,
	}
	if endpoint == nil {
		return c, nil
	}
	// The watch of the certificate files; Close waits for it.
	c.running.Go(func() {
		if err := endpoint.Run(ctx); err != nil && ctx.Err() == nil {
			c.logger.Error("certificate files are no longer watched", "error", err)
		}
	})
	return c, nil
}

// Close ends the connections. Calls still under way fail.
func (c *Client) Close() error {
	c.stop()
	c.running.Wait()
	return c.mesh.close()
}
