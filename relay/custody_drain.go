package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/grpc"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// drainEvery is how often a relay that drains tells how far it is.
const drainEvery = time.Second

// remainder tells how many envelopes this relay has that no other relay in
// service is known to have, or to have settled. It asks other relays, and may
// take a while.
type remainder interface {
	Remaining(ctx context.Context) (uint64, error)
}

// drained is the statement of a relay that has handed everything over; its
// counts are of deliveries accepted at it.
type drained struct {
	Statement        string `json:"statement"`
	Relay            string `json:"relay"`
	Region           string `json:"region"`
	DirectoryVersion uint64 `json:"directory_version"`
	// At is Vietnam time, ISO 8601.
	At        string `json:"at"`
	Remaining uint64 `json:"remaining"`
	Accepted  int64  `json:"accepted"`
	Delivered int64  `json:"delivered"`
	Pending   int64  `json:"pending"`
	Expired   int64  `json:"expired"`
	Refused   int64  `json:"refused"`
	Recalled  int64  `json:"recalled"`
	// DeadLetters are envelopes with deliveries that were given up, whose content
	// leaves with the relay.
	DeadLetters int64 `json:"dead_letters"`
}

// vietnam is the zone of all times that people read.
var vietnam = time.FixedZone("+07", 7*60*60)

// Drain tells how far this relay is with handing over its custody, and ends with
// its statement once nothing is left. The directory makes it drain, not this
// call: who stops listening stops nothing.
func (c *custodyService) Drain(req *adminv1.DrainRequest, stream grpc.ServerStreamingServer[adminv1.DrainResponse]) error {
	config := &c.relay.config
	if id := req.GetRelayId(); id != string(config.ID) {
		return refuseField("relay_id", "this is relay %s; ask relay %s itself", config.ID, id)
	}
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for {
		changed := config.Directory.Changed()
		own, _ := config.Directory.View().Relay(config.ID)
		if own.GetState() != directoryv1.RelayState_RELAY_STATE_DRAINING {
			return wrongState("relay %s is not draining, as far as it knows", config.ID)
		}
		progress, err := c.progress(stream.Context())
		if err != nil {
			return err
		}
		if err := stream.Send(progress); err != nil || progress.GetDone() {
			return err
		}
		select {
		case <-tick.C:
		case <-changed:
		case <-c.relay.state.ending.Done():
			return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING, "relay %s stops; it goes on draining once it runs again", config.ID)
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// progress says what is left, and states it where nothing is. That is looked at
// twice, a while apart: an envelope that was let in just before the relay began
// to drain may not have been seen the first time.
func (c *custodyService) progress(ctx context.Context) (*adminv1.DrainResponse, error) {
	for look := 0; look < 2; look++ {
		if look > 0 {
			select {
			case <-time.After(drainEvery):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		remaining, err := c.remaining(ctx)
		if err != nil {
			return nil, fmt.Errorf("find out what is left: %w", err)
		}
		if remaining > 0 {
			return &adminv1.DrainResponse{Remaining: remaining}, nil
		}
	}
	statement, err := json.Marshal(c.drained())
	if err != nil {
		return nil, err
	}
	signed, err := c.relay.config.Endpoint.Sign(statement)
	if err != nil {
		return nil, fmt.Errorf("nothing is left, and it cannot be stated: %w", err)
	}
	c.relay.config.Logger.Info("relay has handed everything over")
	return &adminv1.DrainResponse{Done: true, Statement: signed}, nil
}

// remaining counts what is left. Whatever other relays have: while something is
// on its way in, or waits in a queue or an inbox here, this relay is not done.
func (c *custodyService) remaining(ctx context.Context) (uint64, error) {
	here := func() uint64 {
		stats := c.spool.Stats()
		return uint64(max(stats.Queued+stats.Inboxed, 0)) + uint64(c.spool.Arriving())
	}
	if n := here(); n > 0 {
		return n, nil
	}
	remaining, err := c.remainder.Remaining(ctx)
	// Again, for it may have taken a while.
	return max(remaining, here()), err
}

func (c *custodyService) drained() drained {
	config, stats := &c.relay.config, c.spool.Stats()
	return drained{
		Statement: "drained", Relay: string(config.ID), Region: config.Region,
		DirectoryVersion: config.Directory.View().Version(),
		At:               config.Clock().In(vietnam).Format("2006-01-02T15:04:05.000Z07:00"),
		Accepted:         stats.Accepted, Delivered: stats.Delivered, Pending: stats.Pending(),
		Expired: stats.Expired, Refused: stats.Refused, Recalled: stats.Recalled, DeadLetters: stats.DeadLetters,
	}
}
