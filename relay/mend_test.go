package relay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool/spooltest"
)

// Promise 5: one bit turns at the home. The recipient gets what was sent, the
// home mends its copy from the ingress and says so, and has it whole from then
// on, also when the ingress is gone.
func TestDamagedCopyIsMended(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.start("nam", nil)
	m.serving("bac", "nam")
	m.putAgency("G22", "bac")
	m.putAgency("H29", "nam")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	content := strings.Repeat("văn bản ", 50_000) // more than goes inline
	raw := copied(t, ctx, m.agency("bac", "G22"), document("G22", "1", content, "H29"), content)
	id, err := envelope.IDFromBytes(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := spooltest.Damage(filepath.Join(m.dir, "spool-nam"), id, 0); err != nil {
		t.Fatal(err)
	}
	recipient := m.agency("nam", "H29")
	if got, err := fetched(ctx, recipient, raw); err != nil || got != content {
		t.Fatalf("received %d bytes, %v; want those that were sent", len(got), err)
	}
	custody := m.custody("nam")
	until(t, ctx, "the copy is mended", func() (bool, string) {
		trace, err := custody.Trace(ctx, &adminv1.TraceRequest{EnvelopeId: raw, Local: true})
		health, herr := custody.Health(ctx, &adminv1.HealthRequest{})
		repaired := slices.ContainsFunc(trace.GetEvents(), func(e *exchangev1.TraceEvent) bool {
			return e.GetAction() == exchangev1.TraceAction_TRACE_ACTION_REPAIRED
		})
		return repaired && health.GetRepaired() > 0 && health.GetQuarantined() == 0, fmt.Sprint(trace, err, health, herr)
	})
	if err := m.relays["bac"].stop(); err != nil {
		t.Fatal(err)
	}
	if got, err := fetched(ctx, recipient, raw); err != nil || got != content {
		t.Errorf("from the mended copy: %d bytes, %v; want those that were sent", len(got), err)
	}
}

// fetched reads the one part of an envelope, without confirming it.
func fetched(ctx context.Context, client exchangev1.ExchangeServiceClient, id []byte) (string, error) {
	stream, err := client.Fetch(ctx, &exchangev1.FetchRequest{EnvelopeId: id})
	if err != nil {
		return "", err
	}
	var content []byte
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return string(content), nil
		}
		if err != nil {
			return "", err
		}
		content = append(content, piece.GetData()...)
	}
}
