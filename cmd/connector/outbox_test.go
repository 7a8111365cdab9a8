package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency/agencytest"
	"github.com/truclienthong/truc/relay/envelope"
)

// outboxOf is the outbox beside the profile of an agency.
func (o *office) outboxOf(code string) string { return filepath.Join(o.dir, code+".outbox") }

// empty checks that nothing is kept in the folder.
func (o *office) empty(dir string) {
	o.Helper()
	found, err := os.ReadDir(dir)
	if err != nil || len(found) != 0 {
		o.Errorf("%s holds %v, %v; want nothing", dir, found, err)
	}
}

// keep sends a document that no relay takes, and is interrupted.
func (o *office) keep(document, to string) {
	o.Helper()
	ctx, interrupt := context.WithCancel(o.Context())
	defer interrupt()
	o.mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.SubmitStart {
			interrupt()
			return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING, "draining")
		}
		return nil
	})
	got := o.run(ctx, "G22", "send", "--to", to, "--subject", "s", "--document-id", document, o.file("a.pdf", document))
	o.mesh.Fault(nil)
	if got.code != 1 || got.stdout != "" || !strings.Contains(got.stderr, "not accepted yet; kept in "+o.outboxOf("G22")) || !strings.Contains(got.stderr, "interrupted") {
		o.Fatalf("no relay takes it: %+v", got)
	}
}

func TestSendKeepsACopyUntilTwoRelaysHaveIt(t *testing.T) {
	o := newOffice(t)
	o.mesh.Copies(1)
	sent := o.run(t.Context(), "G22", "send", "--to", "H26", "--subject", "s", "--document-id", "vb-1", "--wait", "50ms", "-o", "json", o.file("a.pdf", "x"))
	receipt := lines(t, sent.stdout)[0]
	if dir, _ := receipt["outbox"].(string); sent.code != 0 || receipt["copies"] != 1.0 || filepath.Dir(dir) != o.outboxOf("G22") || !strings.Contains(sent.stderr, dir) || !strings.Contains(sent.stderr, "connector outbox --tend") {
		t.Fatalf("send: %+v", sent)
	}
	for _, args := range [][]string{{"outbox", "-o", "json"}, {"outbox", "-o", "json", "--tend", "--timeout", "300ms"}} {
		listed := o.run(t.Context(), "G22", args...)
		all := lines(t, listed.stdout)
		if len(all) != 1 || all[0]["state"] != "waiting" || all[0]["envelope_id"] != receipt["envelope_id"] || all[0]["document_id"] != "vb-1" || all[0]["agency"] != "G22" ||
			all[0]["relay"] != "bac" || all[0]["copies"] != 1.0 || all[0]["dir"] != receipt["outbox"] || all[0]["last_error"] != "" || !strings.HasSuffix(all[0]["since"].(string), "+07:00") {
			t.Errorf("%v: %+v", args, listed)
		}
		if tend := len(args) > 3; listed.code != map[bool]int{true: 1}[tend] || tend != strings.Contains(listed.stderr, "1 still wait") {
			t.Errorf("%v: %+v", args, listed)
		}
	}
	if text := o.run(t.Context(), "G22", "outbox"); text.code != 0 || !strings.Contains(text.stdout, "copies 1, at relay bac") {
		t.Errorf("outbox as text: %+v", text)
	}
	id, err := envelope.ParseID(receipt["envelope_id"].(string))
	if err != nil {
		t.Fatal(err)
	}
	o.mesh.Copy(id)
	if got := o.run(t.Context(), "G22", "outbox", "--tend"); got.code != 0 || got.stdout != "" || got.stderr != "" {
		t.Errorf("after the second copy: %+v", got)
	}
	o.empty(o.outboxOf("G22"))
	if got := o.run(t.Context(), "H26", "outbox", "--tend"); got.code != 0 || got.stdout != "" {
		t.Errorf("an agency that never sent: %+v", got)
	}
}

func TestSendWaitsForTheSecondCopy(t *testing.T) {
	o := newOffice(t)
	o.mesh.Copies(1)
	o.mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.Track && o.mesh.Count(step) > 1 {
			// The first look found one copy.
			o.mesh.CopyAll()
		}
		return nil
	})
	got := o.run(t.Context(), "G22", "send", "--to", "H26", "--subject", "s", "-o", "json", o.file("a.pdf", "x"))
	if receipt := lines(t, got.stdout)[0]; got.code != 0 || receipt["copies"] != 2.0 || receipt["outbox"] != "" || strings.Contains(got.stderr, "kept") {
		t.Errorf("got %+v", got)
	}
	o.empty(o.outboxOf("G22"))
}

func TestSendAgainAfterNoRelayTookIt(t *testing.T) {
	o := newOffice(t)
	o.keep("vb-1", "H26")
	again := o.run(t.Context(), "G22", "send", "--to", "H26", "--subject", "s", "--document-id", "vb-1", o.file("a.pdf", "vb-1"))
	if again.code != 0 || again.stderr != "" || o.mesh.Accepted() != 1 {
		t.Errorf("again: %+v, %d accepted", again, o.mesh.Accepted())
	}
	o.empty(o.outboxOf("G22"))
}

// Leftovers go along with what is asked for, and never change its exit code.
func TestSendLooksAfterLeftovers(t *testing.T) {
	o := newOffice(t)
	o.keep("good", "H26")
	o.keep("bad", "H99")
	got := o.run(t.Context(), "G22", "send", "--to", "H26", "--subject", "s", "--document-id", "new", o.file("a.pdf", "x"))
	if got.code != 0 || o.mesh.Accepted() != 2 || o.mesh.Waiting("H26") != 2 || !strings.Contains(got.stderr, "note: left in the outbox: ") || !strings.Contains(got.stderr, "H99") {
		t.Errorf("send: %+v, %d accepted", got, o.mesh.Accepted())
	}
	listed := o.run(t.Context(), "G22", "outbox", "-o", "json")
	all := lines(t, listed.stdout)
	if listed.code != 0 || len(all) != 1 || all[0]["state"] != "failed" || all[0]["reason"] != "unknown_recipient" || all[0]["document_id"] != "bad" || !strings.Contains(all[0]["last_error"].(string), "H99") {
		t.Fatalf("set aside: %+v", listed)
	}
	if kept, err := os.ReadFile(filepath.Join(all[0]["dir"].(string), "a.pdf")); err != nil || string(kept) != "bad" {
		t.Errorf("the file set aside holds %q, %v", kept, err)
	}
	// What was set aside before is no news.
	if got := o.run(t.Context(), "G22", "outbox", "--tend"); got.code != 0 || !strings.Contains(got.stdout, "failed") {
		t.Errorf("outbox --tend: %+v", got)
	}
	o.keep("bad too", "H98")
	if got := o.run(t.Context(), "G22", "outbox", "--tend"); got.code != 1 || !strings.Contains(got.stderr, "H98") || !strings.Contains(got.stderr, "1 set aside now") {
		t.Errorf("outbox --tend of what is refused: %+v", got)
	}
}

func TestReceiveWatchLooksAfterLeftovers(t *testing.T) {
	o := newOffice(t)
	o.keep("vb-1", "H26")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	o.mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.SubmitAccepted {
			interrupt()
		}
		return nil
	})
	if got := o.run(ctx, "G22", "receive", "--out", filepath.Join(o.dir, "in"), "--watch"); got.code != 0 || o.mesh.Accepted() != 1 {
		t.Errorf("receive: %+v, %d accepted", got, o.mesh.Accepted())
	}
	o.mesh.Fault(nil)
	// Without --watch, and where nothing can be written, there is no outbox.
	if got := o.run(t.Context(), "H48", "receive", "--out", filepath.Join(o.dir, "in")); got.code != 0 {
		t.Errorf("receive: %+v", got)
	}
	file := o.file("none", "")
	ctx, interrupt = context.WithCancel(t.Context())
	defer interrupt()
	o.mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.Receive {
			interrupt()
		}
		return nil
	})
	if got := o.run(ctx, "H48", "receive", "--out", filepath.Join(o.dir, "in"), "--watch", "--outbox", file); got.code != 0 || got.stderr != "" {
		t.Errorf("receive: %+v", got)
	}
	if _, err := os.Stat(o.outboxOf("H48")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an outbox was made: %v", err)
	}
}

func TestWhereTheOutboxIs(t *testing.T) {
	o := newOffice(t)
	o.mesh.Copies(1)
	send := func(document string, args ...string) outcome {
		return o.run(t.Context(), "G22", append([]string{"send", "--wait", "0s", "--to", "H26", "--subject", "s", "--document-id", document, o.file("a.pdf", "x")}, args...)...)
	}
	if got := send("1", "--no-outbox"); got.code != 0 || !strings.Contains(got.stderr, "keep the files") {
		t.Errorf("--no-outbox: %+v", got)
	}
	if _, err := os.Stat(o.outboxOf("G22")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("--no-outbox: %v", err)
	}
	dir := filepath.Join(o.dir, "elsewhere")
	if got := send("2", "--outbox", dir); got.code != 0 || !strings.Contains(got.stderr, dir) {
		t.Errorf("--outbox: %+v", got)
	}
	text, err := os.ReadFile(o.profile("G22"))
	if err != nil {
		t.Fatal(err)
	}
	other := o.file("other.yaml", string(text)+"outbox: box\n")
	got := o.run(t.Context(), "", "send", "--wait", "0s", "--to", "H26", "--subject", "s", "--profile", other, o.file("a.pdf", "x"))
	if got.code != 0 || !strings.Contains(got.stderr, filepath.Join(o.dir, "box")) {
		t.Errorf("outbox of the profile: %+v", got)
	}
}

func TestTrackSaysWhyADeliveryFailed(t *testing.T) {
	o := newOffice(t)
	o.mesh.Copies(1)
	sent := o.run(t.Context(), "G22", "send", "--wait", "0s", "--to", "H26,H48,H26.12", "--subject", "s", "-o", "json", o.file("a.pdf", "x"))
	text := lines(t, sent.stdout)[0]["envelope_id"].(string)
	id, err := envelope.ParseID(text)
	if err != nil {
		t.Fatal(err)
	}
	o.mesh.Fail(id, "H26", exchangev1.ErrorReason_ERROR_REASON_EXPIRED, "")
	o.mesh.Fail(id, "H48", exchangev1.ErrorReason_ERROR_REASON_REFUSED_BY_RECIPIENT, "sai thẩm quyền")
	tracked := o.run(t.Context(), "G22", "track", text, "-o", "json")
	v := lines(t, tracked.stdout)[0]
	var got []string
	for _, d := range v["deliveries"].([]any) {
		d := d.(map[string]any)
		got = append(got, strings.Join([]string{d["agency"].(string), d["transport"].(string), d["reason"].(string), d["note"].(string)}, "|"))
	}
	want := "H26|fail|expired| H26.12|processing|| H48|fail|refused_by_recipient|sai thẩm quyền"
	if tracked.code != 0 || strings.Join(got, " ") != want || v["receipt"].(map[string]any)["copies"] != 1.0 {
		t.Errorf("track: %+v\ngot %s, want %s", tracked, got, want)
	}
	shown := o.run(t.Context(), "G22", "track", text)
	if shown.code != 0 || !strings.Contains(shown.stdout, "copies 1,") || !strings.Contains(shown.stdout, "refused_by_recipient: sai thẩm quyền\n") || !strings.Contains(shown.stdout, "expired\n") {
		t.Errorf("track as text: %+v", shown)
	}
}

// asConnector has this program be the connector.
const asConnector = "TRUC_TEST_CONNECTOR"

func (o *office) profile(code string) string {
	o.Helper()
	profile, err := o.mesh.Profile(code)
	if err != nil {
		o.Fatal(err)
	}
	return profile
}

// kill runs the connector as a process, and kills it when a relay reaches a step
// for the n-th time from now.
func (o *office) kill(profile string, step agencytest.Step, n int, args ...string) {
	o.Helper()
	cmd := exec.CommandContext(o.Context(), os.Args[0], append(args, "--profile", profile)...)
	cmd.Env = append(os.Environ(), asConnector+"=1")
	started, last := make(chan struct{}), o.mesh.Count(step)+n
	var once sync.Once
	o.mesh.Fault(func(_ string, at agencytest.Step) error {
		if at == step && o.mesh.Count(step) >= last {
			once.Do(func() {
				<-started
				_ = cmd.Process.Kill()
			})
		}
		return nil
	})
	defer o.mesh.Fault(nil)
	if err := cmd.Start(); err != nil {
		o.Fatal(err)
	}
	close(started)
	exit := (*exec.ExitError)(nil)
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		o.Fatalf("%s: the connector ended with %v, want it killed", step, err)
	}
}

// A receive that is killed in the middle of a file goes on there.
func TestReceiveIsKilled(t *testing.T) {
	o := newOffice(t)
	content := strings.Repeat("một văn bản lớn ", 150_000) // 51 pieces
	if sent := o.run(t.Context(), "G22", "send", "--to", "H26", "--subject", "s", o.file("a.pdf", content)); sent.code != 0 {
		t.Fatalf("send: %+v", sent)
	}
	out := filepath.Join(o.dir, "in")
	o.kill(o.profile("H26"), agencytest.FetchSend, 40, "receive", "--out", out)
	before := o.mesh.Count(agencytest.FetchSend)
	got := o.run(t.Context(), "H26", "receive", "--out", out, "-o", "json")
	if got.code != 0 {
		t.Fatalf("receive: %+v", got)
	}
	path := lines(t, got.stdout)[0]["files"].([]any)[0].(map[string]any)["path"].(string)
	if saved, err := os.ReadFile(path); err != nil || string(saved) != content {
		t.Errorf("saved %d bytes, %v; want %d", len(saved), err, len(content))
	}
	if whole, pieces := (len(content)+64<<10-1)/(64<<10), o.mesh.Count(agencytest.FetchSend)-before; pieces >= whole {
		t.Errorf("%d pieces were sent again, of %d", pieces, whole)
	}
}

// Wherever "connector send" is killed while it talks to a relay, one envelope
// comes of it, by either way to go on.
func TestSendIsKilled(t *testing.T) {
	o := newOffice(t)
	profile := o.profile("G22")
	file := o.file("a.pdf", strings.Repeat("văn bản ", 50_000))
	for _, step := range []agencytest.Step{agencytest.Attach, agencytest.SubmitStart, agencytest.SubmitChunk, agencytest.SubmitCommit, agencytest.SubmitAccepted} {
		for _, way := range []string{"outbox --tend", "send"} {
			document, before := string(step)+" "+way, o.mesh.Accepted()
			args := []string{"send", "--to", "H26", "--subject", "s", "--document-id", document, file}
			o.kill(profile, step, 1, args...)
			if way != "send" {
				args = strings.Fields(way)
			}
			if got := o.run(t.Context(), "G22", args...); got.code != 0 || o.mesh.Accepted() != before+1 || o.mesh.Waiting("H26") != before+1 {
				t.Errorf("killed at %s, then %s: %+v; %d envelopes, want one", step, way, got, o.mesh.Accepted()-before)
			}
			o.empty(o.outboxOf("G22"))
		}
	}
}
