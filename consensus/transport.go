package consensus

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// dialTimeout is the longest that Raft waits for a connection; a member that
// does not answer within it counts as away.
const dialTimeout = 3 * time.Second

// stream is the injected stream layer with what Raft's transport lacks: it
// gives the address that others know (the listener may be bound to all
// interfaces, and Raft tells every member the leader's address from here), and
// it can close every connection and wait for their handlers, which Raft's own
// Close leaves reading.
type stream struct {
	inner   StreamLayer
	address string

	mu       sync.Mutex
	open     map[*streamConn]struct{}
	cut      bool
	handlers sync.WaitGroup // accepted connections not yet closed by Raft
}

var _ raft.StreamLayer = (*stream)(nil)

type streamConn struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *streamConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.closed)
	return err
}

func newStream(inner StreamLayer, address string) *stream {
	return &stream{inner: inner, address: address, open: make(map[*streamConn]struct{})}
}

// track takes a connection in, or closes it when everything is being closed.
func (s *stream) track(conn net.Conn, accepted bool) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut {
		conn.Close()
		return nil, net.ErrClosed
	}
	c := &streamConn{Conn: conn}
	c.closed = func() {
		s.mu.Lock()
		delete(s.open, c)
		s.mu.Unlock()
		if accepted {
			s.handlers.Done()
		}
	}
	if accepted {
		s.handlers.Add(1)
	}
	s.open[c] = struct{}{}
	return c, nil
}

func (s *stream) Accept() (net.Conn, error) {
	conn, err := s.inner.Accept()
	if err != nil {
		return nil, err
	}
	return s.track(conn, true)
}

func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	s.mu.Lock()
	cut := s.cut
	s.mu.Unlock()
	if cut {
		return nil, net.ErrClosed
	}
	conn, err := s.inner.Dial(string(address), min(timeout, dialTimeout))
	if err != nil {
		return nil, err
	}
	return s.track(conn, false)
}

func (s *stream) Addr() net.Addr { return streamAddress(s.address) }

func (s *stream) Close() error {
	err := s.inner.Close()
	s.cutAll()
	return err
}

// cutAll closes every connection and lets no new one in.
func (s *stream) cutAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = true
	for c := range s.open {
		c.Conn.Close()
	}
}

type streamAddress string

func (streamAddress) Network() string  { return "tcp" }
func (a streamAddress) String() string { return string(a) }

// transport is Raft's transport, listened to for how far each follower is:
// Raft does not tell.
type transport struct {
	*raft.NetworkTransport
	progress *progress
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)
)

func (t *transport) AppendEntries(id raft.ServerID, address raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := t.NetworkTransport.AppendEntries(id, address, args, resp)
	if err != nil {
		return err
	}
	var matched uint64 // stays 0 for heartbeats, which compare nothing
	if resp.Success {
		matched = args.PrevLogEntry
		if n := len(args.Entries); n > 0 {
			matched = args.Entries[n-1].Index
		}
	}
	t.progress.note(string(id), args.Term, matched)
	return nil
}

func (t *transport) InstallSnapshot(id raft.ServerID, address raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := t.NetworkTransport.InstallSnapshot(id, address, args, resp, data)
	if err == nil && resp.Success {
		t.progress.note(string(id), args.Term, args.LastLogIndex)
	}
	return err
}

// progress is how far each follower is, as this leader saw it.
type progress struct {
	moved bell

	mu   sync.Mutex
	byID map[string]*followerProgress
}

type followerProgress struct {
	term    uint64
	matched uint64    // last entry known to be on its disk, in this term
	contact time.Time // last answer
}

func newProgress() *progress { return &progress{byID: make(map[string]*followerProgress)} }

func (p *progress) note(id string, term, matched uint64) {
	now := time.Now()
	p.mu.Lock()
	f, ok := p.byID[id]
	if !ok || f.term < term {
		f = &followerProgress{term: term}
		p.byID[id] = f
	}
	f.contact = now
	grown := f.term == term && matched > f.matched
	if grown {
		f.matched = matched
	}
	p.mu.Unlock()
	if grown {
		p.moved.ring()
	}
}

// of returns what is known of a follower in a term of this leader.
func (p *progress) of(id string, term uint64) (followerProgress, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.byID[id]
	if !ok || f.term != term {
		return followerProgress{}, false
	}
	return *f, true
}
