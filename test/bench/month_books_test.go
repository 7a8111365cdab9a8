package bench

import (
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
)

// count keeps the books of what was written, where it is of the month.
func (w *writer) count(p plan, record *envelope.Record, said bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	document := p.header.GetKind() == exchangev1.Kind_KIND_DOCUMENT
	kind := "status"
	if document {
		if kind = p.header.GetDocument().GetTypeName(); kind == "Thông tư" {
			kind = "other"
		}
		w.sent["document"]++
	} else {
		w.sent["status"]++
	}
	if lifecycle.MonthOf(record.CommittedAt) != w.month {
		return
	}
	w.inMonth++
	of := func(a *agencyOf) []*account {
		var all []*account
		for by, key := range map[string]string{"": "", "agency": string(a.code), "tier": a.tier, "kind": kind} {
			if w.books[by] == nil {
				w.books[by] = map[string]*account{}
			}
			if w.books[by][key] == nil {
				w.books[by][key] = new(account)
			}
			all = append(all, w.books[by][key])
		}
		return all
	}
	for _, a := range of(p.sender) {
		if !document {
			a.statuses++
			continue
		}
		a.sent++
		a.priorities[p.header.GetPriority()]++
		if p.header.SignedAt != nil || p.header.SignatureRaw != nil {
			a.signed++
		}
		if p.header.SignedAt == nil {
			continue
		}
		if record.AcceptedAt.Before(lifecycle.Calendar{}.SendBy(p.header.GetSignedAt().AsTime())) {
			a.onTime++
		} else {
			a.late++
		}
	}
	for i, r := range p.recipients {
		for _, a := range of(p.sender) {
			if document {
				a.deliveries++
				*[]*uint64{&a.pending, &a.delivered, &a.expired, &a.refused, &a.recalled}[p.outcomes[i]]++
			} else {
				a.statusDeliveries++
				*[]*uint64{&a.statusPending, &a.statusDelivered, &a.statusExpired, &a.statusRefused, &a.statusRecalled}[p.outcomes[i]]++
			}
		}
		for _, a := range of(r) {
			received := uint64(0)
			if p.outcomes[i] == envelope.Delivered {
				received = 1
			}
			if !document {
				a.statusAddressed++
				a.statusReceived += received
				continue
			}
			a.addressed++
			a.received += received
			if said && i == 0 {
				a.accepted++
			}
		}
	}
}
