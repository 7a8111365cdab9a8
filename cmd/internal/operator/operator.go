// Package operator is an operator's side of the admin calls: finding a relay
// that answers, changing the directory so that a retry is applied once, and
// importing many agencies as one step.
package operator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls"
)

const (
	// answerWithin is how long a relay gets to answer the first call before the
	// next relay of the profile is tried.
	answerWithin = 3 * time.Second
	// comeUpWithin is how long a mesh gets whose relays all refuse connections,
	// as they do in the moment they are started.
	comeUpWithin = 10 * time.Second
	// serveWithin is how long relays that answer get to serve, which takes a
	// moment at the start; then one that does not serve will do.
	serveWithin = 3 * time.Second
	// freshWithin is how long a look-up tries to be current.
	freshWithin = 2 * time.Second
)

// patience bounds how often a change whose outcome is unknown is asked for, and
// for how long: without a leader every try takes a while. While there is another
// relay to ask, none is waited for longer than each.
type patience struct {
	tries        int
	within, each time.Duration
}

var usualPatience = patience{tries: 6, within: 15 * time.Second, each: answerWithin}

// Profile is an operator's profile: which relays, and with which certificate.
type Profile struct {
	Relays      []string `yaml:"relays"`
	Certificate string   `yaml:"certificate"`
	Key         string   `yaml:"key"`
	Trust       string   `yaml:"trust"`
}

// LoadProfile reads a profile; file names in it are relative to it.
func LoadProfile(file string) (Profile, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return Profile{}, fmt.Errorf("profile: %w", err)
	}
	var p Profile
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	if err := decoder.Decode(&p); err != nil && !errors.Is(err, io.EOF) {
		return Profile{}, fmt.Errorf("profile %s: %w (an agency's profile is for connector, not for operators)", file, err)
	}
	if len(p.Relays) == 0 {
		return Profile{}, fmt.Errorf("profile %s: relays is missing", file)
	}
	for _, name := range []*string{&p.Certificate, &p.Key, &p.Trust} {
		if *name == "" {
			return Profile{}, fmt.Errorf("profile %s: certificate, key and trust are all needed", file)
		}
		if !filepath.IsAbs(*name) {
			*name = filepath.Join(filepath.Dir(file), *name)
		}
	}
	return p, nil
}

// Endpoint loads the certificate of the profile.
func (p Profile) Endpoint(logger *slog.Logger) (*tls.Endpoint, error) {
	return tls.New(tls.Config{CertificateFile: p.Certificate, KeyFile: p.Key, TrustFile: p.Trust, Logger: logger})
}

// Conn is a connection to one relay.
type Conn struct {
	conn      *grpc.ClientConn
	endpoint  *tls.Endpoint
	logger    *slog.Logger
	Raft      adminv1.RaftServiceClient
	Directory adminv1.DirectoryServiceClient
	Custody   adminv1.CustodyServiceClient
	// others are the further relays of the profile: one of them may be on the
	// side of the leader when this one is not.
	others []string
}

// Dial makes a connection to the relay at address; it connects at the first
// call.
func Dial(endpoint *tls.Endpoint, address string) (*Conn, error) {
	return dial(endpoint, address, tls.ExpectKind(tls.KindRelay))
}

// passthrough has gRPC take an address as it stands.
const passthrough = "passthrough:///"

func dial(endpoint *tls.Endpoint, address string, expect func(tls.Identity) error) (*Conn, error) {
	conn, err := grpc.NewClient(passthrough+address,
		grpc.WithTransportCredentials(endpoint.ClientCredentials(expect)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, err
	}
	return &Conn{
		conn: conn, endpoint: endpoint, logger: slog.New(slog.DiscardHandler),
		Raft:      adminv1.NewRaftServiceClient(conn),
		Directory: adminv1.NewDirectoryServiceClient(conn), Custody: adminv1.NewCustodyServiceClient(conn),
	}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Connect returns a connection to the first relay of the profile that serves,
// else to the first that answers: one that is not part of the mesh knows less.
func Connect(ctx context.Context, p Profile, logger *slog.Logger) (*Conn, error) {
	endpoint, err := p.Endpoint(logger)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	for first := true; ; first = false {
		c, serving, err := p.connect(ctx, endpoint)
		switch {
		case err == nil && (serving || time.Since(begun) > serveWithin):
			c.logger, c.others = logger, slices.DeleteFunc(slices.Clone(p.Relays), func(address string) bool { return address == c.conn.Target()[len(passthrough):] })
			return c, nil
		case err == nil:
			c.Close()
		case !envelope.Temporary(err) || ctx.Err() != nil || time.Since(begun) > comeUpWithin || !p.refused(ctx):
			return nil, err
		}
		if first {
			logger.Warn("no relay of the profile serves yet, trying again")
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// connect asks each relay once.
func (p Profile) connect(ctx context.Context, endpoint *tls.Endpoint) (answers *Conn, serving bool, err error) {
	var failures []error
	for _, address := range p.Relays {
		c, err := Dial(endpoint, address)
		if err != nil {
			return nil, false, err
		}
		try, cancel := context.WithTimeout(ctx, answerWithin)
		health, err := c.Custody.Health(try, &adminv1.HealthRequest{})
		cancel()
		switch {
		case err == nil && health.GetServing():
			if answers != nil {
				answers.Close()
			}
			return c, true, nil
		case err == nil && answers == nil:
			answers = c
			continue
		}
		c.Close()
		if err == nil {
			continue
		}
		err = fmt.Errorf("relay %s: %w", address, err)
		if !envelope.Temporary(err) && answers == nil {
			return nil, false, err
		}
		failures = append(failures, err)
	}
	if answers != nil {
		return answers, false, nil
	}
	return nil, false, fmt.Errorf("no relay of the profile answers:\n%w", errors.Join(failures...))
}

// refused reports whether nobody listens at any relay's address.
func (p Profile) refused(ctx context.Context) bool {
	dialer := net.Dialer{Timeout: time.Second}
	for _, address := range p.Relays {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return false
		}
	}
	return true
}

// Fresh makes the look-ups after it as new as the directory itself. The error
// is for a mesh without a leader: look-ups then tell what the relay has.
func (c *Conn) Fresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, freshWithin)
	defer cancel()
	// Any small read will do: the barrier is the relay's.
	_, err := c.Directory.ListRules(ctx, &adminv1.ListRulesRequest{Consistency: adminv1.Consistency_CONSISTENCY_LINEARIZABLE})
	return err
}

// Reach returns nil where the relay id answers at address.
func (c *Conn) Reach(ctx context.Context, id, address string) error {
	there, err := dial(c.endpoint, address, tls.ExpectRelay(id))
	if err != nil {
		return err
	}
	defer there.Close()
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err = there.Custody.Health(ctx, &adminv1.HealthRequest{})
	return err
}

// Change applies one directory command: at this relay and, where that one has no
// way to the leader, at the others of the profile in turn. The request id stays
// the same over retries, so that an outcome that was not heard is not applied
// twice. A refusal of the state machine is an *envelope.Refusal.
func (c *Conn) Change(ctx context.Context, command *directoryv1.Command) (*directoryv1.CommandResult, error) {
	r, err := c.change(ctx, command, usualPatience)
	if err == nil && r.GetReason() != 0 {
		return nil, refusalOf(r)
	}
	return r, err
}

// refusalOf is what the state machine refused.
func refusalOf(r *directoryv1.CommandResult) *envelope.Refusal {
	return envelope.Refuse(r.GetReason(), "%s", r.GetMessage())
}

// change is Change with that patience; that the state machine refused stands in
// the result.
func (c *Conn) change(ctx context.Context, command *directoryv1.Command, most patience) (*directoryv1.CommandResult, error) {
	command.Version = 1
	id := uuid.New()
	begun := time.Now()
	request := &adminv1.ChangeRequest{RequestId: id[:], Command: command}
	at, turn := c.Directory, 0
	for try := 1; ; try++ {
		tried, cancel := ctx, func() {}
		if turn < len(c.others) {
			tried, cancel = context.WithTimeout(ctx, most.each)
		}
		r, err := at.Change(tried, request)
		cancel()
		switch {
		case err == nil:
			return r.GetResult(), nil
		case !envelope.Temporary(err) || ctx.Err() != nil:
			return nil, err
		case try == most.tries || time.Since(begun) > most.within:
			return nil, fmt.Errorf("%w; nothing is known to have changed: see \"relayctl raft members --local\" and ask again", err)
		}
		c.logger.Warn("the change was not made yet, trying again", "error", status.Convert(err).Message())
		if there := c.nextThatAnswers(ctx, &turn); there != nil {
			defer there.Close()
			at = there.Directory
			continue
		}
		at, turn = c.Directory, 0
		select {
		case <-time.After(time.Duration(100<<min(try, 5)) * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// nextThatAnswers is the next of the other relays of the profile, from turn on,
// that answers; nil if none does.
func (c *Conn) nextThatAnswers(ctx context.Context, turn *int) *Conn {
	for *turn < len(c.others) {
		address := c.others[*turn]
		*turn++
		there, err := Dial(c.endpoint, address)
		if err != nil {
			continue
		}
		try, cancel := context.WithTimeout(ctx, answerWithin)
		_, err = there.Custody.Health(try, &adminv1.HealthRequest{})
		cancel()
		if err == nil {
			return there
		}
		there.Close()
	}
	return nil
}
