package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/truclienthong/truc/cmd/internal/cli"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency/agencytest"
	"github.com/truclienthong/truc/relay/envelope"
)

func TestMain(m *testing.M) {
	if os.Getenv(asConnector) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// office is a mesh, with a way to run the connector for its agencies.
type office struct {
	*testing.T
	mesh *agencytest.Mesh
	dir  string
}

func newOffice(t *testing.T) *office {
	t.Helper()
	t.Setenv(cli.ProfileVariable, "")
	dir := t.TempDir()
	mesh, err := agencytest.New(agencytest.Config{Dir: dir, Agencies: []*exchangev1.AgencyInfo{
		{Code: "G22", Aliases: []string{"000.00.00.G22"}, Name: "Văn phòng Chính phủ", Tier: 1, HomeRelayId: "bac"},
		{Code: "H26", Name: "UBND thành phố Hà Nội", Tier: 2, HomeRelayId: "bac"},
		{Code: "H26.12", Name: "UBND quận Ba Đình", Tier: 3, ParentCode: "H26", HomeRelayId: "bac", Suspended: true},
		{Code: "H48", Name: "UBND thành phố Đà Nẵng", Tier: 2, HomeRelayId: "bac"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mesh.Close() })
	return &office{T: t, mesh: mesh, dir: dir}
}

// outcome is what one run of the connector left.
type outcome struct {
	code           int
	stdout, stderr string
}

// run runs the connector as an agency; without one, without a profile.
func (o *office) run(ctx context.Context, code string, args ...string) outcome {
	o.Helper()
	if code != "" {
		profile, err := o.mesh.Profile(code)
		if err != nil {
			o.Fatal(err)
		}
		args = append(args, "--profile", profile)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var stdout, stderr bytes.Buffer
	exit := cli.Execute(ctx, newRoot(), args, &stdout, &stderr)
	return outcome{exit, stdout.String(), stderr.String()}
}

func (o *office) file(name, content string) string {
	o.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		o.Fatal(err)
	}
	return path
}

// lines reads one object per line.
func lines(t *testing.T, text string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(text) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q is no JSON: %v", line, err)
		}
		all = append(all, v)
	}
	return all
}

func keys(v map[string]any) string {
	var names []string
	for name := range v {
		names = append(names, name)
	}
	return " " + strings.Join(names, " ") + " "
}

func TestADocumentFromOneAgencyToOthers(t *testing.T) {
	o := newOffice(t)
	main, annex := o.file("công văn.pdf", "%PDF một"), o.file("phụ lục.xlsx", "hai")
	sent := o.run(t.Context(), "G22", "send", "-o", "json", "--to", "H26,000.00.00.G22", "--to", "@provinces",
		"--subject", "V/v họp giao ban", "--number", "7816", "--notation", "VPCP-TTĐT", "--type", "Công văn", "--priority", "1",
		"--due", "2025-10-31", "--date", "20/10/2025", "--document-id", "vb-1", "--content", "tóm tắt", "--place", "Hà Nội",
		"--signer", "Nguyễn Văn A", "--signer-position", "Chánh Văn phòng", "--signer-competence", "TL.", main, annex)
	if sent.code != 0 || sent.stderr != "" {
		t.Fatalf("send: %+v", sent)
	}
	receipt := lines(t, sent.stdout)[0]
	if receipt["document_id"] != "vb-1" || receipt["relay"] != "bac" || receipt["copies"] != 2.0 || receipt["recipients"] != 4.0 || receipt["repeat"] != false || fmt.Sprint(receipt["warnings"]) != "[]" {
		t.Errorf("receipt %v", receipt)
	}
	if at := receipt["accepted_at"].(string); !strings.HasSuffix(at, "+07:00") {
		t.Errorf("accepted at %s, want Vietnam time", at)
	}
	id := receipt["envelope_id"].(string)

	out := filepath.Join(o.dir, "đến")
	received := o.run(t.Context(), "H26", "receive", "--out", out, "-o", "json")
	if received.code != 0 {
		t.Fatalf("receive: %+v", received)
	}
	arrival := lines(t, received.stdout)[0]
	for key, want := range map[string]any{
		"envelope_id": id, "sender": "G22", "agency": "H26", "document_id": "vb-1", "subject": "V/v họp giao ban",
		"dir": filepath.Join(out, id), "confirmed": true, "kind": "document", "priority": 1.0,
	} {
		if arrival[key] != want {
			t.Errorf("arrival: %s is %v, want %v", key, arrival[key], want)
		}
	}
	for i, want := range []struct{ name, content string }{{"công văn.pdf", "%PDF một"}, {"phụ lục.xlsx", "hai"}} {
		f := arrival["files"].([]any)[i].(map[string]any)
		got, err := os.ReadFile(f["path"].(string))
		if err != nil || string(got) != want.content || f["name"] != want.name || f["size"] != float64(len(want.content)) || len(f["sha256"].(string)) != 64 {
			t.Errorf("file %v holds %q, %v", f, got, err)
		}
	}
	description, err := os.ReadFile(filepath.Join(out, id, "envelope.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"due_on"`, `2025/10/31`, `2025/10/20`, `"competence": "TL."`, `tóm tắt`, `VPCP-TTĐT`, `PRIORITY_KHAN`} {
		if !strings.Contains(strings.ReplaceAll(string(description), `":"`, `": "`), want) {
			t.Errorf("envelope.json has no %s: %s", want, description)
		}
	}
	if again := o.run(t.Context(), "H26", "receive", "--out", out); again.code != 0 || again.stdout != "" {
		t.Errorf("an empty inbox: %+v", again)
	}

	for _, by := range []string{id, "vb-1"} {
		tracked := o.run(t.Context(), "G22", "track", by, "-o", "json")
		if tracked.code != 0 {
			t.Fatalf("track %s: %+v", by, tracked)
		}
		v := lines(t, tracked.stdout)[0]
		deliveries := v["deliveries"].([]any)
		transports := map[string]any{}
		for _, d := range deliveries {
			d := d.(map[string]any)
			transports[d["agency"].(string)] = d["transport"]
		}
		if v["envelope_id"] != id || len(deliveries) != 4 || transports["H26"] != "done" || transports["H48"] != "processing" {
			t.Errorf("track %s: %v", by, v)
		}
		if k := keys(v); !strings.Contains(k, " receipt ") || !strings.Contains(k, " events ") || !strings.Contains(k, " silent_relays ") {
			t.Errorf("track %s has fields%s", by, k)
		}
	}
	text := o.run(t.Context(), "G22", "track", id)
	if text.code != 0 || !strings.Contains(text.stdout, "H26 ") || !strings.Contains(text.stdout, "confirmed") {
		t.Errorf("track as text: %+v", text)
	}
}

func TestSendNamesItsDocument(t *testing.T) {
	o := newOffice(t)
	file := o.file("a.pdf", "x")
	first := o.run(t.Context(), "G22", "send", "--to", "H26", "--subject", "s", "-o", "json", file)
	if first.code != 0 || !strings.Contains(first.stderr, "--document-id ") {
		t.Fatalf("send: %+v", first)
	}
	receipt := lines(t, first.stdout)[0]
	id := receipt["document_id"].(string)
	if !strings.Contains(first.stderr, id) {
		t.Errorf("the generated id %s is not named in %q", id, first.stderr)
	}
	again := o.run(t.Context(), "G22", "send", "--to", "H26", "--subject", "s", "--document-id", id, file)
	if again.code != 0 || !strings.Contains(again.stdout, "had been accepted") || !strings.Contains(again.stdout, receipt["envelope_id"].(string)) {
		t.Errorf("again: %+v", again)
	}
	other := o.run(t.Context(), "G22", "send", "--to", "H26", "--subject", "other", "--document-id", id, file)
	if other.code != 1 || !strings.Contains(other.stderr, "refused: ") || !strings.Contains(other.stderr, id) {
		t.Errorf("other content: %+v", other)
	}
}

func TestSendWarnsAndTellsOfOneCopy(t *testing.T) {
	o := newOffice(t)
	o.mesh.Copies(1)
	got := o.run(t.Context(), "G22", "send", "--no-outbox", "--to", "H26", "--subject", "s", "--number", "20251020104803", o.file("a.pdf", "x"))
	if got.code != 0 || !strings.Contains(got.stderr, "keep the files") || !strings.Contains(got.stderr, "note: header.document.code.number has 14") {
		t.Errorf("got %+v", got)
	}
}

func TestRefusalsAreListedByField(t *testing.T) {
	o := newOffice(t)
	got := o.run(t.Context(), "G22", "send", "--to", "H99,H26,@", "--subject", "s", o.file("a.pdf", "x"))
	if got.code != 2 {
		t.Errorf("an empty group: %+v", got)
	}
	got = o.run(t.Context(), "G22", "send", "--to", "H99,H26,H98", "--subject", "s", o.file("a.pdf", "x"))
	if got.code != 1 || got.stdout != "" || !strings.Contains(got.stderr, "2 problems\n") ||
		!strings.Contains(got.stderr, "\n  header.recipients[0]: H99") || !strings.Contains(got.stderr, "\n  header.recipients[2]: H98") {
		t.Errorf("got %+v", got)
	}
	got = o.run(t.Context(), "G22", "send", "--to", "..", "--subject", "s\x01", o.file("b .", "x"))
	for _, field := range []string{"header.recipients[0].agency.code", "header.document.subject", "header.parts[0].name"} {
		if got.code != 1 || !strings.Contains(got.stderr, field) {
			t.Errorf("got %+v, want %s in it", got, field)
		}
	}
}

func TestUsage(t *testing.T) {
	o := newOffice(t)
	file := o.file("a.pdf", "x")
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":           {nil, 2, "Available Commands"},
		"help":              {[]string{"--help"}, 0, ""},
		"help of send":      {[]string{"send", "--help"}, 0, ""},
		"unknown command":   {[]string{"forward"}, 2, "forward"},
		"unknown flag":      {[]string{"send", "--urgent", file}, 2, "--urgent"},
		"no file":           {[]string{"send", "--to", "H26", "--subject", "s"}, 2, "arg"},
		"no recipient":      {[]string{"send", "--subject", "s", file}, 2, `"to"`},
		"no subject":        {[]string{"send", "--to", "H26", file}, 2, `"subject"`},
		"empty subject":     {[]string{"send", "--to", "H26", "--subject", " ", file}, 2, "--subject is empty"},
		"receive to a file": {[]string{"receive", "--out", file}, 1, "a.pdf"},
		"empty recipient":   {[]string{"send", "--to", "H26,,H48", "--subject", "s", file}, 2, "--to"},
		"priority 5":        {[]string{"send", "--to", "H26", "--subject", "s", "--priority", "5", file}, 2, "--priority"},
		"no date":           {[]string{"send", "--to", "H26", "--subject", "s", "--due", "2025-02-30", file}, 2, "--due"},
		"no hour":           {[]string{"send", "--to", "H26", "--subject", "s", "--priority", "4", "--not-before", "noon", file}, 2, "--not-before"},
		"hour and priority": {[]string{"send", "--to", "H26", "--subject", "s", "--not-before", "2030-01-01T08:00", file}, 1, "header.not_before"},
		"missing file":      {[]string{"send", "--to", "H26", "--subject", "s", file + "x"}, 1, "a.pdfx"},
		"receive nowhere":   {[]string{"receive"}, 2, `"out"`},
		"receive an arg":    {[]string{"receive", "--out", o.dir, "x"}, 2, "x"},
		"receive negative":  {[]string{"receive", "--out", o.dir, "--max", "-1"}, 2, "--max"},
		"receive odd time":  {[]string{"receive", "--out", o.dir, "--timeout", "soon"}, 2, "--timeout"},
		"send waits less":   {[]string{"send", "--to", "H26", "--subject", "s", "--wait", "-1s", file}, 2, "--wait"},
		"two ways to keep":  {[]string{"send", "--to", "H26", "--subject", "s", "--outbox", o.dir, "--no-outbox", file}, 2, "none of the others"},
		"outbox is a file":  {[]string{"send", "--to", "H26", "--subject", "s", "--outbox", file, file}, 1, "--no-outbox"},
		"no outbox to list": {[]string{"outbox", "--no-outbox"}, 2, "--no-outbox"},
		"outbox an arg":     {[]string{"outbox", "x"}, 2, "x"},
		"outbox no time":    {[]string{"outbox", "--tend", "--timeout", "0s"}, 2, "--timeout"},
		"track nothing":     {[]string{"track"}, 2, "arg"},
		"track unknown":     {[]string{"track", "không có"}, 1, "refused"},
		"track unknown id":  {[]string{"track", envelope.ID{1}.String()}, 1, "refused"},
		"agencies odd tier": {[]string{"agencies", "--tier", "5"}, 2, "--tier"},
		"agencies two ways": {[]string{"agencies", "--code", "H26", "--under", "G22"}, 2, "none of the others"},
		"agencies no such":  {[]string{"agencies", "--code", "H99"}, 1, "H99"},
		"unknown output":    {[]string{"agencies", "-o", "xml"}, 2, "xml"},
	} {
		t.Run(name, func(t *testing.T) {
			got := o.run(t.Context(), "G22", c.args...)
			if got.code != c.code || !strings.Contains(got.stderr, c.says) || c.code != 0 && got.stdout != "" {
				t.Errorf("got %+v, want code %d and %q", got, c.code, c.says)
			}
		})
	}
	if got := o.run(t.Context(), "", "agencies"); got.code != 2 || !strings.Contains(got.stderr, cli.ProfileVariable) {
		t.Errorf("no profile: %+v", got)
	}
	if got := o.run(t.Context(), "", "agencies", "--profile", o.file("bad.yaml", "relays: [bac]\nport: 1\n")); got.code != 1 || !strings.Contains(got.stderr, "port") {
		t.Errorf("a profile that is none: %+v", got)
	}
}

func TestReceiveWaits(t *testing.T) {
	o := newOffice(t)
	out := filepath.Join(o.dir, "in")
	if got := o.run(t.Context(), "H26", "receive", "--out", out, "--max", "1", "--timeout", "100ms"); got.code != 0 || got.stdout != "" {
		t.Errorf("nothing came in time: %+v", got)
	}
	var waiting sync.WaitGroup
	var got outcome
	waiting.Go(func() {
		got = o.run(t.Context(), "H26", "receive", "--out", out, "--max", "2", "--timeout", "20s", "-o", "json")
	})
	for i := range 3 {
		if sent := o.run(t.Context(), "G22", "send", "--to", "H26", "--subject", fmt.Sprint(i), o.file("a.pdf", "x")); sent.code != 0 {
			t.Fatalf("send: %+v", sent)
		}
	}
	waiting.Wait()
	if got.code != 0 || len(lines(t, got.stdout)) != 2 || o.mesh.Waiting("H26") != 1 {
		t.Errorf("two of three: %+v, %d waiting", got, o.mesh.Waiting("H26"))
	}
	// Ctrl-C ends a watching connector with code 0, once it has what was there.
	ctx, interrupt := context.WithCancel(t.Context())
	o.mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.Confirmed {
			time.AfterFunc(50*time.Millisecond, interrupt)
		}
		return nil
	})
	if got := o.run(ctx, "H26", "receive", "--out", out, "--watch"); got.code != 0 || strings.Count(got.stdout, "from G22") != 1 {
		t.Errorf("watching until interrupted: %+v", got)
	}
	o.mesh.Fault(nil)
	if entries, err := os.ReadDir(out); err != nil || len(entries) != 3 {
		t.Errorf("folder holds %v, %v; want three envelopes", entries, err)
	}
}

func TestReceiveLeavesWhatItCannotSave(t *testing.T) {
	o := newOffice(t)
	ids := map[string]string{}
	for _, document := range []string{"1", "2", "3"} {
		sent := o.run(t.Context(), "G22", "send", "--to", "H26", "--subject", "s", "--document-id", document, "-o", "json", o.file("a.pdf", "x"))
		ids[document] = lines(t, sent.stdout)[0]["envelope_id"].(string)
	}
	out := filepath.Join(o.dir, "in")
	// A stranger stands where the second one should go.
	if err := os.MkdirAll(filepath.Join(out, ids["2"]), 0o700); err != nil {
		t.Fatal(err)
	}
	got := o.run(t.Context(), "H26", "receive", "--out", out)
	if got.code != 1 || strings.Count(got.stdout, "from G22") != 2 || !strings.Contains(got.stderr, "move it away") || !strings.Contains(got.stderr, "stay in the inbox") {
		t.Errorf("got %+v", got)
	}
	if err := os.Remove(filepath.Join(out, ids["2"])); err != nil {
		t.Fatal(err)
	}
	if got := o.run(t.Context(), "H26", "receive", "--out", out); got.code != 0 || !strings.Contains(got.stdout, ids["2"]) || o.mesh.Waiting("H26") != 0 {
		t.Errorf("after moving it away: %+v", got)
	}
}

// One whose content its home cannot read just now holds up nothing behind it,
// and is taken too once it can.
func TestReceiveGoesOnBesideWhatIsDamaged(t *testing.T) {
	o := newOffice(t)
	for _, document := range [][2]string{{"large", strings.Repeat("x", 300<<10)}, {"small", "x"}} {
		sent := o.run(t.Context(), "G22", "send", "--to", "H26", "--subject", document[0], o.file("a.pdf", document[1]))
		if sent.code != 0 {
			t.Fatalf("send: %+v", sent)
		}
	}
	var mended atomic.Bool
	o.mesh.Fault(func(_ string, step agencytest.Step) error {
		switch {
		case step == agencytest.Confirmed:
			mended.Store(true)
		case step == agencytest.Fetch && !mended.Load():
			return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DAMAGED, "a block cannot be read").GRPCStatus().Err()
		}
		return nil
	})
	got := o.run(t.Context(), "H26", "receive", "--out", filepath.Join(o.dir, "in"))
	if small, large := strings.Index(got.stdout, "small"), strings.Index(got.stdout, "large"); got.code != 0 || small < 0 || large < small {
		t.Errorf("got %+v", got)
	}
}

func TestReceiveInterrupted(t *testing.T) {
	o := newOffice(t)
	o.mesh.Stop("bac")
	ctx, interrupt := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, interrupt)
	if got := o.run(ctx, "H26", "receive", "--out", o.dir); got.code != 1 || !strings.Contains(got.stderr, "interrupted") {
		t.Errorf("got %+v", got)
	}
	if got := o.run(t.Context(), "H26", "receive", "--out", o.dir, "--watch", "--timeout", "100ms"); got.code != 1 || !strings.Contains(got.stderr, "--timeout is over") {
		t.Errorf("no relay for the whole time: %+v", got)
	}
}
