package forward

import (
	"errors"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	relayv1 "github.com/truclienthong/truc/proto/truc/relay/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/routing"
)

// Longest trace context of an offer (peer.proto); a longer one is dropped.
const (
	maxTraceParent = 64
	maxTraceState  = 512
)

// errKnown is returned for an offer whose recipients are all in custody here
// already, or were until their deliveries ended.
var errKnown = errors.New("every recipient is in custody here already")

// examined is an offer that may be taken.
type examined struct {
	custody *envelope.Custody
	refused []*relayv1.RecipientRefused
	// report: it is for this relay itself and goes to the ledger.
	report bool
	// speaks: it says something of a document.
	speaks bool
}

// examine checks an offer before anything of it is taken. Errors are refusals,
// except errKnown.
func (f *Forwarder) examine(peer routing.RelayID, offer *relayv1.Offer) (*examined, error) {
	id, err := envelope.IDFromBytes(offer.GetEnvelopeId())
	if err != nil {
		return nil, envelope.Refuse(invalidField, "offer.envelope_id: %v", err)
	}
	header, err := envelope.ParseCanonical(offer.GetHeader())
	if err != nil {
		return nil, envelope.Refuse(invalidField, "offer.header: %v", err)
	}
	if err := checkHeader(header, offer.GetPurpose()); err != nil {
		return nil, err
	}
	destination, visited, err := parseWay(offer, peer)
	if err != nil {
		return nil, err
	}
	agencies, err := parseAgencies(offer)
	if err != nil {
		return nil, err
	}
	kept, err := parseKept(offer, agencies)
	if err != nil {
		return nil, err
	}
	a := envelope.Acceptance{
		Ingress:     routing.RelayID(offer.GetIngressRelayId()),
		AcceptedAt:  offer.GetAcceptedAt().AsTime(),
		TraceParent: offer.GetTraceparent(),
		TraceState:  offer.GetTracestate(),
		Visited:     visited,
		Report:      offer.GetPurpose() == relayv1.Purpose_PURPOSE_REPORT,
	}
	if len(a.TraceParent) > maxTraceParent || len(a.TraceState) > maxTraceState {
		a.TraceParent, a.TraceState = "", ""
	}
	if offer.ExpiresAt != nil {
		a.ExpiresAt = offer.GetExpiresAt().AsTime()
	}
	if sender, ok := f.Directory.View().Agency(routing.AgencyCode(header.GetSender().GetCode())); ok {
		a.Sender = routing.AgencyCode(sender.GetCode())
	}
	x := &examined{speaks: lifecycle.Speaks(header)}
	if x.custody, err = envelope.NewCustody(header, offer.GetHeader(), a); err != nil {
		return nil, envelope.Refuse(invalidField, "offer.header: %v", err)
	}
	if x.custody.ID != id {
		return nil, envelope.Refuse(invalidField, "offer.envelope_id: the header gives %s", x.custody.ID)
	}
	for _, at := range []time.Time{x.custody.AcceptedAt, x.custody.NotBefore, x.custody.ExpiresAt} {
		if !at.IsZero() && !envelope.Keepable(at) {
			return nil, envelope.Refuse(invalidField, "offer: a time in the year %d, which relays cannot keep", at.Year())
		}
	}
	if !f.Clock().Before(x.custody.ExpiresAt) {
		return nil, envelope.Refuse(expired, "lifetime ended at %s", x.custody.ExpiresAt.Format(time.RFC3339))
	}
	if err := checkContent(offer, x.custody.Parts); err != nil {
		return nil, err
	}
	x.custody.Kept = kept
	return x, f.assign(x, offer.GetPurpose(), destination, agencies)
}

// checkHeader refuses what no relay may let pass, whoever accepted it: a mark of
// secrecy, also one that this release does not know, and what only relays state
// about deliveries where it would come into an inbox.
func checkHeader(header *exchangev1.Header, purpose relayv1.Purpose) error {
	switch header.GetSecrecy() {
	case exchangev1.Secrecy_SECRECY_UNSPECIFIED, exchangev1.Secrecy_SECRECY_NONE:
	default:
		return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET, "offer.header: marked as a state secret; secrets never enter")
	}
	if header.GetStatus().GetTransport() != 0 && purpose != relayv1.Purpose_PURPOSE_REPORT {
		return envelope.Refuse(invalidField, "offer.header: a relay's report is for a relay, not for recipients")
	}
	return nil
}

// parseWay reads the relays of an offer. The caller is the last that had it.
func parseWay(offer *relayv1.Offer, peer routing.RelayID) (destination routing.RelayID, visited []routing.RelayID, err error) {
	if destination, err = routing.ParseRelayID(offer.GetDestinationRelayId()); err != nil {
		return "", nil, envelope.Refuse(invalidField, "offer.destination_relay_id: %v", err)
	}
	if _, err = routing.ParseRelayID(offer.GetIngressRelayId()); err != nil {
		return "", nil, envelope.Refuse(invalidField, "offer.ingress_relay_id: %v", err)
	}
	if !offer.GetAcceptedAt().IsValid() {
		return "", nil, envelope.Refuse(invalidField, "offer.accepted_at: no valid time")
	}
	for _, s := range offer.GetVisitedRelayIds() {
		relay, err := routing.ParseRelayID(s)
		if err != nil {
			return "", nil, envelope.Refuse(invalidField, "offer.visited_relay_ids: %v", err)
		}
		visited = append(visited, relay)
	}
	return destination, withRelay(visited, peer), nil
}

func parseAgencies(offer *relayv1.Offer) ([]routing.AgencyCode, error) {
	seen := make(map[routing.AgencyCode]bool, len(offer.GetAgencyCodes()))
	agencies := make([]routing.AgencyCode, 0, len(offer.GetAgencyCodes()))
	for _, s := range offer.GetAgencyCodes() {
		code, err := routing.ParseAgencyCode(s)
		if err != nil {
			return nil, envelope.Refuse(invalidField, "offer.agency_codes: %v", err)
		}
		if !seen[code] {
			seen[code] = true
			agencies = append(agencies, code)
		}
	}
	switch offer.GetPurpose() {
	// MOVE is taken as DELIVER, and this release sends DELIVER for both: the new
	// home does the same whether the envelope was in an inbox before or not.
	case relayv1.Purpose_PURPOSE_DELIVER, relayv1.Purpose_PURPOSE_MOVE, relayv1.Purpose_PURPOSE_COPY:
		if len(agencies) == 0 {
			return nil, envelope.Refuse(invalidField, "offer.agency_codes: an envelope to deliver, or to keep, has recipients")
		}
	case relayv1.Purpose_PURPOSE_REPORT:
		if len(agencies) > 0 {
			return nil, envelope.Refuse(invalidField, "offer.agency_codes: a report has no recipients")
		}
	default:
		return nil, envelope.Refuse(invalidField, "offer.purpose: %d is not known here", offer.GetPurpose())
	}
	return agencies, nil
}

// parseKept reads for whom a copy is to be kept beside what is to be delivered.
func parseKept(offer *relayv1.Offer, delivered []routing.AgencyCode) ([]routing.AgencyCode, error) {
	switch offer.GetPurpose() {
	case relayv1.Purpose_PURPOSE_DELIVER, relayv1.Purpose_PURPOSE_MOVE:
	default:
		return nil, nil
	}
	seen := make(map[routing.AgencyCode]bool, len(delivered)+len(offer.GetKeptAgencyCodes()))
	for _, code := range delivered {
		seen[code] = true
	}
	var kept []routing.AgencyCode
	for _, s := range offer.GetKeptAgencyCodes() {
		code, err := routing.ParseAgencyCode(s)
		if err != nil {
			return nil, envelope.Refuse(invalidField, "offer.kept_agency_codes: %v", err)
		}
		if !seen[code] {
			seen[code] = true
			kept = append(kept, code)
		}
	}
	return kept, nil
}

// checkContent compares content that rides inside with the sizes that the
// header declares; hashes are the spool's business.
func checkContent(offer *relayv1.Offer, parts []envelope.PartSum) error {
	if !offer.GetHasContent() {
		return nil
	}
	if len(offer.GetContent()) != len(parts) {
		return envelope.Refuse(invalidField, "offer.content: %d parts, the header has %d", len(offer.GetContent()), len(parts))
	}
	for i, data := range offer.GetContent() {
		if uint64(len(data)) != parts[i].Size {
			return envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH,
				"offer.content[%d]: %d bytes, the header says %d", i, len(data), parts[i].Size)
		}
	}
	return nil
}

// assign gives the custody its duties: inboxes here, or the way onward.
func (f *Forwarder) assign(x *examined, purpose relayv1.Purpose, destination routing.RelayID, agencies []routing.AgencyCode) error {
	c := x.custody
	if destination != f.Self {
		if purpose == relayv1.Purpose_PURPOSE_COPY {
			return envelope.Refuse(invalidField, "offer.destination_relay_id: a copy is kept by the relay that is called")
		}
		c.Onward = []envelope.Onward{{Relay: destination, Agencies: agencies}}
		return f.checkTransit(destination, c.Visited)
	}
	switch purpose {
	case relayv1.Purpose_PURPOSE_REPORT:
		x.report = true
		if err := envelope.CheckReport(c); err != nil {
			return envelope.Refuse(invalidField, "offer.header: %v", err)
		}
		return nil
	case relayv1.Purpose_PURPOSE_COPY:
		// Wherever their homes are: it is the ingress that looked them up, and
		// they are looked up again should the ingress be lost.
		c.Kept = agencies
		return nil
	}
	return f.assignInboxes(x, agencies)
}

// checkTransit refuses what would go in a circle or nowhere. A destination may
// have had the envelope before, because recipients move away and back; one that
// only passes it on may not.
func (f *Forwarder) checkTransit(destination routing.RelayID, visited []routing.RelayID) error {
	for _, relay := range visited {
		if relay == f.Self {
			return envelope.Refuse(loop, "it was at %s before, on its way to %s", f.Self, destination)
		}
	}
	if len(visited) > maxVisited {
		return envelope.Refuse(loop, "it was at %d relays before, on its way to %s", len(visited), destination)
	}
	if r, ok := f.Directory.View().Relay(destination); !ok || !serves(r) {
		return envelope.Refuse(noRoute, "%s is not a relay of the mesh", destination)
	}
	if _, _, ok := f.hop(destination, visited); !ok {
		return envelope.Refuse(noRoute, "%s cannot be reached from %s", destination, f.Self)
	}
	return nil
}

// assignInboxes takes those recipients whose home this relay is, and names the
// others, except those known before.
func (f *Forwarder) assignInboxes(x *examined, agencies []routing.AgencyCode) error {
	view := f.Directory.View()
	for _, code := range agencies {
		agency, ok := view.Agency(code)
		switch {
		case !ok || routing.RelayID(agency.GetHomeRelayId()) != f.Self:
			x.refuse(code, notHome)
		case agency.GetSuspended():
			x.refuse(code, exchangev1.ErrorReason_ERROR_REASON_SUSPENDED_RECIPIENT)
		case f.Room(code) != nil:
			// Its inbox stops itself, and nobody else's.
			x.refuse(code, exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED)
		default:
			x.custody.Inboxes = append(x.custody.Inboxes, code)
		}
	}
	if len(x.refused) == 0 {
		return nil
	}
	before := f.knownBefore(x)
	switch {
	case len(x.custody.Inboxes) > 0, before && len(x.custody.Kept) > 0:
		return nil
	case before:
		return errKnown
	}
	reason := x.refused[0].GetReason()
	for _, r := range x.refused {
		if r.GetReason() == notHome {
			reason = notHome // the peer looks all of them up again
		}
	}
	return envelope.Refuse(reason, "%s takes it for none of %d recipients", f.Self, len(agencies))
}

// knownBefore takes out of the refused those whose delivery waits or ended here:
// they count as taken, the answer was lost on the way back. One that was only
// passed on from here does not: agencies move away and back, and custody would
// end with nobody. Nor does one that is kept here without custody, or was given
// up here and is wanted again with a later end of its lifetime.
func (f *Forwarder) knownBefore(x *examined) (some bool) {
	record, err := f.Holdings.Record(x.custody.ID)
	if err != nil {
		return false
	}
	known := make(map[string]envelope.Delivery, len(record.Deliveries))
	for _, d := range record.Deliveries {
		known[string(d.Agency)] = d
	}
	revived := x.custody.ExpiresAt.After(record.ExpiresAt)
	refused := x.refused
	x.refused = nil
	for _, r := range refused {
		switch d := known[r.GetAgencyCode()]; d.Place {
		case envelope.InInbox, envelope.InQueue:
			some = true
			continue
		case envelope.Settled:
			if d.Transport != exchangev1.TransportStatus_TRANSPORT_STATUS_FAIL || !revived {
				some = true
				continue
			}
		case envelope.Elsewhere:
			r.Reason = notHome // whatever this relay thinks of the recipient
		}
		x.refused = append(x.refused, r)
	}
	return some
}

func (x *examined) refuse(code routing.AgencyCode, reason exchangev1.ErrorReason) {
	x.refused = append(x.refused, &relayv1.RecipientRefused{AgencyCode: string(code), Reason: reason})
}
