package consensus

import (
	"context"

	"google.golang.org/grpc"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// service is the leader as other relays see it. It does what it is asked only
// where this relay leads; whoever asked looks for the leader itself, so that a
// request never goes round.
type service struct {
	directoryv1.UnimplementedReplicationServiceServer
	node *Node
}

var _ directoryv1.ReplicationServiceServer = (*service)(nil)

// Register makes the other relays' requests reach this node. Callers must be
// relays; an interceptor sees to that.
func (n *Node) Register(r grpc.ServiceRegistrar) {
	directoryv1.RegisterReplicationServiceServer(r, &service{node: n})
}

func (s *service) Propose(ctx context.Context, req *directoryv1.ProposeRequest) (*directoryv1.ProposeResponse, error) {
	if err := s.node.checkWrite(req.GetRequestId(), req.GetCommand()); err != nil {
		return nil, err
	}
	result, err := s.node.proposeHere(ctx, [16]byte(req.GetRequestId()), req.GetCommand())
	if err != nil {
		return nil, onWire(err)
	}
	return &directoryv1.ProposeResponse{Index: result.Index, Result: result.Value, Repeat: result.Repeat}, nil
}

func (s *service) ReadIndex(ctx context.Context, _ *directoryv1.ReadIndexRequest) (*directoryv1.ReadIndexResponse, error) {
	index, err := s.node.readIndex(ctx)
	if err != nil {
		return nil, onWire(err)
	}
	return &directoryv1.ReadIndexResponse{Index: index}, nil
}

func (s *service) ChangeMembership(ctx context.Context, req *directoryv1.ChangeMembershipRequest) (*directoryv1.ChangeMembershipResponse, error) {
	if !s.node.leads() {
		return nil, onWire(errElsewhere)
	}
	index, err := s.node.changeHere(ctx, req)
	if err != nil {
		return nil, onWire(err)
	}
	return &directoryv1.ChangeMembershipResponse{Index: index}, nil
}

func (s *service) Restore(stream grpc.ClientStreamingServer[directoryv1.RestoreRequest, directoryv1.RestoreResponse]) error {
	if !s.node.leads() {
		return onWire(errElsewhere)
	}
	b, err := s.node.receive(&pieces{stream: stream})
	if err != nil {
		return onWire(err)
	}
	defer b.discard()
	index, err := s.node.restoreHere(stream.Context(), b)
	if err != nil {
		return onWire(err)
	}
	return stream.SendAndClose(&directoryv1.RestoreResponse{Index: index})
}

// leads reports whether this relay believes to be the leader. The log decides
// whether it is.
func (n *Node) leads() bool {
	id, _ := n.leader()
	return id == n.cfg.ID
}

// pieces reads the backup out of a stream.
type pieces struct {
	stream grpc.ClientStreamingServer[directoryv1.RestoreRequest, directoryv1.RestoreResponse]
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
