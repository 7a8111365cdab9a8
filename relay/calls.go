package relay

import (
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls"
)

// openCalls counts the calls that each agency has open, over all of its
// connections, so that one of them cannot take the memory of all. Gateways and
// relays speak for many and are bounded by their connections, operators are
// few.
type openCalls struct {
	most int

	mu   sync.Mutex
	open map[string]int // by identity
}

func newOpenCalls(most int) *openCalls { return &openCalls{most: most, open: make(map[string]int)} }

// enter counts a call until the returned function is called, or refuses it.
func (o *openCalls) enter(identity tls.Identity) (leave func(), err error) {
	if identity.Kind != tls.KindAgency {
		return func() {}, nil
	}
	who := identity.String()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open[who] >= o.most {
		r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED,
			"%s has %d calls open at this relay; wait until some have ended", identity, o.most)
		r.Quota, r.RetryAfter = "calls per agency", time.Second
		return nil, r
	}
	o.open[who]++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.open[who]--; o.open[who] == 0 {
			delete(o.open, who)
		}
	}, nil
}
