package agency

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// patience decides, for one piece of work, whether a failure is tried again.
// It belongs to one goroutine.
type patience struct {
	client *Client
	// what is tried, for logs and errors.
	what string
	// envelope concerned, if one is.
	envelope envelope.ID
	// limit without progress; 0: endless.
	limit time.Duration
	since time.Time
	tries int
	// last is the failure before, refused the last one that a relay gave as its
	// answer: others may have been silent since.
	last, refused error
}

func (c *Client) patience(what string, id envelope.ID, limit time.Duration) *patience {
	return &patience{client: c, what: what, envelope: id, limit: limit, since: time.Now()}
}

// progressed starts the patience anew.
func (p *patience) progressed() { p.since, p.tries = time.Now(), 0 }

// nearest is mesh.nearest while there is patience. Relays that ask to be left
// alone for longer than that are not waited for.
func (p *patience) nearest(ctx context.Context) (*relay, error) {
	if p.limit == 0 {
		return p.client.mesh.nearest(ctx)
	}
	bounded, cancel := context.WithDeadline(ctx, p.since.Add(p.limit))
	defer cancel()
	r, err := p.client.mesh.nearest(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil && p.last != nil {
		return nil, p.last
	}
	return r, err
}

// failed takes in a failure at r (nil: no relay could be found). It returns nil
// when another try is due, after the wait that the relay asked for, and else
// the error to give up with.
func (p *patience) failed(ctx context.Context, r *relay, err error) error {
	if ctx.Err() != nil {
		return p.over(fmt.Errorf("%s: %w", p.what, ended(ctx)))
	}
	err = asRefusal(err)
	if !envelope.Temporary(err) {
		return fmt.Errorf("%s: %w", p.what, err)
	}
	_, answered := envelope.AsRefusal(err)
	if answered {
		p.refused = err
	}
	if p.limit > 0 && time.Since(p.since) >= p.limit {
		given := fmt.Errorf("%s: gave up after %s: %w", p.what, p.limit, err)
		if answered {
			return given
		}
		return p.over(given)
	}
	p.last = err
	p.tries++
	attributes := []any{"what", p.what, "try", p.tries, "error", err}
	if !p.envelope.IsZero() {
		attributes = append(attributes, "envelope", p.envelope)
	}
	if r != nil {
		attributes = append(attributes, "relay", r.address)
	}
	// The first failures are news, the later ones less and less.
	level := slog.LevelDebug
	if p.tries&(p.tries-1) == 0 {
		level = slog.LevelWarn
	}
	p.client.logger.Log(ctx, level, "failed, trying again", attributes...)

	if refusal, ok := envelope.AsRefusal(err); ok && ofCaller(refusal) {
		// Another relay would say the same.
		wait := max(refusal.RetryAfter, p.client.config.timing.backoff(p.tries))
		if p.limit > 0 && time.Since(p.since)+wait > p.limit {
			return fmt.Errorf("%s: %w", p.what, err)
		}
		if err := sleep(ctx, wait); err != nil {
			return p.over(fmt.Errorf("%s: %w", p.what, err))
		}
		return nil
	}
	if r != nil {
		p.client.mesh.failed(r, err)
	}
	return nil
}

// over adds to the error of work that has ended what a relay answered before.
func (p *patience) over(err error) error {
	if p.refused == nil {
		return err
	}
	return fmt.Errorf("%w; a relay that answered: %w", err, p.refused)
}

// ofCaller reports whether a temporary refusal is about the caller rather than
// about the relay.
func ofCaller(r *envelope.Refusal) bool {
	return r.Has(exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED) || r.Has(exchangev1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED)
}

// call makes one call that carries no content, at the nearest relay, until it
// succeeds, is refused, or patience ends.
func (c *Client) call(ctx context.Context, what string, id envelope.ID, fn func(context.Context, *relay) error) error {
	p := c.patience(what, id, c.config.Patience)
	for {
		r, err := p.nearest(ctx)
		if err == nil {
			attempt, cancel := context.WithTimeout(ctx, c.config.timing.call)
			err = fn(attempt, r)
			cancel()
			if err == nil {
				c.mesh.worked(r)
				return nil
			}
		}
		if err := p.failed(ctx, r, err); err != nil {
			return err
		}
	}
}

// asRefusal gives what a relay answered its type, once, at the edge.
func asRefusal(err error) error {
	if r, ok := envelope.AsRefusal(err); ok {
		return r
	}
	return err
}

// backoff is the wait after the n-th failure in a row, half of it by chance so
// that thousands of connectors do not come back in step.
func (t timing) backoff(n int) time.Duration {
	d := t.firstBackoff << min(max(n-1, 0), 20)
	if d > t.maxBackoff || d <= 0 {
		d = t.maxBackoff
	}
	return d/2 + rand.N(d/2+1)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 && ctx.Err() == nil {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ended(ctx)
	case <-timer.C:
		return nil
	}
}

// ended is the error of an ended context, with its cause.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != ctx.Err() {
		return fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	return ctx.Err()
}
