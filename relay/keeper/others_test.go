package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// others are the relays that can be asked.
type others struct {
	mu sync.Mutex
	// knows is what each relay says; nil: it is silent.
	knows map[routing.RelayID]map[envelope.ID]*relayv1.ReconcileAnswer
	calls map[routing.RelayID]int
	asked map[routing.RelayID]int // envelopes
	// spoils changes an answer.
	spoils func(*relayv1.ReconcileResponse)
}

var errDown = errors.New("connection refused")

func newOthers() *others {
	return &others{
		knows: make(map[routing.RelayID]map[envelope.ID]*relayv1.ReconcileAnswer),
		calls: make(map[routing.RelayID]int), asked: make(map[routing.RelayID]int),
	}
}

func (o *others) Peer(relay routing.RelayID) (relayv1.PeerServiceClient, error) {
	return peer{others: o, relay: relay}, nil
}

type peer struct {
	relayv1.PeerServiceClient
	others *others
	relay  routing.RelayID
}

func (p peer) Reconcile(_ context.Context, req *relayv1.ReconcileRequest, _ ...grpc.CallOption) (*relayv1.ReconcileResponse, error) {
	o := p.others
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls[p.relay]++
	o.asked[p.relay] += len(req.GetItems())
	knows, up := o.knows[p.relay]
	if !up {
		return nil, errDown
	}
	if len(req.GetItems()) == 0 || len(req.GetItems()) > 1000 {
		return nil, fmt.Errorf("%d items", len(req.GetItems()))
	}
	response := new(relayv1.ReconcileResponse)
	for _, item := range req.GetItems() {
		answer := &relayv1.ReconcileAnswer{EnvelopeId: item.GetEnvelopeId()}
		said := knows[envelope.ID(item.GetEnvelopeId())]
		if said != nil {
			answer = proto.CloneOf(said)
			answer.EnvelopeId, answer.Known, answer.Standings = item.GetEnvelopeId(), true, nil
		}
		for _, code := range item.GetAgencyCodes() {
			standing := &relayv1.Standing{AgencyCode: code}
			for _, s := range said.GetStandings() {
				if s.GetAgencyCode() == code {
					standing = s
				}
			}
			answer.Standings = append(answer.Standings, standing)
		}
		response.Answers = append(response.Answers, answer)
	}
	if o.spoils != nil {
		o.spoils(response)
	}
	return response, nil
}

// up has a relay answer, with what it knows of one envelope, if anything.
func (o *others) up(relay routing.RelayID, id envelope.ID, answer *relayv1.ReconcileAnswer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.knows[relay] == nil {
		o.knows[relay] = make(map[envelope.ID]*relayv1.ReconcileAnswer)
	}
	if answer != nil {
		o.knows[relay][id] = answer
	}
}

func (o *others) count(relay routing.RelayID) (calls, asked int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls[relay], o.asked[relay]
}

// says is an answer of a relay that has the content.
func says(standings ...*relayv1.Standing) *relayv1.ReconcileAnswer {
	return &relayv1.ReconcileAnswer{HoldsContent: true, Standings: standings}
}

// without is the answer of one that has the record only.
func without(standings ...*relayv1.Standing) *relayv1.ReconcileAnswer {
	return &relayv1.ReconcileAnswer{Standings: standings}
}

func stands(code string, place relayv1.Place) *relayv1.Standing {
	return &relayv1.Standing{AgencyCode: code, Place: place, Delivery: &exchangev1.Delivery{AgencyCode: code}}
}

var endedAt = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func ended(code string, transport exchangev1.TransportStatus, reason exchangev1.ErrorReason) *relayv1.Standing {
	s := stands(code, relayv1.Place_PLACE_SETTLED)
	s.Delivery.Transport, s.Delivery.Reason, s.Delivery.UpdatedAt = transport, reason, timestamppb.New(endedAt)
	return s
}
