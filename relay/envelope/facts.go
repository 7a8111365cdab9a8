package envelope

import (
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/routing"
)

// HandedOn is the fact that a duty to hand on moved to the next hop, which made
// the envelope durable.
type HandedOn struct {
	ID ID
	// Destination names the duty, Peer the next hop that took it.
	Destination, Peer routing.RelayID
	// Agencies are the recipients of the duty that were taken; the duty ends
	// when none is left.
	Agencies []routing.AgencyCode
	At       time.Time
}

// Settlement ends one delivery: confirmed, or given up with a reason.
type Settlement struct {
	ID     ID
	Agency routing.AgencyCode
	// Transport is DONE or FAIL.
	Transport exchangev1.TransportStatus
	// Reason and Note say why, with FAIL.
	Reason exchangev1.ErrorReason
	Note   string
	At     time.Time
	// Report tells the ingress relay; custody of it is taken in the same step.
	// Nil where this relay is the ingress.
	Report *Custody
}

// Reroute moves recipients of one duty to others, because their home moved.
type Reroute struct {
	ID ID
	// From names the duty they leave: a destination relay, or this relay for
	// its own inboxes.
	From     routing.RelayID
	Agencies []routing.AgencyCode
	// Onward and Inboxes are the duties they get instead.
	Onward  []Onward
	Inboxes []routing.AgencyCode
	At      time.Time
}
