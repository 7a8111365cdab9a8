// Package relay is one node of the mesh. It joins the parts, each of which can
// be read alone: ingress (what agencies call), forward (what relays call on one
// another), ledger (what became of an envelope), keeper (what others have
// custody of, asked after until it has ended), over the spool (custody) and the
// directory, which it is given.
//
// It promises:
//   - Default deny: every call carries a verified identity, and is served only
//     when the table in access.go lets that kind of identity call the service.
//   - Fail closed: when the spool fails to write or sync, the relay reports not
//     serving, answers no further call, and Run returns the error.
//   - /readyz says whether envelopes are accepted here, and if not, why.
//   - Trouble with the directory stops directory changes only: look-ups are in
//     the copy of this relay, and nothing on the path of an envelope waits for
//     a leader.
//
// It does not replicate the directory and does not accept connections: Config
// is given a Directory and a listener of connections that have done their
// handshake, so that the node of a test and the node of a data centre differ
// only in what cmd/relayd puts there.
//
// Invariant: nothing is served before the spool has been replayed, and the
// spool is the last to close.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/forward"
	"github.com/truclienthong/truc/relay/ingress"
	"github.com/truclienthong/truc/relay/keeper"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/relay/spool"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// Config is everything a relay is made of. Fields without a comment on a
// default are required.
type Config struct {
	// ID is that of the relay's certificate.
	ID routing.RelayID
	// Region is for people and for connectors that choose the nearest relay.
	Region string
	// Address is the host:port that agencies and peers dial.
	Address string
	// Dial maps addresses of relays in the directory to those at which this relay
	// reaches them; what is not named is dialed as it stands there.
	Dial map[string]string
	// Dialer connects to such an address; nil: over TCP.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
	// Version of the program, told to operators; may be empty.
	Version string

	// Directory is this node's replica.
	Directory Directory
	// Endpoint is this relay's end of secured channels: a *tls.Endpoint made with
	// NewTrust of the same directory. Its Run is the caller's business.
	Endpoint Endpoint
	// Listener gives connections that have done their handshake:
	// Endpoint.Mux(...).GRPC(). Run closes it.
	Listener net.Listener
	// HTTPListener serves /healthz, /readyz and /metrics; nil: not served. Run
	// closes it. Whoever reaches it is not asked who they are.
	HTTPListener net.Listener
	// Metrics answers /metrics; nil: not found.
	Metrics http.Handler
	// Services are served beside the relay's own: the raft admin commands, the
	// replication of the directory. Access to them is in access.go too.
	Services []func(grpc.ServiceRegistrar)

	// Spool says where and how custody is kept. Self, Clock, Logger and Meter
	// are filled in by the relay.
	Spool spool.Config
	// Forward tunes the handing on; zero fields take its defaults, and all that
	// it is joined to is filled in by the relay.
	Forward forward.Config
	// Keeper tunes the looking after, likewise.
	Keeper keeper.Config
	// Limits bound headers, parts and recipients; zero fields take the defaults.
	Limits envelope.Limits
	// Lifetime of an envelope whose sender names no end; 30 days.
	Lifetime time.Duration
	// Ingress bounds what each sending agency may do; zero fields take its
	// defaults, and those that have a field here are taken from there.
	Ingress ingress.Limits
	// CopyWait is how long a receipt waits for the second copy; 5 s.
	CopyWait time.Duration
	// StreamsPerAgency is how many Receive streams one agency may hold here; 16.
	StreamsPerAgency int
	// CallsPerAgency is how many calls one agency may have open here; 256. A
	// gateway may have two more for each agency that it speaks for.
	CallsPerAgency int
	// CallsPerConnection is how many calls one connection may have open; 32,768:
	// a gateway receives for as many as 20,000 agencies.
	CallsPerConnection uint32
	// Targets are the delivery targets of the lanes; zeros take the defaults: hỏa
	// tốc 1 min, thượng khẩn 5 min, khẩn 15 min, thường 24 h.
	Targets Targets
	// Calendar knows the working days that the limits of the law count in.
	Calendar lifecycle.Calendar
	// LookEvery is how often free space, queues and late deliveries are looked at;
	// 1 s.
	LookEvery time.Duration
	// StopTimeout bounds how long calls under way are waited for; 10 s.
	StopTimeout time.Duration

	// Clock is the time of receipts and expiry; nil: time.Now.
	Clock func() time.Time
	// Logger and the providers may be nil; then nothing is told.
	Logger  *slog.Logger
	Meters  metric.MeterProvider
	Tracers trace.TracerProvider
}

// Endpoint is what a relay asks of its end of secured channels: who it is, and
// that every call and every connection carries an identity that was proven.
type Endpoint interface {
	// Identity is this relay's own; Sign states something in its name.
	Identity() tls.Identity
	Sign(content []byte) ([]byte, error)
	// ServerCredentials take the connections of Config.Listener. What they let in,
	// tls.FromContext tells of.
	ServerCredentials() credentials.TransportCredentials
	// ClientCredentials connect to whom expect agrees to, ExpectPeer to one relay
	// of the own trust domain.
	ClientCredentials(expect func(tls.Identity) error) credentials.TransportCredentials
	ExpectPeer(relay string) func(tls.Identity) error
	// CutRevoked closes connections that the directory no longer stands behind.
	CutRevoked()
}

var _ Endpoint = (*tls.Endpoint)(nil)

// Relay is one node of the mesh.
type Relay struct {
	config    Config
	state     *state
	calls     *openCalls
	finite    *finiteCalls
	levels    levels
	hearsay   hearsay
	startedAt time.Time
}

// New checks the configuration; it opens and starts nothing.
func New(c Config) (*Relay, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	return &Relay{config: c, state: newState(), calls: newOpenCalls(), finite: newFiniteCalls(), startedAt: c.Clock()}, nil
}

func (c *Config) complete() error {
	var problems []error
	if _, err := routing.ParseRelayID(string(c.ID)); err != nil {
		problems = append(problems, err)
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		problems = append(problems, fmt.Errorf("address %q is no host:port", c.Address))
	}
	for _, need := range []struct {
		name string
		set  bool
	}{
		{"region", c.Region != ""}, {"directory", c.Directory != nil}, {"endpoint", c.Endpoint != nil},
		{"listener", c.Listener != nil}, {"spool directory", c.Spool.Dir != ""},
	} {
		if !need.set {
			problems = append(problems, fmt.Errorf("%s is missing", need.name))
		}
	}
	if c.Lifetime < 0 || c.StopTimeout < 0 || c.CopyWait < 0 || c.LookEvery < 0 || c.StreamsPerAgency < 0 || c.CallsPerAgency < 0 {
		problems = append(problems, errors.New("limits and times must not be negative"))
	}
	if err := c.Targets.complete(); err != nil {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	if own := c.Endpoint.Identity(); own.Kind != tls.KindRelay || own.Name != string(c.ID) {
		return fmt.Errorf("the certificate is that of %s, not of relay %s", own, c.ID)
	}
	if c.CallsPerAgency == 0 {
		c.CallsPerAgency = 256
	}
	if c.CallsPerConnection == 0 {
		c.CallsPerConnection = 32_768
	}
	if c.LookEvery == 0 {
		c.LookEvery = time.Second
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = 10 * time.Second
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Meters == nil {
		c.Meters = metricnoop.NewMeterProvider()
	}
	if c.Tracers == nil {
		c.Tracers = tracenoop.NewTracerProvider()
	}
	c.Limits = c.Limits.OrDefaults()
	return nil
}
