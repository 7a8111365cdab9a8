package relay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay"
	"github.com/truclienthong/truc/tls"
)

// hurried has the keeper look more often than the tests have time.
func hurried(c *relay.Config) {
	c.Keeper.ReviewEvery, c.Keeper.ReviewPause = 200*time.Millisecond, 20*time.Millisecond
}

func (m *mesh) putAgencyWithStandby(code, home, standby string) {
	m.t.Helper()
	m.change(&directoryv1.Command{Change: &directoryv1.Command_PutAgency{PutAgency: &directoryv1.PutAgency{
		Agency: &directoryv1.Agency{Code: code, Name: code, Tier: 1, HomeRelayId: home, StandbyRelayId: standby}}}})
}

func (m *mesh) giveUp(id string) {
	m.t.Helper()
	m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{
		RetireRelay: &directoryv1.RetireRelay{RelayId: id, Lost: true}}})
}

// copied submits and waits until two relays have the document.
func copied(t *testing.T, ctx context.Context, client exchangev1.ExchangeServiceClient, h *exchangev1.Header, content string) []byte {
	t.Helper()
	accepted, err := submit(ctx, client, h, content)
	if err != nil {
		t.Fatal(err)
	}
	until(t, ctx, "two copies", func() (bool, string) {
		response, err := client.Track(ctx, &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: h.GetDocumentId()}})
		return err == nil && response.GetReceipt().GetCopies() >= 2, fmt.Sprint(response.GetReceipt(), err)
	})
	return accepted.GetReceipt().GetEnvelopeId()
}

// receiveAll takes what is in the inbox, until n different documents came.
func receiveAll(t *testing.T, ctx context.Context, client exchangev1.ExchangeServiceClient, n int) {
	t.Helper()
	got := make(map[string]bool)
	for len(got) < n {
		arrival, content, err := receiveOne(ctx, client)
		if err != nil {
			t.Fatalf("after %d of %d: %v", len(got), n, err)
		}
		id := arrival.GetEnvelope().GetHeader().GetDocumentId()
		if content != "content of "+id {
			t.Errorf("%s: got %q", id, content)
		}
		got[id] = true
	}
}

func (m *mesh) awaitDelivered(ctx context.Context, client exchangev1.ExchangeServiceClient, documents ...string) {
	m.t.Helper()
	for _, id := range documents {
		until(m.t, ctx, id+" delivered", func() (bool, string) {
			response, err := client.Track(ctx, &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: id}})
			return err == nil && len(response.GetDeliveries()) > 0 && !slices.ContainsFunc(response.GetDeliveries(), func(d *exchangev1.Delivery) bool {
				return d.GetTransport() != exchangev1.TransportStatus_TRANSPORT_STATUS_DONE
			}), fmt.Sprint(response.GetDeliveries(), err)
		})
	}
}

// Promise 3: the home is lost with everything in its inboxes, and the
// recipients get it from the relay that is their home now, within seconds.
func TestLostHomeIsSentAgain(t *testing.T) {
	m := newMesh(t)
	for _, id := range []string{"bac", "trung", "nam"} {
		m.start(id, nil)
	}
	m.serving("bac", "trung", "nam")
	m.putAgency("G22", "bac")
	m.putAgencyWithStandby("H29", "nam", "trung")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	sender := m.agency("bac", "G22")
	const n = 30
	var documents []string
	for i := range n {
		id := fmt.Sprint("lost-", i)
		copied(t, ctx, sender, document("G22", id, "content of "+id, "H29"), "content of "+id)
		documents = append(documents, id)
	}
	if err := m.relays["nam"].stop(); err != nil {
		t.Fatal(err)
	}
	lost := time.Now()
	m.giveUp("nam")
	receiveAll(t, ctx, m.agency("trung", "H29"), n)
	if took := time.Since(lost); took > 10*time.Second {
		t.Errorf("received again after %s, want it within 10 s", took)
	}
	m.awaitDelivered(ctx, sender, documents...)
}

// Promises 2 and 3: ingress, sender and recipient share one relay. It is lost
// with its disk, and the second copy becomes a delivery.
func TestLostIngressIsTakenOver(t *testing.T) {
	m := newMesh(t)
	for _, id := range []string{"bac", "trung", "nam"} {
		m.start(id, nil)
	}
	m.serving("bac", "trung", "nam")
	m.putAgencyWithStandby("G22", "bac", "trung")
	m.putAgencyWithStandby("H26", "bac", "nam")
	m.putAgencyWithStandby("H29", "nam", "trung")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	sender := m.agency("bac", "G22")
	const n = 10
	var documents []string
	for i := range n {
		id := fmt.Sprint("own-", i)
		copied(t, ctx, sender, document("G22", id, "content of "+id, "H26"), "content of "+id)
		documents = append(documents, id)
	}
	// One that waits at the home of one recipient, and here for the other: that
	// home keeps its copy for both.
	copied(t, ctx, sender, document("G22", "both", "content of both", "H26", "H29"), "content of both")
	if err := m.relays["bac"].stop(); err != nil {
		t.Fatal(err)
	}
	m.giveUp("bac")
	receiveAll(t, ctx, m.agency("nam", "H29"), 1)
	receiveAll(t, ctx, m.agency("nam", "H26"), n+1)
	// The sender finds it at the relay that took over.
	m.awaitDelivered(ctx, m.agency("trung", "G22"), documents...)
}

// Promise 3: a home comes back with an empty disk, and gets its inboxes again.
func TestWipedHomeIsFilledAgain(t *testing.T) {
	m := newMesh(t)
	for _, id := range []string{"bac", "nam"} {
		m.start(id, hurried)
	}
	m.serving("bac", "nam")
	m.putAgency("G22", "bac")
	m.putAgency("H29", "nam")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	sender := m.agency("bac", "G22")
	const n = 10
	var documents []string
	for i := range n {
		id := fmt.Sprint("wiped-", i)
		copied(t, ctx, sender, document("G22", id, "content of "+id, "H29"), "content of "+id)
		documents = append(documents, id)
	}
	if err := m.relays["nam"].stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(m.dir, "spool-nam")); err != nil {
		t.Fatal(err)
	}
	m.start("nam", hurried)
	m.serving("nam")
	receiveAll(t, ctx, m.agency("nam", "H29"), n)
	m.awaitDelivered(ctx, sender, documents...)
}

// Promise 3: an ingress comes back with an empty disk. The relay that kept a
// copy takes its place, and the recipient, whose home is the wiped relay, gets
// the document.
func TestWipedIngressIsTakenOver(t *testing.T) {
	m := newMesh(t)
	for _, id := range []string{"bac", "nam"} {
		m.start(id, hurried)
	}
	m.serving("bac", "nam")
	m.putAgency("G22", "bac")
	m.putAgency("H26", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	copied(t, ctx, m.agency("bac", "G22"), document("G22", "1", "content of 1", "H26"), "content of 1")
	if err := m.relays["bac"].stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(m.dir, "spool-bac")); err != nil {
		t.Fatal(err)
	}
	m.start("bac", hurried)
	m.serving("bac")
	receiveAll(t, ctx, m.agency("bac", "H26"), 1)
	m.awaitDelivered(ctx, m.agency("nam", "G22"), "1")
}

// What nobody fetches ends when its lifetime does, and the sender learns it.
func TestExpiryReachesTheSender(t *testing.T) {
	m := newMesh(t)
	for _, id := range []string{"bac", "nam"} {
		m.start(id, nil)
	}
	m.serving("bac", "nam")
	m.putAgency("G22", "bac")
	m.putAgency("H29", "nam")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sender := m.agency("bac", "G22")
	h := document("G22", "short", "x", "H29")
	h.ExpiresAt = timestamppb.New(time.Now().Add(2 * time.Second))
	if _, err := submit(ctx, sender, h, "x"); err != nil {
		t.Fatal(err)
	}
	until(t, ctx, "expired", func() (bool, string) {
		response, err := sender.Track(ctx, &exchangev1.TrackRequest{Envelope: &exchangev1.TrackRequest_DocumentId{DocumentId: "short"}})
		if err != nil || len(response.GetDeliveries()) != 1 {
			return false, fmt.Sprint(response, err)
		}
		d := response.GetDeliveries()[0]
		return d.GetTransport() == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL &&
			d.GetReason() == exchangev1.ErrorReason_ERROR_REASON_EXPIRED, d.String()
	})
	ended, end := context.WithTimeout(ctx, 200*time.Millisecond)
	defer end()
	if arrival, _, err := receiveOne(ended, m.agency("nam", "H29")); err == nil {
		t.Errorf("received %v after its end", arrival)
	}
}

// A relay that drains is done when nothing would be missed: then it may go, and
// everything is delivered all the same.
func TestDrainedRelayIsNotMissed(t *testing.T) {
	m := newMesh(t)
	for _, id := range []string{"bac", "trung", "nam"} {
		m.start(id, hurried)
	}
	m.serving("bac", "trung", "nam")
	m.putAgencyWithStandby("G22", "bac", "trung")
	m.putAgencyWithStandby("H26", "bac", "nam")
	m.putAgencyWithStandby("H29", "nam", "bac")
	m.putAgencyWithStandby("H48", "trung", "bac")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	const n = 5
	for i := range n {
		// Accepted here; in an inbox here, at nam, and kept here for others.
		for code, to := range map[string][]string{"G22": {"H26"}, "H26": {"H29"}} {
			id := fmt.Sprint("from-", code, "-", i)
			copied(t, ctx, m.agency("bac", code), document(code, id, "content of "+id, to...), "content of "+id)
		}
		id := fmt.Sprint("kept-", i)
		copied(t, ctx, m.agency("trung", "H48"), document("H48", id, "content of "+id, "H48"), "content of "+id)
	}
	m.change(&directoryv1.Command{Change: &directoryv1.Command_SetRelayState{SetRelayState: &directoryv1.SetRelayState{
		RelayId: "bac", State: directoryv1.RelayState_RELAY_STATE_DRAINING, MoveAgencies: true}}})
	stream, err := adminv1.NewCustodyServiceClient(m.dial("bac", tls.KindOperator, "an")).Drain(ctx, &adminv1.DrainRequest{RelayId: "bac"})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for done := false; !done; {
		progress, err := stream.Recv()
		if errors.Is(err, io.EOF) || err != nil {
			t.Fatalf("drain: %v after %s", err, strings.Join(told, " "))
		}
		told = append(told, fmt.Sprint(progress.GetRemaining()))
		done = progress.GetDone()
	}
	m.change(&directoryv1.Command{Change: &directoryv1.Command_RetireRelay{RetireRelay: &directoryv1.RetireRelay{RelayId: "bac"}}})
	if err := m.relays["bac"].stop(); err != nil {
		t.Fatal(err)
	}
	receiveAll(t, ctx, m.agency("nam", "H26"), n)
	receiveAll(t, ctx, m.agency("nam", "H29"), n)
	receiveAll(t, ctx, m.agency("trung", "H48"), n)
}
