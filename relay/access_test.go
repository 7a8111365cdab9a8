package relay_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/tls"
	"github.com/truclienthong/truc/tls/pki"
)

// Who may call what: each cell is one call with a real certificate.
func TestAccess(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.serving("bac")
	m.putAgency("G22", "bac")
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{Relay: &directoryv1.Relay{Id: "nam", Region: "nam", Address: "nam:1"}}}})
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{Relay: &directoryv1.Relay{Id: "lost", Region: "nam", Address: "lost:1"}}}})
	m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: "lost", Lost: true}}})
	methods := map[string]string{
		"exchange":    exchangev1.ExchangeService_Lookup_FullMethodName,
		"peer":        "/truc.relay.v1.PeerService/Probe",
		"replication": directoryv1.ReplicationService_ReadIndex_FullMethodName,
		"directory":   adminv1.DirectoryService_ListRelays_FullMethodName,
		"custody":     adminv1.CustodyService_Health_FullMethodName,
		"raft":        adminv1.RaftService_Status_FullMethodName,
		"health":      healthv1.Health_Check_FullMethodName,
	}
	for _, test := range []struct {
		kind tls.Kind
		name string
		may  []string
	}{
		{tls.KindAgency, "G22", []string{"exchange", "health"}},
		{tls.KindGateway, "sss", []string{"exchange", "health"}},
		{tls.KindRelay, "nam", []string{"peer", "replication", "health"}},
		{tls.KindRelay, "unknown", []string{"health"}},
		{tls.KindRelay, "lost", []string{"peer", "health"}},
		{tls.KindOperator, "an", []string{"directory", "custody", "raft", "health"}},
	} {
		conn := m.dial("bac", test.kind, test.name)
		for service, method := range methods {
			t.Run(test.kind.String()+" "+test.name+" "+service, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				err := conn.Invoke(ctx, method, new(adminv1.StatusRequest), new(adminv1.StatusRequest))
				if service == "replication" || service == "raft" {
					// Served by others; unknown services are nobody's.
					if status.Code(err) != codes.Unimplemented {
						t.Errorf("got %v, want unimplemented", err)
					}
					return
				}
				reason, code := exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY, codes.PermissionDenied
				if test.name == "unknown" && service == "peer" {
					// Its entry may only not have arrived yet.
					reason, code = exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING, codes.Unavailable
				}
				refused := has(err, reason)
				if may := slices.Contains(test.may, service); may == refused {
					t.Errorf("got %v, want allowed: %t", err, may)
				}
				if refused && (status.Code(err) != code || status.Convert(err).Message() == "") {
					t.Errorf("got %v, want %s with a message", err, code)
				}
			})
		}
	}
}

// raft serves the raft admin commands as badly as can be.
type raft struct {
	adminv1.UnimplementedRaftServiceServer
}

// replication serves no better.
type replication struct {
	directoryv1.UnimplementedReplicationServiceServer
}

func (replication) Restore(grpc.ClientStreamingServer[directoryv1.RestoreRequest, directoryv1.RestoreResponse]) error {
	panic("a fault in a stream")
}

func (raft) Status(context.Context, *adminv1.StatusRequest) (*adminv1.StatusResponse, error) {
	panic("a fault in a service")
}

func (raft) Members(context.Context, *adminv1.MembersRequest) (*adminv1.MembersResponse, error) {
	return nil, fmt.Errorf("some /path/on/this/machine")
}

func withRaft(c *relay.Config) {
	c.Services = []func(grpc.ServiceRegistrar){func(r grpc.ServiceRegistrar) {
		adminv1.RegisterRaftServiceServer(r, raft{})
		directoryv1.RegisterReplicationServiceServer(r, replication{})
	}}
}

// Services of others stand under the same rules, and their faults end a call,
// not the relay.
func TestServicesOfOthers(t *testing.T) {
	m := newMesh(t)
	m.start("bac", withRaft)
	m.serving("bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	operator := adminv1.NewRaftServiceClient(m.dial("bac", tls.KindOperator, "an"))
	for range 2 {
		if _, err := operator.Status(ctx, &adminv1.StatusRequest{}); status.Code(err) != codes.Internal {
			t.Errorf("panic: got %v, want Internal", err)
		}
	}
	faulty, err := directoryv1.NewReplicationServiceClient(m.dial("bac", tls.KindRelay, "bac")).Restore(ctx)
	if err == nil {
		_, err = faulty.CloseAndRecv()
	}
	if status.Code(err) != codes.Internal {
		t.Errorf("panic in a stream: got %v, want Internal", err)
	}
	if _, err := operator.Members(ctx, &adminv1.MembersRequest{}); status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "path") {
		t.Errorf("untyped error: got %v, want Unavailable without the text", err)
	}
	for _, test := range []struct {
		kind tls.Kind
		name string
	}{{tls.KindAgency, "G22"}, {tls.KindRelay, "bac"}, {tls.KindGateway, "sss"}} {
		if _, err := adminv1.NewRaftServiceClient(m.dial("bac", test.kind, test.name)).Status(ctx, &adminv1.StatusRequest{}); !has(err, exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY) {
			t.Errorf("raft commands as %s: got %v, want WRONG_IDENTITY", test.kind, err)
		}
	}
	// A relay that is not in the directory yet has to be able to get there, and
	// to nothing else.
	client := directoryv1.NewReplicationServiceClient(m.dial("bac", tls.KindRelay, "moi"))
	putRelay := func(id string) *directoryv1.Command {
		return &directoryv1.Command{Version: 1, Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{Relay: &directoryv1.Relay{Id: id}}}}
	}
	for name, test := range map[string]struct {
		command *directoryv1.Command
		own     bool
	}{
		"its own entry":   {putRelay("moi"), true},
		"another's entry": {putRelay("bac"), false},
		"anything else":   {&directoryv1.Command{Version: 1, Change: &directoryv1.Command_RemoveRule{RemoveRule: &directoryv1.RemoveRule{Id: "administration"}}}, false},
		"nothing":         {&directoryv1.Command{}, false},
	} {
		encoded, err := proto.Marshal(test.command)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Propose(ctx, &directoryv1.ProposeRequest{RequestId: make([]byte, 16), Command: encoded})
		if got := status.Code(err) == codes.Unimplemented; got != test.own || !got && !has(err, exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY) {
			t.Errorf("a new relay proposes %s: got %v, want that it gets to the service: %t", name, err, test.own)
		}
	}
	restore, err := client.Restore(ctx)
	if err == nil {
		_, err = restore.CloseAndRecv()
	}
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING) {
		t.Errorf("a new relay restores a backup: got %v, want NOT_SERVING", err)
	}
	if _, err = client.ChangeMembership(ctx, &directoryv1.ChangeMembershipRequest{}); !has(err, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING) {
		t.Errorf("a new relay changes the members: got %v, want NOT_SERVING", err)
	}
}

func TestMessagesThatAreNotTaken(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.serving("bac")
	m.putAgency("G22", "bac")
	conn := m.dial("bac", tls.KindAgency, "G22")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, test := range []struct {
		name, field string
		call        func() error
	}{
		{"unary", "search", func() error {
			request := []byte{4<<3 | 2, 1, 0xff}
			var answer []byte
			return conn.Invoke(ctx, exchangev1.ExchangeService_Lookup_FullMethodName, &request, &answer, grpc.ForceCodec(raw{}))
		}},
		{"stream", "start.header.parts[1].name", func() error {
			part := func(name string) []byte {
				return append([]byte{10<<3 | 2, byte(len(name) + 2), 1<<3 | 2, byte(len(name))}, name...)
			}
			header := append(part("một.pdf"), part("\xff")...)
			start := append([]byte{1<<3 | 2, byte(len(header))}, header...)
			request := append([]byte{1<<3 | 2, byte(len(start))}, start...)
			stream, err := conn.NewStream(ctx, &exchangev1.ExchangeService_ServiceDesc.Streams[0], exchangev1.ExchangeService_Submit_FullMethodName, grpc.ForceCodec(raw{}))
			if err != nil {
				return err
			}
			if err := stream.SendMsg(&request); err != nil {
				return err
			}
			var answer []byte
			return stream.RecvMsg(&answer)
		}},
		{"two million recipients of two bytes", "message", func() error {
			header := bytes.Repeat([]byte{3<<3 | 2, 0}, 2<<20)
			start := protowire.AppendBytes([]byte{1<<3 | 2}, header)
			request := protowire.AppendBytes([]byte{1<<3 | 2}, start)
			stream, err := conn.NewStream(ctx, &exchangev1.ExchangeService_ServiceDesc.Streams[0], exchangev1.ExchangeService_Submit_FullMethodName, grpc.ForceCodec(raw{}))
			if err != nil {
				return err
			}
			if err := stream.SendMsg(&request); err != nil {
				return err
			}
			var answer []byte
			return stream.RecvMsg(&answer)
		}},
		{"no message at all", "message", func() error {
			request := []byte{0xff, 0xff}
			var answer []byte
			return conn.Invoke(ctx, exchangev1.ExchangeService_Lookup_FullMethodName, &request, &answer, grpc.ForceCodec(raw{}))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.call()
			r, ok := asRefusal(err)
			if !ok || r.Reason != exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD || len(r.Problems) != 1 || r.Problems[0].Field != test.field {
				t.Errorf("got %v, want INVALID_FIELD at %s", err, test.field)
			}
		})
	}
}

// An authority of another trust domain may be believed about agencies, but not
// about who runs this mesh, even where a trust file names it.
func TestOtherTrustDomain(t *testing.T) {
	m := newMesh(t)
	other, err := pki.Create(m.dir+"/other", "khac.test")
	if err != nil {
		t.Fatal(err)
	}
	m.believed = other.RootPEM()
	m.start("bac", nil)
	m.serving("bac")
	m.putAgency("G22", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := exchangev1.NewExchangeServiceClient(m.dialWith("bac", m.filesBy(other, tls.KindAgency, "G22"))).Attach(ctx, &exchangev1.AttachRequest{}); err != nil {
		t.Errorf("agency: got %v, want it served", err)
	}
	_, err = adminv1.NewCustodyServiceClient(m.dialWith("bac", m.filesBy(other, tls.KindOperator, "an"))).Health(ctx, &adminv1.HealthRequest{})
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY) {
		t.Errorf("operator: got %v, want WRONG_IDENTITY", err)
	}
	probe := relayv1.NewPeerServiceClient(m.dialWith("bac", m.filesBy(other, tls.KindRelay, "bac")))
	if _, err := probe.Probe(ctx, &relayv1.ProbeRequest{}); !has(err, exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY) {
		t.Errorf("relay: got %v, want WRONG_IDENTITY", err)
	}
}

func TestReflection(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.serving("bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, test := range []struct {
		kind tls.Kind
		may  bool
	}{{tls.KindOperator, true}, {tls.KindAgency, true}, {tls.KindGateway, true}, {tls.KindRelay, false}} {
		name := map[bool]string{true: "G22", false: "bac"}[test.may]
		stream, err := reflectionv1.NewServerReflectionClient(m.dial("bac", test.kind, name)).ServerReflectionInfo(ctx)
		if err != nil {
			t.Fatal(err)
		}
		stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
		_, err = stream.Recv()
		if may := err == nil; may != test.may || !may && !has(err, exchangev1.ErrorReason_ERROR_REASON_WRONG_IDENTITY) {
			t.Errorf("%s: got %v, want allowed: %t", test.kind, err, test.may)
		}
	}
}

// A gateway has its agencies' calls besides its own, and no more.
func TestCallsPerGatewayAreBounded(t *testing.T) {
	m := newMesh(t)
	m.start("bac", func(c *relay.Config) { c.CallsPerAgency = 1 })
	m.serving("bac")
	m.putAgency("G22", "bac")
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutGateway{PutGateway: &directoryv1.PutGateway{
		Gateway: &directoryv1.Gateway{Id: "sss", AgencyCodes: []string{"G22"}}}}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := exchangev1.NewExchangeServiceClient(m.dial("bac", tls.KindGateway, "sss"))
	for i := range 4 {
		stream, err := client.Submit(ctx)
		if err != nil {
			t.Fatal(err)
		}
		stream.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Start{
			Start: &exchangev1.SubmitStart{Header: document("G22", fmt.Sprint(i), "x", "G22")}}})
		if _, err = stream.Recv(); (err == nil) != (i < 3) || err != nil && !has(err, exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED) {
			t.Errorf("call %d: got %v, want three served and the next RATE_LIMITED", i, err)
		}
	}
}

func TestCallsPerAgencyAreBounded(t *testing.T) {
	m := newMesh(t)
	m.start("bac", func(c *relay.Config) { c.CallsPerAgency = 1 })
	m.serving("bac")
	m.putAgency("G22", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := m.agency("bac", "G22")
	h := document("G22", "1", "x", "G22")
	stream, err := client.Submit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&exchangev1.SubmitRequest{Message: &exchangev1.SubmitRequest_Start{Start: &exchangev1.SubmitStart{Header: h}}})
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	_, err = m.agency("bac", "G22").Attach(ctx, &exchangev1.AttachRequest{})
	if r, ok := asRefusal(err); !ok || r.Reason != exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED || r.RetryAfter == 0 || r.Quota == "" {
		t.Errorf("second call: got %v, want RATE_LIMITED with quota and retry hint", err)
	}
	stream.CloseSend()
	if _, err := stream.Recv(); !has(err, exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT) {
		t.Errorf("cut: got %v, want STREAM_CUT", err)
	}
	if _, err := submit(ctx, client, h, "x"); err != nil {
		t.Errorf("after the first ended: got %v", err)
	}
}
