package simulation

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/truclienthong/truc/tls"
)

// window is how many bytes may be under way in one direction of a connection.
const window = 256 << 10

// stream is one direction of a connection. The network's mu owns it.
type stream struct {
	way   way
	queue []message
	bytes int
	// last is when the newest message arrives: none overtakes another.
	last time.Time
	// ended: nothing follows.
	ended bool
	// readers and writers are woken by an element.
	readable, writable chan struct{}
}

type message struct {
	data []byte
	at   time.Time
}

func newStream(w way) *stream {
	return &stream{way: w, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

func (s *stream) wake() { signal(s.readable) }
func (s *stream) room() { signal(s.writable) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// again has everything on the way arrive no earlier than at.
func (s *stream) again(at time.Time) {
	for i := range s.queue {
		if s.queue[i].at.Before(at) {
			s.queue[i].at = at
		}
	}
	if s.last.Before(at) {
		s.last = at
	}
}

// conn is one end of a connection.
type conn struct {
	n             *network
	local, remote string
	number        int
	// identity of the other end, which a handshake would have proven.
	identity tls.Identity
	in, out  *stream
	peer     *conn

	// The network's mu owns what follows.
	closed bool
	// failure ends reading and writing.
	failure error
	// orphan: the host at the other end has stopped since.
	orphan             bool
	readLimit, wrLimit time.Time
	timer              *time.Timer // of the one reader
}

func newConn(n *network, local, remote string, identity tls.Identity, in, out *stream) *conn {
	return &conn{n: n, local: local, remote: remote, identity: identity, in: in, out: out}
}

// broken ends a connection, with what is on its way; requires the network's mu.
func (c *conn) broken(err error) {
	if c.failure == nil {
		c.failure = err
	}
	c.in.wake()
	c.out.room()
}

func (c *conn) Read(b []byte) (int, error) {
	for {
		count, wait, err := c.read(b)
		if count > 0 || err != nil || len(b) == 0 {
			return count, err
		}
		if wait == 0 {
			<-c.in.readable
			continue
		}
		if c.timer == nil {
			c.timer = time.NewTimer(wait)
		} else {
			c.timer.Reset(wait)
		}
		select {
		case <-c.in.readable:
			c.timer.Stop()
		case <-c.timer.C:
		}
	}
}

// read takes what has arrived, or says how long to wait for it; 0: until woken.
func (c *conn) read(b []byte) (count int, wait time.Duration, err error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	now := time.Now()
	switch {
	case c.closed:
		return 0, 0, net.ErrClosed
	case c.failure != nil:
		return 0, 0, c.failure
	case !c.readLimit.IsZero() && !now.Before(c.readLimit):
		return 0, 0, os.ErrDeadlineExceeded
	}
	if !c.readLimit.IsZero() {
		wait = c.readLimit.Sub(now)
	}
	s := c.in
	if c.n.condition(s.way.from, s.way.to).cut {
		return 0, wait, nil
	}
	for count < len(b) && len(s.queue) > 0 && !s.queue[0].at.After(now) {
		m := &s.queue[0]
		took := copy(b[count:], m.data)
		count += took
		if m.data = m.data[took:]; len(m.data) == 0 {
			s.queue[0] = message{}
			s.queue = s.queue[1:]
		}
	}
	if count > 0 {
		s.bytes -= count
		s.room()
		return count, 0, nil
	}
	switch {
	case len(s.queue) > 0:
		if until := s.queue[0].at.Sub(now); wait == 0 || until < wait {
			wait = until
		}
	case s.ended && !s.last.After(now):
		return 0, 0, io.EOF
	case s.ended:
		wait = s.last.Sub(now)
	}
	return 0, wait, nil
}

func (c *conn) Write(b []byte) (int, error) {
	written := 0
	for {
		n, wait, err := c.write(b[written:])
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
		if wait == 0 {
			<-c.out.writable
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.out.writable:
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (c *conn) write(b []byte) (count int, wait time.Duration, err error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	now := time.Now()
	switch {
	case c.closed:
		return 0, 0, net.ErrClosed
	case c.failure != nil:
		return 0, 0, c.failure
	case !c.wrLimit.IsZero() && !now.Before(c.wrLimit):
		return 0, 0, os.ErrDeadlineExceeded
	}
	if !c.wrLimit.IsZero() {
		wait = c.wrLimit.Sub(now)
	}
	s := c.out
	count = min(len(b), window-s.bytes)
	if count <= 0 {
		return 0, wait, nil
	}
	w := c.n.condition(s.way.from, s.way.to)
	at := now.Add(w.delay)
	if w.jitter > 0 {
		at = at.Add(time.Duration(c.n.chance.Int64N(int64(w.jitter))))
	}
	if w.rate > 0 {
		if w.busy.Before(now) {
			w.busy = now
		}
		w.busy = w.busy.Add(time.Duration(int64(count) * int64(time.Second) / w.rate))
		if end := w.busy.Add(w.delay); end.After(at) {
			at = end
		}
	}
	if at.Before(s.last) {
		at = s.last
	}
	s.last = at
	s.queue = append(s.queue, message{append([]byte(nil), b[:count]...), at})
	s.bytes += count
	s.wake()
	gone := c.peer.closed || c.orphan && c.n.hosts[c.remote].power != dark
	if gone && !w.cut && !c.n.condition(c.remote, c.local).cut {
		// Nobody there knows of this connection any more.
		c.broken(syscall.ECONNRESET)
	}
	return count, wait, nil
}

func (c *conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	delete(c.n.conns, c)
	w := c.n.condition(c.out.way.from, c.out.way.to)
	c.out.ended = true
	if at := time.Now().Add(w.delay); c.out.last.Before(at) {
		c.out.last = at
	}
	c.out.wake()
	c.in.wake()
	c.out.room()
	// What comes for a closed connection is thrown away.
	c.in.queue, c.in.bytes = nil, 0
	c.in.room()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return address(c.local) }
func (c *conn) RemoteAddr() net.Addr { return address(c.remote) }

func (c *conn) SetDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.readLimit, c.wrLimit = t, t
	c.in.wake()
	c.out.room()
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.readLimit = t
	c.in.wake()
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.wrLimit = t
	c.out.room()
	return nil
}
