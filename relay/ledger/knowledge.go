package ledger

import (
	"cmp"
	"maps"
	"slices"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

// knowledge is what several relays together know of one envelope. Each is
// believed about itself; what one says in the place of another is not.
type knowledge struct {
	self routing.RelayID
	view routing.View
	// id is the one asked for; zero where it was asked by document.
	id envelope.ID
	// header is nil until a relay sent one that gives the id.
	header  *exchangev1.Header
	sender  routing.AgencyCode
	ingress routing.RelayID
	// receipt is that of the ingress relay where it answered, else of any.
	receipt    *exchangev1.Receipt
	deliveries map[string]*exchangev1.Delivery
	// lives are what all of them have heard, told that the ingress answered.
	lives   map[string]*lifecycle.Life
	told    bool
	events  []*exchangev1.TraceEvent
	holders []string
	silent  []string
	// lost are relays that will never answer, where somebody looks for them.
	lost []string
}

// known reports whether any relay knows the envelope.
func (k *knowledge) known() bool { return k.header != nil }

// add takes one relay's answer. An answer whose header does not give the id
// that was asked for is of another envelope and is not believed.
func (k *knowledge) add(relay routing.RelayID, answer *relayv1.InquireResponse) {
	if answer.GetReceipt() == nil {
		return
	}
	header, err := envelope.ParseCanonical(answer.GetHeader())
	if err != nil {
		k.silent = append(k.silent, string(relay))
		return
	}
	id := envelope.ComputeID(header.GetSender().GetCode(), header.GetDocumentId(), answer.GetHeader())
	if k.id.IsZero() {
		k.id = id
	}
	if id != k.id {
		k.silent = append(k.silent, string(relay))
		return
	}
	ingress := routing.RelayID(answer.GetIngressRelayId())
	if k.receipt == nil || relay == ingress {
		k.receipt, k.ingress = answer.GetReceipt(), ingress
	}
	k.header = header
	k.told = k.told || relay == ingress
	if relay == k.self {
		k.sender = routing.AgencyCode(answer.GetSenderCode())
	} else if k.sender == "" {
		// The header is proven by the id; who may see the envelope hangs on it.
		k.sender = routing.AgencyCode(header.GetSender().GetCode())
		if agency, ok := k.view.Agency(k.sender); ok {
			k.sender = routing.AgencyCode(agency.GetCode())
		}
	}
	for _, event := range answer.GetEvents() {
		event.RelayId = string(relay)
		k.events = append(k.events, event)
	}
	if answer.GetHoldsContent() {
		k.holders = append(k.holders, string(relay))
	}
	for _, delivery := range answer.GetDeliveries() {
		k.hear(delivery)
		if delivery.GetTransport() == exchangev1.TransportStatus_TRANSPORT_STATUS_DONE && !k.knowsDone(relay, delivery.GetAgencyCode()) {
			continue
		}
		if k.deliveries == nil {
			k.deliveries = make(map[string]*exchangev1.Delivery)
		}
		k.deliveries[delivery.GetAgencyCode()] = better(k.deliveries[delivery.GetAgencyCode()], delivery)
	}
	for code, d := range k.deliveries {
		live(d, k.lives[code])
	}
}

// hear adds what was said at a recipient.
func (k *knowledge) hear(d *exchangev1.Delivery) {
	for _, s := range d.GetStatements() {
		h, ok := heardOf(s)
		if !ok {
			continue
		}
		if k.lives == nil {
			k.lives = make(map[string]*lifecycle.Life)
		}
		if k.lives[d.GetAgencyCode()] == nil {
			k.lives[d.GetAgencyCode()] = new(lifecycle.Life)
		}
		k.lives[d.GetAgencyCode()].Hear(h)
	}
}

// knowsDone reports whether the relay is one that learns of a confirmation: the
// home of the agency, or the ingress by its report.
func (k *knowledge) knowsDone(relay routing.RelayID, agency string) bool {
	if relay == k.self || relay == k.ingress {
		return true
	}
	entry, ok := k.view.Agency(routing.AgencyCode(agency))
	return ok && entry.GetHomeRelayId() == string(relay)
}

// better chooses between what two relays say of one delivery: settled over
// pending, nearer to the recipient over further, then the newer.
func better(a, b *exchangev1.Delivery) *exchangev1.Delivery {
	if a == nil {
		return b
	}
	if order := cmp.Or(
		cmp.Compare(certainty(a.GetTransport()), certainty(b.GetTransport())),
		a.GetUpdatedAt().AsTime().Compare(b.GetUpdatedAt().AsTime()),
	); order < 0 {
		return b
	}
	return a
}

// certainty ranks transport statuses; done is final, whatever others still
// believe.
func certainty(t exchangev1.TransportStatus) int {
	switch t {
	case exchangev1.TransportStatus_TRANSPORT_STATUS_DONE:
		return 4
	case exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL:
		return 3
	case exchangev1.TransportStatus_TRANSPORT_STATUS_PROCESSING:
		return 2
	case exchangev1.TransportStatus_TRANSPORT_STATUS_INITIAL:
		return 1
	}
	return 0
}

// byCode lists the deliveries in order of agency code.
func (k *knowledge) byCode() []*exchangev1.Delivery {
	var list []*exchangev1.Delivery
	for _, code := range slices.Sorted(maps.Keys(k.deliveries)) {
		list = append(list, k.deliveries[code])
	}
	return list
}

// byTime lists the events in order of time; clocks of relays differ, so what
// one relay says stays in its order.
func (k *knowledge) byTime() []*exchangev1.TraceEvent {
	slices.SortStableFunc(k.events, func(a, b *exchangev1.TraceEvent) int {
		return a.GetAt().AsTime().Compare(b.GetAt().AsTime())
	})
	return k.events
}

func (k *knowledge) silentRelays() []string {
	slices.Sort(k.silent)
	return slices.Compact(k.silent)
}
