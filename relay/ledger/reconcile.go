package ledger

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/tls"
)

// What one Reconcile may ask. The bound on all recipients together, asked about
// or known here, keeps an answer within the largest message of the mesh.
const (
	maxReconciled         = 1_000
	maxReconciledAgencies = 20_000
	maxStandings          = 40_000
)

// noteRoom is how many bytes of notes one answer carries; notes are for people,
// and what a delivery came to stands beside them.
const noteRoom = 1 << 20

// Reconcile tells another relay where the deliveries of many envelopes stand
// here. It reads one instant of each envelope.
func (l *Ledger) Reconcile(ctx context.Context, req *relayv1.ReconcileRequest) (*relayv1.ReconcileResponse, error) {
	if n := len(req.GetItems()); n == 0 || n > maxReconciled {
		return nil, refuseField("items", "has %d entries, 1 to %d are allowed", n, maxReconciled)
	}
	var caller routing.RelayID
	if identity, ok := l.config.Caller(ctx); ok && identity.Kind == tls.KindRelay {
		caller = routing.RelayID(identity.Name)
	}
	answering := reconciliation{self: l.config.Self, caller: caller, view: l.config.Directory.View(), notes: noteRoom}
	response := &relayv1.ReconcileResponse{Answers: make([]*relayv1.ReconcileAnswer, 0, len(req.GetItems()))}
	for i, item := range req.GetItems() {
		id, err := envelope.IDFromBytes(item.GetEnvelopeId())
		if err != nil {
			return nil, refuseField(fmt.Sprintf("items[%d].envelope_id", i), "%v", err)
		}
		if n := len(item.GetAgencyCodes()); n > maxReconciledAgencies {
			return nil, refuseField(fmt.Sprintf("items[%d].agency_codes", i), "has %d entries, at most %d are allowed", n, maxReconciledAgencies)
		}
		record, err := l.config.Spool.Record(id)
		if err != nil && !isNotFound(err) {
			return nil, fmt.Errorf("reconcile %s: %w", id, err)
		}
		answer := answering.answer(id, record, item.GetAgencyCodes())
		// One envelope is always answered, whatever the number of recipients.
		if answering.standings > maxStandings && i > 0 {
			return nil, refuseField("items", "concern more than %d recipients together; ask about fewer envelopes at once", maxStandings)
		}
		response.Answers = append(response.Answers, answer)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return response, nil
}

// reconciliation is one answer in the making.
type reconciliation struct {
	self, caller routing.RelayID
	view         routing.View
	standings    int
	notes        int
}

// answer tells what record, nil where there is none, says of the recipients
// asked about.
func (r *reconciliation) answer(id envelope.ID, record *envelope.Record, asked []string) *relayv1.ReconcileAnswer {
	answer := &relayv1.ReconcileAnswer{EnvelopeId: id[:]}
	known := make(map[string]*envelope.Delivery)
	if record != nil {
		answer.Known, answer.HoldsContent, answer.Ingress = true, !record.ContentReleased, record.FromSender
		answer.Copies = r.copies(record)
		all := len(asked) == 0
		for i := range record.Deliveries {
			d := &record.Deliveries[i]
			known[string(d.Agency)] = d
			if all {
				asked = append(asked, string(d.Agency))
			}
		}
	}
	r.standings += len(asked)
	if r.standings > maxStandings && r.standings > len(asked) {
		return answer // refused by the caller
	}
	for _, code := range asked {
		answer.Standings = append(answer.Standings, r.standing(code, known[code]))
	}
	return answer
}

func (r *reconciliation) standing(code string, d *envelope.Delivery) *relayv1.Standing {
	standing := &relayv1.Standing{AgencyCode: code}
	if d == nil || d.Place == envelope.Unknown {
		return standing
	}
	standing.Place = relayv1.Place(d.Place)
	standing.Delivery = &exchangev1.Delivery{
		AgencyCode: code, HomeRelayId: string(d.Home), Transport: d.Transport,
		Reason: d.Reason, UpdatedAt: timestamppb.New(d.UpdatedAt),
	}
	if len(d.Note) <= r.notes {
		standing.Delivery.Note = d.Note
		r.notes -= len(d.Note)
	}
	return standing
}

// copies counts the relays in service that hold the envelope, as far as the
// record knows, apart from the caller. This relay is one of them while it has
// the content.
func (r *reconciliation) copies(record *envelope.Record) uint32 {
	var n uint32
	if !record.ContentReleased && r.self != r.caller {
		n++
	}
	for _, holder := range record.Holders {
		if holder != r.caller && holder != r.self && inService(r.view, holder) {
			n++
		}
	}
	return n
}

// inService reports whether a relay is in the mesh and keeps what it holds.
func inService(view routing.View, id routing.RelayID) bool {
	relay, ok := view.Relay(id)
	if !ok {
		return false
	}
	switch relay.GetState() {
	case directoryv1.RelayState_RELAY_STATE_RETIRED, directoryv1.RelayState_RELAY_STATE_LOST:
		return false
	}
	return true
}
