package ingress

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/truclienthong/truc/routing"
)

// limiters keep the rate of each agency that was active lately. One that rested
// long enough to have its whole burst again is as good as new, and is dropped.
type limiters struct {
	rate  rate.Limit
	burst int

	mu sync.Mutex
	of map[routing.AgencyCode]*rate.Limiter
	// sweep is the number at which those at rest are dropped; it doubles what was
	// left the last time, so that sweeping costs each newcomer a constant.
	sweep int
}

// minSweep is the number below which no limiter is dropped.
const minSweep = 1024

// newLimiters limits to so many a second; negative: not at all.
func newLimiters(perSecond float64, burst int) *limiters {
	l := &limiters{rate: rate.Limit(perSecond), burst: burst, of: make(map[routing.AgencyCode]*rate.Limiter), sweep: minSweep}
	if perSecond < 0 || burst < 0 {
		l.rate = rate.Inf
	}
	return l
}

// get returns the limiter of an agency; l.mu is held.
func (l *limiters) get(agency routing.AgencyCode, now time.Time) *rate.Limiter {
	if one, ok := l.of[agency]; ok {
		return one
	}
	if len(l.of) >= l.sweep {
		for other, one := range l.of {
			if one.TokensAt(now) >= float64(l.burst) {
				delete(l.of, other)
			}
		}
		l.sweep = max(minSweep, 2*len(l.of))
	}
	one := rate.NewLimiter(l.rate, l.burst)
	l.of[agency] = one
	return one
}

// take counts one, or returns after what time there is room for one.
func (l *limiters) take(agency routing.AgencyCode, now time.Time) (after time.Duration) {
	wait, ok := l.reserve(agency, now, 1, 0)
	if ok {
		return 0
	}
	return wait
}

// reserve counts n, at most the burst, and returns how long to wait for it.
// Where that is longer than most, nothing is counted.
func (l *limiters) reserve(agency routing.AgencyCode, now time.Time, n int, most time.Duration) (wait time.Duration, ok bool) {
	if l.rate == rate.Inf {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.get(agency, now).ReserveN(now, n)
	if wait = r.DelayFrom(now); wait <= most {
		return wait, true
	}
	r.CancelAt(now)
	return wait, false
}
