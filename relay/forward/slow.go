package forward

import (
	"errors"
	"sync/atomic"
	"time"
)

// A link slower than a few hundred kilobytes a second needs care: what takes
// seconds to get through keeps probes and all others waiting, and when it is
// cut, it begins again. So chunks are as large as take about a second, and
// where an offer with content inside did not get through, content travels in
// chunks, each of which is kept.
const (
	slowChunk  = time.Second
	firstChunk = 32 << 10
	minChunk   = 16 << 10
)

// burst is how many bytes may vanish into buffers at once, which says nothing
// about the speed of the link.
const burst = 512 << 10

// chunkSize adapts the size of the chunks of one part, in bytes.
type chunkSize struct{ size, quick int }

// next returns the size of the next chunk, at most most.
func (c *chunkSize) next(most int) int {
	if c.size == 0 {
		c.size = firstChunk
	}
	c.size = min(c.size, most)
	return c.size
}

// took notes how long it took to send one.
func (c *chunkSize) took(d time.Duration) {
	switch {
	case d > slowChunk:
		c.size, c.quick = max(c.size/2, minChunk), 0
	case d > slowChunk/8:
		c.quick = 0
	default:
		if c.quick += c.size; c.quick >= burst {
			c.size, c.quick = 2*c.size, 0
		}
	}
}

// slowness is what is known of the speed of the way to a peer.
type slowness struct{ slow atomic.Bool }

// inlineLimit is the most content in bytes that rides inside an offer now.
func (s *slowness) inlineLimit() uint64 {
	if s.slow.Load() {
		return minChunk
	}
	return InlineLimit
}

// cut notes that a session ended under an offer.
func (s *slowness) cut(inside bool, cause error) {
	if inside && (errors.Is(cause, errLinkDown) || errors.Is(cause, errSilent)) {
		s.slow.Store(true)
	}
}

// through notes how long it took to bring so many bytes to a last answer.
func (s *slowness) through(bytes uint64, took time.Duration) {
	if bytes > minChunk && took < slowChunk*time.Duration(bytes)/InlineLimit {
		s.slow.Store(false)
	}
}
