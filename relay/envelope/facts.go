package envelope

import (
	"context"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/lifecycle"
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
	// Keeps: the peer keeps its copy for all whose deliveries wait here, too.
	Keeps bool
	// Released: the peer had the envelope before and holds it no more. The duty
	// ends, and the peer is no holder.
	Released bool
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

// Said is the fact that an envelope says something of a document at recipients.
// It is heard once from each envelope, however often it comes.
type Said struct {
	// ID is the document's, Source the envelope's that says it.
	ID, Source ID
	// Agencies are the recipients at whom it is said.
	Agencies []routing.AgencyCode
	lifecycle.Statement
}

// Judgement is what the mesh makes of an envelope that says something of documents.
type Judgement struct {
	// Problems speak against accepting it, Warnings do not.
	Problems []Problem
	Warnings []*exchangev1.Warning
	// Hear has what it says kept, once it is committed: durable on return, and
	// harmless when repeated.
	Hear func(ctx context.Context, record *Record) error
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
	// Elsewhere are recipients who turned out to be in the custody of another
	// relay, which thereby is a holder: nothing has to be handed on to it.
	Elsewhere []Onward
	At        time.Time
}

// Copy is the duty to have a second copy made at a relay, in place of the same
// duty at others.
type Copy struct {
	ID    ID
	Relay routing.RelayID
	// Instead are relays where it need not be made any more.
	Instead []routing.RelayID
	At      time.Time
}

// TakeOver makes this relay remember an envelope in place of its ingress, which
// is lost or retired. Recipients for whom a copy was kept become duties.
type TakeOver struct {
	ID ID
	// Inboxes and Onward are the duties of those for whom a copy was kept.
	Inboxes []routing.AgencyCode
	Onward  []Onward
	At      time.Time
}

// Hold has an envelope stay where it is, or go on.
type Hold struct {
	ID   ID
	Held bool
	// Note says why, for the trace.
	Note string
	At   time.Time
}

// Revive makes duties again of deliveries that were given up.
type Revive struct {
	ID      ID
	Inboxes []routing.AgencyCode
	Onward  []Onward
	// ExpiresAt is the new end of its lifetime, later than the old one.
	ExpiresAt time.Time
	Note      string
	At        time.Time
}
