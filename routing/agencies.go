package routing

import (
	"slices"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

func (t *tx) applyPutAgency(c *directoryv1.PutAgency) error {
	a := c.GetAgency()
	if a == nil {
		return refuse(invalidField, "agency is missing")
	}
	var p problems
	if p.agency(a); p.found() {
		return p.err()
	}
	before := t.lookup(a.GetCode())
	switch {
	case before == nil && c.GetIfVersion() != 0:
		return refuse(notFound, "agency %s is not in the directory, so it has no version %d", a.GetCode(), c.GetIfVersion())
	case before != nil && c.GetCreateOnly():
		return refuse(conflict, "agency %s is in the directory already", a.GetCode())
	case before != nil && c.GetIfVersion() != 0 && before.GetVersion() != c.GetIfVersion():
		return refuse(conflict, "agency %s has version %d, not %d: read it again and repeat the change",
			a.GetCode(), before.GetVersion(), c.GetIfVersion())
	}
	t.placeAgency(&p, before, a, func(string) bool { return false })
	return p.err()
}

// placeAgency checks a, valid by itself, against the directory, completes it,
// and stores it if all is well and anything is other than before; changed says so.
// claimed reports names that are asked for
// elsewhere in the same command; an old form is not derived onto those.
func (t *tx) placeAgency(p *problems, before *entry, a *directoryv1.Agency, claimed func(name string) bool) (changed bool) {
	if before != nil && before.GetCode() != a.GetCode() {
		p.add(conflict, "code %s is an alias of agency %s", a.GetCode(), before.GetCode())
		return false
	}
	t.checkParent(p, before, a)
	for _, alias := range a.GetAliases() {
		if other := t.lookup(alias); other != nil && other.GetCode() != a.GetCode() {
			p.add(conflict, "alias %s belongs to agency %s", alias, other.GetCode())
		}
	}
	t.checkKeys(p, holder{"agency", a.GetCode()}, a.GetKeyHashes())
	t.checkAssigned(p, "home", a.GetHomeRelayId(), before.message().GetHomeRelayId())
	t.checkAssigned(p, "standby", a.GetStandbyRelayId(), before.message().GetStandbyRelayId())
	if p.found() {
		return false
	}
	if a.HomeRelayId == "" {
		// A home holds an inbox: a change that says nothing of it leaves it.
		if a.HomeRelayId = before.message().GetHomeRelayId(); before == nil {
			a.HomeRelayId = string(t.chooseHome(a.GetParentCode()))
		}
	}
	switch {
	case a.GetHomeRelayId() == "":
		p.add(conflict, "no relay is active that could be home of %s: register one first", a.GetCode())
		return false
	case a.GetStandbyRelayId() == a.GetHomeRelayId():
		p.add(conflict, "standby of %s is its home %s", a.GetCode(), a.GetHomeRelayId())
		return false
	case a.GetStandbyRelayId() == "":
		a.StandbyRelayId = string(t.keepStandby(before, RelayID(a.GetHomeRelayId())))
	}
	t.addOldForm(a, claimed)
	if before != nil && same(before.Agency, a) {
		return false
	}
	t.storeAgency(before, a)
	return true
}

// same compares agencies but for the version of their last change.
func same(before, a *directoryv1.Agency) bool {
	a.Version = before.GetVersion()
	return proto.Equal(before, a)
}

// checkParent finds the superior, replaces an alias by its code, and refuses a
// circle.
func (t *tx) checkParent(p *problems, before *entry, a *directoryv1.Agency) {
	if a.GetParentCode() == "" {
		return
	}
	parent := t.lookup(a.GetParentCode())
	if a.GetParentCode() == a.GetCode() || parent != nil && parent.GetCode() == a.GetCode() {
		p.add(conflict, "parent_code: agency %s cannot be its own superior", a.GetCode())
		return
	}
	if parent == nil {
		p.add(notFound, "parent_code: agency %s is not in the directory", a.GetParentCode())
		return
	}
	a.ParentCode = parent.GetCode()
	if before == nil {
		return // nothing is below an agency that is new
	}
	for e := parent; e != nil; e = t.lookup(e.GetParentCode()) {
		if e.GetCode() == a.GetCode() {
			p.add(conflict, "parent_code: agency %s is itself below %s", parent.GetCode(), a.GetCode())
			return
		}
	}
}

func (t *tx) checkKeys(p *problems, h holder, hashes [][]byte) {
	for i, k := range hashes {
		if other := t.holder([32]byte(k)); other != nil && *other != h {
			p.add(conflict, "key_hashes[%d] is bound to %s %s", i, other.kind, other.name)
		}
	}
}

// checkAssigned checks a home or standby that a command names: active, unless
// it is what the agency has already.
func (t *tx) checkAssigned(p *problems, role, id, before string) {
	if id == "" || id == before {
		return
	}
	if _, ok := t.relay(id); !ok {
		p.add(notFound, "%s relay %s is not in the directory", role, id)
	} else if !t.isActive(id) {
		p.add(conflict, "%s relay %s is not active", role, id)
	}
}

// keepStandby returns the standby the agency had, where it still can be, or
// chooses one.
func (t *tx) keepStandby(before *entry, home RelayID) RelayID {
	if id := before.message().GetStandbyRelayId(); id != "" && RelayID(id) != home {
		if r, ok := t.relay(id); ok && inService(r) {
			return RelayID(id)
		}
	}
	return t.chooseStandby(home)
}

// addOldForm puts the older form of the code first among the aliases, where it
// is defined and nobody else's.
func (t *tx) addOldForm(a *directoryv1.Agency, claimed func(name string) bool) {
	old, ok := OldForm(AgencyCode(a.GetCode()))
	if !ok {
		return
	}
	if i := slices.Index(a.GetAliases(), string(old)); i >= 0 {
		a.Aliases = slices.Insert(slices.Delete(a.GetAliases(), i, i+1), 0, string(old))
		return
	}
	other := t.lookup(string(old))
	if claimed(string(old)) || other != nil && other.GetCode() != a.GetCode() || len(a.GetAliases()) == maxAliases {
		return
	}
	a.Aliases = slices.Insert(a.GetAliases(), 0, string(old))
}

// known finds the agency a command names, by code or alias.
func (t *tx) known(name string) (*entry, error) {
	code, err := ParseAgencyCode(name)
	if err != nil {
		return nil, refuse(invalidField, "agency_code: %v", err)
	}
	e := t.lookup(string(code))
	if e == nil {
		return nil, refuse(notFound, "agency %s is not in the directory", code)
	}
	return e, nil
}

func (t *tx) applyMoveAgency(c *directoryv1.MoveAgency) error {
	before, err := t.known(c.GetAgencyCode())
	if err != nil {
		return err
	}
	var p problems
	p.relayID("home_relay_id", c.GetHomeRelayId(), false)
	p.relayID("standby_relay_id", c.GetStandbyRelayId(), true)
	if p.found() {
		return p.err()
	}
	t.checkAssigned(&p, "home", c.GetHomeRelayId(), before.GetHomeRelayId())
	t.checkAssigned(&p, "standby", c.GetStandbyRelayId(), before.GetStandbyRelayId())
	if c.GetHomeRelayId() == c.GetStandbyRelayId() {
		p.add(conflict, "standby of %s would be its home %s", before.GetCode(), c.GetHomeRelayId())
	}
	if p.found() {
		return p.err()
	}
	a := proto.CloneOf(before.Agency)
	a.HomeRelayId, a.StandbyRelayId = c.GetHomeRelayId(), c.GetStandbyRelayId()
	old := before.GetHomeRelayId()
	switch {
	case a.GetStandbyRelayId() != "":
	case old != a.GetHomeRelayId() && t.isActive(old):
		a.StandbyRelayId = old
	default:
		a.StandbyRelayId = string(t.keepStandby(before, RelayID(a.GetHomeRelayId())))
	}
	t.storeAgency(before, a)
	return nil
}

func (t *tx) applySuspendAgency(c *directoryv1.SuspendAgency) error {
	before, err := t.known(c.GetAgencyCode())
	if err != nil {
		return err
	}
	a := proto.CloneOf(before.Agency)
	a.Suspended = c.GetSuspended()
	t.storeAgency(before, a)
	return nil
}

// applyRemoveAgency also takes the agency out of the gateways and groups that
// name it: should its code be given to another body later, as mergers do, no
// gateway speaks for that one by accident. Rules name what an operator wrote
// and stay.
func (t *tx) applyRemoveAgency(c *directoryv1.RemoveAgency) error {
	e, err := t.known(c.GetAgencyCode())
	if err != nil {
		return err
	}
	for below := range where(t.rows, byParent, e.GetCode()) {
		return refuse(conflict, "agencies are below %s, %s for one: remove or move those first", e.GetCode(), below.GetCode())
	}
	for _, g := range sortedValues(t.base.gateways) {
		if i, found := slices.BinarySearch(g.GetAgencyCodes(), e.GetCode()); found {
			g = proto.CloneOf(g)
			g.AgencyCodes = slices.Delete(g.GetAgencyCodes(), i, i+1)
			g.Version = t.version
			t.insert(gatewayTable, g)
		}
	}
	for _, g := range sortedValues(t.base.groups) {
		if i, found := slices.BinarySearch(g.GetAgencyCodes(), e.GetCode()); found {
			g = proto.CloneOf(g)
			g.AgencyCodes = slices.Delete(g.GetAgencyCodes(), i, i+1)
			g.Version = t.version
			t.insert(groupTable, g)
		}
	}
	t.forget(e)
	t.stale[e.GetCode()] = true
	t.remove(agencyTable, e)
	return nil
}
