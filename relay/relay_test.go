package relay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/tls"
)

// A document to agencies at home on three relays: accepted at one, in every
// inbox, its bytes unchanged, confirmed, and the sender sees it.
func TestDocumentTravelsToEveryHome(t *testing.T) {
	m := newMesh(t)
	for _, id := range []string{"bac", "trung", "nam"} {
		m.start(id, nil)
	}
	m.serving("bac", "trung", "nam")
	for code, home := range map[string]string{"G22": "bac", "H26": "bac", "H48": "trung", "H29": "nam", "H43": "nam"} {
		m.putAgency(code, home)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sender := m.agency("bac", "G22")
	content := strings.Repeat("Cộng hòa xã hội chủ nghĩa Việt Nam\n", 50_000)
	h := document("G22", "2025/1", content, "H26", "H48", "H29", "H43")
	accepted, err := submit(ctx, sender, h, content)
	if err != nil {
		t.Fatal(err)
	}
	for code, at := range map[string]string{"H26": "bac", "H48": "trung", "H29": "nam", "H43": "bac"} {
		arrival, got, err := receiveOne(ctx, m.agency(at, code))
		if err != nil {
			t.Fatalf("%s at %s: %v", code, at, err)
		}
		if got != content || arrival.GetEnvelope().GetHeader().GetDocumentId() != "2025/1" || arrival.GetAgencyCode() != code {
			t.Errorf("%s: got %d bytes of %s, want %d of 2025/1", code, len(got), arrival.GetEnvelope().GetHeader().GetDocumentId(), len(content))
		}
	}
	track := &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: "2025/1"}}
	until(t, ctx, "every delivery done", func() (bool, string) {
		response, err := sender.Track(ctx, track)
		if err != nil {
			return false, err.Error()
		}
		done := 0
		for _, d := range response.GetDeliveries() {
			if d.GetTransport() == exchangev1.TransportStatus_TRANSPORT_STATUS_DONE {
				done++
			}
		}
		return done == 4, fmt.Sprint(response.GetDeliveries())
	})
	again, err := submit(ctx, sender, h, content)
	if err != nil || !again.GetRepeat() || !again.GetReceipt().GetAcceptedAt().AsTime().Equal(accepted.GetReceipt().GetAcceptedAt().AsTime()) {
		t.Errorf("repeat: got %v, %v, want the original receipt", again, err)
	}
	trace, err := adminv1.NewCustodyServiceClient(m.dial("trung", tls.KindOperator, "an")).Trace(ctx, &adminv1.TraceRequest{EnvelopeId: accepted.GetReceipt().GetEnvelopeId()})
	if err != nil || trace.GetReceipt().GetRelayId() != "bac" || len(trace.GetSilentRelayIds()) != 0 {
		t.Errorf("trace: got %v, %v", trace, err)
	}
}

// The inbox of the real spool, by lanes.
func TestInboxByLanes(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.serving("bac")
	m.putAgency("H26", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := m.agency("bac", "H26")
	for i, priority := range []exchangev1.Priority{0, 1, 4, 0, 3, 2, 0, 3} {
		h := document("H26", fmt.Sprintf("%d-%d", i, priority), "x", "H26")
		h.Priority = priority
		if _, err := submit(ctx, client, h, "x"); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		stream, err := client.Receive(ctx, &exchangev1.ReceiveRequest{Drain: true, InlineLimit: 1})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for {
			arrival, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, arrival.GetEnvelope().GetHeader().GetDocumentId())
		}
		if want := []string{"4-3", "7-3", "2-4", "5-2", "1-1", "0-0", "3-0", "6-0"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// until asks again until it holds.
func until(t *testing.T, ctx context.Context, what string, holds func() (bool, string)) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, state := holds()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not in time; last %s", what, state)
		}
	}
}

func TestReadyzTellsTheTruth(t *testing.T) {
	m := newMesh(t)
	m.directory.leader(false)
	m.start("bac", nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	unready := func(want string) {
		t.Helper()
		until(t, ctx, "not ready: "+want, func() (bool, string) {
			ready, reasons := m.readyz("bac")
			return !ready && len(reasons) == 1 && strings.Contains(reasons[0], want), fmt.Sprint(ready, reasons)
		})
	}
	unready("does not have this relay")
	m.directory.leader(true)
	m.serving("bac")
	if ready, reasons := m.readyz("bac"); !ready || len(reasons) != 0 {
		t.Errorf("registered: got %t %v, want ready", ready, reasons)
	}
	m.putAgency("G22", "bac")
	set := func(state directoryv1.RelayState) {
		m.change(&directoryv1.Command{Change: &directoryv1.Command_SetRelayState{SetRelayState: &directoryv1.SetRelayState{RelayId: "bac", State: state}}})
	}
	set(directoryv1.RelayState_RELAY_STATE_DRAINING)
	unready("draining")
	m.awaitHealth("bac", healthv1.HealthCheckResponse_NOT_SERVING)
	if _, err := submit(ctx, m.agency("bac", "G22"), document("G22", "1", "x", "G22"), "x"); !has(err, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING) {
		t.Errorf("submit while draining: got %v, want NOT_SERVING", err)
	}
	health, err := adminv1.NewCustodyServiceClient(m.dial("bac", tls.KindOperator, "an")).Health(ctx, &adminv1.HealthRequest{})
	if err != nil || health.GetServing() || health.GetReason() != "draining" || health.GetVersion() != "test" {
		t.Errorf("health: got %v, %v, want not serving, draining", health, err)
	}
	set(directoryv1.RelayState_RELAY_STATE_ACTIVE)
	m.serving("bac")
}

func TestSelfRegistrationFollowsTheConfiguration(t *testing.T) {
	m := newMesh(t)
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutRelay{PutRelay: &directoryv1.PutRelay{Relay: &directoryv1.Relay{Id: "bac", Region: "old", Address: "old:1"}}}})
	n := m.start("bac", nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	until(t, ctx, "own entry", func() (bool, string) {
		entry, _ := m.directory.View().Relay("bac")
		return entry.GetAddress() == n.address && entry.GetRegion() == "bac", fmt.Sprint(entry)
	})
	m.directory.mu.Lock()
	defer m.directory.mu.Unlock()
	if last := m.directory.commands[len(m.directory.commands)-1]; last.GetActor() != "spiffe://truc.test/relay/bac" {
		t.Errorf("actor: got %s, want the relay itself", last.GetActor())
	}
}

// What the directory takes away ends what is going on.
func TestDirectoryCutsLiveStreams(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.serving("bac")
	m.putAgency("H26", "bac")
	m.putAgency("H29", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	open := func(code string) grpc.ServerStreamingClient[exchangev1.ReceiveResponse] {
		client := m.agency("bac", code)
		if _, err := submit(ctx, client, document(code, code, "x", code), "x"); err != nil {
			t.Fatal(err)
		}
		stream, err := client.Receive(ctx, &exchangev1.ReceiveRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	suspended, revoked := open("H26"), open("H29")
	m.suspend("H26", true)
	if _, err := suspended.Recv(); !has(err, exchangev1.ErrorReason_ERROR_REASON_AGENCY_SUSPENDED) {
		t.Errorf("suspended: got %v, want AGENCY_SUSPENDED", err)
	}
	issued, err := m.authority.List()
	if err != nil {
		t.Fatal(err)
	}
	hash := m.authority.IssuerKeyHash()
	for _, one := range issued {
		if one.Identity == "spiffe://truc.test/agency/H29" {
			serial := serialOf(t, one)
			m.change(&directoryv1.Command{Change: &directoryv1.Command_RevokeCertificate{RevokeCertificate: &directoryv1.RevokeCertificate{
				Revocation: &directoryv1.Revocation{Serial: serial, IssuerKeyHash: hash[:], Reason: "lost"}}}})
		}
	}
	if _, err := revoked.Recv(); err == nil || ctx.Err() != nil {
		t.Errorf("revoked: got %v, want the connection cut", err)
	}
}

func TestStopIsGracefulAndBounded(t *testing.T) {
	m := newMesh(t)
	n := m.start("bac", nil)
	m.serving("bac")
	m.putAgency("H26", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := m.agency("bac", "H26")
	if _, err := submit(ctx, client, document("H26", "1", "x", "H26"), "x"); err != nil {
		t.Fatal(err)
	}
	stream, err := client.Receive(ctx, &exchangev1.ReceiveRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := n.stop(); err != nil {
		t.Errorf("stop: got %v, want nil", err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("stop took %s though every call could end", took)
	}
	if _, err := stream.Recv(); !has(err, exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING) {
		t.Errorf("stream: got %v, want NOT_SERVING", err)
	}
	// What was accepted is there again, in the same inbox.
	m.start("bac", nil)
	m.serving("bac")
	arrival, content, err := receiveOne(ctx, m.agency("bac", "H26"))
	if err != nil || content != "x" || arrival.GetEnvelope().GetHeader().GetDocumentId() != "1" {
		t.Errorf("after the restart: got %v, %q, %v", arrival, content, err)
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	_, err := relay.New(relay.Config{ID: "Bac", Address: "nowhere"})
	for _, want := range []string{"relay id", "host:port", "region", "directory", "endpoint", "listener", "spool"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %q", err, want)
		}
	}
	m := newMesh(t)
	endpoint, err := tls.New(m.files(tls.KindRelay, "nam"))
	if err != nil {
		t.Fatal(err)
	}
	c := relay.Config{ID: "bac", Region: "x", Address: "a:1", Directory: m.directory, Endpoint: endpoint, Listener: nothing{}}
	c.Spool.Dir = t.TempDir()
	if _, err := relay.New(c); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("certificate of another relay: got %v", err)
	}
}
