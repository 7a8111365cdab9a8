// Package admin serves the raft admin commands of operators over a
// consensus.Node. Any relay answers: changes go on to the leader, Status,
// Members and Snapshot speak of the called relay, Backup gives its copy.
//
// It does not ask who calls; an interceptor lets operators in and nobody else.
package admin

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/truclienthong/truc/consensus"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
)

const (
	// backupPiece is the most bytes in one message of a backup.
	backupPiece = 256 << 10
	// freshen is how long a backup tries to be current. Without a leader the
	// called relay's copy is what there is, and never more precious.
	freshen = 3 * time.Second
)

type service struct {
	adminv1.UnimplementedRaftServiceServer
	node    *consensus.Node
	version func() (directoryVersion, agencies uint64)
}

// New serves node. version tells what the local state machine holds; nil where
// it cannot tell.
func New(node *consensus.Node, version func() (directoryVersion, agencies uint64)) adminv1.RaftServiceServer {
	if version == nil {
		version = func() (uint64, uint64) { return 0, 0 }
	}
	return &service{node: node, version: version}
}

// wire gives the errors of a caller that went away their codes; those of
// consensus have theirs.
func wire(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.FromContextError(err).Err()
}

func (s *service) Status(context.Context, *adminv1.StatusRequest) (*adminv1.StatusResponse, error) {
	st := s.node.Status()
	answer := &adminv1.StatusResponse{
		RelayId: st.ID, State: st.State, Term: st.Term, LeaderId: st.LeaderID,
		LastIndex: st.LastIndex, CommitIndex: st.CommitIndex, AppliedIndex: st.AppliedIndex,
		SnapshotIndex: st.SnapshotIndex, Voter: st.Voter,
	}
	if st.LastContact > 0 {
		answer.LastContact = durationpb.New(st.LastContact)
	}
	answer.DirectoryVersion, _ = s.version()
	return answer, nil
}

func (s *service) Members(ctx context.Context, req *adminv1.MembersRequest) (*adminv1.MembersResponse, error) {
	if req.GetConsistency() == adminv1.Consistency_CONSISTENCY_LINEARIZABLE {
		if err := s.node.ReadBarrier(ctx); err != nil {
			return nil, wire(err)
		}
	}
	members, index := s.node.Members()
	answer := &adminv1.MembersResponse{Index: index}
	for _, m := range members {
		row := &adminv1.Member{RelayId: m.ID, Address: m.Address, Voter: m.Voter, Leader: m.Leader}
		if m.Known {
			row.Lag, row.LastContact = &m.Lag, durationpb.New(m.LastContact)
		}
		answer.Members = append(answer.Members, row)
	}
	return answer, nil
}

func (s *service) AddVoter(ctx context.Context, req *adminv1.AddVoterRequest) (*adminv1.AddVoterResponse, error) {
	add := s.node.AddVoter
	if req.GetChangeAddress() {
		add = s.node.MoveVoter
	}
	index, err := add(ctx, req.GetRelayId(), req.GetAddress())
	if err != nil {
		return nil, wire(err)
	}
	return &adminv1.AddVoterResponse{Index: index}, nil
}

func (s *service) AddNonvoter(ctx context.Context, req *adminv1.AddNonvoterRequest) (*adminv1.AddNonvoterResponse, error) {
	index, err := s.node.AddNonvoter(ctx, req.GetRelayId(), req.GetAddress())
	if err != nil {
		return nil, wire(err)
	}
	return &adminv1.AddNonvoterResponse{Index: index}, nil
}

func (s *service) Demote(ctx context.Context, req *adminv1.DemoteRequest) (*adminv1.DemoteResponse, error) {
	index, err := s.node.Demote(ctx, req.GetRelayId())
	if err != nil {
		return nil, wire(err)
	}
	return &adminv1.DemoteResponse{Index: index}, nil
}

func (s *service) Remove(ctx context.Context, req *adminv1.RemoveRequest) (*adminv1.RemoveResponse, error) {
	index, err := s.node.Remove(ctx, req.GetRelayId())
	if err != nil {
		return nil, wire(err)
	}
	return &adminv1.RemoveResponse{Index: index}, nil
}

func (s *service) TransferLeader(ctx context.Context, req *adminv1.TransferLeaderRequest) (*adminv1.TransferLeaderResponse, error) {
	leader, err := s.node.TransferLeader(ctx, req.GetRelayId())
	if err != nil {
		return nil, wire(err)
	}
	return &adminv1.TransferLeaderResponse{LeaderId: leader}, nil
}

func (s *service) Snapshot(ctx context.Context, _ *adminv1.SnapshotRequest) (*adminv1.SnapshotResponse, error) {
	index, size, err := s.node.Snapshot(ctx)
	if err != nil {
		return nil, wire(err)
	}
	return &adminv1.SnapshotResponse{Index: index, Size: size}, nil
}

func (s *service) Backup(_ *adminv1.BackupRequest, stream grpc.ServerStreamingServer[adminv1.BackupResponse]) error {
	ctx, cancel := context.WithTimeout(stream.Context(), freshen)
	err := s.node.ReadBarrier(ctx)
	cancel()
	late := errors.Is(err, consensus.ErrNoLeader) || errors.Is(err, context.DeadlineExceeded)
	if err != nil && (!late || stream.Context().Err() != nil) {
		return wire(err)
	}
	return wire(s.node.Backup(stream.Context(), sender{stream}))
}

type sender struct {
	stream grpc.ServerStreamingServer[adminv1.BackupResponse]
}

func (s sender) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		piece := p[sent:min(len(p), sent+backupPiece)]
		if err := s.stream.Send(&adminv1.BackupResponse{Data: piece}); err != nil {
			return sent, err
		}
		sent += len(piece)
	}
	return len(p), nil
}

func (s *service) Restore(stream grpc.ClientStreamingServer[adminv1.RestoreRequest, adminv1.RestoreResponse]) error {
	if _, err := s.node.Restore(stream.Context(), &pieces{stream: stream}); err != nil {
		return wire(err)
	}
	answer := new(adminv1.RestoreResponse)
	answer.DirectoryVersion, answer.Agencies = s.version()
	return stream.SendAndClose(answer)
}

// pieces reads the backup out of a stream.
type pieces struct {
	stream grpc.ClientStreamingServer[adminv1.RestoreRequest, adminv1.RestoreResponse]
	rest   []byte
}

func (p *pieces) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		req, err := p.stream.Recv()
		if err != nil {
			return 0, err // io.EOF at the end
		}
		p.rest = req.GetData()
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

var _ io.Reader = (*pieces)(nil)
