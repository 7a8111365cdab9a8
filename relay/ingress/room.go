package ingress

import (
	"context"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// rooms bounds the memory that each caller's submits hold together: headers,
// and what the spool keeps of small contents until the commit. A caller may have
// many submits open, and may leave them open.
type rooms struct {
	most int64

	mu    sync.Mutex
	taken map[string]int64 // bytes by caller
}

func newRooms(most int64) *rooms { return &rooms{most: most, taken: make(map[string]int64)} }

// take holds n bytes until the returned function is called, or reports that the
// caller has no room left.
func (r *rooms) take(who string, n int64) (leave func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken[who]+n > r.most {
		return nil, false
	}
	r.taken[who] += n
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.taken[who] -= n; r.taken[who] == 0 {
			delete(r.taken, who)
		}
	}, true
}

// takeRoom holds what a submit needs in memory.
func (s *Service) takeRoom(ctx context.Context, sub *submission) (leave func(), err error) {
	var content uint64
	for _, part := range sub.header.GetParts() {
		content += min(part.GetSize(), maxInline)
	}
	identity, _ := s.config.Caller(ctx)
	leave, ok := s.rooms.take(identity.String(), int64(len(sub.canonical))+int64(min(content, maxInline)))
	if ok {
		return leave, nil
	}
	r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED,
		"the submits that %s has open hold %d bytes, as many as are kept for one caller; finish some first", identity, s.rooms.most)
	r.Quota, r.RetryAfter = "memory per caller", time.Second
	return nil, r
}
