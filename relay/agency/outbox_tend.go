package agency

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// tenders is how many documents are tended at once.
const tenders = 4

// Run tends what stays behind until the context ends: soon after a document
// stayed, then less and less often, at least once a minute.
func (o *Outbox) Run(ctx context.Context) error {
	wait := time.Duration(0)
	next := time.Now()
	failing := false
	for {
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-o.left:
			// A second copy is made in a moment as a rule.
			timer.Stop()
			wait = o.config.passes.first
			if soon := time.Now().Add(wait); soon.Before(next) {
				next = soon
			}
			continue
		case <-timer.C:
		}
		err := o.Tend(ctx)
		if err != nil && ctx.Err() == nil {
			level := slog.LevelWarn
			if failing {
				level = slog.LevelDebug // no news
			}
			o.logger.Log(ctx, level, "outbox: documents stay behind", "error", err)
		}
		failing = err != nil
		wait = min(max(2*wait, o.config.passes.first), o.config.passes.most)
		next = time.Now().Add(wait/2 + rand.N(wait/2+1))
	}
}

// Tend looks once at each document that waits, those longest not looked at
// first: what two relays have, or what has ended, is removed; what no relay that
// can be asked has, is handed over again. It ends early when no relay answers.
// The error joins what failed; nil does not mean that nothing waits any more.
func (o *Outbox) Tend(ctx context.Context) error {
	waiting, err := o.List()
	if err != nil {
		return err
	}
	slices.SortStableFunc(waiting, func(a, b Waiting) int { return a.LastTry.Compare(b.LastTry) })
	keys := make(chan string)
	var mu sync.Mutex
	var failures []error
	stop := make(chan struct{})
	var stopping sync.Once
	var workers sync.WaitGroup
	for range min(tenders, len(waiting)) {
		workers.Go(func() {
			for key := range keys {
				_, err := o.tend(ctx, key)
				if err == nil {
					continue
				}
				mu.Lock()
				failures = append(failures, err)
				mu.Unlock()
				// The next one would wait as long, for the same relays.
				if call := (*callError)(nil); errors.As(err, &call) && envelope.Temporary(err) {
					stopping.Do(func() { close(stop) })
				}
			}
		})
	}
feed:
	for _, w := range waiting {
		select {
		case keys <- w.key:
		case <-stop:
			break feed
		case <-ctx.Done():
			break feed
		}
	}
	close(keys)
	workers.Wait()
	if ctx.Err() != nil {
		return ended(ctx)
	}
	return errors.Join(failures...)
}

// Await tends one document until it need not be kept any more, or the context
// ends. It returns what is known of it then; waits tells whether it is still in
// the outbox.
func (o *Outbox) Await(ctx context.Context, id envelope.ID) (w Waiting, waits bool, err error) {
	all, err := o.List()
	if err != nil {
		return Waiting{}, false, err
	}
	i := slices.IndexFunc(all, func(w Waiting) bool { return w.ID == id })
	if i < 0 {
		return Waiting{}, false, nil
	}
	w = all[i]
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		e, err := o.tend(ctx, w.key)
		if e != nil {
			w = e.waiting()
		}
		if _, gone := os.Lstat(filepath.Join(o.config.Dir, w.key)); errors.Is(gone, fs.ErrNotExist) {
			return w, false, err
		}
		if sleep(ctx, pause) != nil {
			return w, true, err
		}
	}
}

// tend looks at one document. It returns what is known of it afterwards; nil
// where it is gone, another works on it, or it is none of this agency's.
func (o *Outbox) tend(ctx context.Context, key string) (*entry, error) {
	release, _ := o.claims.try(key)
	if release == nil {
		return nil, nil
	}
	defer release()
	e, err := o.open(key)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errLocked) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	defer e.lock.unlock()
	if err := e.load(); err != nil {
		return nil, o.spoilt(e, err)
	}
	if !e.own() {
		return nil, nil
	}
	if to, ok := e.setAsideBefore(); ok {
		return nil, o.moveAside(e, to)
	}
	if e.state.Relay != "" {
		known, err := o.look(ctx, e)
		if known || err != nil {
			return e, err
		}
	}
	if _, err := o.handOver(ctx, e, func(Progress) {}); err != nil {
		if !envelope.Temporary(err) {
			_, err = o.refused(ctx, e, err)
		}
		return e, &callError{e.header.GetDocumentId(), err}
	}
	return e, nil
}

// callError is what a relay, or its silence, made of a look at a document.
type callError struct {
	document string
	err      error
}

func (e *callError) Error() string { return fmt.Sprintf("document %s: %v", e.document, e.err) }
func (e *callError) Unwrap() error { return e.err }

// look asks what became of a document that a relay gave a receipt for. Known is
// false where it has to be handed over again: that relay is silent or lost, and
// perhaps the envelope with it.
func (o *Outbox) look(ctx context.Context, e *entry) (known bool, err error) {
	e.begin()
	answer, err := o.client.track(ctx, e.id, &exchangev1.TrackRequest{
		AgencyCode: o.client.config.Agency, Envelope: &exchangev1.TrackRequest_EnvelopeId{EnvelopeId: e.id[:]},
	})
	if refusal, ok := envelope.AsRefusal(err); ok && refusal.Has(exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND) {
		return false, nil
	}
	if err != nil {
		e.failed(ctx, err)
		return false, &callError{e.header.GetDocumentId(), err}
	}
	receipt := answer.GetReceipt()
	// Any other relay knows only of the recipients that it had to do with: that
	// these have the document says nothing of the rest.
	if receipt.GetRelayId() != e.state.Relay || slices.Contains(answer.GetSilentRelayIds(), e.state.Relay) {
		return false, nil
	}
	if receipt.GetCopies() == 0 && !settled(answer) {
		return false, nil // the only one is damaged: another relay takes it from here
	}
	if receipt.GetCopies() >= enough || settled(answer) {
		e.state.Copies = receipt.GetCopies()
		return true, o.safe(ctx, e)
	}
	e.state.Copies, e.state.LastError = receipt.GetCopies(), ""
	e.note()
	return true, nil
}

// enough is on how many relays an envelope is safe without the agency's copy.
const enough = 2

// settled reports whether every delivery ended.
func settled(answer *exchangev1.TrackResponse) bool {
	deliveries := answer.GetDeliveries()
	for _, d := range deliveries {
		switch d.GetTransport() {
		case exchangev1.TransportStatus_TRANSPORT_STATUS_DONE, exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL:
		default:
			return false
		}
	}
	return len(deliveries) > 0 && len(deliveries) == int(answer.GetReceipt().GetRecipients())
}

// handOver submits what is in the entry, and then keeps it or not by what the
// relay says.
func (o *Outbox) handOver(ctx context.Context, e *entry, progress func(Progress)) (*Receipt, error) {
	e.begin()
	receipt, err := e.submission(progress).submit(ctx)
	if err != nil {
		e.failed(ctx, err)
		return nil, err
	}
	e.state.Relay, e.state.AcceptedAt, e.state.Copies, e.state.LastError = receipt.Relay, receipt.AcceptedAt, receipt.Copies, ""
	if receipt.Copies >= enough {
		if err := o.safe(ctx, e); err != nil {
			// The document is safe. The next look removes the copy.
			o.logger.WarnContext(ctx, "outbox: copy not removed", "envelope", e.id, "error", err)
		}
		return receipt, nil
	}
	e.note()
	o.stays()
	return receipt, nil
}

// safe ends the custody of the agency.
func (o *Outbox) safe(ctx context.Context, e *entry) error {
	if err := e.remove(); err != nil {
		return err
	}
	o.logger.DebugContext(ctx, "outbox: kept no longer", "envelope", e.id, "copies", e.state.Copies)
	return nil
}

func (e *entry) begin() {
	e.state.Tries++
	e.state.LastTry = time.Now()
}

// failed notes a failure; the end of the context is none.
func (e *entry) failed(ctx context.Context, err error) {
	if ctx.Err() == nil {
		e.state.LastError = err.Error()
	}
	e.note()
}

// refused decides what becomes of a document that was refused for good after it
// had been taken: damaged here, refused for what it says, or refused for who
// says it. The last is not the document's fault, so it stays. The cause is err,
// or the damage.
func (o *Outbox) refused(ctx context.Context, e *entry, err error) (stays bool, cause error) {
	if damage := e.verify(ctx); damage != nil {
		if ctx.Err() != nil {
			return true, err
		}
		return false, o.spoilt(e, damage)
	}
	refusal, ok := envelope.AsRefusal(err)
	if !ok || !slices.ContainsFunc(finally, refusal.Has) && !isInVain(refusal, e.header) {
		o.logger.WarnContext(ctx, "outbox: refused, stays", "envelope", e.id, "error", err)
		return true, err
	}
	why := reason{Reason: reasonName(refusal.Reason), Message: refusal.Message}
	for _, p := range refusal.Problems {
		why.Fields = append(why.Fields, faultyField{p.Field, reasonName(p.Reason), p.Description})
	}
	if aside := o.setAside(e, failedDir, why); aside != nil {
		o.logger.ErrorContext(ctx, "outbox: refused, and could not be set aside", "envelope", e.id, "error", aside)
		return true, err
	}
	o.logger.ErrorContext(ctx, "outbox: refused, set aside", "envelope", e.id, "dir", e.path, "reason", why.Reason)
	return false, err
}

// isInVain reports whether a document is refused for what it says of another one:
// the life of that one does not allow it; or, by a recipient, nobody knows it any
// more. A sender may speak of a document that waits here too.
func isInVain(refusal *envelope.Refusal, h *exchangev1.Header) bool {
	return slices.ContainsFunc(refusal.Problems, func(p envelope.Problem) bool {
		return p.Reason == exchangev1.ErrorReason_ERROR_REASON_WRONG_STATE ||
			p.Reason == exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND && h.GetKind() == exchangev1.Kind_KIND_STATUS
	})
}

// finally are the refusals that are about the document itself. All others pass,
// or end once an operator has put something right.
var finally = []exchangev1.ErrorReason{
	exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD,
	exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT,
	exchangev1.ErrorReason_ERROR_REASON_SUSPENDED_RECIPIENT,
	exchangev1.ErrorReason_ERROR_REASON_NO_RECIPIENT,
	exchangev1.ErrorReason_ERROR_REASON_TOO_MANY_RECIPIENTS,
	exchangev1.ErrorReason_ERROR_REASON_SENDER_NOT_CALLER,
	exchangev1.ErrorReason_ERROR_REASON_FORBIDDEN_BY_RULE,
	exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET,
	exchangev1.ErrorReason_ERROR_REASON_TOO_LARGE,
	exchangev1.ErrorReason_ERROR_REASON_DOCUMENT_ID_REUSED,
	exchangev1.ErrorReason_ERROR_REASON_EXPIRED,
}

// spoilt sets a damaged entry aside, and returns why; another failure to read
// it only that.
func (o *Outbox) spoilt(e *entry, err error) error {
	damage := (*damageError)(nil)
	if !errors.As(err, &damage) {
		return fmt.Errorf("outbox, %s: %w", e.path, err)
	}
	if aside := o.setAside(e, damagedDir, damage.reason()); aside != nil {
		return errors.Join(damage, aside)
	}
	o.logger.Error("outbox: copy is damaged, set aside", "dir", e.path, "problem", damage.problem)
	return fmt.Errorf("outbox, now %s: %w", e.path, damage)
}
