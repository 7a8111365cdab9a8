package agency_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/agency/agencytest"
)

// The victim is a process that submits one document by an outbox and is killed
// on the way. It is this program again, told by the environment what to do.
const (
	victimVariable = "TRUC_TEST_OUTBOX" // profile
	victimDir      = "TRUC_TEST_OUTBOX_DIR"
	victimDocument = "TRUC_TEST_OUTBOX_DOCUMENT"
	// victimPoint is at which point it kills itself, counted from 1; 0: never.
	victimPoint = "TRUC_TEST_OUTBOX_POINT"
)

// The document: one file that is copied in pieces, and a small one.
var victimSizes = []int{270_000, 3}

func victimsDocument(id string) agency.Document {
	d := agency.Document{Header: header(id, "H26")}
	for i, size := range victimSizes {
		d.Parts = append(d.Parts, agency.BytesSource(fmt.Sprintf("%d.pdf", i), content(size)))
	}
	return d
}

// suicidal counts the points of a Submit, and ends the process at one of them:
// before each call that makes something last, and while bytes are copied and
// sent.
type suicidal struct {
	agency.Disk
	point, at int64
}

func (s *suicidal) step() {
	if atomic.AddInt64(&s.at, 1) == s.point {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (s *suicidal) Sync(f *os.File) error        { s.step(); return s.Disk.Sync(f) }
func (s *suicidal) SyncDir(dir string) error     { s.step(); return s.Disk.SyncDir(dir) }
func (s *suicidal) Rename(from, to string) error { s.step(); return s.Disk.Rename(from, to) }

func victim() {
	point, _ := strconv.ParseInt(os.Getenv(victimPoint), 10, 64)
	steps := &suicidal{Disk: agency.OSDisk, point: point}
	err := func() error {
		config, err := agency.LoadProfile(os.Getenv(victimVariable))
		if err != nil {
			return err
		}
		client, err := agency.New(config)
		if err != nil {
			return err
		}
		outbox, err := agency.OpenOutbox(agency.OutboxConfig{Dir: os.Getenv(victimDir), Client: client}.On(steps))
		if err != nil {
			return err
		}
		d := victimsDocument(os.Getenv(victimDocument))
		d.Progress = func(agency.Progress) { steps.step() }
		_, err = outbox.Submit(context.Background(), d)
		steps.step()
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run runs a victim to its end, and reports whether it was killed.
func (s *sender) victim(document string, point int, started func(*os.Process)) (killed bool) {
	s.Helper()
	cmd := exec.CommandContext(testContext(s.T), os.Args[0])
	cmd.Env = append(os.Environ(), victimVariable+"="+s.profile, victimDir+"="+s.dir, victimDocument+"="+document, victimPoint+"="+strconv.Itoa(point))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	if started != nil {
		started(cmd.Process)
	}
	err := cmd.Wait()
	exit := (*exec.ExitError)(nil)
	switch {
	case err == nil:
		return false
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return true
	}
	s.Fatalf("the victim failed: %v: %s", err, stderr.String())
	return false
}

// survived checks a document whose process was killed: what the outbox has is
// handed over by the next process, what it does not have is the caller's still,
// and either way there is one envelope of it.
func (s *sender) survived(document string, before int) {
	s.Helper()
	s.reopen(nil)
	accepted := s.mesh.Accepted() - before
	waiting := s.waiting()
	if len(waiting) > 1 || len(waiting) == 1 && waiting[0].DocumentID != document {
		s.Fatalf("waiting: %+v", waiting)
	}
	if err := s.tend(); err != nil {
		s.Errorf("tend: %v", err)
	}
	tended := s.mesh.Accepted() - before
	if tended < accepted || len(waiting) == 1 && tended != 1 {
		s.Errorf("%d accepted, %d waiting, then %d accepted", accepted, len(waiting), tended)
	}
	// The caller got no receipt, so it does it again.
	r := s.submit(victimsDocument(document))
	if got := s.mesh.Accepted() - before; got != 1 || r.Repeat != (tended == 1) {
		s.Errorf("submitted again: %d envelopes, repeat %v after %d", got, r.Repeat, tended)
	}
	if len(s.waiting()) == 1 {
		s.mesh.Copy(r.ID)
		if err := s.tend(); err != nil {
			s.Error(err)
		}
	}
	s.emptied()
	recipient := newClient(s.T, configOf(s.T, s.mesh, "H26"))
	all := receiveAll(s.T, recipient)
	if len(all) != 1 {
		s.Fatalf("%d arrivals, want one", len(all))
	}
	saved, err := all[0].Save(testContext(s.T), s.TempDir())
	if err != nil {
		s.Fatal(err)
	}
	for i, size := range victimSizes {
		checkFile(s.T, saved.Files[i].Path, content(size))
	}
	if err := all[0].Confirm(testContext(s.T)); err != nil {
		s.Fatal(err)
	}
}

func TestOutboxSurvivesAKillAtEveryPoint(t *testing.T) {
	for _, c := range []struct{ copies, first, least int }{
		{copies: 1, first: 1, least: 13},
		// Until the receipt there is no difference.
		{copies: 2, first: 10, least: 13},
	} {
		s := newSender(t, bac)
		copies, least := c.copies, c.least
		s.mesh.Copies(copies)
		for point := c.first; ; point++ {
			document := fmt.Sprintf("%d/%d", copies, point)
			before := s.mesh.Accepted()
			killed := s.victim(document, point, nil)
			s.survived(document, before)
			if t.Failed() {
				t.Fatalf("killed at point %d of an envelope with %d copies", point, copies)
			}
			if killed {
				continue
			}
			if point < least {
				t.Errorf("%d points with %d copies, want %d or more: the test does not reach what it is for", point-1, copies, least)
			}
			break
		}
	}
}

// The same, while the victim talks to its relay.
func TestOutboxSurvivesAKillAtEveryStepOfTheRelay(t *testing.T) {
	s := newSender(t, bac)
	for i, step := range []agencytest.Step{agencytest.Attach, agencytest.SubmitStart, agencytest.SubmitChunk, agencytest.SubmitCommit, agencytest.SubmitAccepted} {
		document, before := fmt.Sprint(i), s.mesh.Accepted()
		process := make(chan *os.Process, 1)
		fail := failOnce(step, 1, errors.New("killed"))
		s.mesh.Fault(func(relay string, at agencytest.Step) error {
			if fail(relay, at) != nil {
				_ = (<-process).Kill()
			}
			return nil
		})
		if !s.victim(document, 0, func(p *os.Process) { process <- p }) {
			t.Fatalf("%s: the victim lives", step)
		}
		s.mesh.Fault(nil)
		s.survived(document, before)
	}
}
