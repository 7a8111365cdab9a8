package envelope_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// refusing answers every Attach with err.
type refusing struct {
	exchangev1.UnimplementedExchangeServiceServer
	err error
}

func (r *refusing) Attach(context.Context, *exchangev1.AttachRequest) (*exchangev1.AttachResponse, error) {
	return nil, r.err
}

// overGRPC sends err through a real server and returns what the client gets.
func overGRPC(t *testing.T, service *refusing) exchangev1.ExchangeServiceClient {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	exchangev1.RegisterExchangeServiceServer(server, service)
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:relay", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); server.Stop(); <-done })
	return exchangev1.NewExchangeServiceClient(conn)
}

func TestRefusalCrossesTheWire(t *testing.T) {
	service := new(refusing)
	client := overGRPC(t, service)
	for number, name := range exchangev1.ErrorReason_name {
		reason := exchangev1.ErrorReason(number)
		if reason == exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
			continue
		}
		sent := envelope.Refuse(reason, "gửi lại sau %d giờ", 2)
		sent.RetryAfter = 90 * time.Second
		sent.Quota = "agency/H26"
		sent.Problems = []envelope.Problem{
			{Field: "header.parts[2].name", Reason: exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, Description: "holds a path"},
			{Field: "header.recipients[0]", Reason: exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT, Description: "H99 is not known"},
		}
		service.err = fmt.Errorf("submit: %w", sent)
		if reason == exchangev1.ErrorReason_ERROR_REASON_DAMAGED {
			service.err = sent
		}
		_, err := client.Attach(t.Context(), nil)
		got, ok := envelope.AsRefusal(err)
		if !ok {
			t.Fatalf("%s: got %v, want a refusal", name, err)
		}
		if got.Reason != sent.Reason || got.RetryAfter != sent.RetryAfter || got.Quota != sent.Quota ||
			fmt.Sprint(got.Problems) != fmt.Sprint(sent.Problems) || !strings.HasSuffix(got.Message, sent.Message) {
			t.Errorf("%s: got %+v, want %+v", name, got, sent)
		}
		if code := status.Code(err); code == codes.Unknown || code == codes.OK {
			t.Errorf("%s has no code of its own: %s", name, code)
		}
		if envelope.Temporary(err) != envelope.Temporary(sent) {
			t.Errorf("%s: temporary is %v here and %v there", name, envelope.Temporary(sent), envelope.Temporary(err))
		}
		if !got.Has(exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT) || got.Has(exchangev1.ErrorReason_ERROR_REASON_LOOP) && reason != exchangev1.ErrorReason_ERROR_REASON_LOOP {
			t.Errorf("%s: Has finds the wrong reasons in %+v", name, got)
		}
	}
}

func TestRefusalWithManyProblemsFitsTheWire(t *testing.T) {
	var problems []envelope.Problem
	for i := range 5000 {
		problems = append(problems, envelope.Problem{Field: fmt.Sprintf("header.recipients[%d]", i), Reason: exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT, Description: "is not known"})
	}
	_, err := overGRPC(t, &refusing{err: envelope.RefuseProblems(problems)}).Attach(t.Context(), nil)
	r, ok := envelope.AsRefusal(err)
	if !ok || r.Reason != exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT || len(r.Problems) != 100 {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(r.Message, "and 4990 more") {
		t.Errorf("message %q does not say how many problems there are", r.Message)
	}
	if envelope.RefuseProblems(nil) != nil {
		t.Error("no problems make a refusal")
	}
}

func TestTemporary(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"nothing":              {nil, false},
		"unknown means yes":    {errors.New("what is this"), true},
		"end of stream":        {io.ErrUnexpectedEOF, true},
		"cancelled":            {context.Canceled, true},
		"deadline":             {fmt.Errorf("pass: %w", context.DeadlineExceeded), true},
		"unavailable":          {status.Error(codes.Unavailable, ""), true},
		"internal":             {status.Error(codes.Internal, ""), true},
		"unknown code":         {status.Error(codes.Unknown, ""), true},
		"unimplemented":        {status.Error(codes.Unimplemented, ""), false},
		"no identity":          {envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NO_IDENTITY, ""), false},
		"cut":                  {envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT, ""), true},
		"rate":                 {envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED, ""), true},
		"disk full":            {envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DISK_FULL, ""), true},
		"unknown recipient":    {fmt.Errorf("x: %w", envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT, "")), false},
		"document id reused":   {envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED, ""), false},
		"a reason of later on": {envelope.Refuse(exchangev1.ErrorReason(999), ""), true},
	} {
		if got := envelope.Temporary(c.err); got != c.want {
			t.Errorf("%s: temporary %v, want %v", name, got, c.want)
		}
	}
}
