package keeper

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// errSilent marks a relay that did not answer, or not to what it was asked.
var errSilent = errors.New("silent")

const (
	// maxItems is the most envelopes in one call; peer.proto allows 1,000.
	maxItems = pageSize
	// maxAsked is the most recipients in one call, so that an answer with a note
	// for each stays far below the largest message.
	maxAsked = 5000
)

// question is about one envelope.
type question struct {
	id       envelope.ID
	agencies []routing.AgencyCode // at least one
}

// answer is what the relay said to a question.
type answer struct {
	known, holds, ingress bool
	copies                uint32
	standings             map[routing.AgencyCode]*relayv1.Standing
}

// ask asks a relay about envelopes, in as many calls as it takes. Answers are
// those of the questions, in order.
func (k *Keeper) ask(ctx context.Context, relay routing.RelayID, questions []question) ([]answer, error) {
	answers := make([]answer, len(questions))
	var request relayv1.ReconcileRequest
	var about []int // of each item
	asked := 0
	call := func() error {
		if len(about) == 0 {
			return nil
		}
		err := k.call(ctx, relay, &request, func(i int, a *relayv1.ReconcileAnswer) { answers[about[i]].take(a) })
		request.Items, about, asked = nil, nil, 0
		return err
	}
	for i, q := range questions {
		for rest := q.agencies; len(rest) > 0; {
			if len(about) == maxItems || asked == maxAsked {
				if err := call(); err != nil {
					return nil, err
				}
			}
			n := min(len(rest), maxAsked-asked)
			item := &relayv1.ReconcileItem{EnvelopeId: q.id[:]}
			for _, code := range rest[:n] {
				item.AgencyCodes = append(item.AgencyCodes, string(code))
			}
			request.Items, about = append(request.Items, item), append(about, i)
			rest, asked = rest[n:], asked+n
		}
	}
	return answers, call()
}

func (a *answer) take(m *relayv1.ReconcileAnswer) {
	a.known, a.holds, a.ingress, a.copies = m.GetKnown(), m.GetHoldsContent(), m.GetIngress(), m.GetCopies()
	if a.standings == nil {
		a.standings = make(map[routing.AgencyCode]*relayv1.Standing, len(m.GetStandings()))
	}
	for _, s := range m.GetStandings() {
		a.standings[routing.AgencyCode(s.GetAgencyCode())] = s
	}
}

// place returns where the delivery to a recipient stands there.
func (a *answer) place(code routing.AgencyCode) relayv1.Place {
	if !a.known {
		return relayv1.Place_PLACE_UNSPECIFIED
	}
	return a.standings[code].GetPlace()
}

// call makes one call; an answer to something else than what was asked is none.
func (k *Keeper) call(ctx context.Context, relay routing.RelayID, request *relayv1.ReconcileRequest, each func(int, *relayv1.ReconcileAnswer)) error {
	limited, cancel := context.WithTimeout(ctx, k.AskTimeout)
	defer cancel()
	peer, err := k.Peers.Peer(relay)
	var response *relayv1.ReconcileResponse
	if err == nil {
		response, err = peer.Reconcile(limited, request)
	}
	if err == nil {
		err = fits(request, response)
	}
	if err != nil {
		k.telemetry.silent.Add(ctx, 1, metric.WithAttributes(attribute.String("peer", string(relay))))
		return fmt.Errorf("ask %s about %d envelopes: %w: %w", relay, len(request.GetItems()), errSilent, err)
	}
	for i, a := range response.GetAnswers() {
		each(i, a)
	}
	return nil
}

// fits refuses an answer that is not to the request: what it says of one
// envelope would be believed of another.
func fits(request *relayv1.ReconcileRequest, response *relayv1.ReconcileResponse) error {
	items, answers := request.GetItems(), response.GetAnswers()
	if len(answers) != len(items) {
		return fmt.Errorf("%d answers to %d questions", len(answers), len(items))
	}
	for i, a := range answers {
		if string(a.GetEnvelopeId()) != string(items[i].GetEnvelopeId()) {
			return fmt.Errorf("answer %d is about another envelope", i)
		}
		codes, standings := items[i].GetAgencyCodes(), a.GetStandings()
		if !a.GetKnown() && len(standings) == 0 {
			continue
		}
		if len(standings) != len(codes) {
			return fmt.Errorf("answer %d has %d standings for %d recipients", i, len(standings), len(codes))
		}
		for j, s := range standings {
			if s.GetAgencyCode() != codes[j] {
				return fmt.Errorf("answer %d is about another recipient", i)
			}
		}
	}
	return nil
}
