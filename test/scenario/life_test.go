package scenario

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/truclienthong/truc/test/mesh"
)

// commandDesk is an agency at the command line.
type commandDesk struct {
	t    *testing.T
	m    *mesh.Mesh
	code string
	dir  string
}

func (d commandDesk) run(args ...string) (map[string]any, string, int) {
	d.t.Helper()
	ran := mesh.Tool(d.t, "connector", append(args, "--profile", d.m.Layout.Profile(d.code), "-o", "json")...)
	var o map[string]any
	if ran.Stdout != "" {
		if err := json.Unmarshal([]byte(ran.Stdout), &o); err != nil {
			d.t.Fatalf("connector %v prints %q: %v", args, ran.Stdout, err)
		}
	}
	return o, ran.Stderr, ran.Code
}

// say runs a command that has to succeed, and returns the envelope's id.
func (d commandDesk) say(args ...string) string {
	d.t.Helper()
	o, stderr, code := d.run(args...)
	id, _ := o["envelope_id"].(string)
	if code != 0 || id == "" {
		d.t.Fatalf("%s: connector %v ends with %d: %s", d.code, args, code, stderr)
	}
	return id
}

// refused runs a command that must not succeed for that reason.
func (d commandDesk) refused(want string, args ...string) {
	d.t.Helper()
	if _, stderr, code := d.run(args...); code != 1 || !strings.Contains(stderr, want) {
		d.t.Errorf("%s: connector %v ends with %d: %s; want a refusal with %q", d.code, args, code, stderr, want)
	}
}

// takes receives until nothing is left, and returns what came: the subject of
// documents, the code of statuses.
func (d commandDesk) takes() []string {
	d.t.Helper()
	var got []string
	for _, o := range asked(d.t, "connector", "receive", "--out", filepath.Join(d.dir, d.code), "--profile", d.m.Layout.Profile(d.code)) {
		if o["kind"] == "status" {
			got = append(got, o["status_code"].(string))
		} else {
			got = append(got, o["subject"].(string))
		}
	}
	return got
}

// awaits waits until track says so of a recipient: transport, phase, asked.
func (d commandDesk) awaits(id, recipient, want string) map[string]any {
	d.t.Helper()
	var last string
	for begun := time.Now(); time.Since(begun) < 30*time.Second; {
		track := asked(d.t, "connector", "track", id, "--profile", d.m.Layout.Profile(d.code))[0]
		for _, x := range track["deliveries"].([]any) {
			delivery := x.(map[string]any)
			if delivery["agency"] != recipient {
				continue
			}
			if last = fmt.Sprintf("%s %s %s", delivery["transport"], delivery["phase"], delivery["asked"]); strings.TrimSpace(last) == want {
				return delivery
			}
		}
	}
	d.t.Fatalf("track of %s by %s says %q of %s, want %q", id, d.code, last, recipient, want)
	return nil
}

// The life of a document by the commands of its sender and its recipients, who
// are at home at three relays: it is worked on, recalled before it was fetched, and
// after; everything that may not be said is refused with the field and the reason.
func TestLifeOfADocument(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	dir := t.TempDir()
	at := func(code string) commandDesk { return commandDesk{t, m, code, dir} }
	sender, ministry, ward, stranger := at("H17.97.08"), at("G22"), at("H26.12.05"), at("H26")
	file := filepath.Join(dir, "kehoach.pdf")
	if err := os.WriteFile(file, []byte("%PDF-1.4 kế hoạch"), 0o600); err != nil {
		t.Fatal(err)
	}

	id := sender.say("send", "--to", "G22,H26.12.05", "--subject", "Kế hoạch", "--document-id", "KH-1", file)
	if got := ministry.takes(); !slices.Equal(got, []string{"Kế hoạch"}) {
		t.Fatalf("G22 took %v", got)
	}
	sender.awaits(id, "G22", "done sent")
	if o, stderr, code := ministry.run("status", id, "15"); code != 0 || !strings.Contains(fmt.Sprint(o["warnings"]), "answers a question that was not asked") {
		t.Errorf("an answer to nothing ends with %d: %s; %v; want it kept, and a warning", code, stderr, o)
	}
	stranger.refused("not yours", "status", id, "03")
	ministry.say("status", id, "01")
	sender.awaits(id, "G22", "done arrived")
	ministry.say("status", id, "03", "--note", "Số đến 1250")
	said := sender.awaits(id, "G22", "done accepted")
	if said["status"] != "03" || said["note"] != "Số đến 1250" || len(said["statements"].([]any)) != 3 {
		t.Errorf("track shows %v, want 03 with its note, and all statements", said)
	}
	ministry.say("status", id, "05")
	sender.awaits(id, "G22", "done processing")
	ministry.say("status", id, "01") // late: kept, and moves nothing
	for {
		said = sender.awaits(id, "G22", "done processing")
		if n := len(said["statements"].([]any)); n == 5 {
			break
		}
	}
	if got := sender.takes(); !slices.Equal(sorted(got), []string{"01", "01", "03", "05", "15"}) {
		t.Errorf("the sender took %v, want each status", got)
	}

	// The ward did not fetch it yet: there the mesh completes the recall.
	stranger.refused("not yours", "recall", id, "--reason", "không phải của mình")
	sender.say("recall", "KH-1", "--reason", "Sai nơi nhận")
	sender.awaits(id, "H26.12.05", "fail recalled")
	sender.awaits(id, "G22", "done processing recall")
	if got := ward.takes(); len(got) > 0 {
		t.Errorf("the ward took %v of what was taken back", got)
	}
	if got := ministry.takes(); !slices.Equal(got, []string{"Kế hoạch"}) {
		t.Errorf("G22 took %v, want the document that takes it back", got)
	}
	ministry.say("status", id, "16", "--note", "Đã xử lý xong")
	sender.awaits(id, "G22", "done processing")
	sender.say("recall", id, "--reason", "Vẫn sai nơi nhận") // asked again
	sender.awaits(id, "G22", "done processing recall")
	ministry.takes()
	ministry.say("status", id, "15")
	sender.awaits(id, "G22", "done recalled")
	ministry.say("status", id, "06") // it crossed with the recall
	sender.awaits(id, "G22", "done recalled")
	sender.refused("every recipient", "recall", id, "--reason", "nữa")

	// What takes its place, and changes that: the ministry is asked, the ward gets it.
	other := sender.say("send", "--to", "G22", "--subject", "Quyết định", "--document-id", "QD-1", file)
	ministry.takes()
	sender.refused("header.business.replaces[0].document_id", "send", "--to", "G22", "--subject", "Thay", "--replace", "QD-9", "--reason", "không có", file)
	sender.say("send", "--to", "G22", "--subject", "Quyết định sửa", "--update", other, "--reason", "Sai ngày", "--add", "H26.12.05", file)
	sender.awaits(other, "G22", "done sent change")
	if got := ward.takes(); !slices.Equal(got, []string{"Quyết định sửa"}) {
		t.Errorf("the ward, added by the update, took %v", got)
	}
	ministry.takes()
	ministry.say("status", other, "15")
	sender.awaits(other, "G22", "done sent")
	sender.refused("take the document from every recipient", "send", "--to", "G22", "--subject", "Rút", "--update", other, "--reason", "thôi", "--remove", "G22", file)
	sender.say("send", "--to", "G22", "--subject", "Quyết định mới", "--replace", "QD-1", "--reason", "Thay thế", file)
	sender.awaits(other, "G22", "done sent change")
	ministry.takes()
	ministry.say("status", other, "16", "--note", "Đã ban hành")
	sender.awaits(other, "G22", "done sent")

	events := 0
	for _, o := range asked(t, "relayctl", "trace", id, "--profile", m.Layout.Profile("operator")) {
		list, _ := o["events"].([]any)
		for _, e := range list {
			if e.(map[string]any)["action"] == "status" {
				events++
			}
		}
	}
	if events < 8 {
		t.Errorf("the operator's trace shows %d statements, want every one", events)
	}
	m.Balance()
}

// A ministry's document is worked on to its end by each tier below, at three relays:
// the sender's track and the operator's trace tell every step. A commune sends it back.
func TestEveryStepOfALife(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	dir := t.TempDir()
	at := func(code string) commandDesk { return commandDesk{t, m, code, dir} }
	file := filepath.Join(dir, "congvan.pdf")
	if err := os.WriteFile(file, []byte("%PDF-1.4 công văn"), 0o600); err != nil {
		t.Fatal(err)
	}
	recipients := []string{"H26", "H13.16", "H17.97.08"} // province, district, commune
	sender, ward := at("G22"), at("H26.12.05")
	id := sender.say("send", "--to", strings.Join(recipients, ",")+",H26.12.05", "--subject", "Công văn", "--document-id", "CV-1", file)
	for _, code := range append(recipients, "H26.12.05") {
		sender.awaits(id, code, "processing sent") // it is in the inbox
		if got := at(code).takes(); !slices.Equal(got, []string{"Công văn"}) {
			t.Fatalf("%s took %v", code, got)
		}
	}
	traced := func() (codes []string) {
		for _, o := range asked(t, "relayctl", "trace", id, "--profile", m.Layout.Profile("operator")) {
			list, _ := o["events"].([]any)
			for _, e := range list {
				if event := e.(map[string]any); event["action"] == "status" {
					codes = append(codes, fmt.Sprint(event["agency"], " ", event["note"]))
				}
			}
		}
		return sorted(codes)
	}
	told := 0
	for _, step := range [][2]string{{"01", "arrived"}, {"03", "accepted"}, {"04", "assigned"}, {"05", "processing"}, {"06", "finished"}} {
		for _, code := range recipients {
			at(code).say("status", id, step[0])
			said := sender.awaits(id, code, "done "+step[1])
			if told++; said["status"] != step[0] {
				t.Errorf("track shows %v at %s, want %s", said["status"], code, step[0])
			}
		}
		if got := traced(); len(got) != told {
			t.Errorf("behind %s the operator's trace shows %d statements, want %d: %v", step[0], len(got), told, got)
		}
	}
	if _, stderr, code := ward.run("status", id, "02"); code != 2 || !strings.Contains(stderr, "needs a reason") {
		t.Errorf("a return without a reason ends with %d: %s", code, stderr)
	}
	ward.say("status", id, "02", "--note", "Không thuộc thẩm quyền")
	if said := sender.awaits(id, "H26.12.05", "done returned"); said["note"] != "Không thuộc thẩm quyền" {
		t.Errorf("track shows %v, want the reason", said)
	}
	if got := traced(); len(got) != told+1 {
		t.Errorf("the operator's trace shows %v, want the return too", got)
	}
	if got := sender.takes(); len(got) != told+1 {
		t.Errorf("the sender took %v, want %d statuses", got, told+1)
	}
	m.Balance()
}

func sorted(list []string) []string { slices.Sort(list); return list }
