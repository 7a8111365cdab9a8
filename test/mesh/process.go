package mesh

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binaries are built once per test process, from the source that is tested.
var binaries struct {
	once sync.Once
	dir  string
	err  error
}

// EnvBinaries names a folder with relayd, relayctl and connector that Binary
// takes instead of building them, so that tests can be run against others.
const EnvBinaries = "TORTURE_BIN"

// Binary returns the path of a program of the project, built from source or from
// EnvBinaries.
func Binary(t testing.TB, name string) string {
	t.Helper()
	if dir := os.Getenv(EnvBinaries); dir != "" {
		return filepath.Join(dir, name)
	}
	binaries.once.Do(func() {
		if binaries.dir, binaries.err = os.MkdirTemp("", "truc-bin-"); binaries.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", binaries.dir+string(filepath.Separator),
			"github.com/truclienthong/truc/cmd/relayd",
			"github.com/truclienthong/truc/cmd/relayctl",
			"github.com/truclienthong/truc/cmd/connector")
		if out, err := build.CombinedOutput(); err != nil {
			binaries.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if binaries.err != nil {
		t.Fatal(binaries.err)
	}
	return filepath.Join(binaries.dir, name)
}

// RemoveBinaries removes what Binary built; call it from TestMain.
func RemoveBinaries() {
	if binaries.dir != "" {
		os.RemoveAll(binaries.dir)
	}
}

// process is a relay as a process of its own.
type process struct {
	cmd  *exec.Cmd
	done chan error
}

func startProcess(t testing.TB, within []string, file, logFile string) (relay, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	line := append(slices.Clip(within), Binary(t, "relayd"), "run", "--config", file)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	// A test that dies takes its relays with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan error, 1)}
	go func() { p.done <- cmd.Wait() }()
	return p, nil
}

func (p *process) pause() error  { return p.cmd.Process.Signal(syscall.SIGSTOP) }
func (p *process) resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

func (p *process) over() bool { return len(p.done) > 0 }

func (p *process) ended(within time.Duration) (error, bool) {
	select {
	case err := <-p.done:
		return err, true
	case <-time.After(within):
		return nil, false
	}
}

// process returns a relay that is a process.
func (m *Mesh) process(id string) *process {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.relays[id].(*process)
	if !ok {
		m.t.Fatalf("relay %s is no process that runs", id)
	}
	return p
}

func (p *process) stop() error {
	_ = p.resume() // one that is paused could not stop
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-p.done:
		return err
	case <-time.After(patience):
		_ = p.kill()
		return fmt.Errorf("still running %s after SIGTERM", patience)
	}
}

func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// Resident returns the resident memory of a relay process in bytes.
func (m *Mesh) Resident(id string) int64 {
	m.t.Helper()
	return m.Memory(id, "VmRSS")
}

// Memory returns what the system counts of a relay process, in bytes: VmRSS,
// VmHWM (the most it had), VmPeak (the most it asked for).
func (m *Mesh) Memory(id, what string) int64 {
	m.t.Helper()
	p := m.process(id)
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	m.check("memory of "+id, err)
	for line := range strings.SplitSeq(string(raw), "\n") {
		if rest, ok := strings.CutPrefix(line, what+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			m.check("memory of "+id, err)
			return kib << 10
		}
	}
	m.t.Fatalf("no %s of relay %s", what, id)
	return 0
}
