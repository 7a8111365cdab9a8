package faults

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// pieceSize is the most bytes that a fault treats alike.
	pieceSize = 32 << 10
	// inFlight is how many pieces a late link holds per way.
	inFlight = 128
)

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// connection is one connection through a proxy.
type connection struct {
	proxy *Proxy
	near  *net.TCPConn  // to who dialled
	over  chan struct{} // closed by abort

	// deaf is set once bytes of it were lost: it can only be reset. Guarded by
	// proxy.mu.
	deaf bool

	mu      sync.Mutex
	far     *net.TCPConn // to the target; nil before it is dialled
	aborted bool
}

// piece is some bytes on their way.
type piece struct {
	buffer *[pieceSize]byte
	n      int
	due    time.Time
}

// run forwards until both ends are done or the connection is reset.
func (c *connection) run() {
	defer c.proxy.drop(c)
	if c.isDeaf() {
		_, _ = io.Copy(io.Discard, c.near)
		<-c.over
		return
	}
	dialled, err := net.DialTimeout("tcp", c.proxy.target, dialWithin)
	if err != nil {
		c.abort()
		return
	}
	far := dialled.(*net.TCPConn)
	if !c.join(far) {
		reject(far)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { c.forward(Up.index(), c.near, far) })
	both.Go(func() { c.forward(Down.index(), far, c.near) })
	both.Wait()
	c.near.Close()
	far.Close()
}

// join makes far the other end, unless the connection is aborted already.
func (c *connection) join(far *net.TCPConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.aborted {
		c.far = far
	}
	return !c.aborted
}

// forward carries the bytes of one way.
func (c *connection) forward(way int, from, to *net.TCPConn) {
	queue := make(chan piece, inFlight)
	var reading sync.WaitGroup
	var end error
	reading.Go(func() {
		defer close(queue)
		end = c.read(way, from, queue)
	})
	for p := range queue {
		if !c.pass(way, p, to) {
			c.abort()
		}
		pieces.Put(p.buffer)
	}
	reading.Wait()
	// The end of a connection is lost, or late, like its bytes.
	for {
		now, changed := c.proxy.now()
		if !c.loses(way) && !now.ways[way].held {
			break
		}
		select {
		case <-changed:
		case <-c.over:
			return
		}
	}
	if !errors.Is(end, io.EOF) || to.CloseWrite() != nil {
		c.abort()
	}
}

// read takes bytes from one end until it ends.
func (c *connection) read(way int, from *net.TCPConn, queue chan<- piece) error {
	var last time.Time
	for {
		buffer := pieces.Get().(*[pieceSize]byte)
		n, err := from.Read(buffer[:])
		if n > 0 {
			// Later pieces are never due before earlier ones.
			if due := time.Now().Add(c.proxy.late(way)); due.After(last) {
				last = due
			}
			select {
			case queue <- piece{buffer, n, last}:
			case <-c.over:
				return net.ErrClosed
			}
		}
		if err != nil {
			return err
		}
	}
}

// pass hands a piece on when the link lets it; false: the connection is over.
func (c *connection) pass(way int, p piece, to *net.TCPConn) bool {
	for {
		now, changed := c.proxy.now()
		w := now.ways[way]
		if c.loses(way) {
			return true
		}
		wait := time.Until(p.due)
		if !w.held && (wait <= 0 || w.delay+w.jitter == 0) {
			break
		}
		if w.held {
			wait = time.Hour
		}
		if !c.sleep(wait, changed) {
			return false
		}
	}
	_, changed := c.proxy.now()
	cut, passes := c.proxy.book(way, p.n)
	if cut || !c.sleep(time.Until(passes), changed) {
		return false
	}
	c.proxy.carried[way].Add(int64(p.n))
	_, err := to.Write(p.buffer[:p.n])
	return err == nil
}

// sleep waits so long, or until the link changed; false: the connection is over.
func (c *connection) sleep(wait time.Duration, changed <-chan struct{}) bool {
	if wait <= 0 {
		select {
		case <-c.over:
			return false
		default:
			return true
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-c.over:
		return false
	}
	return true
}

// loses reports whether bytes of the way are lost now, and remembers it.
func (c *connection) loses(way int) bool {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	if c.proxy.condition.ways[way].lost {
		c.deaf = true
		return true
	}
	return false
}

func (c *connection) isDeaf() bool {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	return c.deaf
}

// abort resets both ends, once.
func (c *connection) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return
	}
	c.aborted = true
	close(c.over)
	reject(c.near)
	if c.far != nil {
		reject(c.far)
	}
}

// reject ends a connection with a reset instead of an orderly close.
func reject(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}
