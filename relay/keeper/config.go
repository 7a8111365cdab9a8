package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Spool is custody at this relay. All methods may be called at once.
type Spool interface {
	// Record refuses with NOT_FOUND what is not known.
	Record(envelope.ID) (*envelope.Record, error)
	Copies
	Origins
	// Expired lists, in order of time, envelopes that are not done with and whose
	// lifetime ended at an instant or before.
	Expired(before time.Time, after envelope.Due, max int) ([]envelope.Due, error)
	Facts
}

// Copies is where the spool believes other copies of the envelopes to be that
// were accepted here and are not settled.
type Copies interface {
	// Sole lists, by sequence, those that no other relay is known to have.
	Sole(after uint64, max int) ([]envelope.SoleEntry, error)
	// SoleChanged is closed at the next addition; it is taken before reading.
	SoleChanged() <-chan struct{}
	// Holders lists the relays that have such envelopes, Away those of one of
	// them, by id.
	Holders() ([]routing.RelayID, error)
	Away(holder routing.RelayID, after envelope.ID, max int) ([]envelope.ID, error)
}

// Origins is where the envelopes come from that were accepted elsewhere and are
// in custody or kept here.
type Origins interface {
	// Origins lists their ingress relays, Origin the envelopes of one of them.
	Origins() ([]routing.RelayID, error)
	Origin(ingress routing.RelayID, after envelope.ID, max int) ([]envelope.ID, error)
}

// Facts records what was found out. Each is durable on return and harmless when
// repeated; they are called many at once and share the spool's sync.
type Facts interface {
	Settle(context.Context, []envelope.Settlement) (int, error)
	Reroute(context.Context, envelope.Reroute) error
	Copy(context.Context, envelope.Copy) error
	TakeOver(context.Context, envelope.TakeOver) error
	// Forget has a relay no longer count as a holder.
	Forget(ctx context.Context, id envelope.ID, holder routing.RelayID) error
	// HandOn with this relay as the peer gives up a duty without recipients.
	HandOn(context.Context, envelope.HandedOn) error
}

// Directory is the local copy of the directory.
type Directory interface {
	View() routing.View
	// Changed is closed at the next change; it is taken before View.
	Changed() <-chan struct{}
}

// Peers reaches other relays.
type Peers interface {
	// Peer returns the connection to a relay, without waiting for the relay.
	Peer(relay routing.RelayID) (relayv1.PeerServiceClient, error)
}

// Config is everything a Keeper needs. Fields without a comment on a default
// are required.
type Config struct {
	Self      routing.RelayID
	Spool     Spool
	Directory Directory
	Peers     Peers
	// Usable reports whether a relay is reached directly and takes envelopes,
	// and the round trip.
	Usable func(routing.RelayID) (roundTrip time.Duration, ok bool)

	// CopyAfter is the age at which an envelope that is on its way to a relay
	// in reach, and is not there yet, gets a copy at another; 1 s.
	CopyAfter time.Duration
	// ReviewEvery is how often each other relay is asked; 10 s.
	ReviewEvery time.Duration
	// ReviewPause is the least time between two passes over one relay; 1 s.
	ReviewPause time.Duration
	// AskTimeout bounds one call; 5 s.
	AskTimeout time.Duration
	// AbsentAfter is how long a relay has to be missing in the directory before
	// it counts as gone for good: a copy of the directory may be catching up;
	// 1 min.
	AbsentAfter time.Duration
	// ExpireEvery is how often expiry is looked at; 1 s.
	ExpireEvery time.Duration

	// Clock tells the time; nil: time.Now. Waiting is done with timers of the
	// runtime.
	Clock func() time.Time
	// Random makes jitter; nil: seeded by the runtime.
	Random rand.Source
	// Logger and Meter may be nil.
	Logger *slog.Logger
	Meter  metric.Meter
}

func (c *Config) complete() error {
	if _, err := routing.ParseRelayID(string(c.Self)); err != nil {
		return fmt.Errorf("own id: %w", err)
	}
	if c.Spool == nil || c.Directory == nil || c.Peers == nil || c.Usable == nil {
		return errors.New("spool, directory, peers and what is usable are all needed")
	}
	for _, t := range []struct {
		field    *time.Duration
		standard time.Duration
	}{
		{&c.CopyAfter, time.Second}, {&c.ReviewEvery, 10 * time.Second}, {&c.ReviewPause, time.Second},
		{&c.AskTimeout, 5 * time.Second}, {&c.AbsentAfter, time.Minute}, {&c.ExpireEvery, time.Second},
	} {
		switch {
		case *t.field < 0:
			return errors.New("times are not negative")
		case *t.field == 0:
			*t.field = t.standard
		}
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
		c.Meter = metricnoop.Meter{}
	}
	return nil
}

// jitter keeps relays from doing the same thing at the same time.
type jitter struct {
	mu     sync.Mutex
	random *rand.Rand // guarded by mu
}

// around returns between half of d and d.
func (j *jitter) around(d time.Duration) time.Duration {
	if d < 2 {
		return d
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return d - time.Duration(j.random.Int64N(int64(d/2)+1))
}
