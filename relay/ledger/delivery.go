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

var businessOf = map[lifecycle.Act]exchangev1.BusinessType{
	lifecycle.AsksRecall: exchangev1.BusinessType_BUSINESS_TYPE_REVOKE,
	lifecycle.Updates:    exchangev1.BusinessType_BUSINESS_TYPE_UPDATE,
	lifecycle.Replaces:   exchangev1.BusinessType_BUSINESS_TYPE_REPLACE,
}

func statementOf(h lifecycle.Heard) *exchangev1.Statement {
	out := &exchangev1.Statement{
		Code: h.Code, BySender: h.By == lifecycle.Sender, At: timestamppb.New(h.At), AcceptedAt: timestamppb.New(h.Heard),
		Note: h.Note, EnvelopeId: h.Source[:], Moved: h.Outcome == lifecycle.Moved,
	}
	if h.Code == "" {
		out.Business = businessOf[h.Act]
	}
	return out
}

// withLife gives a delivery what another relay knows more of what was said: only
// the ingress of the document knows all of it.
func withLife(chosen, other *exchangev1.Delivery) *exchangev1.Delivery {
	if len(other.GetStatements()) > len(chosen.GetStatements()) {
		chosen.Statements, chosen.Status, chosen.Asked = other.GetStatements(), other.GetStatus(), other.GetAsked()
		if chosen.GetPhase() != exchangev1.Phase_PHASE_RECALLED {
			chosen.Phase = other.GetPhase()
		}
	}
	return chosen
}
