package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/truclienthong/truc/cmd/internal/cli"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/test/mesh"
)

// fsck refuses a relay that runs, finds a whole spool whole, and tells of every
// byte that is not what was accepted.
func TestFsck(t *testing.T) {
	m := mesh.Start(t, mesh.Config{})
	m.Damaged()
	content := []byte(strings.Repeat("Công văn số 7 của Ủy ban nhân dân xã Hòa Tiến. ", 8_000))
	sent := m.Agency("H17.97.08").Send(mesh.Files{"công văn.txt": content}, "G22")
	m.Await("it is at home, whoever had the second copy first", func(ctx context.Context) error {
		id := sent.ID()
		trace, err := m.Operator("bac").Custody.Trace(ctx, &adminv1.TraceRequest{EnvelopeId: id[:]})
		if err != nil {
			return err
		}
		for _, e := range trace.GetEvents() {
			if e.GetRelayId() == "bac" && e.GetAction() == exchangev1.TraceAction_TRACE_ACTION_ARRIVED {
				return nil
			}
		}
		return errors.New("it is not")
	})
	config := m.Layout.RelayConfig("bac")
	fsck := func(config string) (code int, lines []map[string]any, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		code = cli.Execute(t.Context(), newRoot(), []string{"fsck", "--config", config, "-o", "json"}, &out, &errs)
		for line := range strings.Lines(out.String()) {
			var object map[string]any
			if err := json.Unmarshal([]byte(line), &object); err != nil {
				t.Fatalf("%v in %q", err, line)
			}
			lines = append(lines, object)
		}
		return code, lines, errs.String()
	}
	if code, _, stderr := fsck(config); code != 1 || !strings.Contains(stderr, "stop it first") {
		t.Errorf("a relay that runs: exit %d, %s", code, stderr)
	}
	m.StopRelay("bac")
	if code, lines, stderr := fsck(config); code != 0 || len(lines) != 1 || lines[0]["findings"] != 0.0 {
		t.Errorf("a whole one: exit %d, %v, %s", code, lines, stderr)
	}

	damaged := false
	files, err := filepath.Glob(filepath.Join(m.Data("bac", "spool"), "journal", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if at := bytes.Index(raw, content[:1_000]); at >= 0 {
			raw[at+500] ^= 1
			damaged = true
			if err := os.WriteFile(file, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !damaged {
		t.Fatal("the content is in no file of the journal")
	}
	code, lines, stderr := fsck(config)
	named := false
	for _, line := range lines {
		named = named || line["envelope_id"] == sent.ID().String() && line["problem"] != ""
	}
	if code != 1 || !named {
		t.Errorf("a damaged one: exit %d, %v, %s", code, lines, stderr)
	}

	if err := os.RemoveAll(m.Data("bac", "spool")); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := fsck(config); code != 1 || !strings.Contains(stderr, "no spool") {
		t.Errorf("none: exit %d, %s", code, stderr)
	}
}
