package simulation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/test/history"
	"github.com/truclienthong/truc/tls"
)

const operatorHost = "operator"

// patience is how long a mesh may take, on its own clock, to come to rest once
// everything is mended.
const patience = 20 * time.Minute

// until waits for a condition, which gives what is missing.
func (w *world) until(what string, patience time.Duration, missing func() error) bool {
	last := error(nil)
	for pause, begun := 250*time.Millisecond, time.Now(); time.Since(begun) < patience; pause = min(2*pause, max(time.Second, time.Since(begun)/8)) {
		if last = missing(); last == nil {
			return true
		}
		if !w.sleep(pause) {
			return false
		}
	}
	w.violate("unsettled", "%s: not within %s: %v", what, patience, last)
	return false
}

// mend ends everything that was done to the mesh.
func (w *world) mend() {
	close(w.healed)
	w.faults.Wait()
	w.ledger.leader(true)
	w.net.heal()
	for _, n := range w.nodes {
		n.hold(false)
		if n.runs() && n.wrong() {
			n.stopInOrder()
			n.setClock(0)
			if err := n.start(); err != nil {
				w.violate("stopped", "relay %s does not start: %v", n.id, err)
			}
		}
	}
	w.say("everything is mended")
}

// finish waits until the mesh has done what it promised, and looks at what is
// left on its disks.
func (w *world) finish() {
	sent := make(chan struct{})
	w.running.Go(func() { w.sending.Wait(); close(sent) })
	ok := w.until("everything is handed in", patience, func() error {
		select {
		case <-sent:
			return nil
		default:
			return errors.New("senders wait")
		}
	})
	for _, d := range w.desks {
		ok = ok && w.until("the outbox of "+d.plan.code+" is empty", patience, d.emptied)
	}
	ok = ok && w.until("everything is delivered", patience, func() error {
		if err := w.withdrawn(); err != nil {
			return err
		}
		if lacks, _ := w.history.Missing(); len(lacks) > 0 {
			w.revive(lacks)
			return fmt.Errorf("%d deliveries, the first %v", len(lacks), lacks[0])
		}
		if n := w.unsaid.Load(); n > 0 {
			return fmt.Errorf("%d recipients have something to say", n)
		}
		if lacks, _ := w.history.Missing(); len(lacks) > 0 {
			return fmt.Errorf("%d statements, the first %v", len(lacks), lacks[0])
		}
		for _, d := range w.desks { // what they said since
			if err := d.emptied(); err != nil {
				return err
			}
		}
		return w.withdrawn()
	})
	if ok {
		for _, l := range w.letters {
			w.until("track of "+l.plan.id+" says done", patience, func() error { return w.tracked(l) })
		}
		w.until("everything that was said is kept", patience, w.heard)
		if w.until("the audit balances", patience, w.balanced) {
			w.afterlife()
		}
	}
	w.explain()
	w.recovered()
}

// revive does what an operator does for senders who were told that a delivery
// has expired: nobody else may do so, and nothing else may be the matter.
func (w *world) revive(lacks []history.Lack) {
	w.mu.Lock()
	expires := w.expires
	w.mu.Unlock()
	if !expires {
		return
	}
	for _, lack := range lacks {
		i := slices.IndexFunc(w.letters, func(l *letter) bool { return l.plan.id == lack.Document })
		if track, err := w.track(w.letters[i]); err == nil && expired(track, lack.Recipient) {
			w.say("operator revives %s", lack.ID)
			w.steer(lack.ID, adminv1.SteerOperation_STEER_OPERATION_RETRY)
		}
	}
}

func expired(track *exchangev1.TrackResponse, recipient string) bool {
	return slices.ContainsFunc(track.GetDeliveries(), func(d *exchangev1.Delivery) bool {
		return d.GetAgencyCode() == recipient && d.GetReason() == exchangev1.ErrorReason_ERROR_REASON_EXPIRED
	})
}

// steer has an operator steer an envelope at every relay.
func (w *world) steer(id envelope.ID, operation adminv1.SteerOperation) {
	for _, n := range w.nodes {
		if !n.runs() {
			continue
		}
		custody, err := w.custody(n.id)
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		answer, err := custody.SteerQueue(ctx, &adminv1.SteerQueueRequest{EnvelopeId: id[:], Operation: operation, Reason: "the clock was wrong"})
		cancel()
		w.say("operator steers %s at %s: %d, %v", id, n.id, answer.GetEntries(), err)
	}
}

// emptied says what the outbox still keeps.
func (d *desk) emptied() error {
	outbox, _ := d.current()
	waiting, err := outbox.List()
	if err != nil {
		return err
	}
	if len(waiting) > 0 {
		return fmt.Errorf("%d documents wait, the first %s (%s): %s", len(waiting), waiting[0].ID, waiting[0].DocumentID, waiting[0].LastError)
	}
	aside, err := outbox.SetAside()
	for _, a := range aside {
		d.setAside(a)
	}
	return err
}

// setAside is told what the outbox has given up.
func (d *desk) setAside(a agency.SetAside) {
	d.w.mu.Lock()
	i := slices.IndexFunc(d.w.words, func(s *word) bool { return s.by == d && s.document() == a.DocumentID })
	var s *word
	if i >= 0 {
		s = d.w.words[i]
	}
	known := s != nil && s.refused
	d.w.mu.Unlock()
	switch {
	case s == nil:
		d.w.violate("refused", "the outbox of %s has set aside %v", d.plan.code, a)
	case !known:
		d.w.refusedWord(s, a.Reason == "wrong_state", a.Message)
	}
}

func (w *world) track(l *letter) (*exchangev1.TrackResponse, error) {
	client, ctx := l.sender.software()
	return client.Track(ctx, l.ID())
}

// tracked asks as the sender does.
func (w *world) tracked(l *letter) error {
	track, err := w.track(l)
	w.mu.Lock()
	diskLost, expires := w.diskLost, w.expires
	w.mu.Unlock()
	if diskLost {
		return nil // who could tell of it may be gone; its recipients have it
	}
	if err != nil {
		return err
	}
	if n := len(track.GetDeliveries()); n != len(l.to) {
		return fmt.Errorf("%d deliveries, want %d", n, len(l.to))
	}
	recalled := w.recalled(l)
	for _, d := range track.GetDeliveries() {
		if len(recalled[d.GetAgencyCode()]) > 0 && takenBack(d) {
			continue
		}
		if d.GetTransport() != exchangev1.TransportStatus_TRANSPORT_STATUS_DONE {
			if expires && expired(track, d.GetAgencyCode()) {
				// It is in the books, and expired before that was confirmed.
				w.steer(l.id, adminv1.SteerOperation_STEER_OPERATION_RETRY)
			}
			return fmt.Errorf("delivery to %s is %s %s (%s)", d.GetAgencyCode(), d.GetTransport(), d.GetReason(), d.GetNote())
		}
	}
	return nil
}

// custody is the operator's way to a relay.
func (w *world) custody(id string) (adminv1.CustodyServiceClient, error) {
	if w.operator[id] == nil {
		conn, err := grpc.NewClient("passthrough:///"+addressOf(id), w.net.reach(operatorHost)(tls.ExpectRelay(id))...)
		if err != nil {
			return nil, err
		}
		w.operator[id] = conn
	}
	return adminv1.NewCustodyServiceClient(w.operator[id]), nil
}

// explain writes into the trace what the relays say of envelopes that are missing.
func (w *world) explain() {
	lacks, _ := w.history.Missing()
	for _, l := range lacks[:min(len(lacks), 3)] {
		for _, n := range w.nodes {
			if !n.runs() {
				continue
			}
			custody, err := w.custody(n.id)
			if err != nil {
				continue
			}
			ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
			trace, err := custody.Trace(ctx, &adminv1.TraceRequest{EnvelopeId: l.ID[:]})
			cancel()
			if err != nil {
				w.say("trace of %s at %s: %v", l.ID, n.id, err)
				continue
			}
			for _, d := range trace.GetDeliveries() {
				w.say("%s at %s: delivery to %s at %s is %s", l.ID, n.id, d.GetAgencyCode(), d.GetHomeRelayId(), d.GetTransport())
			}
			for _, e := range trace.GetEvents() {
				w.say("%s at %s: %.3fs %s %s %s %s %s", l.ID, n.id, e.GetAt().AsTime().Sub(w.begun).Seconds(), e.GetRelayId(), e.GetAction(),
					e.GetPeerRelayId(), e.GetAgencyCode(), e.GetNote())
			}
			break
		}
	}
}

// balanced asks one relay for the audit of the mesh.
func (w *world) balanced() error {
	for _, n := range w.nodes {
		if !n.runs() {
			continue
		}
		custody, err := w.custody(n.id)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		audit, err := custody.Audit(ctx, &adminv1.AuditRequest{})
		cancel()
		if err != nil {
			return err
		}
		return w.unbalanced(audit)
	}
	return errors.New("no relay runs")
}

func (w *world) unbalanced(audit *adminv1.AuditResponse) error {
	var wrong []string
	for _, row := range audit.GetRows() {
		if sum := row.GetDelivered() + row.GetPending() + row.GetExpired() + row.GetRefused() + row.GetRecalled(); sum != row.GetAccepted() {
			wrong = append(wrong, fmt.Sprintf("relay %s: %d accepted, %d accounted for", row.GetRelayId(), row.GetAccepted(), sum))
		}
	}
	for _, id := range audit.GetMissingEnvelopeIds() {
		wrong = append(wrong, fmt.Sprintf("envelope %x is missing", id))
	}
	for _, f := range audit.GetFindings() {
		wrong = append(wrong, fmt.Sprintf("relay %s, envelope %x, agency %s: %s", f.GetRelayId(), f.GetEnvelopeId(), f.GetAgencyCode(), f.GetProblem()))
	}
	for _, id := range audit.GetSilentRelayIds() {
		if n := w.node(id); n.runs() {
			wrong = append(wrong, fmt.Sprintf("relay %s is silent", id))
		}
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// end stops everything in good order, and proves the disks.
func (w *world) end() {
	for _, conn := range w.operator {
		conn.Close()
	}
	for _, n := range w.nodes {
		if n.runs() {
			n.stopInOrder()
		}
	}
	w.stop()
	w.running.Wait()
	w.sending.Wait()
	for _, n := range w.nodes {
		if n.isGone() {
			continue
		}
		if err := n.check(); err != nil {
			w.violate("unsound", "spool of relay %s: %v", n.id, err)
		}
	}
}
