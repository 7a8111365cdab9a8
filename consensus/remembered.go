package consensus

import "time"

// What is remembered of request ids. These bounds are part of the replicated
// state: members that differ in them diverge, so a change needs a new version
// of the log entry.
const (
	rememberCount = 16384
	rememberBytes = 16 << 20
	rememberAge   = 24 * time.Hour
)

// requestID is chosen by whoever asked; retries carry the same.
type requestID [16]byte

// request is one applied write. It is never changed once it is remembered.
type request struct {
	id     requestID
	index  uint64
	at     int64 // nanoseconds since 1970, never less than that of the one before
	result []byte
}

// memory holds the writes that would be recognised if they came again: the
// last rememberCount of them, no older than rememberAge by the times in the
// log, and no more than rememberBytes of results (the newest always).
type memory struct {
	byID   map[requestID]*request
	order  []*request // oldest first
	bytes  int
	latest int64 // highest time seen; a leader whose clock is behind does not turn it back
}

func newMemory() memory { return memory{byID: make(map[requestID]*request)} }

// recall moves time on and returns the write if it has been applied before.
func (m *memory) recall(id requestID, at int64) (*request, bool) {
	m.latest = max(m.latest, at)
	for len(m.order) > 0 && m.order[0].at < m.latest-int64(rememberAge) {
		m.forgetOldest()
	}
	r, ok := m.byID[id]
	return r, ok
}

// remember keeps a write that recall did not know.
func (m *memory) remember(id requestID, index uint64, result []byte) {
	m.insert(&request{id: id, index: index, at: m.latest, result: result})
	for len(m.order) > rememberCount || m.bytes > rememberBytes && len(m.order) > 1 {
		m.forgetOldest()
	}
}

func (m *memory) insert(r *request) {
	m.byID[r.id] = r
	m.order = append(m.order, r)
	m.bytes += len(r.result)
}

func (m *memory) forgetOldest() {
	r := m.order[0]
	m.order[0] = nil
	m.order = m.order[1:]
	m.bytes -= len(r.result)
	delete(m.byID, r.id)
}
