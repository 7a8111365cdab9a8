package isolation

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace. It has no name: the open file keeps it.
type namespace struct {
	file    *os.File
	address string // its own; empty for the one with the bridge
}

// needed are the programs without which nothing goes.
var needed = []string{"ip", "nft", "nsenter"}

// newNamespace makes a network namespace, or skips the test where that is not
// allowed.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, program := range needed {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("network namespaces need %s: %v", program, err)
		}
	}
	n := new(namespace)
	err := onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			n.file, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	})
	if os.IsPermission(err) {
		t.Skipf("network namespaces are not allowed here: %v", err)
	}
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	return n
}

// onThread runs do on a thread that may change its network namespace, and puts it
// back.
func onThread(do func() error) error {
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := do()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // else the thread ends with the goroutine
		}
		result <- err
	}()
	return <-result
}

// dial connects from within the namespace: a socket stays where it was made.
func (n *namespace) dial(ctx context.Context, address string) (conn net.Conn, err error) {
	err = onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}

// path is where other processes find the namespace.
func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// enter is the command line that enters the namespace and goes on with what
// follows.
func (n *namespace) enter() []string { return []string{"nsenter", "--net=" + n.path()} }

// run runs a program in the namespace with input.
func (n *namespace) run(input string, line ...string) error {
	line = append(n.enter(), line...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s\n%s", strings.Join(line, " "), err, out, input)
	}
	return nil
}
