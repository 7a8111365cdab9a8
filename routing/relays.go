package routing

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// applyPutRelay takes name, region and address; state and time of registration
// are the directory's own.
func (t *tx) applyPutRelay(c *directoryv1.PutRelay) error {
	r := c.GetRelay()
	if r == nil {
		return refuse(invalidField, "relay is missing")
	}
	var p problems
	if p.relay(r); p.found() {
		return p.err()
	}
	if before, ok := t.relay(r.GetId()); ok {
		r.State, r.RegisteredAt = before.GetState(), before.GetRegisteredAt()
	} else {
		r.State, r.RegisteredAt = directoryv1.RelayState_RELAY_STATE_ACTIVE, t.at
	}
	t.putRelay(r)
	return nil
}

func (t *tx) knownRelay(id string) (*directoryv1.Relay, error) {
	if _, err := ParseRelayID(id); err != nil {
		return nil, refuse(invalidField, "relay_id: %v", err)
	}
	r, ok := t.relay(id)
	if !ok {
		return nil, refuse(notFound, "relay %s is not in the directory", id)
	}
	return r, nil
}

// applySetRelayState changes what a relay is good for. A relay that drains and
// lets its agencies go keeps those that have it as standby: while it is in
// service it still is one.
func (t *tx) applySetRelayState(c *directoryv1.SetRelayState) (agencies uint32, err error) {
	before, err := t.knownRelay(c.GetRelayId())
	if err != nil {
		return 0, err
	}
	r := proto.CloneOf(before)
	switch c.GetState() {
	case directoryv1.RelayState_RELAY_STATE_UNSPECIFIED, directoryv1.RelayState_RELAY_STATE_ACTIVE:
		r.State = directoryv1.RelayState_RELAY_STATE_ACTIVE
	case directoryv1.RelayState_RELAY_STATE_DRAINING:
		r.State = directoryv1.RelayState_RELAY_STATE_DRAINING
	default:
		return 0, refuse(invalidField, "state: active or draining; a relay is taken out by retiring it")
	}
	draining := r.GetState() == directoryv1.RelayState_RELAY_STATE_DRAINING
	switch {
	case c.GetMoveAgencies() && !draining:
		return 0, refuse(invalidField, "move_agencies: goes with draining only")
	case c.GetMoveAgencies() && !inService(before):
		return 0, refuse(conflict, "relay %s is out already: it has no agencies and drains no more", before.GetId())
	}
	t.putRelay(r)
	if !c.GetMoveAgencies() {
		return 0, nil
	}
	return t.rehome(r.GetId(), (*directoryv1.Agency).GetHomeRelayId)
}

func (t *tx) applyRemoveRelay(c *directoryv1.RemoveRelay) error {
	r, err := t.knownRelay(c.GetRelayId())
	if err != nil {
		return err
	}
	id := RelayID(r.GetId())
	if t.homes[id] > 0 || t.standbys[id] > 0 {
		return refuse(conflict, "relay %s is home of %d agencies and standby of %d: retire it first",
			id, t.homes[id], t.standbys[id])
	}
	t.active = nil
	t.remove(relayTable, r)
	return nil
}

// applyRetireRelay takes the relay out and gives every agency that had it as
// home or standby another one. Superiors are moved first, so that those below
// may follow them.
func (t *tx) applyRetireRelay(c *directoryv1.RetireRelay) (agencies uint32, err error) {
	before, err := t.knownRelay(c.GetRelayId())
	if err != nil {
		return 0, err
	}
	switch {
	case !inService(before):
		return 0, refuse(conflict, "relay %s is out already", before.GetId())
	case !c.GetLost() && isActive(before):
		return 0, refuse(conflict, "relay %s is active: drain it first", before.GetId())
	}
	r := proto.CloneOf(before)
	r.State = directoryv1.RelayState_RELAY_STATE_RETIRED
	if c.GetLost() {
		r.State = directoryv1.RelayState_RELAY_STATE_LOST
	}
	t.putRelay(r)
	return t.rehome(r.GetId(), (*directoryv1.Agency).GetHomeRelayId, (*directoryv1.Agency).GetStandbyRelayId)
}

// rehome gives every agency that has the relay, which is active no more, in one
// of the roles another home, its standby where that can be, and another standby.
func (t *tx) rehome(relay string, roles ...func(*directoryv1.Agency) string) (agencies uint32, err error) {
	affected := t.agenciesOf(relay, roles)
	for _, e := range affected {
		a := proto.CloneOf(e.Agency)
		if a.GetHomeRelayId() == relay {
			a.HomeRelayId = a.GetStandbyRelayId()
			if !t.isActive(a.GetHomeRelayId()) {
				a.HomeRelayId = string(t.chooseHome(a.GetParentCode()))
			}
			if a.GetHomeRelayId() == "" {
				return 0, refuse(conflict, "no other relay is active that could be home of %s: register one first", a.GetCode())
			}
		}
		a.StandbyRelayId = string(t.keepStandby(e, RelayID(a.GetHomeRelayId())))
		t.storeAgency(e, a)
	}
	return uint32(len(affected)), nil
}

// agenciesOf lists the agencies that have the relay in one of the roles,
// superiors first, then by code.
func (t *tx) agenciesOf(relay string, roles []func(*directoryv1.Agency) string) []*entry {
	var found []*entry
	depth := map[string]int{}
	for e := range all[*entry](t.rows, agencyTable) {
		if slices.ContainsFunc(roles, func(role func(*directoryv1.Agency) string) bool { return role(e.Agency) == relay }) {
			found = append(found, e)
			for up := t.lookup(e.GetParentCode()); up != nil; up = t.lookup(up.GetParentCode()) {
				depth[e.GetCode()]++
			}
		}
	}
	slices.SortStableFunc(found, func(a, b *entry) int {
		return cmp.Compare(depth[a.GetCode()], depth[b.GetCode()])
	})
	return found
}
