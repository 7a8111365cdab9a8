package agencytest

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls"
)

// service is one relay of the mesh.
type service struct {
	exchangev1.UnimplementedExchangeServiceServer
	mesh  *Mesh
	relay string
}

// piece is how many bytes Fetch sends at once.
const piece = 64 << 10

func refuse(reason exchangev1.ErrorReason, format string, args ...any) error {
	return envelope.Refuse(reason, format, args...)
}

// agency is who calls.
func agency(ctx context.Context) string {
	identity, _ := tls.FromContext(ctx)
	return identity.Name
}

func (s *service) Attach(context.Context, *exchangev1.AttachRequest) (*exchangev1.AttachResponse, error) {
	if err := s.mesh.reach(s.relay, Attach); err != nil {
		return nil, err
	}
	answer := &exchangev1.AttachResponse{
		HomeRelayId: s.mesh.config.Relays[0].ID, Now: timestamppb.Now(), TrustDomain: "truc.test",
		MaxPartSize: 1 << 30, MaxRecipients: 20_000, MaxChunkSize: 1 << 20,
	}
	for _, r := range s.mesh.config.Relays {
		info := &exchangev1.RelayInfo{Id: r.ID, Region: r.Region, Address: s.mesh.Address(r.ID), Reachable: true}
		answer.Relays = append(answer.Relays, info)
		if r.ID == s.relay {
			answer.Relay = info
		}
	}
	return answer, nil
}

func (s *service) Submit(stream grpc.BidiStreamingServer[exchangev1.SubmitRequest, exchangev1.SubmitResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := s.mesh.reach(s.relay, SubmitStart); err != nil {
		return err
	}
	start := first.GetStart()
	problems, warnings := envelope.Check(start.GetHeader(), envelope.Limits{})
	if code := start.GetHeader().GetSender().GetCode(); code != agency(stream.Context()) {
		problems = append(problems, envelope.Problem{Field: "header.sender.code",
			Reason: exchangev1.ErrorReason_ERROR_REASON_SENDER_NOT_CALLER, Description: code + " is not the caller"})
	}
	problems = append(problems, s.mesh.unknown(start.GetHeader())...)
	if len(problems) > 0 {
		return envelope.RefuseProblems(problems)
	}
	id, canonical, err := envelope.HeaderID(start.GetHeader())
	if err != nil {
		return err
	}
	accepted := func(receipt *exchangev1.Receipt, repeat bool) error {
		err := stream.Send(&exchangev1.SubmitResponse{Message: &exchangev1.SubmitResponse_Accepted{
			Accepted: s.mesh.forged(&exchangev1.SubmitAccepted{Receipt: receipt, Repeat: repeat, Warnings: warnings}),
		}})
		if err == nil {
			s.mesh.receipted(stream.Context(), s.relay)
		}
		return err
	}
	if receipt, err := s.mesh.known(s.relay, id, start.GetHeader()); err != nil {
		return err
	} else if receipt != nil {
		return accepted(receipt, true)
	}
	parts, offsets := s.mesh.begun(s.relay, id, start)
	err = stream.Send(&exchangev1.SubmitResponse{Message: &exchangev1.SubmitResponse_Resume{
		Resume: &exchangev1.SubmitResume{EnvelopeId: id[:], Offsets: offsets},
	}})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT, "the stream ended before the commit")
		}
		if err != nil {
			return err
		}
		if message.GetCommit() != nil {
			break
		}
		if err := s.mesh.reach(s.relay, SubmitChunk); err != nil {
			return err
		}
		if err := s.mesh.keep(parts, message.GetChunk()); err != nil {
			return err
		}
	}
	if err := s.mesh.reach(s.relay, SubmitCommit); err != nil {
		return err
	}
	receipt, err := s.mesh.commit(s.relay, id, start, canonical, parts)
	if err != nil {
		return err
	}
	if err := s.mesh.reach(s.relay, SubmitAccepted); err != nil {
		return err
	}
	return accepted(receipt, false)
}

func (s *service) Receive(request *exchangev1.ReceiveRequest, stream grpc.ServerStreamingServer[exchangev1.ReceiveResponse]) error {
	if err := s.mesh.reach(s.relay, Receive); err != nil {
		return err
	}
	code := agency(stream.Context())
	sent := map[envelope.ID]bool{}
	for {
		waiting, changed := s.mesh.inbox(code)
		for i, e := range waiting {
			if sent[e.id] {
				continue
			}
			if err := s.mesh.reach(s.relay, ReceiveSend); err != nil {
				return err
			}
			sent[e.id] = true
			response := &exchangev1.ReceiveResponse{
				Envelope: e.envelope, AgencyCode: code, Sequence: uint64(i), ArrivedAt: e.envelope.GetAcceptedAt(),
			}
			if e.size() <= uint64(request.GetInlineLimit()) {
				response.HasContent = true
				for i, part := range e.parts {
					response.Content = append(response.Content, s.mesh.damaged(s.relay, i, part))
				}
			}
			if err := stream.Send(response); err != nil {
				return err
			}
		}
		if request.GetDrain() {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *service) Fetch(request *exchangev1.FetchRequest, stream grpc.ServerStreamingServer[exchangev1.FetchResponse]) error {
	if err := s.mesh.reach(s.relay, Fetch); err != nil {
		return err
	}
	e, err := s.mesh.find(request.GetEnvelopeId(), agency(stream.Context()))
	if err != nil {
		return err
	}
	part := e.parts[request.GetPart()]
	for offset := request.GetOffset(); offset < uint64(len(part)); offset += piece {
		if err := s.mesh.reach(s.relay, FetchSend); err != nil {
			return err
		}
		data := s.mesh.damaged(s.relay, int(request.GetPart()), part[offset:min(offset+piece, uint64(len(part)))])
		if err := stream.Send(&exchangev1.FetchResponse{Offset: offset, Data: data}); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) Confirm(ctx context.Context, request *exchangev1.ConfirmRequest) (*exchangev1.ConfirmResponse, error) {
	if err := s.mesh.reach(s.relay, Confirm); err != nil {
		return nil, err
	}
	answer := s.mesh.confirm(agency(ctx), request.GetEnvelopeIds())
	return answer, s.mesh.reach(s.relay, Confirmed)
}

func (s *service) Track(ctx context.Context, request *exchangev1.TrackRequest) (*exchangev1.TrackResponse, error) {
	if err := s.mesh.reach(s.relay, Track); err != nil {
		return nil, err
	}
	id := request.GetEnvelopeId()
	if document := request.GetDocumentId(); document != "" {
		known := s.mesh.document(agency(ctx), document)
		id = known[:]
	}
	e, err := s.mesh.find(id, agency(ctx))
	if err != nil {
		return nil, err
	}
	return s.mesh.tracked(s.relay, e), nil
}

func (s *service) Lookup(_ context.Context, request *exchangev1.LookupRequest) (*exchangev1.LookupResponse, error) {
	if err := s.mesh.reach(s.relay, Lookup); err != nil {
		return nil, err
	}
	answer := &exchangev1.LookupResponse{DirectoryIndex: 1}
	// Pages of at most two, so that whoever asks has to turn them.
	size := 2
	if n := int(request.GetPageSize()); n > 0 {
		size = min(size, n)
	}
	for _, a := range s.mesh.config.Agencies {
		switch {
		case request.GetCode() != "" && a.GetCode() != request.GetCode() && !slices.Contains(a.GetAliases(), request.GetCode()),
			request.GetUnder() != "" && a.GetCode() != request.GetUnder() && !strings.HasPrefix(a.GetCode(), request.GetUnder()+"."),
			request.GetTier() != 0 && a.GetTier() != request.GetTier(),
			!strings.Contains(strings.ToLower(a.GetName()), strings.ToLower(request.GetSearch())),
			a.GetCode() <= request.GetPageToken():
			continue
		}
		if len(answer.Agencies) == size {
			answer.NextPageToken = answer.Agencies[size-1].GetCode()
			break
		}
		answer.Agencies = append(answer.Agencies, a)
	}
	return answer, nil
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}
