package ledger

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
)

// deliveryOf tells of one recipient's copy what this relay knows.
func deliveryOf(d *envelope.Delivery) *exchangev1.Delivery {
	s := d.State()
	out := &exchangev1.Delivery{
		AgencyCode: string(d.Agency), HomeRelayId: string(d.Home), Transport: d.Transport,
		Status: s.Code, Phase: exchangev1.Phase(s.Phase), Asked: exchangev1.Question(s.Asked),
		Note: d.Note, Reason: d.Reason, UpdatedAt: timestamppb.New(d.UpdatedAt),
	}
	if d.Life == nil {
		return out
	}
	for _, h := range d.Life.Said {
		out.Statements = append(out.Statements, statementOf(h))
		if h.Outcome == lifecycle.Moved && h.Heard.After(out.UpdatedAt.AsTime()) {
			out.Note, out.UpdatedAt = h.Note, timestamppb.New(h.Heard)
		}
	}
	return out
}

func statementOf(h lifecycle.Heard) *exchangev1.Statement {
	out := &exchangev1.Statement{
		Code: h.Code, BySender: h.By == lifecycle.Sender, At: timestamppb.New(h.At), AcceptedAt: timestamppb.New(h.Heard),
		Note: h.Note, EnvelopeId: h.Source[:], Moved: h.Outcome == lifecycle.Moved,
	}
	if h.Code == "" {
		out.Business = lifecycle.BusinessOf(h.Act)
	}
	return out
}

// heardOf reads a statement that another relay tells of.
func heardOf(s *exchangev1.Statement) (h lifecycle.Heard, ok bool) {
	h.Statement = lifecycle.Statement{
		Act: lifecycle.ActOf(s.GetCode()), Code: s.GetCode(), At: s.GetAt().AsTime(), Heard: s.GetAcceptedAt().AsTime(), Note: s.GetNote(),
	}
	if act, about := lifecycle.ActOfBusiness(s.GetBusiness()); about {
		h.Act = act
	}
	if s.GetBySender() {
		h.By = lifecycle.Sender
	}
	ok = copy(h.Source[:], s.GetEnvelopeId()) == len(h.Source)
	return h, ok
}

// live tells in a delivery what several relays together have heard of it: where a
// document was handed in at two relays, each may have heard a part.
func live(d *exchangev1.Delivery, life *lifecycle.Life) {
	if life == nil {
		return
	}
	s := life.State()
	d.Statements = nil
	for _, h := range life.Said {
		d.Statements = append(d.Statements, statementOf(h))
	}
	d.Status, d.Phase, d.Asked = s.Code, exchangev1.Phase(s.Phase), exchangev1.Question(s.Asked)
	if d.GetTransport() == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL &&
		d.GetReason() == exchangev1.ErrorReason_ERROR_REASON_RECALLED {
		d.Phase, d.Asked = exchangev1.Phase_PHASE_RECALLED, exchangev1.Question_QUESTION_NOTHING
	}
}
