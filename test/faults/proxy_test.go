package faults_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/truclienthong/truc/test/faults"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds what has to happen; nothing waits for it when all is well.
const soon = 10 * time.Second

// echo serves connections that give back what they are given.
func echo(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
				_ = conn.(*net.TCPConn).CloseWrite()
			})
		}
	})
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	return listener.Addr().String()
}

func open(t *testing.T, target string) *faults.Proxy {
	t.Helper()
	p, err := faults.Listen(faults.Config{Target: target, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *faults.Proxy) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

func say(t *testing.T, conn net.Conn, word string) {
	t.Helper()
	if _, err := io.WriteString(conn, word); err != nil {
		t.Fatalf("write %q: %v", word, err)
	}
}

// hear reads as many bytes as the word has, within a time.
func hear(conn net.Conn, word string, within time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != word {
		return errors.New("got " + string(got))
	}
	return nil
}

func works(t *testing.T, conn net.Conn) {
	t.Helper()
	say(t, conn, "hello")
	if err := hear(conn, "hello", soon); err != nil {
		t.Fatalf("no echo: %v", err)
	}
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// fails proves that a connection was reset, not ended in order.
func fails(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(soon))
	if _, err := io.Copy(io.Discard, conn); !isReset(err) {
		t.Fatalf("read: %v, want a reset", err)
	}
}

// refused proves that a new connection is reset, be it while it is made.
func refused(t *testing.T, p *faults.Proxy) {
	t.Helper()
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		if !isReset(err) {
			t.Fatalf("dial: %v, want a reset", err)
		}
		return
	}
	defer conn.Close()
	fails(t, conn)
}

// silent proves that nothing arrives: neither bytes nor an end.
func silent(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := hear(conn, "x", 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read: %v, want silence", err)
	}
}

func TestForwardsUnchanged(t *testing.T) {
	p := open(t, echo(t))
	p.Delay(time.Millisecond, 3*time.Millisecond) // the order stays
	conn := dial(t, p)
	const size = 8 << 20
	sent, got := sha256.New(), sha256.New()
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := io.CopyN(io.MultiWriter(conn, sent), rand.NewChaCha8([32]byte{3}), size); err != nil {
			t.Error(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	n, err := io.Copy(got, conn)
	sending.Wait()
	if err != nil || n != size || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Errorf("%d bytes came back, %v; want the %d that were sent, unchanged", n, err, size)
	}
	if up, down := p.Carried(); up != size || down != size {
		t.Errorf("carried %d and %d, want %d both ways", up, down, size)
	}
}

func TestFaults(t *testing.T) {
	for name, story := range map[string]func(*testing.T, *faults.Proxy){
		"cut and healed": func(t *testing.T, p *faults.Proxy) {
			old := dial(t, p)
			works(t, old)
			p.Cut()
			fails(t, old)
			refused(t, p)
			p.Heal()
			works(t, dial(t, p))
		},
		"refused, live ones go on": func(t *testing.T, p *faults.Proxy) {
			old := dial(t, p)
			works(t, old)
			p.Refuse()
			refused(t, p)
			works(t, old)
			p.Heal()
			works(t, old)
		},
		"half open": func(t *testing.T, p *faults.Proxy) {
			old := dial(t, p)
			works(t, old)
			p.HalfOpen()
			say(t, old, "lost")
			silent(t, old)
			fresh := dial(t, p)
			say(t, fresh, "lost too")
			silent(t, fresh)
			p.Heal()
			fails(t, old)
			fails(t, fresh)
			works(t, dial(t, p))
		},
		"half open, nothing was said meanwhile": func(t *testing.T, p *faults.Proxy) {
			old := dial(t, p)
			works(t, old)
			p.HalfOpen()
			p.Heal()
			works(t, old)
		},
		"the way down is lost": func(t *testing.T, p *faults.Proxy) {
			old := dial(t, p)
			works(t, old)
			p.Lose(faults.Down)
			up, down := p.Carried()
			say(t, old, "lost")
			silent(t, old)
			if u, d := p.Carried(); u != up+4 || d != down {
				t.Errorf("carried %d up and %d down, want 4 and 0", u-up, d-down)
			}
			p.Heal()
			fails(t, old)
		},
		"held, nothing is lost": func(t *testing.T, p *faults.Proxy) {
			old := dial(t, p)
			works(t, old)
			p.Hold(faults.Both)
			say(t, old, "later")
			silent(t, old)
			p.Heal()
			if err := hear(old, "later", soon); err != nil {
				t.Error(err)
			}
		},
		"reset once after some bytes": func(t *testing.T, p *faults.Proxy) {
			p.ResetAfter(100_000)
			conn := dial(t, p)
			_, err := io.CopyN(conn, rand.NewChaCha8([32]byte{}), 1<<20)
			if err == nil {
				_, err = io.Copy(io.Discard, conn)
			}
			if !isReset(err) {
				t.Errorf("%v, want a reset", err)
			}
			if up, down := p.Carried(); up+down > 100_000 {
				t.Errorf("carried %d bytes, at most 100,000 were allowed", up+down)
			}
			if got := p.Resets(); got != 1 {
				t.Errorf("%d resets, want 1", got)
			}
			works(t, dial(t, p))
		},
		"live ones reset": func(t *testing.T, p *faults.Proxy) {
			old := dial(t, p)
			works(t, old)
			p.ResetLive()
			fails(t, old)
			works(t, dial(t, p))
		},
	} {
		t.Run(name, func(t *testing.T) { story(t, open(t, echo(t))) })
	}
}

// What is late or slow is so by at least as much as was asked for.
func TestLateAndSlow(t *testing.T) {
	p := open(t, echo(t))
	conn := dial(t, p)
	works(t, conn)
	const delay = 60 * time.Millisecond
	p.Delay(delay, delay)
	began := time.Now()
	works(t, conn)
	if took := time.Since(began); took < 2*delay {
		t.Errorf("there and back in %s, want at least %s", took, 2*delay)
	}
	p.Heal()
	p.Throttle(400_000)
	began = time.Now()
	go func() { _, _ = conn.Write(make([]byte, 100_000)) }()
	if _, err := io.ReadFull(conn, make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("100 kB in %s, want at least 200 ms", took)
	}
}

func TestFlapsUntilHealed(t *testing.T) {
	p := open(t, echo(t))
	p.Flap(4*time.Millisecond, 4*time.Millisecond)
	good, bad := 0, 0
	for deadline := time.Now().Add(soon); good == 0 || bad == 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d tries succeeded and %d failed, want some of each", good, bad)
		}
		conn, err := net.Dial("tcp", p.Address())
		if err == nil {
			if _, err = io.WriteString(conn, "x"); err == nil {
				err = hear(conn, "x", soon)
			}
			conn.Close()
		}
		if err == nil {
			good++
		} else {
			bad++
		}
	}
	p.Heal()
	for range 50 {
		works(t, dial(t, p))
	}
}

// A proxy ends while its connections are in every state.
func TestCloses(t *testing.T) {
	for name, fault := range map[string]func(*faults.Proxy){
		"good":      func(*faults.Proxy) {},
		"half open": func(p *faults.Proxy) { p.HalfOpen() },
		"held":      func(p *faults.Proxy) { p.Hold(faults.Both) },
		"late":      func(p *faults.Proxy) { p.Delay(time.Hour, 0) },
		"slow":      func(p *faults.Proxy) { p.Throttle(1) },
		"flapping":  func(p *faults.Proxy) { p.Flap(time.Hour, time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			p, err := faults.Listen(faults.Config{Target: echo(t)})
			if err != nil {
				t.Fatal(err)
			}
			old := dial(t, p)
			works(t, old)
			fault(p)
			_, _ = old.Write(make([]byte, 100_000))
			if fresh, err := net.Dial("tcp", p.Address()); err == nil {
				defer fresh.Close()
				_, _ = fresh.Write(make([]byte, 100_000))
			}
			p.Close()
			_ = old.SetReadDeadline(time.Now().Add(soon))
			if _, err := io.Copy(io.Discard, old); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a connection stays open")
			}
			if p.Live() != 0 {
				t.Errorf("%d connections are left", p.Live())
			}
		})
	}
}

// Where nobody listens behind it, a proxy resets.
func TestNobodyBehind(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	refused(t, open(t, listener.Addr().String()))
}
