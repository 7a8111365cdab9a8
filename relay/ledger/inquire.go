package ledger

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// Inquire tells what this relay knows of one envelope; nothing, when it knows
// nothing.
func (l *Ledger) Inquire(_ context.Context, req *relayv1.InquireRequest) (*relayv1.InquireResponse, error) {
	id, known, err := l.named(req)
	if err != nil || !known {
		return &relayv1.InquireResponse{}, err
	}
	record, err := l.config.Spool.Record(id)
	if isNotFound(err) {
		return &relayv1.InquireResponse{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inquire %s: %w", id, err)
	}
	events, err := l.config.Spool.Events(id)
	if err != nil && !isNotFound(err) {
		return nil, fmt.Errorf("inquire %s: %w", id, err)
	}
	response := &relayv1.InquireResponse{
		HoldsContent:   !record.ContentReleased,
		Receipt:        record.Receipt(l.config.Self),
		IngressRelayId: string(record.Ingress),
		Header:         record.Header,
		SenderCode:     string(record.Sender),
	}
	for _, event := range events {
		response.Events = append(response.Events, &exchangev1.TraceEvent{
			RelayId: string(l.config.Self), At: timestamppb.New(event.At), Action: event.Action,
			PeerRelayId: string(event.Peer), AgencyCode: string(event.Agency), Note: event.Note,
		})
	}
	for i := range record.Deliveries {
		response.Deliveries = append(response.Deliveries, deliveryOf(&record.Deliveries[i]))
	}
	return response, nil
}

// named finds the id that a request means; false where this relay has never
// seen the document.
func (l *Ledger) named(req *relayv1.InquireRequest) (envelope.ID, bool, error) {
	if len(req.GetEnvelopeId()) == 0 && req.GetDocumentId() != "" {
		id, known, err := l.config.Spool.ByDocument(routing.AgencyCode(req.GetSenderCode()), req.GetDocumentId())
		if err != nil {
			return envelope.ID{}, false, fmt.Errorf("find a document of %s: %w", req.GetSenderCode(), err)
		}
		return id, known, nil
	}
	id, err := envelope.IDFromBytes(req.GetEnvelopeId())
	if err != nil {
		return envelope.ID{}, false, refuseField("envelope_id", "%v", err)
	}
	return id, true, nil
}

// others lists the relays that can be asked, and those that are known to give
// no answer any more: a lost relay stays silent, which must be said.
func (l *Ledger) others() (ask []routing.RelayID, silent []string) {
	for _, relay := range l.config.Directory.View().Relays() {
		switch {
		case relay.GetId() == string(l.config.Self):
		case relay.GetState() == directoryv1.RelayState_RELAY_STATE_RETIRED:
			// It handed everything over before it left.
		case relay.GetState() == directoryv1.RelayState_RELAY_STATE_LOST:
			silent = append(silent, relay.GetId())
		default:
			ask = append(ask, routing.RelayID(relay.GetId()))
		}
	}
	return ask, silent
}

// ask asks the relays at the same time, within AskTimeout, and adds their
// answers.
func (l *Ledger) ask(ctx context.Context, relays []routing.RelayID, req *relayv1.InquireRequest, into *knowledge) {
	if len(relays) == 0 {
		return
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, l.config.AskTimeout)
	defer cancel()
	answers := make([]*relayv1.InquireResponse, len(relays))
	var asking sync.WaitGroup
	for i, relay := range relays {
		asking.Go(func() {
			answer, err := l.inquireAt(ctx, relay, req)
			if err != nil {
				l.config.Logger.Info("relay is silent about an envelope", "relay", string(relay), "error", err)
				return
			}
			answers[i] = answer
		})
	}
	asking.Wait()
	l.asked.Record(ctx, time.Since(began).Seconds())
	for i, relay := range relays {
		if answers[i] == nil {
			into.silent = append(into.silent, string(relay))
		} else {
			into.add(relay, answers[i])
		}
	}
}

func (l *Ledger) inquireAt(ctx context.Context, relay routing.RelayID, req *relayv1.InquireRequest) (*relayv1.InquireResponse, error) {
	peer, err := l.config.Peers.Peer(relay)
	if err != nil {
		return nil, err
	}
	return peer.Inquire(ctx, req)
}

func isNotFound(err error) bool {
	r, ok := envelope.AsRefusal(err)
	return ok && r.Reason == exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
}

func refuseField(field, format string, args ...any) error {
	r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, format, args...)
	r.Problems = []envelope.Problem{{Field: field, Reason: r.Reason, Description: r.Message}}
	return r
}
