package dev

import (
	"bytes"
	"context"
	"fmt"

	"github.com/truclienthong/truc/cmd/internal/operator"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// Operator is an operator's connection to one relay.
type Operator = operator.Conn

// OperatorEndpoint is the operator's end of secured channels.
func (l Layout) OperatorEndpoint() (*tls.Endpoint, error) {
	profile, err := operator.LoadProfile(l.Profile("operator"))
	if err != nil {
		return nil, err
	}
	return profile.Endpoint(nil)
}

// DialOperator connects an operator to a relay of the layout.
func (l Layout) DialOperator(endpoint *tls.Endpoint, id string) (*Operator, error) {
	for i, r := range l.Relays {
		if r.ID == id {
			return operator.Dial(endpoint, l.address(i))
		}
	}
	return nil, fmt.Errorf("no relay %q in the layout", id)
}

// Import fills the directory with the agencies of the layout by way of the
// first relay, waits until the copy of each relay has them, and returns how many
// they are.
func (l Layout) Import(ctx context.Context, relays ...*Operator) (int, error) {
	agencies, err := routing.ReadAgencies(bytes.NewReader(l.Agencies))
	if err != nil {
		return 0, err
	}
	if err := relays[0].AwaitRelays(ctx, agencies, nil); err != nil {
		return 0, err
	}
	if _, err := relays[0].Import(ctx, operator.Import{Agencies: agencies}); err != nil {
		return 0, err
	}
	for _, c := range relays {
		request := &adminv1.ListRelaysRequest{Consistency: adminv1.Consistency_CONSISTENCY_LINEARIZABLE}
		if _, err := c.Directory.ListRelays(ctx, request); err != nil {
			return 0, err
		}
	}
	return len(agencies), nil
}
