package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/seal"
)

// To makes a connection to one relay of the directory, and to no other that may
// answer at its address; it connects at the first call.
func (c *Conn) To(relay *directoryv1.Relay) (*Conn, error) {
	there, err := dial(c.endpoint, relay.GetAddress(), tls.ExpectRelay(relay.GetId()))
	if err != nil {
		return nil, fmt.Errorf("relay %s at %s: %w", relay.GetId(), relay.GetAddress(), err)
	}
	there.logger = c.logger
	return there, nil
}

// Relay finds a relay of the directory.
func (c *Conn) Relay(ctx context.Context, id string) (*adminv1.RelayView, error) {
	r, err := c.Directory.ListRelays(ctx, &adminv1.ListRelaysRequest{})
	if err != nil {
		return nil, err
	}
	for _, v := range r.GetRelays() {
		if v.GetRelay().GetId() == id {
			return v, nil
		}
	}
	return nil, envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND,
		"relay %s is not in the directory; `relayctl relay list` shows those that are", id)
}

// InService reports whether a relay of the directory takes part in the mesh.
func InService(relay *directoryv1.Relay) bool {
	switch relay.GetState() {
	case directoryv1.RelayState_RELAY_STATE_RETIRED, directoryv1.RelayState_RELAY_STATE_LOST:
		return false
	}
	return true
}

// Mesh is a connection to every relay in service, or to one.
type Mesh struct {
	// Members are those that answer, Silent those that did not.
	Members []Member
	Silent  []Failure
}

// Member is one relay of a mesh.
type Member struct {
	ID   string
	Conn *Conn
}

// Mesh connects to every relay in service, or to the one that only names, and
// sees which of them answer.
func (c *Conn) Mesh(ctx context.Context, only string) (*Mesh, error) {
	var relays []*directoryv1.Relay
	if only != "" {
		v, err := c.Relay(ctx, only)
		if err != nil {
			return nil, err
		}
		relays = append(relays, v.GetRelay())
	} else {
		r, err := c.Directory.ListRelays(ctx, &adminv1.ListRelaysRequest{})
		if err != nil {
			return nil, err
		}
		for _, v := range r.GetRelays() {
			if InService(v.GetRelay()) {
				relays = append(relays, v.GetRelay())
			}
		}
	}
	m := new(Mesh)
	for _, relay := range relays {
		there, err := c.To(relay)
		if err != nil {
			m.Close()
			return nil, err
		}
		m.Members = append(m.Members, Member{ID: relay.GetId(), Conn: there})
	}
	m.Silent = m.Each(ctx, func(ctx context.Context, member Member) error {
		ctx, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		_, err := member.Conn.Custody.Health(ctx, &adminv1.HealthRequest{})
		return err
	})
	m.Members = slices.DeleteFunc(m.Members, func(member Member) bool {
		silent := slices.ContainsFunc(m.Silent, func(f Failure) bool { return f.Relay == member.ID })
		if silent {
			member.Conn.Close()
		}
		return silent
	})
	return m, ctx.Err()
}

// Close ends the connections.
func (m *Mesh) Close() {
	for _, member := range m.Members {
		member.Conn.Close()
	}
}

// Failure is a relay that did not answer as it should have.
type Failure struct {
	Relay string
	Err   error
}

// Each calls do for every relay that answers at the same time, and returns the
// failures by relay.
func (m *Mesh) Each(ctx context.Context, do func(context.Context, Member) error) []Failure {
	failures := make([]Failure, len(m.Members))
	var calls sync.WaitGroup
	for i, member := range m.Members {
		calls.Go(func() {
			if err := do(ctx, member); err != nil {
				failures[i] = Failure{member.ID, err}
			}
		})
	}
	calls.Wait()
	failures = slices.DeleteFunc(failures, func(f Failure) bool { return f.Err == nil })
	slices.SortFunc(failures, func(a, b Failure) int { return cmp.Compare(a.Relay, b.Relay) })
	return failures
}

// NotFound reports whether a relay said that it does not know what was asked
// for.
func NotFound(err error) bool {
	r, ok := envelope.AsRefusal(err)
	return ok && r.Reason == exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
}

// ErrStatement says that a relay's statement is not to be believed.
var ErrStatement = errors.New("statement is not to be believed")

// VerifyStatement returns what the relay with this id has signed, if it was that
// relay of our own trust domain, with a certificate that the profile's trust
// vouches for.
func (c *Conn) VerifyStatement(id string, signed []byte) (*seal.Statement, error) {
	statement, _, err := c.endpoint.VerifySigned(signed, c.endpoint.ExpectPeer(id))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	return statement, nil
}
