package spool_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/spool"
)

const fullDir = "SPOOL_FULL_DIR"

// TestOnADiskThatIsFull runs the test below in a process of its own, which may
// mount a disk that is small enough to be filled.
func TestOnADiskThatIsFull(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^TestInsideTheFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), fullDir+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), cannotMount) {
		t.Skipf("a disk that is really full needs the right to mount one: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

const cannotMount = "cannot mount a small disk"

// A real file system that is full to the last byte: the relay stops, starts
// again, settles what it has, and goes on when there is room.
func TestInsideTheFullDisk(t *testing.T) {
	dir := os.Getenv(fullDir)
	if dir == "" {
		t.Skip("only for TestOnADiskThatIsFull")
	}
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", dir, "tmpfs", 0, "size=96m")); err != nil {
		t.Fatalf("%s: %v", cannotMount, err)
	}
	cfg := spool.Vigilant(spool.Config{
		Dir: filepath.Join(dir, "spool"), Self: self, SegmentSize: 1 << 20, IndexMemory: 4 << 20, IndexOverlay: 64 << 10,
	})
	n := start(t, cfg)
	var acked []*parcel
	eventually(t, "the ballast", func() bool { return exists(filepath.Join(cfg.Dir, "ballast")) })
	for i := uint64(0); ; i++ {
		if free, reserve, err := n.Space(); err != nil {
			t.Fatal(err)
		} else if free < reserve {
			break
		}
		p := newParcel(i, 300_000).inbox("A").onward("nam", "B")
		n.mustPut(p)
		acked = append(acked, p)
	}
	eventually(t, "a spare segment", func() bool { return spares(t, cfg) > 0 })
	// Others take the rest, and senders do not mind the watermark.
	n.end()
	filler := fill(t, dir)
	err := untilItFails(t, cfg, func(n *node) {
		for i := uint64(1000); ; i++ {
			p := newParcel(i, 300_000).inbox("A").onward("nam", "B")
			if _, err := n.put(p); err != nil {
				break
			}
			acked = append(acked, p)
		}
	})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Run ends with %v, want ENOSPC", err)
	}
	t.Logf("%d envelopes were acknowledged", len(acked))
	// It starts, twice, with what it has left, and gets rid of what it has.
	n = start(t, cfg)
	for _, p := range acked {
		n.wantContent(p)
	}
	n.end()
	n = start(t, cfg)
	for _, p := range acked {
		n.handOn(p, "nam", "nam", "B")
		n.settle(1, envelope.Settlement{ID: p.ID, Agency: "A", Transport: done})
	}
	n.end()
	if err := errors.Join(filler.Close(), os.Remove(filler.Name())); err != nil {
		t.Fatal(err)
	}
	n = start(t, cfg)
	p := newParcel(5000, 300_000).inbox("A")
	n.mustPut(p)
	n.wantContent(p)
	eventually(t, "the reserve to be made again", func() bool { return exists(filepath.Join(cfg.Dir, "ballast")) && spares(t, cfg) > 0 })
	n.end()
	check(t, cfg)
}

// fill takes all room that there is.
func fill(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "others"))
	if err != nil {
		t.Fatal(err)
	}
	fillMore(t, f)
	return f
}

func fillMore(t *testing.T, f *os.File) {
	t.Helper()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err == nil {
			continue
		} else if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		size /= 16
	}
}
