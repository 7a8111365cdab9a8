package relay

import (
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/tls"
)

// openCalls counts the calls that each agency and gateway has open, over all of
// its connections, so that one of them cannot take the memory of all. Relays
// speak for many and are bounded by their connections, operators are few.
type openCalls struct {
	mu   sync.Mutex
	open map[string]int // by identity
}

func newOpenCalls() *openCalls { return &openCalls{open: make(map[string]int)} }

// callsPerSpeaker is what a gateway gets for each agency that it speaks for: an
// open inbox, and a call about what arrives there.
const callsPerSpeaker = 2

// enter counts a call until the returned function is called, or refuses it.
func (r *Relay) enter(identity tls.Identity) (leave func(), err error) {
	most := r.config.CallsPerAgency
	switch identity.Kind {
	case tls.KindAgency:
	case tls.KindGateway:
		gateway, _ := r.config.Directory.View().Gateway(identity.Name)
		most += callsPerSpeaker * len(gateway.GetAgencyCodes())
	default:
		return func() {}, nil
	}
	return r.calls.enter(identity, most)
}

func (o *openCalls) enter(identity tls.Identity, most int) (leave func(), err error) {
	who := identity.String()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open[who] >= most {
		r := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED,
			"%s has %d calls open at this relay; wait until some have ended", identity, most)
		r.Quota, r.RetryAfter = "calls per caller", time.Second
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

// finiteCalls counts the calls under way that end by themselves.
type finiteCalls struct {
	mu sync.Mutex
	n  int
	// none is closed when n is 0.
	none chan struct{}
}

func newFiniteCalls() *finiteCalls {
	f := &finiteCalls{none: make(chan struct{})}
	close(f.none)
	return f
}

// enter counts a call until the returned function is called.
func (f *finiteCalls) enter() (leave func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n++; f.n == 1 {
		f.none = make(chan struct{})
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.n--; f.n == 0 {
			close(f.none)
		}
	}
}

// finished is closed when no call is under way.
func (f *finiteCalls) finished() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.none
}
