package forward_test

import (
	"net"
	"sync"
	"time"
)

// line is a slow one: so many bytes a second get through, and so many more wait
// in front of it before whoever writes has to.
type line struct{ rate, buffer int }

// over makes a connection slow in the direction of its writer.
func (l line) over(conn net.Conn) net.Conn {
	c := &slowConn{Conn: conn, line: l, sent: make(chan []byte, 1<<16), closed: make(chan struct{})}
	go func() {
		for {
			select {
			case b := <-c.sent:
				select {
				case <-time.After(l.takes(len(b))):
				case <-c.closed:
					return
				}
				c.note(-len(b))
				if _, err := conn.Write(b); err != nil {
					_ = c.Close()
				}
			case <-c.closed:
				return
			}
		}
	}()
	return c
}

func (l line) takes(bytes int) time.Duration {
	return time.Duration(bytes) * time.Second / time.Duration(l.rate)
}

type slowConn struct {
	net.Conn
	line   line
	sent   chan []byte
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	waiting int
}

func (c *slowConn) note(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting += n
	return c.waiting
}

func (c *slowConn) Write(b []byte) (int, error) {
	for c.note(0) > c.line.buffer {
		pass(time.Millisecond)
		select {
		case <-c.closed:
			return 0, net.ErrClosed
		default:
		}
	}
	c.note(len(b))
	select {
	case c.sent <- append([]byte(nil), b...):
		return len(b), nil
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *slowConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
