package agency_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/agency/agencytest"
)

// powerDisk knows what would be on disk if the power failed: names only of
// folders that were synced, of files only the bytes that were. Files that were
// deleted may be gone or not.
type powerDisk struct {
	agency.Disk
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

// present are the inodes below a folder just now.
func present(dir string) (map[uint64]bool, error) {
	all := map[uint64]bool{}
	return all, filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		all[inode(info)] = true
		return err
	})
}

// survivors writes what is left after a power failure now, but for files that
// are not present.
func (p *powerDisk) survivors(dir string, of uint64, present map[uint64]bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, inode := range p.folders[of] {
		path := filepath.Join(dir, name)
		var err error
		if _, isDir := p.folders[inode]; isDir {
			err = p.survivors(path, inode, present)
		} else if present == nil || present[inode] {
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
			now, err := present(s.dir)
			if err != nil {
				t.Error(err)
			}
			for _, present := range []map[uint64]bool{nil, now} {
				m := moment{when: when, dir: filepath.Join(base, strconv.Itoa(len(moments))),
					heard: s.mesh.Count(agencytest.SubmitStart) > 0, safe: copies == 2 && s.mesh.Accepted() == 1}
				if err := disk.survivors(m.dir, inode(root), present); err != nil {
					t.Error(err)
				}
				moments = append(moments, m)
			}
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
