package agency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/agency/agencytest"
	"github.com/truclienthong/truc/relay/envelope"
)

func TestSubmitAndReceive(t *testing.T) {
	mesh := newMesh(t, bac)
	sender, recipient := newClient(t, configOf(t, mesh, "G22")), newClient(t, configOf(t, mesh, "H26"))
	h := header("7816/VPCP", "H26")
	before := proto.CloneOf(h)
	var last agency.Progress
	r, err := sender.Submit(testContext(t), agency.Document{
		Header: h, Parts: files(t, 900_000, 0, 3), Progress: func(p agency.Progress) { last = p },
	})
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(h, before) {
		t.Error("Submit changed the caller's header")
	}
	if r.Repeat || r.Relay != "bac" || r.Copies != 2 || r.Recipients != 1 || r.ContentSize != 900_003 || r.DocumentID != "7816/VPCP" || r.AcceptedAt.IsZero() {
		t.Errorf("receipt is %+v", r)
	}
	if want := (agency.Progress{Sending: true, Done: 900_003, Total: 900_003}); last != want {
		t.Errorf("last progress %+v, want %+v", last, want)
	}
	arrivals := receiveAll(t, recipient)
	if len(arrivals) != 1 {
		t.Fatalf("got %d arrivals, want one", len(arrivals))
	}
	a := arrivals[0]
	sent := a.Envelope.GetHeader()
	if a.ID != r.ID || a.Agency != "H26" || sent.GetSender().GetCode() != "G22" || sent.GetKind() != exchangev1.Kind_KIND_DOCUMENT {
		t.Errorf("arrival is %v", a)
	}
	for i, size := range []int{900_000, 0, 3} {
		p := sent.GetParts()[i]
		if p.GetName() != fmt.Sprintf("văn bản %d.pdf", i+1) || p.GetMediaType() != "application/pdf" || (p.GetRole() == exchangev1.PartRole_PART_ROLE_MAIN) != (i == 0) {
			t.Errorf("part %d is described as %v", i, p)
		}
		r, err := a.Part(testContext(t), i)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, content(size)) {
			t.Errorf("part %d: %d bytes, %v", i, len(got), err)
		}
		r.Close()
	}
	if _, err := a.Part(t.Context(), 3); err == nil {
		t.Error("a part that is not there: got no error")
	}
}

// Whatever step a relay fails at, the document is accepted once, whole, and the
// caller gets its receipt.
func TestSubmitOutlivesACutAtEveryStep(t *testing.T) {
	mesh := newMesh(t, bac)
	sender, recipient := configOf(t, mesh, "G22"), newClient(t, configOf(t, mesh, "H26"))
	cuts := []struct {
		step agencytest.Step
		n    int
	}{
		{agencytest.Attach, 1}, {agencytest.Attach, 2}, {agencytest.SubmitStart, 1},
		{agencytest.SubmitChunk, 1}, {agencytest.SubmitChunk, 2}, {agencytest.SubmitChunk, 4},
		{agencytest.SubmitCommit, 1}, {agencytest.SubmitAccepted, 1},
	}
	for name, sizes := range map[string][]int{"large": {700_000, 300_000, 800_000}, "eager": {100_000, 1000}, "without content": {0}, "without parts": nil} {
		for _, c := range cuts {
			name := fmt.Sprintf("%s, %s %d", name, c.step, c.n)
			t.Run(name, func(t *testing.T) {
				before := mesh.Accepted()
				mesh.Fault(failOnce(c.step, c.n, cut()))
				r := submit(t, newClient(t, sender), name, "H26", sizes...)
				mesh.Fault(nil)
				if got := mesh.Accepted() - before; got != 1 || mesh.Waiting("H26") != 1 {
					t.Errorf("%d envelopes accepted, %d waiting; want one", got, mesh.Waiting("H26"))
				}
				if lost := c.step == agencytest.SubmitAccepted; r.Repeat != lost {
					t.Errorf("repeat %v, want %v", r.Repeat, lost)
				}
				a := receiveAll(t, recipient)[0]
				saved, err := a.Save(testContext(t), t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				for i, size := range sizes {
					checkFile(t, saved.Files[i].Path, content(size))
				}
				if err := a.Confirm(testContext(t)); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestSubmitResumesWhereTheRelayHasGotTo(t *testing.T) {
	mesh := newMesh(t, bac)
	// 6 chunks of 512 KiB; the fifth is lost.
	mesh.Fault(failOnce(agencytest.SubmitChunk, 5, cut()))
	submit(t, newClient(t, configOf(t, mesh, "G22")), "1", "H26", 6*512<<10)
	if got := mesh.Count(agencytest.SubmitChunk); got != 7 {
		t.Errorf("%d chunks were sent, want 7: the first four must not travel again", got)
	}
}

func TestSubmitAgainIsARepeat(t *testing.T) {
	mesh := newMesh(t, bac)
	first := submit(t, newClient(t, configOf(t, mesh, "G22")), "1", "H26", 10)
	again := submit(t, newClient(t, configOf(t, mesh, "G22")), "1", "H26", 10)
	if !again.Repeat || again.ID != first.ID || !again.AcceptedAt.Equal(first.AcceptedAt) {
		t.Errorf("again: %+v, want the receipt of %+v", again, first)
	}
	_, err := newClient(t, configOf(t, mesh, "G22")).Submit(testContext(t), agency.Document{Header: header("1", "H26"), Parts: files(t, 11)})
	var refusal *envelope.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED {
		t.Errorf("other content under the id: got %v, want it refused", err)
	}
}

func TestSubmitRefusals(t *testing.T) {
	mesh := newMesh(t, bac)
	client := newClient(t, configOf(t, mesh, "G22"))
	for name, c := range map[string]struct {
		header *exchangev1.Header
		fields []string
		// asked: the relay is, once; otherwise nothing leaves the machine.
		asked bool
	}{
		"unknown recipients": {header("1", "H99", "H26", "H98"), []string{"header.recipients[0]", "header.recipients[2]"}, true},
		"not the sender": {func() *exchangev1.Header {
			h := header("1", "H26")
			h.Sender = &exchangev1.Organization{Code: "H48"}
			return h
		}(), []string{"header.sender.code"}, true},
		"state secret": {func() *exchangev1.Header {
			h := header("1", "H26")
			h.Secrecy = exchangev1.Secrecy_SECRECY_MAT
			return h
		}(), []string{"header.secrecy"}, false},
		"nothing in it": {&exchangev1.Header{}, []string{"header.document_id", "header.recipients", "header.document"}, false},
		"no header":     {nil, []string{"header"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := mesh.Count(agencytest.SubmitStart)
			_, err := client.Submit(testContext(t), agency.Document{Header: c.header})
			var refusal *envelope.Refusal
			if !errors.As(err, &refusal) {
				t.Fatalf("got %v, want a refusal", err)
			}
			var fields []string
			for _, p := range refusal.Problems {
				fields = append(fields, p.Field)
			}
			if fmt.Sprint(fields) != fmt.Sprint(c.fields) {
				t.Errorf("fields %v, want %v", fields, c.fields)
			}
			asked := mesh.Count(agencytest.SubmitStart) - before
			if want := map[bool]int{true: 1}[c.asked]; asked != want {
				t.Errorf("asked the relay %d times, want %d", asked, want)
			}
		})
	}
}

func TestSubmitObeysRetryInfo(t *testing.T) {
	mesh := newMesh(t, bac)
	busy := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED, "too many")
	busy.RetryAfter = 300 * time.Millisecond
	mesh.Fault(failOnce(agencytest.SubmitStart, 1, busy))
	began := time.Now()
	submit(t, newClient(t, configOf(t, mesh, "G22")), "1", "H26", 10)
	if took := time.Since(began); took < busy.RetryAfter {
		t.Errorf("tried again after %s, the relay asked for %s", took, busy.RetryAfter)
	}
}

func TestSubmitGivesUpWhenPatienceEnds(t *testing.T) {
	mesh := newMesh(t, bac)
	mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.SubmitCommit {
			return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_DISK_FULL, "disk full")
		}
		return nil
	})
	config := configOf(t, mesh, "G22")
	config.Patience = 100 * time.Millisecond
	_, err := newClient(t, config).Submit(testContext(t), agency.Document{Header: header("1", "H26"), Parts: files(t, 10)})
	refusal, ok := envelope.AsRefusal(err)
	if !ok || refusal.Reason != exchangev1.ErrorReason_ERROR_REASON_DISK_FULL || !envelope.Temporary(err) {
		t.Errorf("got %v, want the relay's last word, temporary", err)
	}
}

func TestSubmitEndsWithItsContext(t *testing.T) {
	mesh := newMesh(t, bac)
	client := newClient(t, configOf(t, mesh, "G22"))
	ctx, cancel := context.WithCancel(t.Context())
	mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.SubmitChunk {
			cancel()
		}
		return nil
	})
	if _, err := client.Submit(ctx, agency.Document{Header: header("1", "H26"), Parts: files(t, 20<<20)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's end", err)
	}
}

func TestSubmitMovesToAnotherRelay(t *testing.T) {
	mesh := newMesh(t, bac, trung, nam)
	client := newClient(t, configOf(t, mesh, "G22"))
	first := submit(t, client, "1", "H26", 10)
	mesh.Stop(first.Relay)
	second := submit(t, client, "2", "H26", 10)
	if second.Relay == first.Relay || second.Relay == "nam" {
		t.Errorf("first at %s, then at %s; want the other relay of the region", first.Relay, second.Relay)
	}
	mesh.Stop(second.Relay)
	if third := submit(t, client, "3", "H26", 10); third.Relay != "nam" {
		t.Errorf("third at %s, want the only one left", third.Relay)
	}
	if err := mesh.Start(first.Relay); err != nil {
		t.Fatal(err)
	}
	mesh.Stop("nam")
	if fourth := submit(t, client, "4", "H26", 10); fourth.Relay != first.Relay {
		t.Errorf("fourth at %s, want %s that came back", fourth.Relay, first.Relay)
	}
}

func TestClientLearnsTheRelaysOfItsRegion(t *testing.T) {
	mesh := newMesh(t, bac, nam)
	client := newClient(t, configOf(t, mesh, "G22", "nam"))
	if r := submit(t, client, "1", "H26", 10); r.Relay != "bac" {
		t.Errorf("submitted at %s, want bac, of the home region, which only nam knew of", r.Relay)
	}
}

func TestSubmitBelievesNoOtherReceipt(t *testing.T) {
	mesh := newMesh(t, bac)
	client := newClient(t, configOf(t, mesh, "G22"))
	for name, forge := range map[string]func(*exchangev1.SubmitAccepted){
		"another id":     func(a *exchangev1.SubmitAccepted) { a.Receipt.EnvelopeId[0]++ },
		"another header": func(a *exchangev1.SubmitAccepted) { a.Receipt.HeaderSha256[0]++ },
	} {
		mesh.Forge(forge)
		if r, err := client.Submit(testContext(t), agency.Document{Header: header(name, "H26")}); err == nil || !strings.Contains(err.Error(), "another envelope") {
			t.Errorf("%s: got %v, %v; want the receipt refused", name, r, err)
		}
	}
}

// changing gives other bytes once it has been read.
type changing struct{ opened int }

func (c *changing) Name() string { return "a.pdf" }
func (c *changing) Open() (io.ReadSeekCloser, error) {
	c.opened++
	return agency.BytesSource("a.pdf", bytes.Repeat([]byte{byte(min(c.opened, 2))}, 10)).Open()
}

func TestSubmitNoticesAFileThatChanges(t *testing.T) {
	mesh := newMesh(t, bac)
	client := newClient(t, configOf(t, mesh, "G22"))
	_, err := client.Submit(testContext(t), agency.Document{Header: header("1", "H26"), Parts: []agency.Source{new(changing)}})
	if err == nil || !strings.Contains(err.Error(), "changed while it was being sent") || mesh.Accepted() != 0 {
		t.Errorf("got %v, want it said that the file changed", err)
	}
	path := filepath.Join(t.TempDir(), "a.pdf")
	if err := os.WriteFile(path, content(600_000), 0o600); err != nil {
		t.Fatal(err)
	}
	mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.SubmitStart {
			return os.Truncate(path, 10)
		}
		return nil
	})
	_, err = client.Submit(testContext(t), agency.Document{Header: header("2", "H26"), Parts: []agency.Source{agency.FileSource(path)}})
	if err == nil || !strings.Contains(err.Error(), "shorter") || envelope.Temporary(err) {
		t.Errorf("got %v, want it said that the file became shorter", err)
	}
}

func TestSubmitSendsAgainWhatWasDamagedOnTheWay(t *testing.T) {
	mesh := newMesh(t, bac)
	client := newClient(t, configOf(t, mesh, "G22"))
	mesh.Fault(failOnce(agencytest.SubmitCommit, 1, envelope.Refuse(mismatch, "other bytes")))
	submit(t, client, "1", "H26", 10)
	mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.SubmitCommit {
			return envelope.Refuse(mismatch, "other bytes")
		}
		return nil
	})
	_, err := client.Submit(testContext(t), agency.Document{Header: header("2", "H26"), Parts: files(t, 10)})
	if refusal, ok := envelope.AsRefusal(err); !ok || refusal.Reason != mismatch {
		t.Errorf("got %v, want the refusal in the end", err)
	}
}

func TestSubmitSources(t *testing.T) {
	mesh := newMesh(t, bac)
	client := newClient(t, configOf(t, mesh, "G22"))
	described := func(p *exchangev1.Part) *exchangev1.Header {
		h := header("1", "H26")
		h.Parts = []*exchangev1.Part{p}
		return h
	}
	bytesOf := agency.BytesSource("x.docx", []byte("x"))
	for name, c := range map[string]agency.Document{
		"missing file":         {Header: header("1", "H26"), Parts: []agency.Source{agency.FileSource(filepath.Join(t.TempDir(), "no.pdf"))}},
		"a folder":             {Header: header("1", "H26"), Parts: []agency.Source{agency.FileSource(t.TempDir())}},
		"other size":           {Header: described(&exchangev1.Part{Size: 2}), Parts: []agency.Source{bytesOf}},
		"other hash":           {Header: described(&exchangev1.Part{Sha256: make([]byte, 32)}), Parts: []agency.Source{bytesOf}},
		"more parts than that": {Header: described(new(exchangev1.Part)), Parts: []agency.Source{bytesOf, bytesOf}},
	} {
		if _, err := client.Submit(testContext(t), c); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if n := mesh.Count(agencytest.SubmitStart); n != 0 {
		t.Errorf("the relay was asked %d times", n)
	}
	_, err := client.Submit(testContext(t), agency.Document{Header: described(&exchangev1.Part{Name: "y.docx", Description: "d"}), Parts: []agency.Source{bytesOf}})
	if err != nil {
		t.Fatal(err)
	}
	part := receiveAll(t, newClient(t, configOf(t, mesh, "H26")))[0].Envelope.GetHeader().GetParts()[0]
	if part.GetName() != "y.docx" || part.GetDescription() != "d" || !strings.Contains(part.GetMediaType(), "wordprocessing") {
		t.Errorf("part is %v", part)
	}
}
