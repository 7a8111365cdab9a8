package routing

import (
	"maps"
	"slices"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/types/known/timestamppb"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// tx is the change of one version of the directory into the next. Messages
// given to its put methods belong to it.
type tx struct {
	base    *state
	version uint64 // of the state to come
	at      *timestamppb.Timestamp
	rows    *memdb.Txn
	touched map[string]bool // tables written

	names           map[string]*entry // over base.names; nil: gone
	keys            map[[32]byte]*holder
	homes, standbys map[RelayID]uint64
	agencies        uint64
	stale           map[string]bool // over base.stale
	active          []RelayID       // cache of activeRelays
	staged          map[string][]*directoryv1.Agency

	// discard names the staged import to drop if the command is refused.
	discard string
}

func begin(base *state) *tx {
	return &tx{
		base: base, version: base.version + 1, rows: base.db.Txn(true),
		touched: map[string]bool{}, names: map[string]*entry{}, keys: map[[32]byte]*holder{},
		homes: maps.Clone(base.homes), standbys: maps.Clone(base.standbys),
		agencies: base.agencies, staged: base.staged, stale: map[string]bool{},
	}
}

func (t *tx) abort() { t.rows.Abort() }

// commit publishes nothing: it returns the next state.
func (t *tx) commit() *state {
	t.rows.Commit()
	next := *t.base
	next.version = t.version
	next.rows = next.db.Txn(false)
	next.names = t.base.names.with(t.names)
	next.keys = t.base.keys.with(t.keys)
	next.homes, next.standbys, next.agencies = t.homes, t.standbys, t.agencies
	next.staged = t.staged
	next.changed = make(chan struct{})
	t.searchAfter(&next)
	next.derive(func(table string) bool { return t.touched[table] })
	return &next
}

// derive renews what is kept beside the rows of the small tables.
func (s *state) derive(touched func(table string) bool) {
	if touched(relayTable) {
		s.relays = map[RelayID]*directoryv1.Relay{}
		for r := range all[*directoryv1.Relay](s.rows, relayTable) {
			s.relays[RelayID(r.GetId())] = r
		}
	}
	if touched(gatewayTable) {
		s.gateways = map[string]*directoryv1.Gateway{}
		for g := range all[*directoryv1.Gateway](s.rows, gatewayTable) {
			s.gateways[g.GetId()] = g
		}
	}
	if touched(groupTable) {
		s.groups = map[string]*directoryv1.Group{}
		for g := range all[*directoryv1.Group](s.rows, groupTable) {
			s.groups[g.GetName()] = g
		}
	}
	if touched(ruleTable) {
		s.rules = slices.Collect(all[*directoryv1.Rule](s.rows, ruleTable))
	}
}

func (t *tx) insert(table string, row any) {
	t.touched[table] = true
	if err := t.rows.Insert(table, row); err != nil {
		panic(err) // only for a table or row type that the schema does not have
	}
}

func (t *tx) remove(table string, row any) {
	t.touched[table] = true
	if err := t.rows.Delete(table, row); err != nil {
		panic(err) // as insert, or for a row that the caller did not look up
	}
}

// lookup finds an agency by code or alias, as this transaction has it.
func (t *tx) lookup(name string) *entry {
	if e, ok := t.names[name]; ok {
		return e
	}
	return t.base.names.get(name)
}

func (t *tx) holder(hash [32]byte) *holder {
	if h, ok := t.keys[hash]; ok {
		return h
	}
	return t.base.keys.get(hash)
}

// bind gives the key hashes a holder takes in the place of those it had.
func (t *tx) bind(h holder, before, after [][]byte) {
	for _, k := range before {
		t.keys[[32]byte(k)] = nil
	}
	for _, k := range after {
		t.keys[[32]byte(k)] = &h
	}
}

// storeAgency puts a in the place of before, which is nil for a new agency.
func (t *tx) storeAgency(before *entry, a *directoryv1.Agency) {
	a.Version = t.version
	t.forget(before)
	e := newEntry(a)
	t.names[a.GetCode()] = e
	for _, alias := range a.GetAliases() {
		t.names[alias] = e
	}
	t.bind(holder{"agency", a.GetCode()}, nil, a.GetKeyHashes())
	t.homes[RelayID(a.GetHomeRelayId())]++
	if a.GetStandbyRelayId() != "" {
		t.standbys[RelayID(a.GetStandbyRelayId())]++
	}
	t.agencies++
	t.outdated(before, a)
	t.insert(agencyTable, e)
}

// forget takes an agency out of everything that is kept beside the rows.
func (t *tx) forget(e *entry) {
	if e == nil {
		return
	}
	t.names[e.GetCode()] = nil
	for _, alias := range e.GetAliases() {
		t.names[alias] = nil
	}
	t.bind(holder{}, e.GetKeyHashes(), nil)
	less(t.homes, RelayID(e.GetHomeRelayId()))
	if e.GetStandbyRelayId() != "" {
		less(t.standbys, RelayID(e.GetStandbyRelayId()))
	}
	t.agencies--
}

func less(counts map[RelayID]uint64, id RelayID) {
	if counts[id]--; counts[id] == 0 {
		delete(counts, id)
	}
}

func (t *tx) relay(id string) (*directoryv1.Relay, bool) {
	return first[*directoryv1.Relay](t.rows, relayTable, id)
}

func (t *tx) putRelay(r *directoryv1.Relay) {
	r.Version = t.version
	t.active = nil
	t.insert(relayTable, r)
}

func (t *tx) putRule(r *directoryv1.Rule) {
	r.Version = t.version
	t.insert(ruleTable, r)
}

// activeRelays lists the relays that may become home or standby, by id.
func (t *tx) activeRelays() []RelayID {
	if t.active == nil {
		t.active = []RelayID{}
		for r := range all[*directoryv1.Relay](t.rows, relayTable) {
			if isActive(r) {
				t.active = append(t.active, RelayID(r.GetId()))
			}
		}
	}
	return t.active
}

func (t *tx) isActive(id string) bool {
	_, found := slices.BinarySearch(t.activeRelays(), RelayID(id))
	return found
}

// chooseHome chooses as PutAgency promises: the home of the nearest superior
// whose home is active, else the active relay with the fewest homes, the first
// by id among equals. Empty: no relay is active.
func (t *tx) chooseHome(parentCode string) RelayID {
	for e := t.lookup(parentCode); e != nil; e = t.lookup(e.GetParentCode()) {
		if t.isActive(e.GetHomeRelayId()) {
			return RelayID(e.GetHomeRelayId())
		}
	}
	return fewest(t.activeRelays(), t.homes, "")
}

// chooseStandby chooses another active relay with the fewest standbys, the
// first by id among equals; empty where there is none.
func (t *tx) chooseStandby(home RelayID) RelayID {
	return fewest(t.activeRelays(), t.standbys, home)
}

// fewest returns the first of ids, in their order, with the smallest count.
func fewest(ids []RelayID, counts map[RelayID]uint64, except RelayID) (best RelayID) {
	for _, id := range ids {
		if id != except && (best == "" || counts[id] < counts[best]) {
			best = id
		}
	}
	return best
}

// inService reports whether the relay may stay home or standby of those that
// have it.
func inService(r *directoryv1.Relay) bool {
	return r.GetState() == directoryv1.RelayState_RELAY_STATE_DRAINING || isActive(r)
}

func isActive(r *directoryv1.Relay) bool {
	return r.GetState() == directoryv1.RelayState_RELAY_STATE_ACTIVE ||
		r.GetState() == directoryv1.RelayState_RELAY_STATE_UNSPECIFIED
}
