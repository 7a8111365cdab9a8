package ingress_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/ingress"
)

// live opens Receive without draining and returns what arrives, and the end.
func (m *mesh) live(relay, who string, req *exchangev1.ReceiveRequest) (next func() (string, error)) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(as(m.t.Context(), who), 10*time.Second)
	m.t.Cleanup(cancel)
	stream, err := m.relays[routingRelay(relay)].agency.Receive(ctx, req)
	if err != nil {
		m.t.Fatal(err)
	}
	return func() (string, error) {
		arrival, err := stream.Recv()
		return arrival.GetEnvelope().GetHeader().GetDocumentId(), err
	}
}

func TestLiveStreamGetsWhatArrives(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	for _, relay := range []string{"bac", "nam"} {
		next := m.live(relay, "agency/H26", &exchangev1.ReceiveRequest{})
		for _, id := range []string{"1", "2", "3"} {
			m.deliver(relay+id, 0)
			for {
				got, err := next()
				if err != nil {
					t.Fatalf("at %s: %v", relay, err)
				}
				if got == relay+id {
					break
				}
			}
		}
	}
}

// What an agency may lose while it receives ends its stream, at the relay it
// is attached to and at its home.
func TestStreamEndsWithTheRightToIt(t *testing.T) {
	for _, test := range []struct {
		name      string
		who       string
		do        func(*mesh)
		reason    exchangev1.ErrorReason
		temporary bool
	}{
		{"suspended", "agency/H26", func(m *mesh) { m.suspend("H26", true) }, exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED, false},
		{"moved", "agency/H26", func(m *mesh) { m.move("H26", "nam") }, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING, true},
		{"gateway without it", "gateway/sss", func(m *mesh) { m.gateway("sss", "G09") }, exchangev1.ErrorReason_ERROR_REASON_GATEWAY_NOT_AUTHORIZED, false},
	} {
		for _, relay := range []string{"bac", "nam"} {
			t.Run(test.name+" at "+relay, func(t *testing.T) {
				m := newMesh(t, ingress.Limits{})
				m.deliver("1", 0)
				next := m.live(relay, test.who, &exchangev1.ReceiveRequest{AgencyCode: "H26"})
				if _, err := next(); err != nil {
					t.Fatal(err)
				}
				test.do(m)
				_, err := next()
				if !has(err, test.reason) || envelope.Temporary(err) != test.temporary {
					t.Errorf("got %v, want %s, temporary %t", err, test.reason, test.temporary)
				}
			})
		}
	}
}

func TestStreamsPerAgencyAreBounded(t *testing.T) {
	m := newMesh(t, ingress.Limits{StreamsPerAgency: 1})
	m.deliver("1", 0)
	if _, err := m.live("bac", "agency/H26", &exchangev1.ReceiveRequest{})(); err != nil {
		t.Fatal(err)
	}
	_, err := m.live("bac", "agency/H26", &exchangev1.ReceiveRequest{})()
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED) {
		t.Errorf("second stream: got %v, want RATE_LIMITED", err)
	}
}

// fakeStream is a Receive stream without a network, for tests of time.
type fakeStream struct {
	grpc.ServerStream
	ctx  context.Context
	sent chan string
}

func (f *fakeStream) Context() context.Context { return f.ctx }

func (f *fakeStream) Send(r *exchangev1.ReceiveResponse) error {
	f.sent <- r.GetEnvelope().GetHeader().GetDocumentId()
	return nil
}

// inBubble runs a Receive of H26 at bac with time that passes by itself.
func inBubble(t *testing.T, req *exchangev1.ReceiveRequest, test func(m *mesh, sent <-chan string)) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeshWithoutNetwork(t)
		ctx, cancel := context.WithCancel(metadata.NewIncomingContext(t.Context(),
			metadata.Pairs(identityKey, "spiffe://truc.test/agency/H26")))
		stream := &fakeStream{ctx: ctx, sent: make(chan string, 100)}
		ended := make(chan error, 1)
		go func() { ended <- m.relays["bac"].service.Receive(req, stream) }()
		test(m, stream.sent)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("stream ended with %v, want canceled", err)
		}
	})
}

func got(sent <-chan string) []string {
	synctest.Wait()
	var all []string
	for {
		select {
		case id := <-sent:
			all = append(all, id)
		default:
			return all
		}
	}
}

func TestHeldUntilItsHour(t *testing.T) {
	inBubble(t, &exchangev1.ReceiveRequest{}, func(m *mesh, sent <-chan string) {
		at := func(id string, after time.Duration) {
			h := document("H29", id, nil, "H26")
			h.Priority, h.NotBefore = exchangev1.Priority_PRIORITY_HOA_TOC_HEN_GIO, timestamppb.New(time.Now().Add(after))
			m.deliverHeader(h)
		}
		at("sau hai giờ", 2*time.Hour)
		at("sau một giờ", time.Hour)
		at("ngay", -time.Hour)
		m.deliver("thường", 0)
		if ids := got(sent); !slices.Equal(ids, []string{"ngay", "thường"}) {
			t.Errorf("at once: got %q", ids)
		}
		time.Sleep(time.Hour - time.Second)
		m.deliver("thường 2", 0)
		if ids := got(sent); !slices.Equal(ids, []string{"thường 2"}) {
			t.Errorf("before the first hour: got %q", ids)
		}
		time.Sleep(time.Second)
		if ids := got(sent); !slices.Equal(ids, []string{"sau một giờ"}) {
			t.Errorf("at the first hour: got %q", ids)
		}
		time.Sleep(time.Hour)
		if ids := got(sent); !slices.Equal(ids, []string{"sau hai giờ"}) {
			t.Errorf("at the second hour: got %q", ids)
		}
	})
}

func TestWindowOfUnconfirmed(t *testing.T) {
	inBubble(t, &exchangev1.ReceiveRequest{MaxUnconfirmed: 3}, func(m *mesh, sent <-chan string) {
		var ids []envelope.ID
		for i := range 5 {
			ids = append(ids, m.deliver(fmt.Sprint(i), 0))
		}
		if g := got(sent); !slices.Equal(g, []string{"0", "1", "2"}) {
			t.Errorf("got %q, want the first three", g)
		}
		m.deliver("khẩn", 1)
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(identityKey, "spiffe://truc.test/agency/H26"))
		if _, err := m.relays["bac"].service.Confirm(ctx, &exchangev1.ConfirmRequest{EnvelopeIds: [][]byte{ids[0][:], ids[2][:]}}); err != nil {
			t.Fatal(err)
		}
		if g := got(sent); !slices.Equal(g, []string{"khẩn", "3"}) {
			t.Errorf("after two confirmed: got %q, want the urgent one and the next", g)
		}
	})
}
