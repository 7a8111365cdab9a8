package ledger

import (
	"context"
	"slices"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// early remembers what came here before the document that it is about: a recall,
// which was sent away for a moment; the confirmation of an agency that has moved
// here since it fetched the document elsewhere. It is memory only. A document that
// comes when it is forgotten is given out: the recall then takes it out of the
// inbox, if nobody has confirmed it by then, and who confirmed it does so again.
type early struct {
	mu        sync.Mutex
	documents map[envelope.ID]came
}

// came is who is concerned, and why.
type came struct {
	agencies []routing.AgencyCode
	note     string
	until    time.Time
}

const (
	// earlyFor is how long it is remembered.
	earlyFor = 10 * time.Minute
	// maxEarly bounds the memory, in documents.
	maxEarly = 10_000
)

func (e *early) add(document envelope.ID, agencies []routing.AgencyCode, note string, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.documents == nil {
		e.documents = make(map[envelope.ID]came)
	}
	c, known := e.documents[document]
	if !known && len(e.documents) >= maxEarly {
		for id, c := range e.documents {
			if now.After(c.until) {
				delete(e.documents, id)
			}
		}
		if len(e.documents) >= maxEarly {
			return
		}
	}
	for _, a := range agencies {
		if !slices.Contains(c.agencies, a) {
			c.agencies = append(c.agencies, a)
		}
	}
	c.note, c.until = note, now.Add(earlyFor)
	e.documents[document] = c
}

// Confirmed is told that an agency has confirmed envelopes at this relay, its home,
// which does not have them in the inbox, at most 1,000. It has moved: they are on
// their way here, or were taken back at its home before, which is returned. While
// another relay is to hand them on, or may be, nothing is confirmed yet, for they can
// be taken back there: the error is temporary.
func (l *Ledger) Confirmed(ctx context.Context, agency routing.AgencyCode, ids []envelope.ID) (takenBack []envelope.ID, err error) {
	others := l.elsewhere(ctx, agency, ids)
	for _, id := range ids {
		away := others.away(id)
		switch {
		case others.done[id]: // which is final
		case others.recalled[id]:
			takenBack = append(takenBack, id)
		case away != nil:
			err = away
		default:
			l.confirmations.add(id, []routing.AgencyCode{agency}, "", l.config.Clock())
		}
	}
	return takenBack, err
}

// Away is told that an agency asks for an envelope at this relay, its home, which
// does not have it. The error is temporary where another relay has it for the agency,
// or may have it: the agency is moving, and one of the two has not heard of it yet;
// nil where nobody has it.
func (l *Ledger) Away(ctx context.Context, agency routing.AgencyCode, id envelope.ID) error {
	return l.elsewhere(ctx, agency, []envelope.ID{id}).away(id)
}

// elsewhere is where deliveries stand at the other relays, as far as they answer.
type elsewhere struct {
	recalled, done, waits map[envelope.ID]bool
	silent                []routing.RelayID
}

// away is a temporary refusal where another relay has the envelope still, or may
// have it.
func (e elsewhere) away(id envelope.ID) error {
	switch {
	case e.done[id], e.recalled[id]:
		return nil
	case e.waits[id]:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE,
			"envelope %s is on its way here from another relay; call again in a moment", id)
	case len(e.silent) > 0:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE,
			"envelope %s is not here, and relays that may know what became of it do not answer just now: %v; call again", id, e.silent)
	}
	return nil
}

func (l *Ledger) elsewhere(ctx context.Context, agency routing.AgencyCode, ids []envelope.ID) elsewhere {
	e := elsewhere{recalled: make(map[envelope.ID]bool), done: make(map[envelope.ID]bool), waits: make(map[envelope.ID]bool)}
	answers, silent := l.standings(ctx, agency, ids)
	e.silent = silent
	for _, answer := range answers {
		for _, a := range answer.GetAnswers() {
			id, err := envelope.IDFromBytes(a.GetEnvelopeId())
			if err != nil || len(a.GetStandings()) != 1 {
				continue
			}
			switch d := a.GetStandings()[0].GetDelivery(); a.GetStandings()[0].GetPlace() {
			case relayv1.Place_PLACE_INBOX, relayv1.Place_PLACE_QUEUE:
				e.waits[id] = true
			case relayv1.Place_PLACE_SETTLED:
				e.recalled[id] = e.recalled[id] || d.GetReason() == exchangev1.ErrorReason_ERROR_REASON_RECALLED
				e.done[id] = e.done[id] || d.GetTransport() == exchangev1.TransportStatus_TRANSPORT_STATUS_DONE
			}
		}
	}
	return e
}

// standings asks the other relays where deliveries to an agency stand.
func (l *Ledger) standings(ctx context.Context, agency routing.AgencyCode, ids []envelope.ID) (answers []*relayv1.ReconcileResponse, silent []routing.RelayID) {
	question := new(relayv1.ReconcileRequest)
	for _, id := range ids {
		question.Items = append(question.Items, &relayv1.ReconcileItem{EnvelopeId: id[:], AgencyCodes: []string{string(agency)}})
	}
	ctx, cancel := context.WithTimeout(ctx, l.config.AskTimeout)
	defer cancel()
	relays, _ := l.others()
	answers = make([]*relayv1.ReconcileResponse, len(relays))
	var asking sync.WaitGroup
	for i, relay := range relays {
		asking.Go(func() {
			if peer, err := l.config.Peers.Peer(relay); err == nil {
				answers[i], _ = peer.Reconcile(ctx, question)
			}
		})
	}
	asking.Wait()
	for i, relay := range relays {
		if answers[i] == nil {
			silent = append(silent, relay)
		}
	}
	return answers, silent
}

// take returns what came before a document that is in these inboxes now, and forgets
// it. It may be on its way to others still.
func (e *early) take(document envelope.ID, inboxes []routing.AgencyCode, now time.Time) came {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, known := e.documents[document]
	if !known || now.After(c.until) {
		delete(e.documents, document)
		return came{}
	}
	var left []routing.AgencyCode
	taken := came{note: c.note}
	for _, a := range c.agencies {
		if slices.Contains(inboxes, a) {
			taken.agencies = append(taken.agencies, a)
		} else {
			left = append(left, a)
		}
	}
	if c.agencies = left; len(left) == 0 {
		delete(e.documents, document)
	} else {
		e.documents[document] = c
	}
	return taken
}
