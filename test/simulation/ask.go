package simulation

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/envelope"
)

// Senders who take documents back, change them and replace them, while they are
// on their way, while they are fetched, and after. A recall parts the recipients
// in two, and whoever is asked has to say the same: those who have the document
// and were asked, and those from whom it was withdrawn.

// asks reports whether senders do so. What becomes of it is not known where a disk
// is lost with what it alone knew.
func (w *world) asks() bool { return w.speaks() && !w.plan.lossy && w.seed%32 == 17 }

// ask has the sender of a document ask for it back, or for a change, once it has
// been told that the document is accepted; now and then twice.
func (w *world) ask(l *letter) {
	r := rand.New(rand.NewPCG(w.seed, streamAsks+uint64(l.number)<<8))
	types := []exchangev1.BusinessType{
		exchangev1.BusinessType_BUSINESS_TYPE_REVOKE, exchangev1.BusinessType_BUSINESS_TYPE_REVOKE,
		exchangev1.BusinessType_BUSINESS_TYPE_UPDATE, exchangev1.BusinessType_BUSINESS_TYPE_REPLACE,
		exchangev1.BusinessType_BUSINESS_TYPE_NEW, // it asks for nothing
	}
	for i := range 1 + r.IntN(2) {
		kind := pick(r, types)
		pause := pick(r, []time.Duration{0, 100 * time.Millisecond, time.Second, 5 * time.Second})
		if kind == exchangev1.BusinessType_BUSINESS_TYPE_NEW || !w.sleep(pause) {
			return
		}
		track := w.trackUntilKnown(l)
		if track == nil {
			return
		}
		h := agency.RecallOf(track, "gửi nhầm", time.Now())
		h.DocumentId = fmt.Sprintf("%s again %d", l.plan.id, i+1)
		b := h.GetBusiness()
		switch b.Type = kind; kind {
		case exchangev1.BusinessType_BUSINESS_TYPE_UPDATE:
			b.UpdatesContent = true
		case exchangev1.BusinessType_BUSINESS_TYPE_REPLACE:
			b.TargetDocumentId, b.Replaces = "", []*exchangev1.Replaced{{DocumentId: l.plan.id}}
		}
		s := &word{
			by: l.sender, owner: l.sender, about: l.ID(), header: h, takesBack: kind == exchangev1.BusinessType_BUSINESS_TYPE_REVOKE,
			mayFail: func() bool { return i > 0 || l.wasReturned() },
		}
		for _, to := range h.GetRecipients() {
			s.to = append(s.to, to.GetAgency().GetCode())
		}
		if s.at = s.to; len(s.to) == 0 {
			return // it has come to an end everywhere
		}
		if i > 0 {
			l.mu.Lock()
			l.askedTwice = true
			l.mu.Unlock()
		}
		w.utter(s)
	}
}

func (w *world) trackUntilKnown(l *letter) *exchangev1.TrackResponse {
	for w.ctx.Err() == nil {
		track, err := w.track(l)
		if err == nil {
			return track
		}
		w.say("desk %s: track of %s: %v", l.sender.plan.code, l.plan.id, err)
		w.sleep(time.Second)
	}
	return nil
}

// answer has a recipient agree to what a document asks of an earlier one that is
// in its books, or not.
func (w *world) answer(d, owner *desk, header *exchangev1.Header) {
	l := w.letterOf(header)
	d.mu.Lock()
	has := d.books[l.ID()] && !d.gaveBack[l.ID()]
	d.mu.Unlock()
	if !has || header.GetBusiness().GetType() == exchangev1.BusinessType_BUSINESS_TYPE_REPLACE || d.roll(20) {
		return
	}
	code := "15"
	if d.roll(40) {
		code = "16"
	}
	// It speaks of the document by what the sender calls it.
	h := agency.StatusOf(&exchangev1.TrackResponse{Header: l.document.Header}, code, "đã xử lý", time.Now())
	h.DocumentId = fmt.Sprintf("answer %s to %s of %s at %s", code, header.GetDocumentId(), owner.plan.code, d.plan.code)
	w.utter(&word{
		by: d, owner: owner, about: l.ID(), at: []string{d.plan.code}, code: code, header: h, to: []string{owner.plan.code},
		mayFail: func() bool {
			l.mu.Lock()
			twice := l.askedTwice
			l.mu.Unlock()
			return twice || l.wasReturned() || w.isTakenBack(l, d)
		},
	})
}

func (w *world) isTakenBack(l *letter, d *desk) bool {
	track := w.trackUntilKnown(l)
	for _, x := range track.GetDeliveries() {
		if x.GetAgencyCode() == d.plan.code {
			return takenBack(x)
		}
	}
	return false
}

func takenBack(d *exchangev1.Delivery) bool {
	return d.GetTransport() == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL &&
		d.GetReason() == exchangev1.ErrorReason_ERROR_REASON_RECALLED
}

// letterOf is the document that a header is of, or about.
func (w *world) letterOf(h *exchangev1.Header) *letter {
	id := h.GetDocumentId()
	switch b := h.GetBusiness(); b.GetType() {
	case exchangev1.BusinessType_BUSINESS_TYPE_REVOKE, exchangev1.BusinessType_BUSINESS_TYPE_UPDATE:
		id = b.GetTargetDocumentId()
	case exchangev1.BusinessType_BUSINESS_TYPE_REPLACE:
		id = b.GetReplaces()[0].GetDocumentId()
	}
	for _, l := range w.letters {
		if l.plan.id == id {
			return l
		}
	}
	return nil
}

func (l *letter) ID() envelope.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

func (l *letter) wasReturned() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.returned
}

// recalled tells from whom a document may have been withdrawn, and by what.
func (w *world) recalled(l *letter) map[string][]*word {
	at := map[string][]*word{}
	all, _ := w.said()
	for _, s := range all {
		if s.takesBack && s.about == l.ID() {
			for _, a := range s.at {
				at[a] = append(at[a], s)
			}
		}
	}
	return at
}

// withdrawn excuses what its sender took back in time: the recipient need neither
// have it nor hear of it. It holds what a track tells against the recipients'
// books: whoever has confirmed a document keeps it until it is asked, and whoever
// is told that it was taken back destroys it.
func (w *world) withdrawn() error {
	for _, l := range w.letters {
		at := w.recalled(l)
		if len(at) == 0 {
			continue
		}
		track, err := w.track(l)
		if err != nil {
			return err
		}
		for _, x := range track.GetDeliveries() {
			if recalls := at[x.GetAgencyCode()]; len(recalls) > 0 {
				if err := w.agree(l, recalls, x, w.deskOf(x.GetAgencyCode())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (w *world) agree(l *letter, recalls []*word, x *exchangev1.Delivery, d *desk) error {
	w.mu.Lock()
	clean := w.clean
	w.mu.Unlock()
	d.mu.Lock()
	confirmed, has, gaveBack := !d.confirmed[l.id].IsZero(), d.books[l.id], d.gaveBack[l.id]
	d.mu.Unlock()
	switch {
	case !takenBack(x) && clean:
		if gaveBack {
			return fmt.Errorf("%s was told that %s is taken back, and its sender that it is %s", d.plan.code, l.id, x.GetTransport())
		}
		return nil
	case !takenBack(x):
		// Where the agency has moved, one relay may have had its confirmation, and
		// another have taken back what it had too, and what asked for it: the sender
		// sees so, and may ask again.
		return w.excuseEnded(l, recalls, d)
	case confirmed:
		return fmt.Errorf("%s has confirmed %s, and its sender is told that it was taken back before", d.plan.code, l.id)
	case has && !gaveBack:
		// The software was killed before it could confirm: what good software asks
		// when it begins anew.
		client, ctx := d.software()
		recalled := (*agency.RecalledError)(nil)
		if err := client.Confirm(ctx, l.id); !errors.As(err, &recalled) {
			return fmt.Errorf("%s confirms %s, which was taken back: %v", d.plan.code, l.id, err)
		}
		d.destroy(l.id)
	}
	w.history.Excuse(l.sender.plan.code, l.plan.id, d.plan.code, "taken back")
	for _, s := range recalls {
		w.history.Excuse(l.sender.plan.code, s.document(), d.plan.code, "never had what is taken back")
	}
	return nil
}

// excuseEnded excuses recalls that were taken back with the document at a home that
// the recipient has left.
func (w *world) excuseEnded(l *letter, recalls []*word, d *desk) error {
	client, ctx := l.sender.software()
	for _, s := range recalls {
		track, err := client.Track(ctx, s.id)
		if err != nil {
			return err
		}
		for _, x := range track.GetDeliveries() {
			if x.GetAgencyCode() == d.plan.code && takenBack(x) {
				w.history.Excuse(l.sender.plan.code, s.document(), d.plan.code, "taken back where the recipient was")
			}
		}
	}
	return nil
}

// destroy takes out of the books what the sender has taken back.
func (d *desk) destroy(id envelope.ID) {
	d.mu.Lock()
	known := d.gaveBack[id]
	d.gaveBack[id] = true
	d.mu.Unlock()
	if !known {
		d.w.count("document taken back before it was confirmed", d.w.since())
	}
}
