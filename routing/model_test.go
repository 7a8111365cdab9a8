package routing_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/routing"
)

// model is the directory as the contract's comments say it, done the slow way:
// no indexes, no counts, everything searched for.
type model struct {
	version  uint64
	relays   map[string]directoryv1.RelayState
	agencies map[string]*directoryv1.Agency
}

func (m *model) find(name string) *directoryv1.Agency {
	for _, a := range m.agencies {
		if a.Code == name || slices.Contains(a.Aliases, name) {
			return a
		}
	}
	return nil
}

func (m *model) active(id string) bool { return m.relays[id] == active }

func (m *model) count(of func(*directoryv1.Agency) string, id string) (n int) {
	for _, a := range m.agencies {
		if of(a) == id {
			n++
		}
	}
	return n
}

func (m *model) fewest(of func(*directoryv1.Agency) string, except string) (best string) {
	for _, id := range slices.Sorted(maps.Keys(m.relays)) {
		if m.active(id) && id != except && (best == "" || m.count(of, id) < m.count(of, best)) {
			best = id
		}
	}
	return best
}

func (m *model) home(parent string) string {
	for a := m.find(parent); parent != "" && a != nil; a = m.agencies[a.ParentCode] {
		if m.active(a.HomeRelayId) {
			return a.HomeRelayId
		}
	}
	return m.fewest((*directoryv1.Agency).GetHomeRelayId, "")
}

func (m *model) standby(before *directoryv1.Agency, home string) string {
	if was := before.GetStandbyRelayId(); was != "" && was != home && (m.active(was) || m.relays[was] == draining) {
		return was
	}
	return m.fewest((*directoryv1.Agency).GetStandbyRelayId, home)
}

func (m *model) put(a *directoryv1.Agency) bool {
	a = proto.CloneOf(a)
	before := m.find(a.Code)
	if before != nil && before.Code != a.Code {
		return false
	}
	if a.ParentCode != "" {
		parent := m.find(a.ParentCode)
		if parent == nil {
			return false
		}
		a.ParentCode = parent.Code
		for up := parent; up != nil; up = m.agencies[up.ParentCode] {
			if up.Code == a.Code {
				return false
			}
		}
	}
	for _, alias := range a.Aliases {
		if other := m.find(alias); alias == a.Code || other != nil && other.Code != a.Code {
			return false
		}
	}
	for id, was := range map[string]string{a.HomeRelayId: before.GetHomeRelayId(), a.StandbyRelayId: before.GetStandbyRelayId()} {
		if id != "" && id != was && !m.active(id) {
			return false
		}
	}
	if a.HomeRelayId == "" {
		a.HomeRelayId = before.GetHomeRelayId()
	}
	if a.HomeRelayId == "" {
		a.HomeRelayId = m.home(a.ParentCode)
	}
	if a.HomeRelayId == "" || a.HomeRelayId == a.StandbyRelayId {
		return false
	}
	if a.StandbyRelayId == "" {
		a.StandbyRelayId = m.standby(before, a.HomeRelayId)
	}
	if old, ok := routing.OldForm(routing.AgencyCode(a.Code)); ok {
		if other := m.find(string(old)); other == nil || other.Code == a.Code {
			a.Aliases = append([]string{string(old)}, slices.DeleteFunc(a.Aliases, func(s string) bool { return s == string(old) })...)
		}
	}
	m.agencies[a.Code] = a
	return true
}

func (m *model) retire(c *directoryv1.RetireRelay) bool {
	state := m.relays[c.RelayId]
	if state != draining && !(state == active && c.Lost) {
		return false
	}
	m.relays[c.RelayId] = retired
	if c.Lost {
		m.relays[c.RelayId] = lost
	}
	return m.rehome(c.RelayId, true)
}

// rehome moves the agencies that have the relay as home, and those that have it
// as standby too if standbys.
func (m *model) rehome(relay string, standbys bool) bool {
	depth := func(a *directoryv1.Agency) (n int) {
		for a.ParentCode != "" {
			a, n = m.agencies[a.ParentCode], n+1
		}
		return n
	}
	order := slices.SortedStableFunc(slices.Values(slices.Sorted(maps.Keys(m.agencies))), func(a, b string) int {
		return depth(m.agencies[a]) - depth(m.agencies[b])
	})
	for _, code := range order {
		a := m.agencies[code]
		if a.HomeRelayId != relay && !(standbys && a.StandbyRelayId == relay) {
			continue
		}
		if a.HomeRelayId == relay {
			home := a.StandbyRelayId
			if !m.active(home) {
				home = m.home(a.ParentCode)
			}
			if home == "" {
				return false
			}
			a.HomeRelayId = home
		}
		a.StandbyRelayId = m.standby(a, a.HomeRelayId)
	}
	return true
}

// apply reports whether the command is accepted; if not, m is unchanged.
func (m *model) apply(change proto.Message) (ok bool) {
	was := model{m.version, maps.Clone(m.relays), map[string]*directoryv1.Agency{}}
	for code, a := range m.agencies {
		was.agencies[code] = proto.CloneOf(a)
	}
	defer func() {
		if !ok {
			*m = was
			return
		}
		m.version++
	}()
	switch c := change.(type) {
	case *directoryv1.PutRelay:
		if _, ok := m.relays[c.Relay.Id]; !ok {
			m.relays[c.Relay.Id] = active
		}
		return true
	case *directoryv1.SetRelayState:
		was, ok := m.relays[c.RelayId]
		if !ok || c.MoveAgencies && (c.State != draining || was != active && was != draining) {
			return false
		}
		m.relays[c.RelayId] = c.State
		return !c.MoveAgencies || m.rehome(c.RelayId, false)
	case *directoryv1.RemoveRelay:
		_, ok := m.relays[c.RelayId]
		delete(m.relays, c.RelayId)
		return ok && m.count((*directoryv1.Agency).GetHomeRelayId, c.RelayId) == 0 && m.count((*directoryv1.Agency).GetStandbyRelayId, c.RelayId) == 0
	case *directoryv1.RetireRelay:
		return m.retire(c)
	case *directoryv1.PutAgency:
		return !(c.CreateOnly && m.find(c.Agency.Code) != nil && m.find(c.Agency.Code).Code == c.Agency.Code) && m.put(c.Agency)
	case *directoryv1.ImportAgencies:
		for _, a := range c.Agencies {
			a = proto.CloneOf(a)
			if before := m.agencies[a.Code]; before != nil {
				a.Suspended = before.Suspended
				if len(a.Aliases) == 0 {
					a.Aliases = before.Aliases
				}
			}
			if !m.put(a) {
				return false
			}
		}
		return true
	case *directoryv1.MoveAgency:
		a := m.find(c.AgencyCode)
		if a == nil || c.HomeRelayId != a.HomeRelayId && !m.active(c.HomeRelayId) ||
			c.StandbyRelayId != "" && c.StandbyRelayId != a.StandbyRelayId && !m.active(c.StandbyRelayId) || c.HomeRelayId == c.StandbyRelayId {
			return false
		}
		before := proto.CloneOf(a)
		a.HomeRelayId, a.StandbyRelayId = c.HomeRelayId, c.StandbyRelayId
		if a.StandbyRelayId == "" && before.HomeRelayId != a.HomeRelayId && m.active(before.HomeRelayId) {
			a.StandbyRelayId = before.HomeRelayId
		}
		if a.StandbyRelayId == "" {
			a.StandbyRelayId = before.StandbyRelayId // is counted while it is chosen
			a.StandbyRelayId = m.standby(before, a.HomeRelayId)
		}
		return true
	case *directoryv1.SuspendAgency:
		a := m.find(c.AgencyCode)
		if a != nil {
			a.Suspended = c.Suspended
		}
		return a != nil
	case *directoryv1.RemoveAgency:
		a := m.find(c.AgencyCode)
		if a == nil || m.count((*directoryv1.Agency).GetParentCode, a.Code) > 0 {
			return false
		}
		delete(m.agencies, a.Code)
		return true
	}
	panic(fmt.Sprintf("%T", change))
}

var (
	someRelay  = rapid.SampledFrom([]string{"bac", "nam", "trung", "hue"})
	someCode   = rapid.SampledFrom([]string{"H01", "H02", "H01.01", "H01.02", "H01.01.01", "G22", "000.00.00.H02"})
	someName   = rapid.OneOf(someCode, rapid.SampledFrom([]string{"cu-1", "cu-2", "000.00.00.H01", "000.00.01.H01", "H99"}))
	orNone     = func(g *rapid.Generator[string]) *rapid.Generator[string] { return rapid.OneOf(rapid.Just(""), g) }
	someAgency = rapid.Custom(func(t *rapid.T) *directoryv1.Agency {
		a := row(someCode.Draw(t, "code"), routing.Tier(rapid.IntRange(1, 4).Draw(t, "tier")), orNone(someName).Draw(t, "parent"))
		a.Aliases = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"cu-1", "cu-2", "000.00.00.H01", "000.00.00.H02"}), 0, 2, rapid.ID).Draw(t, "aliases")
		a.HomeRelayId, a.StandbyRelayId = orNone(someRelay).Draw(t, "home"), orNone(someRelay).Draw(t, "standby")
		return a
	})
	someChange = rapid.Custom(func(t *rapid.T) proto.Message {
		relay, name := relay(someRelay.Draw(t, "relay")), someName.Draw(t, "name")
		switch rapid.IntRange(0, 12).Draw(t, "change") {
		case 0, 1:
			return relay
		case 2:
			return &directoryv1.SetRelayState{RelayId: relay.Relay.Id, State: rapid.SampledFrom([]directoryv1.RelayState{active, draining}).Draw(t, "state"),
				MoveAgencies: rapid.Bool().Draw(t, "move")}
		case 3:
			return &directoryv1.RemoveRelay{RelayId: relay.Relay.Id}
		case 4:
			return &directoryv1.RetireRelay{RelayId: relay.Relay.Id, Lost: rapid.Bool().Draw(t, "lost")}
		case 5:
			return &directoryv1.MoveAgency{AgencyCode: name, HomeRelayId: someRelay.Draw(t, "home"), StandbyRelayId: orNone(someRelay).Draw(t, "standby")}
		case 6:
			return &directoryv1.SuspendAgency{AgencyCode: name, Suspended: rapid.Bool().Draw(t, "suspended")}
		case 7:
			return &directoryv1.RemoveAgency{AgencyCode: name}
		case 8:
			list := rapid.SliceOfNDistinct(someAgency, 1, 4, (*directoryv1.Agency).GetCode).Draw(t, "agencies")
			for i := range list { // what yields to whom within one import has a test of its own
				list[i].Aliases = nil
			}
			return &directoryv1.ImportAgencies{Agencies: list}
		default:
			return &directoryv1.PutAgency{Agency: someAgency.Draw(t, "agency"), CreateOnly: rapid.Bool().Draw(t, "create only")}
		}
	})
)

// claimsOldForm reports whether a row of an import asks by code for what would
// be the old form of another row.
func claimsOldForm(c *directoryv1.ImportAgencies) bool {
	for _, a := range c.GetAgencies() {
		old, _ := routing.OldForm(routing.AgencyCode(a.Code))
		if slices.ContainsFunc(c.Agencies, func(b *directoryv1.Agency) bool { return b.Code == string(old) }) {
			return true
		}
	}
	return false
}

func TestDirectoryAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, twin := routing.NewDirectory(), routing.NewDirectory()
		m := &model{relays: map[string]directoryv1.RelayState{}, agencies: map[string]*directoryv1.Agency{}}
		for _, change := range rapid.SliceOfN(someChange, 1, 40).Draw(t, "changes") {
			if c, ok := change.(*directoryv1.ImportAgencies); ok && claimsOldForm(c) {
				continue
			}
			before := snapshotOf(t, d)
			want := m.apply(change)
			result := try(t, d, change)
			try(t, twin, change)
			if got := result.GetReason() == applied; got != want {
				t.Fatalf("%T{%v}: %v %s; the model says accepted %v", change, change, result.GetReason(), result.GetMessage(), want)
			}
			if !want && !bytes.Equal(before, snapshotOf(t, d)) {
				t.Fatalf("%T{%v} was refused and changed the directory", change, change)
			}
			compare(t, d.View(), m)
		}
		snapshot := snapshotOf(t, d)
		if !bytes.Equal(snapshot, snapshotOf(t, twin)) {
			t.Fatalf("the same commands gave two snapshots")
		}
		copied := routing.NewDirectory()
		if err := copied.Restore(bytes.NewReader(snapshot)); err != nil {
			t.Fatalf("restore: %v", err)
		}
		compare(t, copied.View(), m)
		if !bytes.Equal(snapshot, snapshotOf(t, copied)) {
			t.Fatalf("the copy's snapshot differs")
		}
	})
}

func compare(t fataler, v routing.View, m *model) {
	t.Helper()
	if v.Version() != m.version || v.AgencyCount() != uint64(len(m.agencies)) || len(v.Relays()) != len(m.relays) {
		t.Fatalf("version %d, %d agencies, %d relays; want %d, %d, %d",
			v.Version(), v.AgencyCount(), len(v.Relays()), m.version, len(m.agencies), len(m.relays))
	}
	for id, state := range m.relays {
		r, ok := v.Relay(routing.RelayID(id))
		if !ok || r.GetState() != state {
			t.Fatalf("relay %s: %v, want state %v", id, r, state)
		}
		if got, want := v.Homes(routing.RelayID(id)), m.count((*directoryv1.Agency).GetHomeRelayId, id); got != uint64(want) {
			t.Fatalf("homes of %s: %d, want %d", id, got, want)
		}
	}
	page, _ := v.Agencies(routing.Query{})
	for i, code := range slices.Sorted(maps.Keys(m.agencies)) {
		want := m.agencies[code]
		for _, name := range append([]string{code}, want.Aliases...) {
			got, ok := v.Agency(routing.AgencyCode(name))
			if !ok || got != page[i] {
				t.Fatalf("%s means %v, want agency %s", name, got, code)
			}
			same := proto.CloneOf(got)
			same.Version = want.Version // not the model's business
			if !proto.Equal(same, want) {
				t.Fatalf("agency %v, want %v", same, want)
			}
		}
	}
	for _, name := range []routing.AgencyCode{"cu-1", "cu-2", "000.00.00.H01", "000.00.00.H02", "000.00.01.H01", "H01", "H02"} {
		if _, ok := v.Agency(name); ok != (m.find(string(name)) != nil) {
			t.Fatalf("%s known: %v, the model says %v", name, ok, !ok)
		}
	}
}
