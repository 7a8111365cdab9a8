package agency_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/agency/agencytest"
	"github.com/truclienthong/truc/relay/envelope"
)

// sender is an agency with an outbox.
type sender struct {
	*testing.T
	mesh    *agencytest.Mesh
	profile string
	client  *agency.Client
	// dir is the folder of the outbox.
	dir    string
	outbox *agency.Outbox
}

func newSender(t *testing.T, relays ...agencytest.Relay) *sender {
	t.Helper()
	s := &sender{T: t, mesh: newMesh(t, relays...), dir: filepath.Join(t.TempDir(), "out", "box")}
	s.client = newClient(t, configOf(t, s.mesh, "G22"))
	s.profile = filepath.Join(s.mesh.Dir(), "G22.yaml")
	s.reopen(nil)
	return s
}

// impatient gives up at the first failure.
func (s *sender) impatient(c *agency.OutboxConfig) {
	config := configOf(s.T, s.mesh, "G22")
	config.Patience = time.Millisecond
	c.Client = newClient(s.T, config)
}

// reopen opens the outbox as the next process would.
func (s *sender) reopen(change func(*agency.OutboxConfig)) {
	s.Helper()
	config := agency.OutboxConfig{Dir: s.dir, Client: s.client}.Quick()
	if change != nil {
		change(&config)
	}
	outbox, err := agency.OpenOutbox(config)
	if err != nil {
		s.Fatal(err)
	}
	s.outbox = outbox
}

func document(t *testing.T, id, to string, sizes ...int) agency.Document {
	return agency.Document{Header: header(id, to), Parts: files(t, sizes...)}
}

func (s *sender) submit(d agency.Document) *agency.Receipt {
	s.Helper()
	r, err := s.outbox.Submit(testContext(s.T), d)
	if err != nil {
		s.Fatalf("submit: %v", err)
	}
	return r
}

// keep has the outbox keep a document that no relay takes.
func (s *sender) keep(d agency.Document) *agency.KeptError {
	s.Helper()
	for _, relay := range []string{"bac", "trung"} {
		s.mesh.Stop(relay)
		defer func() {
			if s.mesh.Address(relay) != "" {
				if err := s.mesh.Start(relay); err != nil {
					s.Fatal(err)
				}
			}
		}()
	}
	patient := s.outbox
	s.reopen(s.impatient)
	_, err := s.outbox.Submit(testContext(s.T), d)
	s.outbox = patient
	var kept *agency.KeptError
	if !errors.As(err, &kept) {
		s.Fatalf("no relay runs: got %v, want the document kept", err)
	}
	return kept
}

func (s *sender) tend() error { return s.outbox.Tend(testContext(s.T)) }

func (s *sender) waiting() []agency.Waiting {
	s.Helper()
	all, err := s.outbox.List()
	if err != nil {
		s.Fatal(err)
	}
	return all
}

func (s *sender) aside() []agency.SetAside {
	s.Helper()
	all, err := s.outbox.SetAside()
	if err != nil {
		s.Fatal(err)
	}
	return all
}

// emptied checks that nothing waits and nothing is left behind.
func (s *sender) emptied() {
	s.Helper()
	if left := tree(s.T, s.dir); len(left) != 0 {
		s.Errorf("the outbox holds %q, want nothing", left)
	}
}

// arrived checks that a recipient gets exactly these documents, once and whole.
func (s *sender) arrived(to string, sizes ...int) {
	s.Helper()
	all := receiveAll(s.T, newClient(s.T, configOf(s.T, s.mesh, to)))
	if len(all) != 1 || s.mesh.Accepted() != 1 {
		s.Fatalf("%d arrivals, %d envelopes in the mesh; want one", len(all), s.mesh.Accepted())
	}
	saved, err := all[0].Save(testContext(s.T), s.TempDir())
	if err != nil {
		s.Fatal(err)
	}
	for i, size := range sizes {
		checkFile(s.T, saved.Files[i].Path, content(size))
	}
}

func TestOutboxLetsGoOfWhatTwoRelaysHave(t *testing.T) {
	s := newSender(t, bac)
	d := document(t, "1", "H26", 300_000, 0, 3)
	var last agency.Progress
	d.Progress = func(p agency.Progress) { last = p }
	r := s.submit(d)
	if r.Copies != 2 || r.Repeat || last != (agency.Progress{Sending: true, Done: 300_003, Total: 300_003}) {
		t.Errorf("receipt %+v, last progress %+v", r, last)
	}
	s.emptied()
	s.arrived("H26", 300_000, 0, 3)
	if again := s.submit(document(t, "1", "H26", 300_000, 0, 3)); !again.Repeat || again.ID != r.ID {
		t.Errorf("again: %+v, want a repeat of %+v", again, r)
	}
	s.emptied()
}

func TestOutboxKeepsWhatOneRelayHas(t *testing.T) {
	s := newSender(t, bac)
	s.mesh.Copies(1)
	r := s.submit(document(t, "1", "H26", 1000))
	for range 2 {
		w := s.waiting()
		if len(w) != 1 || w[0].ID != r.ID || w[0].DocumentID != "1" || w[0].Relay != "bac" || w[0].Copies != 1 || w[0].Since.IsZero() || w[0].Size != 1000 || w[0].LastError != "" {
			t.Fatalf("waiting: %+v, want the document with its receipt of one copy", w)
		}
		checkFile(t, filepath.Join(w[0].Dir, "văn bản 1.pdf"), content(1000))
		if err := s.tend(); err != nil {
			t.Fatal(err)
		}
		s.reopen(nil)
	}
	if n := s.mesh.Count(agencytest.SubmitStart); n != 1 {
		t.Errorf("submitted %d times, want once: the relay has it and says so", n)
	}
	s.mesh.Copy(r.ID)
	if err := s.tend(); err != nil {
		t.Fatal(err)
	}
	s.emptied()
}

func TestOutboxHandsOverAgainWhereTheRelayIsLost(t *testing.T) {
	for name, lose := range map[string]func(*sender, string){
		"lost for good": func(s *sender, relay string) { s.mesh.Lose(relay) },
		"silent":        func(s *sender, relay string) { s.mesh.Stop(relay) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t, bac, trung)
			s.mesh.Copies(1)
			first := s.submit(document(t, "1", "H26", 300_000))
			lose(s, first.Relay)
			s.reopen(nil)
			if err := s.tend(); err != nil {
				t.Fatal(err)
			}
			w := s.waiting()
			if len(w) != 1 || w[0].ID != first.ID || w[0].Relay == first.Relay || w[0].Copies != 1 {
				t.Fatalf("waiting: %+v, want the same envelope at the other relay", w)
			}
			if err := s.mesh.Start(first.Relay); err != nil {
				t.Fatal(err)
			}
			s.arrived("H26", 300_000)
			s.mesh.Copy(first.ID)
			if err := s.tend(); err != nil {
				t.Fatal(err)
			}
			s.emptied()
		})
	}
}

// Another relay that has the envelope does not make up for the silence of the
// one that gave the receipt.
func TestOutboxDoesNotTrustASilentRelay(t *testing.T) {
	s := newSender(t, bac, trung)
	s.mesh.Copies(1)
	s.mesh.Stop("trung")
	first := s.submit(document(t, "1", "H26", 1000))
	if err := s.mesh.Start("trung"); err != nil {
		t.Fatal(err)
	}
	s.mesh.Fault(func(relay string, step agencytest.Step) error {
		if relay == "bac" && step == agencytest.Attach {
			return cut()
		}
		return nil
	})
	second := submit(t, newClient(t, configOf(t, s.mesh, "G22", "trung")), "1", "H26", 1000)
	s.mesh.Fault(nil)
	s.mesh.Stop("bac")
	if err := s.tend(); err != nil {
		t.Fatal(err)
	}
	if w := s.waiting(); first.Relay != "bac" || second.Relay != "trung" || len(w) != 1 || w[0].Relay != "trung" {
		t.Errorf("receipts of %s and %s; waiting: %+v, want the word of trung", first.Relay, second.Relay, w)
	}
	s.arrived("H26", 1000)
}

// Nor does one that delivered to its own recipients, and knows of no others.
func TestOutboxDoesNotTakeOneRecipientForAll(t *testing.T) {
	s := newSender(t, bac, trung)
	s.mesh.Copies(1)
	s.mesh.Stop("trung")
	r := s.submit(agency.Document{Header: header("1", "H26", "H48")})
	if err := s.mesh.Start("trung"); err != nil {
		t.Fatal(err)
	}
	s.mesh.HandOn(r.ID, "trung", "H26")
	a := receiveAll(t, newClient(t, configOf(t, s.mesh, "H26")))
	if err := a[0].Confirm(testContext(t)); err != nil {
		t.Fatal(err)
	}
	s.mesh.Stop("bac")
	if err := s.tend(); err != nil {
		t.Fatal(err)
	}
	if w := s.waiting(); r.Relay != "bac" || len(w) != 1 || w[0].Relay != "trung" {
		t.Errorf("receipt of %s; waiting: %+v, want the document at trung, for H48 too", r.Relay, w)
	}
}

func TestOutboxLetsGoOfWhatHasEnded(t *testing.T) {
	s := newSender(t, bac)
	s.mesh.Copies(1)
	r := s.submit(agency.Document{Header: header("1", "H26", "H48")})
	a := receiveAll(t, newClient(t, configOf(t, s.mesh, "H26")))
	if err := a[0].Confirm(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.tend(); err != nil || len(s.waiting()) != 1 {
		t.Fatalf("one of two has it: %v, waiting %d, want one", err, len(s.waiting()))
	}
	s.mesh.Fail(r.ID, "H48", exchangev1.ErrorReason_ERROR_REASON_EXPIRED, "")
	if err := s.tend(); err != nil {
		t.Fatal(err)
	}
	s.emptied()
}

func TestOutboxKeepsWhatNoRelayTakes(t *testing.T) {
	s := newSender(t, bac)
	d := document(t, "", "H26", 300_000)
	kept := s.keep(d)
	w := s.waiting()
	if len(w) != 1 || w[0].ID != kept.ID || kept.DocumentID == "" || w[0].DocumentID != kept.DocumentID || w[0].Relay != "" || w[0].Tries != 1 || w[0].LastError == "" {
		t.Errorf("waiting: %+v after %v", w, kept)
	}
	if d.Header.GetDocumentId() != "" {
		t.Error("Submit changed the caller's header")
	}
	s.reopen(nil)
	if err := s.tend(); err != nil {
		t.Fatal(err)
	}
	s.emptied()
	s.arrived("H26", 300_000)
}

func TestOutboxHasOneDocumentOfAnId(t *testing.T) {
	s := newSender(t, bac)
	s.keep(document(t, "1", "H26", 1000))
	_, err := s.outbox.Submit(testContext(t), document(t, "1", "H26", 1001))
	if refusal, ok := envelope.AsRefusal(err); !ok || refusal.Reason != exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED || !strings.Contains(err.Error(), s.dir) {
		t.Errorf("other content: got %v, want it refused", err)
	}
	if r := s.submit(document(t, "1", "H26", 1000)); r.Repeat {
		t.Errorf("the same content: %+v", r)
	}
	s.emptied()
	s.arrived("H26", 1000)
}

func TestOutboxOfManyAtOnce(t *testing.T) {
	s := newSender(t, bac)
	var group sync.WaitGroup
	for i := range 12 {
		group.Go(func() {
			// Each document twice.
			d := agency.Document{Header: header(fmt.Sprint(i/2), "H26"), Parts: []agency.Source{agency.BytesSource("a.pdf", content(1000+i/2))}}
			if _, err := s.outbox.Submit(testContext(t), d); err != nil {
				t.Errorf("document %d: %v", i/2, err)
			}
		})
	}
	group.Wait()
	s.emptied()
	if s.mesh.Accepted() != 6 || s.mesh.Waiting("H26") != 6 {
		t.Errorf("%d accepted, %d waiting; want 6", s.mesh.Accepted(), s.mesh.Waiting("H26"))
	}
}

// Two processes have one outbox: while one hands a document over, the other
// leaves it alone, and is told of it when it submits the same.
func TestOutboxOfTwoProcesses(t *testing.T) {
	s := newSender(t, bac)
	s.mesh.Copies(1)
	reached, goOn := make(chan struct{}), make(chan struct{})
	fail := failOnce(agencytest.SubmitCommit, 1, errors.New(""))
	s.mesh.Fault(func(relay string, step agencytest.Step) error {
		if fail(relay, step) != nil {
			close(reached)
			<-goOn
		}
		return nil
	})
	var first sync.WaitGroup
	first.Go(func() { s.submit(document(t, "1", "H26", 1000)) })
	<-reached
	other, err := agency.OpenOutbox(agency.OutboxConfig{Dir: s.dir, Client: newClient(t, configOf(t, s.mesh, "G22"))})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Tend(testContext(t)); err != nil || s.mesh.Count(agencytest.SubmitStart) != 1 {
		t.Errorf("tended by the other: %v, %d submits; want it left alone", err, s.mesh.Count(agencytest.SubmitStart))
	}
	if _, err := other.Submit(testContext(t), document(t, "1", "H26", 1001)); err == nil || !strings.Contains(err.Error(), "other content") {
		t.Errorf("other content of that id: got %v", err)
	}
	if r, err := other.Submit(testContext(t), document(t, "1", "H26", 1000)); err != nil || r.Copies != 1 {
		t.Errorf("the same: %+v, %v", r, err)
	}
	close(goOn)
	first.Wait()
	if w := s.waiting(); len(w) != 1 || w[0].Copies != 1 {
		t.Errorf("waiting: %+v", w)
	}
	s.arrived("H26", 1000)
}

func TestOutboxOfTwoAgencies(t *testing.T) {
	s := newSender(t, bac)
	s.keep(document(t, "1", "H26", 10))
	other := newClient(t, configOf(t, s.mesh, "H48"))
	outbox, err := agency.OpenOutbox(agency.OutboxConfig{Dir: s.dir, Client: other})
	if err != nil {
		t.Fatal(err)
	}
	if err := outbox.Tend(testContext(t)); err != nil || len(s.waiting()) != 1 || s.mesh.Accepted() != 0 {
		t.Errorf("tended by another agency: %v, waiting %+v", err, s.waiting())
	}
}

func TestOutboxRuns(t *testing.T) {
	s := newSender(t, bac, trung)
	s.mesh.Copies(1)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.outbox.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	// Lost, handed over again, copied, let go: nobody asks for it.
	lost := s.mesh.LoseAfterReceipt("bac")
	s.mesh.Stop("trung")
	r := s.submit(document(t, "1", "H26", 1000))
	<-lost
	accepted := make(chan struct{})
	var once sync.Once
	s.mesh.Fault(func(_ string, step agencytest.Step) error {
		if step == agencytest.SubmitAccepted {
			once.Do(func() { s.mesh.Copy(r.ID); close(accepted) })
		}
		return nil
	})
	if err := s.mesh.Start("trung"); err != nil {
		t.Fatal(err)
	}
	<-accepted
	if w, waits, err := s.outbox.Await(testContext(t), r.ID); waits || err != nil {
		t.Errorf("await: %+v, %v, %v", w, waits, err)
	}
	cancel()
	running.Wait()
	s.emptied()
	s.arrived("H26", 1000)
}

func TestOutboxAwaits(t *testing.T) {
	s := newSender(t, bac)
	s.mesh.Copies(1)
	r := s.submit(document(t, "1", "H26", 1000))
	looks := 0
	s.mesh.Fault(func(_ string, step agencytest.Step) error {
		if looks++; step == agencytest.Track && looks > 1 {
			s.mesh.Copy(r.ID)
		}
		return nil
	})
	w, waits, err := s.outbox.Await(testContext(t), r.ID)
	if err != nil || waits || w.Copies != 2 {
		t.Errorf("await: %+v, waits %v, %v; want two copies", w, waits, err)
	}
	s.emptied()
	s.mesh.Fault(nil)
	r = s.submit(document(t, "2", "H26", 1000))
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	if w, waits, _ := s.outbox.Await(ctx, r.ID); !waits || w.Copies != 1 || w.Dir == "" {
		t.Errorf("no second relay: %+v, waits %v", w, waits)
	}
}
