package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

const (
	expired          = exchangev1.ErrorReason_ERROR_REASON_EXPIRED
	invalidField     = exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	loop             = exchangev1.ErrorReason_ERROR_REASON_LOOP
	noRoute          = exchangev1.ErrorReason_ERROR_REASON_NO_ROUTE
	notFound         = exchangev1.ErrorReason_ERROR_REASON_NOT_FOUND
	notHome          = exchangev1.ErrorReason_ERROR_REASON_NOT_HOME
	notServing       = exchangev1.ErrorReason_ERROR_REASON_NOT_SERVING
	unknownRecipient = exchangev1.ErrorReason_ERROR_REASON_UNKNOWN_RECIPIENT
)

// unknownAfter is how many tries a recipient gets that neither side knows: long
// enough for a directory that is behind to catch up.
const unknownAfter = 8

// maxNote is the most characters of a note (peer.proto, OfferRefused.message).
const maxNote = 1000

// accepted records that the next hop took custody, at least for some.
func (f *Forwarder) accepted(ctx context.Context, a *attempt, m *relayv1.OfferAccepted) (gone bool) {
	a.answered()
	now := f.Clock()
	refused := make(map[routing.AgencyCode]exchangev1.ErrorReason)
	for _, r := range m.GetRefused() {
		if code := routing.AgencyCode(r.GetAgencyCode()); slices.Contains(a.agencies, code) {
			refused[code] = r.GetReason()
		}
	}
	taken := make([]routing.AgencyCode, 0, len(a.agencies))
	for _, code := range a.agencies {
		if _, no := refused[code]; !no {
			taken = append(taken, code)
		}
	}
	if len(taken) > 0 || len(a.agencies) == 0 {
		err := f.Facts.HandOn(ctx, envelope.HandedOn{
			ID: a.entry.ID, Destination: a.destination.relay, Peer: a.outlet.peer, Agencies: taken,
			// It keeps nothing for those whom it refused, and they wait here.
			Keeps:    a.keeps && len(refused) == 0,
			Released: m.GetReleased(), At: now,
		})
		if err != nil {
			return f.peerFailed(ctx, a, fmt.Errorf("record hand-on: %w", err), 0)
		}
	}
	f.telemetry.accepted(ctx, a, m.GetRepeat(), now)
	if m.GetRepeat() && a.record.FromSender {
		f.OnRepeat()
	}
	f.Logger.DebugContext(ctx, "handed on", "envelope", a.entry.ID.String(), "trace", traceID(ctx), "peer", a.outlet.peer,
		"destination", a.destination.relay, "recipients", len(taken), "refused", len(refused), "repeat", m.GetRepeat())
	if len(refused) == 0 {
		return true
	}
	return f.notTaken(ctx, a, refused, 0, "")
}

// refused acts on an offer of which nothing was taken. Some reasons are about
// the peer or the way, and stop the destination; the others stop the envelope
// alone.
func (f *Forwarder) refused(ctx context.Context, a *attempt, m *relayv1.OfferRefused) (gone bool) {
	reason := m.GetReason()
	f.telemetry.refused(ctx, a, reason)
	refusal := envelope.Refuse(reason, "%s refused: %s: %s", a.outlet.peer, reasonName(reason), clip(m.GetMessage()))
	switch reason {
	case notServing, noRoute,
		exchangev1.ErrorReason_ERROR_REASON_DISK_FULL,
		exchangev1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED,
		exchangev1.ErrorReason_ERROR_REASON_STORAGE_FAILED:
		return f.peerFailed(ctx, a, refusal, m.GetRetryAfter().AsDuration())
	}
	a.answered()
	temporary := m.GetTemporary() || reason == exchangev1.ErrorReason_ERROR_REASON_UNSPECIFIED || reason == loop
	switch {
	case reason == notHome && len(a.agencies) > 0:
		all := make(map[routing.AgencyCode]exchangev1.ErrorReason, len(a.agencies))
		for _, code := range a.agencies {
			all[code] = notHome
		}
		return f.notTaken(ctx, a, all, m.GetRetryAfter().AsDuration(), refusal.Message)
	case temporary:
		// A circle is not the envelope's fault: the link tables will change.
		return f.postpone(ctx, a, m.GetRetryAfter().AsDuration(), refusal)
	}
	return f.giveUp(ctx, a, a.agencies, reason, refusal.Message)
}

// notTaken acts on recipients that the peer did not take, each by its reason:
// rerouted, failed, or kept for another try.
func (f *Forwarder) notTaken(ctx context.Context, a *attempt, refused map[routing.AgencyCode]exchangev1.ErrorReason, wait time.Duration, note string) (gone bool) {
	view := f.Directory.View()
	var look, keep []routing.AgencyCode
	failed := make(map[exchangev1.ErrorReason][]routing.AgencyCode)
	for _, code := range a.agencies {
		reason, ok := refused[code]
		switch {
		case !ok:
		case reason == notHome:
			if _, known := view.Agency(code); !known && a.entry.Tries >= unknownAfter {
				failed[unknownRecipient] = append(failed[unknownRecipient], code)
			} else {
				look = append(look, code)
			}
		case envelope.Temporary(&envelope.Refusal{Reason: reason}):
			keep = append(keep, code)
		default:
			failed[reason] = append(failed[reason], code)
		}
	}
	stay, err := f.rehome(ctx, a.destination.relay, a.entry.ID, look)
	if err != nil {
		return f.peerFailed(ctx, a, err, 0)
	}
	keep = append(keep, stay...)
	for reason, codes := range failed {
		why := cmp.Or(note, fmt.Sprintf("refused by %s: %s", a.outlet.peer, reasonName(reason)))
		if !f.settle(ctx, a, codes, reason, why) {
			return false
		}
	}
	if len(keep) == 0 {
		return true
	}
	return f.postpone(ctx, a, wait, envelope.Refuse(refused[keep[0]], "%s does not take %d of %d recipients yet: %s",
		a.outlet.peer, len(keep), len(a.agencies), reasonName(refused[keep[0]])))
}

// giveUp ends the duty for good, with a report to the ingress relay for each
// recipient. DOCUMENT_ID_REUSED is one of the reasons: of two documents that
// their sender gave one id, at two ingresses, the second to come ends here.
func (f *Forwarder) giveUp(ctx context.Context, a *attempt, agencies []routing.AgencyCode, reason exchangev1.ErrorReason, note string) (gone bool) {
	if len(agencies) == 0 {
		if err := f.giveUpBare(ctx, a.destination.relay, a.entry.ID, note); err != nil {
			return f.peerFailed(ctx, a, err, 0)
		}
		return true
	}
	return f.settle(ctx, a, agencies, reason, note)
}

func (f *Forwarder) settle(ctx context.Context, a *attempt, agencies []routing.AgencyCode, reason exchangev1.ErrorReason, note string) bool {
	settlements := make([]envelope.Settlement, len(agencies))
	for i, code := range agencies {
		s := envelope.Settlement{
			ID: a.entry.ID, Agency: code,
			Transport: exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL,
			Reason:    reason, Note: clip(note), At: f.Clock(),
		}
		var err error
		if s.Report, err = envelope.ReportFor(a.record, f.Self, s); err != nil {
			return f.peerFailed(ctx, a, err, 0)
		}
		settlements[i] = s
	}
	if _, err := f.Facts.Settle(ctx, settlements); err != nil {
		return f.peerFailed(ctx, a, fmt.Errorf("settle: %w", err), 0)
	}
	f.Logger.WarnContext(ctx, "given up", "envelope", a.entry.ID.String(), "trace", traceID(ctx),
		"destination", a.destination.relay, "recipients", len(agencies), "reason", reasonName(reason))
	return true
}

// postpone keeps one envelope for a later try; others go on.
func (f *Forwarder) postpone(ctx context.Context, a *attempt, atLeast time.Duration, cause error) (gone bool) {
	tries := a.entry.Tries + 1
	wait := max(f.jitter.after(tries), min(atLeast, f.BackoffCap))
	f.telemetry.retried(ctx, a, "envelope")
	f.Logger.WarnContext(ctx, "envelope is tried again later", "envelope", a.entry.ID.String(), "trace", traceID(ctx),
		"peer", a.outlet.peer, "destination", a.destination.relay, "tries", tries, "wait", wait, "error", cause)
	err := f.Facts.Defer(ctx, a.entry.ID, a.destination.relay, tries, f.Clock().Add(wait), clip(cause.Error()))
	if err != nil && ctx.Err() == nil {
		return f.peerFailed(ctx, a, fmt.Errorf("defer: %w", err), 0)
	}
	return false
}

// peerFailed keeps the whole destination for a later try: the peer, the way to
// it, or this relay's own store failed, whatever the envelope.
func (f *Forwarder) peerFailed(ctx context.Context, a *attempt, cause error, atLeast time.Duration) (gone bool) {
	if ctx.Err() != nil {
		a.unused()
		return false
	}
	if refusal, ok := envelope.AsRefusal(cause); ok {
		atLeast = max(atLeast, refusal.RetryAfter)
	}
	failures, counted := a.destination.breaker.failed(a.pass, f.Clock(), atLeast)
	if counted {
		f.telemetry.retried(ctx, a, "destination")
		level := f.Logger.WarnContext
		if failures > 1 {
			level = f.Logger.DebugContext
		}
		level(ctx, "destination is tried again later", "envelope", a.entry.ID.String(), "peer", a.outlet.peer,
			"destination", a.destination.relay, "failures", failures, "error", cause)
	}
	return false
}

// deliverHere ends duties whose destination is this relay itself: a report is
// applied; recipients were put into their inboxes by rehome, and those that
// stay are unknown to the directory.
func (f *Forwarder) deliverHere(ctx context.Context, a *attempt) (gone bool) {
	if len(a.agencies) > 0 {
		return f.postpone(ctx, a, 0, errors.New("recipients are not in the directory"))
	}
	if a.record.Report {
		if err := f.Reports.Apply(ctx, &a.record.Custody); err != nil && envelope.Temporary(err) {
			return f.postpone(ctx, a, 0, fmt.Errorf("apply report: %w", err))
		} else if err != nil {
			return f.giveUp(ctx, a, nil, invalidField, err.Error())
		}
	}
	err := f.Facts.HandOn(ctx, envelope.HandedOn{ID: a.entry.ID, Destination: f.Self, Peer: f.Self, At: f.Clock()})
	if err != nil {
		return f.postpone(ctx, a, 0, fmt.Errorf("record hand-on: %w", err))
	}
	return true
}

// clip bounds a text for people.
func clip(s string) string {
	if r := []rune(s); len(r) > maxNote {
		return string(r[:maxNote])
	}
	return s
}
