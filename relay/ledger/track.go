package ledger

import (
	"context"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

// maxDocumentID is the longest document id in characters (Header.document_id).
const maxDocumentID = 256

// Track answers an agency. Other relays are asked where this one cannot
// answer alone: when it knows nothing, when it is not the ingress of the
// sender's envelope, or when the caller wants the events of all.
func (l *Ledger) Track(ctx context.Context, agency routing.AgencyCode, req *exchangev1.TrackRequest) (*exchangev1.TrackResponse, error) {
	question, err := trackQuestion(agency, req)
	if err != nil {
		return nil, err
	}
	own, err := l.Inquire(ctx, question)
	if err != nil {
		return nil, err
	}
	all := knowledge{self: l.config.Self, view: l.config.Directory.View()}
	if id := question.GetEnvelopeId(); len(id) > 0 {
		all.id = envelope.ID(id)
	}
	all.add(l.config.Self, own)
	ask, lost := l.others()
	switch {
	case req.GetAllRelays() || !all.known():
		all.silent = append(all.silent, lost...)
		l.ask(ctx, ask, question, &all)
	case all.sender == agency && all.ingress != l.config.Self:
		l.ask(ctx, slices.DeleteFunc(ask, func(r routing.RelayID) bool { return r != all.ingress }), question, &all)
	}
	return l.visible(agency, &all)
}

func trackQuestion(agency routing.AgencyCode, req *exchangev1.TrackRequest) (*relayv1.InquireRequest, error) {
	switch e := req.GetEnvelope().(type) {
	case *exchangev1.TrackRequest_EnvelopeId:
		if _, err := envelope.IDFromBytes(e.EnvelopeId); err != nil {
			return nil, refuseField("envelope_id", "%v", err)
		}
		return &relayv1.InquireRequest{EnvelopeId: e.EnvelopeId}, nil
	case *exchangev1.TrackRequest_DocumentId:
		if n := utf8.RuneCountInString(e.DocumentId); n == 0 || n > maxDocumentID {
			return nil, refuseField("document_id", "has %d characters, 1 to %d are allowed", n, maxDocumentID)
		}
		return &relayv1.InquireRequest{SenderCode: string(agency), DocumentId: e.DocumentId}, nil
	}
	return nil, refuseField("envelope", "name the envelope by envelope_id or by document_id")
}

// visible is the part that the agency may see.
func (l *Ledger) visible(agency routing.AgencyCode, all *knowledge) (*exchangev1.TrackResponse, error) {
	own := all.deliveries[string(agency)]
	if !all.known() || (all.sender != agency && own == nil) {
		return nil, refuseNotFound(all)
	}
	response := &exchangev1.TrackResponse{
		Receipt: all.receipt, Header: all.header, SilentRelayIds: all.silentRelays(),
		Deliveries: all.byCode(), Events: all.byTime(),
	}
	if all.sender != agency {
		response.Deliveries = []*exchangev1.Delivery{own}
		response.Events = slices.DeleteFunc(response.Events, func(e *exchangev1.TraceEvent) bool {
			return e.GetAgencyCode() != "" && e.GetAgencyCode() != string(agency)
		})
	}
	return response, nil
}

// Trace answers an operator for the whole mesh, or for the called relay.
func (l *Ledger) Trace(ctx context.Context, req *adminv1.TraceRequest) (*adminv1.TraceResponse, error) {
	id, err := envelope.IDFromBytes(req.GetEnvelopeId())
	if err != nil {
		return nil, refuseField("envelope_id", "%v", err)
	}
	question := &relayv1.InquireRequest{EnvelopeId: id[:]}
	own, err := l.Inquire(ctx, question)
	if err != nil {
		return nil, err
	}
	all := knowledge{self: l.config.Self, view: l.config.Directory.View(), id: id}
	all.add(l.config.Self, own)
	if !req.GetLocal() {
		ask, lost := l.others()
		all.silent = append(all.silent, lost...)
		l.ask(ctx, ask, question, &all)
	}
	if !all.known() && len(all.silent) == 0 {
		return nil, refuseNotFound(&all)
	}
	response := &adminv1.TraceResponse{
		Receipt: all.receipt, Deliveries: all.byCode(), Events: all.byTime(),
		HolderRelayIds: all.holders, SilentRelayIds: all.silentRelays(), SenderCode: string(all.sender),
	}
	for _, part := range all.header.GetParts() {
		// What a file is called can be personal; operators need size and hash.
		shown := proto.CloneOf(part)
		shown.Name, shown.Description, shown.ContentId = "", "", ""
		response.Parts = append(response.Parts, shown)
	}
	return response, nil
}

// refuseNotFound says no more to those who may not see the envelope than to
// those who made the id up. While relays are silent, trying again may help.
func refuseNotFound(all *knowledge) error {
	r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND,
		"no envelope with this id is known, or it is not yours to see")
	if len(all.silent) > 0 {
		r.Message += "; some relays did not answer, try again later"
	}
	return r
}
