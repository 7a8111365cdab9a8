package envelope

import (
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

// Lane is a priority class of queues; its number is that of a Priority.
type Lane uint8

// LaneOrder lists the lanes from the most urgent to the ordinary one. An
// envelope hẹn giờ waits for its hour and then ranks with hỏa tốc.
var LaneOrder = [...]Lane{3, 4, 2, 1, 0}

// LaneOf returns the lane of a header: its priority, but for a status at least
// khẩn, because a status carries no priority in the standard and must not wait
// behind documents.
func LaneOf(h *exchangev1.Header) Lane {
	lane := Lane(h.GetPriority())
	if h.GetKind() == exchangev1.Kind_KIND_STATUS {
		lane = max(lane, Lane(exchangev1.Priority_PRIORITY_KHAN))
	}
	return lane
}

// Urgent reports whether the lane travels in the urgent stream of a peer.
func (l Lane) Urgent() bool { return l > 0 }

// Onward is the duty to hand an envelope on to one destination relay.
type Onward struct {
	// Relay has to have it in the end; the next hop may be another.
	Relay routing.RelayID
	// Agencies are the recipients there; empty for a report to the relay itself,
	// and for the duty to have a second copy made there.
	Agencies []routing.AgencyCode
}

// Place is where one delivery stands at a relay. The numbers are those of
// truc.relay.v1.Place.
type Place uint8

// Places.
const (
	// Unknown: this relay has nothing to do with the delivery.
	Unknown Place = iota
	// InInbox: it waits here for the recipient.
	InInbox
	// InQueue: it waits here to be handed on.
	InQueue
	// Elsewhere: it was handed on; another relay has custody.
	Elsewhere
	// Settled: it ended.
	Settled
	// Kept: this relay keeps the content in case the ingress is lost, and has no
	// custody.
	Kept
)

// Custody is what a relay takes on when it accepts an envelope: everything the
// spool makes durable in one step, apart from the bytes of the parts.
type Custody struct {
	ID ID
	// Header holds the canonical bytes.
	Header []byte
	// Sender and DocumentID are the dedupe key: the sender's resolved code and
	// the sender's id of the document.
	Sender     routing.AgencyCode
	DocumentID string
	Lane       Lane
	// Parts gives size and hash of each part, in order of the header.
	Parts []PartSum
	// Ingress is the relay that first accepted it, AcceptedAt when it did.
	Ingress    routing.RelayID
	AcceptedAt time.Time
	// NotBefore holds delivery back (hỏa tốc hẹn giờ); zero: deliver at once.
	NotBefore time.Time
	// ExpiresAt is when the mesh gives it up.
	ExpiresAt time.Time
	// TraceParent and TraceState are the W3C trace context.
	TraceParent, TraceState string
	// Visited lists the relays that had custody before this one, oldest first.
	Visited []routing.RelayID
	// FromSender is set at ingress: this relay then remembers the envelope, and
	// what becomes of each recipient, until all have confirmed.
	FromSender bool
	// Report is set for a relay's own statement about a delivery
	// (Purpose REPORT), consumed by the ledger of its destination.
	Report bool

	// Inboxes are recipients whose home is this relay.
	Inboxes []routing.AgencyCode
	// Onward are the duties to hand it on, one per destination relay.
	Onward []Onward
	// Kept are recipients for whom this relay keeps a copy (Purpose COPY).
	Kept []routing.AgencyCode
}

// PartSum is what the header declares about the bytes of a part.
type PartSum struct {
	Size   uint64
	SHA256 [32]byte
}

// Size returns the bytes of all parts together.
func (c *Custody) Size() uint64 {
	var n uint64
	for _, p := range c.Parts {
		n += p.Size
	}
	return n
}

// Record is what a relay's spool knows of one envelope.
type Record struct {
	Custody
	// CommittedAt is when this relay made it durable.
	CommittedAt time.Time
	// Deliveries holds the state of every recipient this relay has to do with:
	// at ingress all of them, elsewhere those in Inboxes and Onward.
	Deliveries []Delivery
	// Copies is on how many relays the envelope is known to be durable: this one
	// and Holders; 1 while a delivery depends on this relay alone, whoever else
	// has the envelope for other recipients.
	Copies uint32
	// Holders are the other relays known to have made it durable, Keepers those
	// of them that keep it for everybody who waited here.
	Holders, Keepers []routing.RelayID
	// Held is set while an operator holds it.
	Held bool
	// ContentReleased is set once retention let the bytes go.
	ContentReleased bool
	// Damaged: bytes of the content are damaged on this relay's disk and not
	// mended yet. Its copy is none.
	Damaged bool
}

// Delivery is what became of one recipient's copy, as one relay knows it.
type Delivery struct {
	Agency routing.AgencyCode
	Place  Place
	// Home is the relay that delivers, as far as this one knows.
	Home      routing.RelayID
	Transport exchangev1.TransportStatus
	Reason    exchangev1.ErrorReason
	Note      string
	UpdatedAt time.Time
	// Life is what was said of the document at this recipient, as its ingress
	// knows it; nil: nothing.
	Life *lifecycle.Life
}

// TakenBack reports whether the document was taken back before it was fetched.
func (d *Delivery) TakenBack() bool {
	return d.Place == Settled && d.Reason == exchangev1.ErrorReason_ERROR_REASON_RECALLED &&
		d.Transport == exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL
}

// State is where the document stands at the recipient. What was taken back
// before it was fetched is recalled, whatever was said.
func (d *Delivery) State() lifecycle.State {
	s := d.Life.State()
	if d.TakenBack() {
		s.Phase, s.Asked = lifecycle.Recalled, lifecycle.Nothing
	}
	return s
}

// Receipt states what this relay holds of the record.
func (r *Record) Receipt(relay routing.RelayID) *exchangev1.Receipt {
	return receiptOf(relay, r)
}

// Event is one line of an envelope's trace at one relay.
type Event struct {
	At     time.Time
	Action exchangev1.TraceAction
	Peer   routing.RelayID
	Agency routing.AgencyCode
	Note   string
}

// QueueEntry is one envelope waiting to be handed on to one destination.
type QueueEntry struct {
	ID       ID
	Sequence uint64
	Lane     Lane
	Onward   Onward
	Size     uint64
	// QueuedAt is when the duty arose.
	QueuedAt time.Time
	// Tries counts failed tries; NextTry is when to try again, zero: now.
	Tries     uint32
	NextTry   time.Time
	LastError string
	Held      bool
}

// InboxEntry is one envelope waiting for one recipient to confirm it.
type InboxEntry struct {
	ID        ID
	Agency    routing.AgencyCode
	Sequence  uint64
	Lane      Lane
	ArrivedAt time.Time
	NotBefore time.Time
	Size      uint64
	Held      bool
}

// SoleEntry is an envelope accepted here that no other relay is known to have.
type SoleEntry struct {
	ID ID
	// Sequence is its place in the list.
	Sequence uint64
	// Since is when it was accepted.
	Since time.Time
	Size  uint64
}

// Due is an instant at which something becomes due about an envelope; also a
// place in a list ordered so. The zero Due is the beginning.
type Due struct {
	At time.Time
	ID ID
}

// Position is a place in a queue or an inbox: after this entry of this lane.
// The zero Position is the beginning.
type Position struct {
	Lane     Lane
	Sequence uint64
}
