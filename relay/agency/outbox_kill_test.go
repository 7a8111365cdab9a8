package agency_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
		{copies: 1, first: 1, least: 14},
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

// powerDisk knows what would be on disk if the power failed: names only of
// folders that were synced, of files only the bytes that were.
type powerDisk struct {
	agency.Disk
	root string
	// files and folders by inode. One test at a time writes.
	files   map[uint64][]byte
	folders map[uint64]map[string]uint64
	// cut is called before and after each call.
	cut func(when string)
}

func inode(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

func (p *powerDisk) Sync(f *os.File) error {
	p.cut("before the sync of " + filepath.Base(f.Name()))
	if err := p.Disk.Sync(f); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if p.files[inode(info)], err = os.ReadFile(f.Name()); err != nil {
		return err
	}
	p.cut("after the sync of " + filepath.Base(f.Name()))
	return nil
}

func (p *powerDisk) SyncDir(dir string) error {
	p.cut("before the sync of folder " + filepath.Base(dir))
	if err := p.Disk.SyncDir(dir); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	found, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	names := map[string]uint64{}
	for _, d := range found {
		child, err := d.Info()
		if err != nil {
			return err
		}
		names[d.Name()] = inode(child)
		if d.IsDir() && p.folders[inode(child)] == nil {
			p.folders[inode(child)] = map[string]uint64{}
		}
	}
	p.folders[inode(info)] = names
	p.cut("after the sync of folder " + filepath.Base(dir))
	return nil
}

func (p *powerDisk) Rename(from, to string) error {
	p.cut("before the rename to " + filepath.Base(to))
	err := p.Disk.Rename(from, to)
	p.cut("after the rename to " + filepath.Base(to))
	return err
}

// survivors writes what is left after a power failure now.
func (p *powerDisk) survivors(dir string, of uint64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, inode := range p.folders[of] {
		path := filepath.Join(dir, name)
		var err error
		if _, isDir := p.folders[inode]; isDir {
			err = p.survivors(path, inode)
		} else {
			err = os.WriteFile(path, p.files[inode], 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Whenever the power fails: from the moment on that a relay hears of a document
// until two have it, the outbox has it, whole; and never half of one.
func TestOutboxSurvivesAPowerFailureAtEveryPoint(t *testing.T) {
	for _, copies := range []int{1, 2} {
		s := newSender(t, bac)
		s.mesh.Copies(copies)
		type moment struct {
			when, dir string
			// heard: a relay had heard of the document. safe: two relays had it.
			heard, safe bool
		}
		var moments []moment
		disk := &powerDisk{Disk: agency.OSDisk, files: map[uint64][]byte{}, folders: map[uint64]map[string]uint64{}}
		root, err := os.Stat(s.dir)
		if err != nil {
			t.Fatal(err)
		}
		base := t.TempDir()
		disk.cut = func(when string) {
			m := moment{when: when, dir: filepath.Join(base, strconv.Itoa(len(moments))),
				heard: s.mesh.Count(agencytest.SubmitStart) > 0, safe: copies == 2 && s.mesh.Accepted() == 1}
			if err := disk.survivors(m.dir, inode(root)); err != nil {
				t.Error(err)
			}
			moments = append(moments, m)
		}
		s.mesh.Fault(func(_ string, step agencytest.Step) error {
			disk.cut(string(step))
			return nil
		})
		s.reopen(func(c *agency.OutboxConfig) { *c = c.On(disk) })
		r := s.submit(victimsDocument("1"))
		disk.cut("the receipt is out")
		s.mesh.Fault(nil)

		for _, m := range moments {
			outbox, err := agency.OpenOutbox(agency.OutboxConfig{Dir: m.dir, Client: s.client})
			if err != nil {
				t.Fatal(err)
			}
			waiting, err := outbox.List()
			if err != nil {
				t.Fatal(err)
			}
			if m.heard && !m.safe && len(waiting) != 1 {
				t.Errorf("copies %d, power cut at %q: a relay has heard of the document, and the outbox does not have it", copies, m.when)
			}
			for _, w := range waiting {
				if w.ID != r.ID {
					t.Errorf("copies %d, power cut at %q: envelope %s, want %s", copies, m.when, w.ID, r.ID)
					continue
				}
				for i, size := range victimSizes {
					checkFile(t, filepath.Join(w.Dir, fmt.Sprintf("%d.pdf", i)), content(size))
				}
			}
			if err := outbox.Tend(testContext(t)); err != nil {
				t.Errorf("copies %d, power cut at %q: %v", copies, m.when, err)
			}
			if aside, err := outbox.SetAside(); err != nil || len(aside) > 0 || s.mesh.Accepted() != 1 {
				t.Errorf("copies %d, power cut at %q: set aside %+v, %v; %d accepted", copies, m.when, aside, err, s.mesh.Accepted())
			}
		}
	}
}

// A document that cannot be made durable here is not handed over.
func TestOutboxHandsOverNothingThatItDoesNotHave(t *testing.T) {
	for n := 1; n <= 6; n++ {
		s := newSender(t, bac)
		full := errors.New("no space left")
		s.reopen(func(c *agency.OutboxConfig) { *c = c.On(&failing{Disk: agency.OSDisk, at: n, err: full}) })
		_, err := s.outbox.Submit(testContext(t), victimsDocument("1"))
		if kept := (*agency.KeptError)(nil); !errors.Is(err, full) || errors.As(err, &kept) {
			t.Errorf("call %d fails: got %v", n, err)
		}
		if s.mesh.Count(agencytest.SubmitStart) != 0 {
			t.Errorf("call %d fails: the document was handed over", n)
		}
		s.reopen(nil)
		s.emptied()
	}
}

// failing fails one of its calls, counted from 1.
type failing struct {
	agency.Disk
	at, n int
	err   error
}

func (f *failing) step() error {
	if f.n++; f.n == f.at {
		return f.err
	}
	return nil
}

func (f *failing) Sync(file *os.File) error { return errors.Join(f.step(), f.Disk.Sync(file)) }
func (f *failing) SyncDir(dir string) error { return errors.Join(f.step(), f.Disk.SyncDir(dir)) }
func (f *failing) Rename(from, to string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Disk.Rename(from, to)
}
