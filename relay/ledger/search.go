package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

const (
	// searchBatch is how many deliveries are looked for together, maxSuspects how
	// many that were not found are looked for again.
	searchBatch = 5_000
	maxSuspects = 100_000
	// askItems and askAgencies bound one question to a relay.
	askItems    = 500
	askAgencies = 20_000
	// reconcileTimeout bounds one question: it may be about many recipients.
	reconcileTimeout = 10 * time.Second
	// maxHops is how often a relay's word that it handed on is followed before
	// all are asked.
	maxHops = 3
)

// claim is one delivery that is pending here and elsewhere in custody.
type claim struct {
	id     envelope.ID
	agency routing.AgencyCode
	// home is the relay that delivers, as far as this one knows; at is the one
	// that should know of it.
	home, at routing.RelayID
}

// search looks for the custody of deliveries. It keeps no more of them than a
// batch and those that were not found.
type search struct {
	*audit
	batch    []claim
	suspects []claim
	// more counts suspects beyond maxSuspects.
	more int
}

// add has a delivery looked for, now or with the next.
func (s *search) add(ctx context.Context, c claim) error {
	if s.batch = append(s.batch, c); len(s.batch) < searchBatch {
		return nil
	}
	return s.look(ctx)
}

// look looks for the batch.
func (s *search) look(ctx context.Context) error {
	lost, err := s.unfound(ctx, s.batch)
	s.batch = s.batch[:0]
	room := max(maxSuspects-len(s.suspects), 0)
	s.more += max(len(lost)-room, 0)
	s.suspects = append(s.suspects, lost[:min(len(lost), room)]...)
	return err
}

// finish looks for the rest, looks again for what was not found, and names what
// still is not. Where a relay is silent, it may be there.
func (s *search) finish(ctx context.Context) error {
	if err := s.look(ctx); err != nil {
		return err
	}
	for n := 1; n < looks && len(s.suspects) > 0; n++ {
		if err := pause(ctx); err != nil {
			return err
		}
		still, err := s.stillElsewhere(s.suspects)
		if err != nil {
			return err
		}
		if s.suspects, err = s.unfound(ctx, still); err != nil {
			return err
		}
	}
	if len(s.silent) > 0 {
		return nil
	}
	for _, c := range s.suspects {
		s.miss(c.id, c.agency, "handed on to relay %s, and no relay has custody of it", c.home)
	}
	if s.more > 0 {
		s.find(envelope.ID{}, "", "%d more deliveries were not found, and not looked for again", s.more)
	}
	return nil
}

// stillElsewhere leaves out what came to its end, or back, since it was counted.
func (s *search) stillElsewhere(claims []claim) ([]claim, error) {
	var still []claim
	var record *envelope.Record
	for _, c := range claims {
		if record == nil || record.ID != c.id {
			var err error
			record, err = s.ledger.config.Spool.Record(c.id)
			if isNotFound(err) {
				record = nil
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("look again for %s: %w", c.id, err)
			}
		}
		for _, d := range record.Deliveries {
			if d.Agency == c.agency && d.Place == envelope.Elsewhere {
				still = append(still, claim{c.id, c.agency, d.Home, d.Home})
			}
		}
	}
	return still, nil
}

// unfound returns the deliveries that nobody who answers has custody of, or
// knows the end of. Each is looked for where it should be, and where a relay
// there says that it went; the rest at every relay in service.
func (s *search) unfound(ctx context.Context, claims []claim) ([]claim, error) {
	rest := claims
	var lost []claim
	for hop := 0; hop < maxHops && len(rest) > 0; hop++ {
		// Nothing is learned from asking ourselves: we say it is elsewhere.
		at := make(map[routing.RelayID][]claim)
		for _, c := range rest {
			if c.at == s.ledger.config.Self || !inService(s.ledger.config.Directory.View(), c.at) {
				lost = append(lost, c)
			} else {
				at[c.at] = append(at[c.at], c)
			}
		}
		rest = rest[:0:0]
		for relay, there := range at {
			err := s.ask(ctx, relay, there, func(c claim, standing *relayv1.Standing) {
				next := routing.RelayID(standing.GetDelivery().GetHomeRelayId())
				switch {
				case accountedFor(standing):
				case standing.GetPlace() == relayv1.Place_PLACE_ELSEWHERE && next != "" && next != relay:
					rest = append(rest, claim{c.id, c.agency, c.home, next})
				default:
					lost = append(lost, c)
				}
			})
			if err != nil {
				return nil, err
			}
		}
	}
	lost = append(lost, rest...)
	others, _ := s.ledger.others()
	for _, relay := range others {
		if len(lost) == 0 {
			break
		}
		var still []claim
		err := s.ask(ctx, relay, lost, func(c claim, standing *relayv1.Standing) {
			if !accountedFor(standing) {
				still = append(still, c)
			}
		})
		if err != nil {
			return nil, err
		}
		lost = still
	}
	return lost, nil
}

// accountedFor reports whether a relay that says so has custody of a delivery,
// or knows how it ended.
func accountedFor(s *relayv1.Standing) bool {
	switch s.GetPlace() {
	case relayv1.Place_PLACE_INBOX, relayv1.Place_PLACE_QUEUE, relayv1.Place_PLACE_SETTLED:
		return true
	}
	return false
}

// ask asks a relay about deliveries, and tells what it says of each; nothing of
// those that it gave no answer about.
func (s *search) ask(ctx context.Context, relay routing.RelayID, claims []claim, tell func(claim, *relayv1.Standing)) error {
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(slices.Compare(a.id[:], b.id[:]), cmp.Compare(a.agency, b.agency))
	})
	for start := 0; start < len(claims); {
		request, end := new(relayv1.ReconcileRequest), start
		for ; end < len(claims) && end-start < askAgencies; end++ {
			c := claims[end]
			if n := len(request.Items); n == 0 || envelope.ID(request.Items[n-1].GetEnvelopeId()) != c.id {
				if n == askItems {
					break
				}
				request.Items = append(request.Items, &relayv1.ReconcileItem{EnvelopeId: c.id[:]})
			}
			item := request.Items[len(request.Items)-1]
			item.AgencyCodes = append(item.AgencyCodes, string(c.agency))
		}
		answers, err := s.reconcile(ctx, relay, request)
		if err != nil {
			return err
		}
		for i, item := range request.Items {
			for j := range item.GetAgencyCodes() {
				var standing *relayv1.Standing
				if answers != nil && j < len(answers[i].GetStandings()) {
					standing = answers[i].GetStandings()[j]
				}
				tell(claims[start], standing)
				start++
			}
		}
	}
	return nil
}

// reconcile asks one question; no answer is none, and the relay counts as silent
// from then on.
func (a *audit) reconcile(ctx context.Context, relay routing.RelayID, request *relayv1.ReconcileRequest) ([]*relayv1.ReconcileAnswer, error) {
	if a.silent[relay] {
		return nil, nil
	}
	limited, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	peer, err := a.ledger.config.Peers.Peer(relay)
	var response *relayv1.ReconcileResponse
	if err == nil {
		response, err = peer.Reconcile(limited, request)
	}
	if err == nil && len(response.GetAnswers()) != len(request.GetItems()) {
		err = fmt.Errorf("%d answers to %d questions", len(response.GetAnswers()), len(request.GetItems()))
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		a.silent[relay] = true
		a.ledger.config.Logger.Info("relay is silent about envelopes", "relay", string(relay), "error", err)
		return nil, nil
	}
	return response.GetAnswers(), nil
}
