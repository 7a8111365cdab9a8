package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/truclienthong/truc/consensus"
	"github.com/truclienthong/truc/consensus/admin"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// words is a list that commands append to.
type words struct {
	mu   sync.Mutex
	list []string
}

func (w *words) Apply(command []byte) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, string(command))
	return nil, nil
}

type image []byte

func (i image) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(i)
	return int64(n), err
}

func (w *words) Snapshot() (io.WriterTo, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, err := json.Marshal(w.list)
	return image(b), err
}

func (w *words) Restore(r io.Reader) error {
	var list []string
	if err := json.NewDecoder(r).Decode(&list); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = list
	return nil
}

func (w *words) version() (uint64, uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return uint64(len(w.list)), 7
}

type layer struct{ net.Listener }

func (layer) Dial(address string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", address, timeout)
}

type relay struct {
	node    *consensus.Node
	address string
	client  adminv1.RaftServiceClient
	conn    *grpc.ClientConn
}

// start runs relay id; mesh maps ids to relays for forwarding.
func start(t *testing.T, id string, voters []consensus.Peer, listener net.Listener, mesh map[string]*relay) *relay {
	t.Helper()
	state := new(words)
	r := &relay{address: listener.Addr().String()}
	var err error
	r.node, err = consensus.New(consensus.Config{
		ID: id, Address: r.address, Dir: t.TempDir(), Voters: voters, StateMachine: state, Stream: layer{listener},
		HeartbeatTimeout: 200 * time.Millisecond, CommitTimeout: 5 * time.Millisecond, ProposeTimeout: 5 * time.Second,
		DialPeer: func(_ context.Context, id, _ string) (grpc.ClientConnInterface, error) { return mesh[id].conn, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	r.node.Register(server)
	adminv1.RegisterRaftServiceServer(server, admin.New(r.node, state.version))
	r.conn, err = grpc.NewClient(front.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	r.client = adminv1.NewRaftServiceClient(r.conn)
	mesh[id] = r
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { server.Serve(front) })
	ran := make(chan error, 1)
	running.Go(func() { ran <- r.node.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("%s: Run: %v", id, err)
		}
		server.Stop()
		r.conn.Close()
		running.Wait()
	})
	return r
}

func TestOperatorsCommands(t *testing.T) {
	ctx := t.Context()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	mesh := map[string]*relay{}
	one := listen()
	a := start(t, "a", []consensus.Peer{{ID: "a", Address: one.Addr().String()}}, one, mesh)
	must("lead", a.node.ReadBarrier(ctx))
	b := start(t, "b", nil, listen(), mesh)

	_, err := a.client.AddNonvoter(ctx, &adminv1.AddNonvoterRequest{RelayId: "b", Address: b.address})
	must("add non-voter", err)
	_, err = a.node.Propose(ctx, [16]byte{1}, []byte("word"))
	must("write", err)
	must("barrier", b.node.ReadBarrier(ctx))

	// From here on the follower is asked.
	added, err := b.client.AddVoter(ctx, &adminv1.AddVoterRequest{RelayId: "b", Address: b.address})
	must("add voter", err)
	members, err := b.client.Members(ctx, &adminv1.MembersRequest{Consistency: adminv1.Consistency_CONSISTENCY_LINEARIZABLE})
	must("members", err)
	if got := members.GetMembers(); len(got) != 2 || !got[0].GetLeader() || !got[1].GetVoter() || got[0].Lag != nil || members.GetIndex() != added.GetIndex() {
		t.Errorf("members as the follower sees them: %v, index %d", got, members.GetIndex())
	}
	if members, err = a.client.Members(ctx, &adminv1.MembersRequest{}); err != nil || members.GetMembers()[1].Lag == nil ||
		members.GetMembers()[1].GetLastContact() == nil || members.GetMembers()[1].GetAddress() != b.address {
		t.Errorf("members as the leader sees them: %v, %v", members, err)
	}
	st, err := b.client.Status(ctx, &adminv1.StatusRequest{})
	must("status", err)
	if st.GetRelayId() != "b" || st.GetState() != "follower" || st.GetLeaderId() != "a" || !st.GetVoter() ||
		st.GetLastContact() == nil || st.GetDirectoryVersion() != 1 || st.GetAppliedIndex() == 0 {
		t.Errorf("status: %v", st)
	}
	snapshot, err := b.client.Snapshot(ctx, &adminv1.SnapshotRequest{})
	must("snapshot", err)
	if snapshot.GetIndex() == 0 || snapshot.GetSize() == 0 {
		t.Errorf("snapshot: %v", snapshot)
	}

	download, err := b.client.Backup(ctx, &adminv1.BackupRequest{})
	must("backup", err)
	var backup []byte
	for {
		piece, err := download.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		must("backup", err)
		backup = append(backup, piece.GetData()...)
	}
	_, err = a.node.Propose(ctx, [16]byte{2}, []byte("another"))
	must("write", err)
	restore := func(data []byte) (*adminv1.RestoreResponse, error) {
		upload, err := b.client.Restore(ctx)
		must("restore", err)
		for len(data) > 0 {
			n := min(len(data), 50)
			if upload.Send(&adminv1.RestoreRequest{Data: data[:n]}) != nil {
				break
			}
			data = data[n:]
		}
		return upload.CloseAndRecv()
	}
	restored, err := restore(backup)
	must("restore", err)
	if restored.GetDirectoryVersion() != 1 || restored.GetAgencies() != 7 {
		t.Errorf("restored: %v", restored)
	}
	_, err = restore(backup[:len(backup)-1])
	if status.Code(err) != codes.DataLoss {
		t.Errorf("a backup that is not whole: %v", err)
	}

	leader, err := b.client.TransferLeader(ctx, &adminv1.TransferLeaderRequest{RelayId: "b"})
	must("transfer", err)
	if leader.GetLeaderId() != "b" {
		t.Errorf("leader is %q", leader.GetLeaderId())
	}
	_, err = a.client.Demote(ctx, &adminv1.DemoteRequest{RelayId: "a"})
	must("demote", err)
	_, err = a.client.Demote(ctx, &adminv1.DemoteRequest{RelayId: "b"})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("demote the last voter: %v", err)
	}
	_, err = b.client.Remove(ctx, &adminv1.RemoveRequest{RelayId: "a"})
	must("remove", err)
	_, err = b.client.Remove(ctx, &adminv1.RemoveRequest{RelayId: "a"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("remove again: %v", err)
	}
}
