package routing

import (
	"cmp"
	"time"
)

// CopyHolder chooses the relay that keeps a second copy of an envelope: the
// standby of a recipient, where it can be used, because it delivers should the
// home be lost; else the usable relay with the shortest round trip. usable
// reports whether a relay is reached directly and takes envelopes; not names
// relays that are no choice. False: there is none.
func (v View) CopyHolder(self RelayID, recipients []AgencyCode, not map[RelayID]bool, usable func(RelayID) (time.Duration, bool)) (RelayID, bool) {
	// A circular has thousands of recipients; a few tell enough.
	for _, code := range recipients[:min(len(recipients), 8)] {
		agency, ok := v.Agency(code)
		if !ok {
			continue
		}
		standby := RelayID(agency.GetStandbyRelayId())
		if standby == "" || standby == self || not[standby] {
			continue
		}
		if _, ok := usable(standby); ok {
			return standby, true
		}
	}
	var best RelayID
	var shortest time.Duration
	for _, r := range v.Relays() {
		id := RelayID(r.GetId())
		if id == self || not[id] || !isActive(r) {
			continue
		}
		trip, ok := usable(id)
		if ok && (best == "" || cmp.Or(cmp.Compare(trip, shortest), cmp.Compare(id, best)) < 0) {
			best, shortest = id, trip
		}
	}
	return best, best != ""
}
