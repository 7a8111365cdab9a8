package routing_test

import (
	"testing"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/routing"
)

const (
	active   = directoryv1.RelayState_RELAY_STATE_ACTIVE
	draining = directoryv1.RelayState_RELAY_STATE_DRAINING
	retired  = directoryv1.RelayState_RELAY_STATE_RETIRED
	lost     = directoryv1.RelayState_RELAY_STATE_LOST
)

func relayOf(t fataler, d *routing.Directory, id routing.RelayID) *directoryv1.Relay {
	t.Helper()
	r, ok := d.View().Relay(id)
	if !ok {
		t.Fatalf("relay %s is not in the directory", id)
	}
	return r
}

func TestPutRelayKeepsState(t *testing.T) {
	d := routing.NewDirectory()
	first := relay("bac")
	first.Relay.State = draining
	must(t, d, first)
	r := relayOf(t, d, "bac")
	if r.GetState() != active || !r.GetRegisteredAt().AsTime().Equal(commandTime) || r.GetVersion() != 1 {
		t.Errorf("new relay: %v; want active, registered at the command's time, version 1", r)
	}
	must(t, d, &directoryv1.SetRelayState{RelayId: "bac", State: draining})
	second := relay("bac")
	second.Relay.Address = "203.0.113.7:7400"
	must(t, d, second)
	r = relayOf(t, d, "bac")
	if r.GetState() != draining || !r.GetRegisteredAt().AsTime().Equal(commandTime) || r.GetAddress() != "203.0.113.7:7400" {
		t.Errorf("changed relay: %v; want draining at the new address", r)
	}
}

func TestRetireRelay(t *testing.T) {
	retire := func(c *directoryv1.RetireRelay, before ...*directoryv1.SetRelayState) (*routing.Directory, *directoryv1.CommandResult) {
		d := routing.NewDirectory()
		must(t, d, relay("bac"), relay("nam"), relay("trung"))
		for _, a := range []struct{ code, parent, home, standby string }{
			{"A", "", "bac", "nam"},    // moves to its standby
			{"A.1", "A", "bac", "nam"}, // and so does this
			{"B", "", "bac", "trung"},
			{"C", "", "nam", "bac"},      // needs another standby
			{"D", "", "trung", "nam"},    // not concerned
			{"0.B", "B", "bac", "trung"}, // comes before its superior by code
		} {
			tier := routing.TierProvince
			must(t, d, changed(row(a.code, tier, a.parent), func(x *directoryv1.Agency) {
				x.HomeRelayId, x.StandbyRelayId = a.home, a.standby
			}))
		}
		for _, s := range before {
			must(t, d, s)
		}
		return d, try(t, d, c)
	}
	drain := func(id string) *directoryv1.SetRelayState {
		return &directoryv1.SetRelayState{RelayId: id, State: draining}
	}
	for _, c := range []struct {
		name   string
		retire *directoryv1.RetireRelay
		before []*directoryv1.SetRelayState
		state  directoryv1.RelayState
		homes  map[routing.AgencyCode][2]string
	}{
		{"lost", &directoryv1.RetireRelay{RelayId: "bac", Lost: true}, nil, lost,
			map[routing.AgencyCode][2]string{
				"A": {"nam", "trung"}, "A.1": {"nam", "trung"}, "B": {"trung", "nam"},
				"C": {"nam", "trung"}, "D": {"trung", "nam"}, "0.B": {"trung", "nam"},
			}},
		{"drained", &directoryv1.RetireRelay{RelayId: "bac"}, []*directoryv1.SetRelayState{drain("bac")}, retired,
			map[routing.AgencyCode][2]string{"A": {"nam", "trung"}, "B": {"trung", "nam"}, "C": {"nam", "trung"}}},
		{"standby drains: the home of the superior, else the fewest", &directoryv1.RetireRelay{RelayId: "bac", Lost: true},
			[]*directoryv1.SetRelayState{drain("trung")}, lost,
			map[routing.AgencyCode][2]string{"B": {"nam", "trung"}, "0.B": {"nam", "trung"}, "C": {"nam", ""}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, result := retire(c.retire, c.before...)
			if result.GetReason() != applied || result.GetAgencies() != 5 {
				t.Fatalf("result %v, want 5 agencies", result)
			}
			if got := relayOf(t, d, "bac").GetState(); got != c.state {
				t.Errorf("state %v, want %v", got, c.state)
			}
			for code, want := range c.homes {
				a := agency(t, d, code)
				if got := [2]string{a.GetHomeRelayId(), a.GetStandbyRelayId()}; got != want {
					t.Errorf("%s: home and standby %v, want %v", code, got, want)
				}
			}
			if n := d.View().Homes("bac"); n != 0 {
				t.Errorf("%d agencies are still at home on it", n)
			}
			must(t, d, &directoryv1.RemoveRelay{RelayId: "bac"})
			if _, ok := d.View().Relay("bac"); ok {
				t.Error("relay is still there after it was removed")
			}
		})
	}
	t.Run("refused where no relay is left", func(t *testing.T) {
		_, result := retire(&directoryv1.RetireRelay{RelayId: "bac", Lost: true}, drain("nam"), drain("trung"))
		if result.GetReason() != conflict {
			t.Errorf("result %v, want a conflict", result)
		}
	})
	t.Run("those below follow their superior", func(t *testing.T) {
		d := routing.NewDirectory()
		must(t, d, relay("bac"))
		must(t, d, put(row("B", 2, "")), put(row("A.1", 3, "B")), put(row("A", 3, "B"))) // by code before their superior
		must(t, d, relay("hue"), relay("nam"), &directoryv1.RetireRelay{RelayId: "bac", Lost: true})
		for _, code := range []routing.AgencyCode{"B", "A", "A.1"} {
			if home := agency(t, d, code).GetHomeRelayId(); home != "hue" {
				t.Errorf("home of %s: %s, want hue with all of B", code, home)
			}
		}
	})
	t.Run("comes back", func(t *testing.T) {
		d, _ := retire(&directoryv1.RetireRelay{RelayId: "bac", Lost: true})
		must(t, d, &directoryv1.SetRelayState{RelayId: "bac", State: active}, &directoryv1.MoveAgency{AgencyCode: "A", HomeRelayId: "bac"})
		if a := agency(t, d, "A"); a.GetHomeRelayId() != "bac" || a.GetStandbyRelayId() != "nam" {
			t.Errorf("after the way back: %v", a)
		}
	})
}

// A relay that drains lets its agencies go in the same step: no document comes
// to a home that gives up its own.
func TestDrainMovesAgencies(t *testing.T) {
	d := routing.NewDirectory()
	must(t, d, relay("bac"), relay("nam"), relay("trung"))
	for _, a := range [][4]string{
		{"A", "", "bac", "nam"}, {"A.1", "A", "bac", "trung"}, {"B", "", "bac", "trung"}, {"C", "", "nam", "bac"}, {"D", "", "trung", "nam"},
	} {
		must(t, d, changed(row(a[0], routing.TierProvince, a[1]), func(x *directoryv1.Agency) {
			x.HomeRelayId, x.StandbyRelayId = a[2], a[3]
		}))
	}
	drain := &directoryv1.SetRelayState{RelayId: "bac", State: draining, MoveAgencies: true}
	if result := try(t, d, drain); result.GetReason() != applied || result.GetAgencies() != 3 {
		t.Fatalf("result %v, want 3 agencies", result)
	}
	for code, want := range map[routing.AgencyCode]string{"A": "nam", "A.1": "trung", "B": "trung", "C": "nam", "D": "trung"} {
		if home := agency(t, d, code).GetHomeRelayId(); home != want {
			t.Errorf("home of %s: %s, want %s", code, home, want)
		}
	}
	if a := agency(t, d, "C"); a.GetStandbyRelayId() != "bac" {
		t.Errorf("standby of C: %s; a relay that drains still is one", a.GetStandbyRelayId())
	}
	if result := try(t, d, drain); result.GetReason() != applied || result.GetAgencies() != 0 {
		t.Errorf("again: %v, want nothing to move", result)
	}

	t.Run("or not at all", func(t *testing.T) {
		d := routing.NewDirectory()
		must(t, d, relay("bac"), put(row("A", routing.TierProvince, "")))
		if result := try(t, d, drain); result.GetReason() != conflict {
			t.Errorf("the last relay: %v, want a conflict", result)
		}
		if r := relayOf(t, d, "bac"); r.GetState() != active {
			t.Errorf("state %v, want it as it was", r.GetState())
		}
		must(t, d, relay("nam"), &directoryv1.RetireRelay{RelayId: "bac", Lost: true})
		if result := try(t, d, drain); result.GetReason() != conflict {
			t.Errorf("a lost one: %v, want a conflict", result)
		}
		if result := try(t, d, &directoryv1.SetRelayState{RelayId: "nam", State: active, MoveAgencies: true}); result.GetReason() != invalidField {
			t.Errorf("active: %v, want refused", result)
		}
	})
}
