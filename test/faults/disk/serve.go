package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Serve serves a disk and ends the process, if that is what the process was
// started for; else it returns at once.
func Serve() {
	raw := os.Getenv(environment)
	if raw == "" {
		return
	}
	var s settings
	if err := json.Unmarshal([]byte(raw), &s); err != nil {
		fmt.Fprintf(os.Stderr, "disk: %v\n", err)
		os.Exit(2)
	}
	// Whoever interrupts a test means all of its processes; this one unmounts
	// first, when nobody talks to it any more.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	d := newDevice(s)
	server := rpc.NewServer()
	if err := server.RegisterName("Disk", &service{d}); err != nil {
		fmt.Fprintf(os.Stderr, "disk: %v\n", err)
		os.Exit(2)
	}
	server.ServeConn(standard{os.Stdin, os.Stdout})
	d.unmount()
	os.Exit(0)
}

type standard struct {
	io.Reader
	io.WriteCloser
}

// device is a medium, mounted, with what it does wrong.
type device struct {
	dir string

	mu     sync.Mutex // guards what follows
	waked  *sync.Cond // when frozen or a mount's end changes
	medium *medium
	frozen bool
	now    *mount
	fault  Fault
	passed int // operations that the fault let pass
	hits   int
	counts Counts
}

func newDevice(s settings) *device {
	d := &device{dir: s.Dir, medium: newMedium(s.Config)}
	d.waked = sync.NewCond(&d.mu)
	return d
}

// mount attaches the medium.
func (d *device) mount() error {
	m := &mount{RawFileSystem: fuse.NewDefaultRawFileSystem(), d: d, nodes: map[uint64]*node{d.medium.root.ino: d.medium.root}}
	server, err := fuse.NewServer(m, d.dir, &fuse.MountOptions{
		DirectMountStrict: true, AllowOther: true, FsName: "disk", Name: "forgets",
		MaxWrite: 1 << 20, DisableXAttrs: true, DisableReadDirPlus: true, DisableSplice: true,
		// The kernel is the only one who changes anything: its cache is right.
		ExplicitDataCacheControl: true,
	})
	if err != nil {
		return err
	}
	m.server = server
	d.mu.Lock()
	d.now = m
	d.mu.Unlock()
	go server.Serve()
	return server.WaitMount()
}

// unmount ends the mount: whoever has something open gets EIO from now on.
func (d *device) unmount() {
	d.mu.Lock()
	if d.now != nil {
		d.detach()
	}
	d.mu.Unlock()
	_ = syscall.Unmount(d.dir, syscall.MNT_DETACH) // none was mounted, or the last user has gone
}

// detach requires mu.
func (d *device) detach() {
	d.now.dead, d.frozen = true, false
	d.waked.Broadcast()
}

// strikes says whether an operation is to go wrong; requires mu.
func (d *device) strikes(kind Kind, n *node) bool {
	f := &d.fault
	if f.Kind != kind || !strings.HasPrefix(n.path(), f.Under) {
		return false
	}
	if d.passed++; d.passed <= f.Skip || f.Times > 0 && d.hits >= f.Times {
		return false
	}
	d.hits++
	return true
}

// delay is how long a sync takes; requires mu.
func (d *device) delay(n *node) time.Duration {
	if !d.strikes(Slow, n) {
		return 0
	}
	return d.fault.Min + time.Duration(d.medium.random.Int64N(int64(d.fault.Max-d.fault.Min)+1))
}

// heal requires mu.
func (d *device) heal() (hits int) {
	hits = d.hits
	d.fault, d.hits, d.passed = Fault{}, 0, 0
	d.medium.limit = d.medium.config.Size / pageSize
	d.medium.allowance = d.medium.limit
	return hits
}

// service is what the test's process may ask for.
type service struct{ d *device }

// Mount mounts; refused is why that is not permitted.
func (s *service) Mount(_ struct{}, refused *string) error {
	err := s.d.mount()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENODEV) {
		*refused = err.Error()
		return nil
	}
	return err
}

// Freeze lets everybody wait.
func (s *service) Freeze(struct{}, *struct{}) error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.d.frozen = true
	return nil
}

// Cut forgets and mounts anew.
func (s *service) Cut(loss Loss, lost *Lost) error {
	d := s.d
	d.mu.Lock()
	d.heal()
	d.detach()
	*lost = d.medium.cut(loss.Torn, loss.Seed)
	d.mu.Unlock()
	d.unmount()
	return d.mount()
}

// Evict mounts anew.
func (s *service) Evict(_ struct{}, pages *int) error {
	d := s.d
	// Without MNT_DETACH: it returns when the kernel has written what was mapped.
	for begin := time.Now(); ; {
		err := syscall.Unmount(d.dir, 0)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EBUSY) || time.Since(begin) > 10*time.Second {
			return fmt.Errorf("unmount: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.mu.Lock()
	d.now.dead = true
	*pages = d.medium.evict()
	d.mu.Unlock()
	return d.mount()
}

// Fail begins a fault.
func (s *service) Fail(f Fault, _ *struct{}) error {
	d := s.d
	d.mu.Lock()
	d.heal()
	d.fault = f
	if f.Kind == Full {
		d.medium.limit = min(d.medium.limit, d.medium.blocks+f.Left/pageSize)
		if !f.Untold {
			d.medium.allowance = d.medium.limit
		}
	}
	var files []uint64
	if f.Kind == FailRead {
		for ino := range d.now.nodes {
			files = append(files, ino)
		}
	}
	server := d.now.server
	d.mu.Unlock()
	for _, ino := range files {
		server.InodeNotify(ino, 0, 0) // what is in the kernel's memory is not read
	}
	return nil
}

// Heal ends a fault.
func (s *service) Heal(_ struct{}, hits *int) error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	*hits = s.d.heal()
	return nil
}

// Hits counts.
func (s *service) Hits(_ struct{}, hits *int) error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	*hits = s.d.hits
	return nil
}

// Counts counts.
func (s *service) Counts(_ struct{}, c *Counts) error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	*c = s.d.counts
	return nil
}
