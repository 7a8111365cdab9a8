package routing_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/routing"
)

func TestPutAgencyChoosesHomes(t *testing.T) {
	d := fresh3(t)
	must(t, d, put(row("G22", 1, "")), put(row("H26", 2, "")), put(row("H01", 2, "")), put(row("H26.12", 3, "H26")))
	for code, want := range map[routing.AgencyCode][2]string{
		"G22":    {"bac", "nam"},   // all equal: the first by id; standby the fewest standbys, then id
		"H26":    {"nam", "bac"},   // bac has one home already
		"H01":    {"trung", "bac"}, // standbys then: nam 1, bac 1
		"H26.12": {"nam", "trung"}, // home of the superior
	} {
		a := agency(t, d, code)
		if a.GetHomeRelayId() != want[0] || a.GetStandbyRelayId() != want[1] {
			t.Errorf("%s: home %s, standby %s; want %v", code, a.GetHomeRelayId(), a.GetStandbyRelayId(), want)
		}
	}
	if got := d.View().Homes("nam"); got != 2 {
		t.Errorf("homes of nam: %d, want 2", got)
	}

	t.Run("superior without an active home is passed over", func(t *testing.T) {
		must(t, d, &directoryv1.SetRelayState{RelayId: "nam", State: directoryv1.RelayState_RELAY_STATE_DRAINING},
			put(row("H26.12.05", 4, "H26.12")))
		if got := agency(t, d, "H26.12.05").GetHomeRelayId(); got != "bac" {
			t.Errorf("home %s, want bac: nam takes nothing new", got)
		}
	})
	t.Run("change leaves home and standby", func(t *testing.T) {
		must(t, d, put(row("H26", 2, "")))
		if a := agency(t, d, "H26"); a.GetHomeRelayId() != "nam" || a.GetStandbyRelayId() != "bac" {
			t.Errorf("home %s, standby %s; want nam, bac", a.GetHomeRelayId(), a.GetStandbyRelayId())
		}
	})
	t.Run("only relay", func(t *testing.T) {
		d := routing.NewDirectory()
		must(t, d, relay("bac"), put(row("G22", 1, "")))
		if a := agency(t, d, "G22"); a.GetHomeRelayId() != "bac" || a.GetStandbyRelayId() != "" {
			t.Errorf("home %q, standby %q; want bac and none", a.GetHomeRelayId(), a.GetStandbyRelayId())
		}
	})
}

func fresh3(t fataler) *routing.Directory {
	t.Helper()
	d := routing.NewDirectory()
	must(t, d, relay("trung"), relay("bac"), relay("nam"))
	return d
}

func TestPutAgencyRegistersOldForm(t *testing.T) {
	d := small(t)
	with := func(code string, aliases ...string) *directoryv1.PutAgency {
		a := row(code, 2, "")
		a.Aliases = aliases
		return put(a)
	}
	must(t, d,
		with("H02", "H02-cu", "000.00.00.H02"), // given, but not first
		with("000.00.00.H03"),                  // an agency of its own
		with("H03"))
	for code, want := range map[routing.AgencyCode][]string{
		"G22":       {"000.00.00.G22"},
		"H26.12.05": {"000.05.12.H26"},
		"H02":       {"000.00.00.H02", "H02-cu"},
		"H03":       nil,
	} {
		if got := agency(t, d, code).GetAliases(); !slices.Equal(got, want) {
			t.Errorf("aliases of %s: %q, want %q", code, got, want)
		}
	}
	if a := agency(t, d, "000.05.12.H26"); a.GetCode() != "H26.12.05" {
		t.Errorf("000.05.12.H26 means %s, want H26.12.05", a.GetCode())
	}
}

func TestPutAgencyReplaces(t *testing.T) {
	d := small(t)
	a := row("H01", 2, "")
	a.Aliases, a.KeyHashes = []string{"H01-cu"}, [][]byte{key(1)}
	must(t, d, put(a))
	if kind, name, ok := d.View().Bound([32]byte(key(1))); kind != "agency" || name != "H01" || !ok {
		t.Errorf("Bound = %s, %s, %v; want agency H01", kind, name, ok)
	}
	must(t, d, put(row("H01", 2, "000.00.00.G22"))) // superior by alias
	if _, ok := d.View().Agency("H01-cu"); ok {
		t.Error("alias H01-cu is still known after it was left out")
	}
	if _, _, ok := d.View().Bound([32]byte(key(1))); ok {
		t.Error("key is still bound after it was left out")
	}
	got := agency(t, d, "H01")
	if got.GetParentCode() != "G22" || got.GetVersion() != d.View().Version() {
		t.Errorf("parent %s, version %d; want G22, %d", got.GetParentCode(), got.GetVersion(), d.View().Version())
	}
	result := try(t, d, &directoryv1.PutAgency{Agency: row("H01", 2, ""), IfVersion: got.GetVersion()})
	if result.GetReason() != applied || result.GetAgencies() != 1 || result.GetVersion() != got.GetVersion()+1 {
		t.Errorf("put with the right version: %v", result)
	}
}

func TestMoveAgency(t *testing.T) {
	for _, c := range []struct {
		name            string
		before          []proto.Message
		move            *directoryv1.MoveAgency
		home, standby   string
		standbyOnBefore string
	}{
		{name: "old home becomes standby", move: &directoryv1.MoveAgency{AgencyCode: "000.00.00.G22", HomeRelayId: "trung"},
			home: "trung", standby: "bac"},
		{name: "given standby", move: &directoryv1.MoveAgency{AgencyCode: "G22", HomeRelayId: "trung", StandbyRelayId: "nam"},
			home: "trung", standby: "nam"},
		{name: "old home not active: standby as it was",
			before: []proto.Message{&directoryv1.SetRelayState{RelayId: "bac", State: directoryv1.RelayState_RELAY_STATE_DRAINING}},
			move:   &directoryv1.MoveAgency{AgencyCode: "G22", HomeRelayId: "trung"}, home: "trung", standby: "nam"},
		{name: "old home not active, standby becomes home: another is chosen",
			before: []proto.Message{&directoryv1.SetRelayState{RelayId: "bac", State: directoryv1.RelayState_RELAY_STATE_DRAINING}},
			move:   &directoryv1.MoveAgency{AgencyCode: "G22", HomeRelayId: "nam"}, home: "nam", standby: "trung"},
		{name: "to where it is", move: &directoryv1.MoveAgency{AgencyCode: "G22", HomeRelayId: "bac"}, home: "bac", standby: "nam"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := fresh3(t)
			must(t, d, put(row("G22", 1, "")))
			must(t, d, c.before...)
			must(t, d, c.move)
			a := agency(t, d, "G22")
			if a.GetHomeRelayId() != c.home || a.GetStandbyRelayId() != c.standby {
				t.Errorf("home %s, standby %s; want %s, %s", a.GetHomeRelayId(), a.GetStandbyRelayId(), c.home, c.standby)
			}
			if d.View().Homes(routing.RelayID(c.home)) != 1 {
				t.Errorf("homes of %s: %d, want 1", c.home, d.View().Homes(routing.RelayID(c.home)))
			}
		})
	}
}

func TestRemoveAgencyClearsWhatNamesIt(t *testing.T) {
	d := small(t)
	must(t, d,
		&directoryv1.PutGateway{Gateway: &directoryv1.Gateway{Id: "tinh-hn", AgencyCodes: []string{"H26.13", "000.00.00.H26"}}},
		&directoryv1.SetGroup{Group: &directoryv1.Group{Name: "quận", AgencyCodes: []string{"H26.13"}}},
		&directoryv1.RemoveAgency{AgencyCode: "000.00.13.H26"})
	if _, ok := d.View().Agency("000.00.13.H26"); ok {
		t.Error("alias outlives its agency")
	}
	must(t, d, put(row("H26.13", 3, "H26"))) // another body, the same code
	if d.View().SpeaksFor("tinh-hn", "H26.13") {
		t.Error("gateway speaks for an agency that was given the code of a removed one")
	}
	if !d.View().SpeaksFor("tinh-hn", "H26") || !d.View().SpeaksFor("tinh-hn", "000.00.00.H26") {
		t.Error("gateway no longer speaks for H26")
	}
	if _, faults := d.View().Resolve(recipients(toGroup("quận"))); len(faults) != 1 {
		t.Errorf("faults of a group whose only member left: %v, want one", faults)
	}
}

func TestImportAgencies(t *testing.T) {
	t.Run("superiors within the import", func(t *testing.T) {
		d := fresh3(t)
		result := try(t, d, &directoryv1.ImportAgencies{Agencies: []*directoryv1.Agency{
			row("H26", 2, ""), row("H26.12", 3, "000.00.00.H26"), row("H26.12.05", 4, "H26.12")}})
		if result.GetReason() != applied || result.GetAgencies() != 3 || result.GetVersion() != 4 {
			t.Fatalf("result %v", result)
		}
		if a := agency(t, d, "H26.12.05"); a.GetHomeRelayId() != agency(t, d, "H26").GetHomeRelayId() || a.GetVersion() != 4 {
			t.Errorf("agency %v: not with its superior, or wrong version", a)
		}
	})
	t.Run("keeps what it leaves out", func(t *testing.T) {
		d := small(t)
		a := row("G22", 1, "")
		a.KeyHashes, a.Aliases, a.HomeRelayId = [][]byte{key(7)}, []string{"VPCP"}, "trung"
		must(t, d, put(a), &directoryv1.SuspendAgency{AgencyCode: "G22", Suspended: true})
		renamed := row("G22", 1, "")
		renamed.Name = "Văn phòng Chính phủ"
		must(t, d, &directoryv1.ImportAgencies{Agencies: []*directoryv1.Agency{renamed}})
		got := agency(t, d, "VPCP")
		if got.GetName() != renamed.GetName() || !got.GetSuspended() || got.GetHomeRelayId() != "trung" || len(got.GetKeyHashes()) != 1 {
			t.Errorf("after import: %v", got)
		}
	})
	t.Run("old form yields to one that asks for it", func(t *testing.T) {
		d := fresh3(t)
		other := row("H99", 2, "")
		other.Aliases = []string{"000.00.00.H01"}
		must(t, d, &directoryv1.ImportAgencies{Agencies: []*directoryv1.Agency{row("H01", 2, ""), other}})
		if a := agency(t, d, "000.00.00.H01"); a.GetCode() != "H99" {
			t.Errorf("000.00.00.H01 means %s, want H99", a.GetCode())
		}
	})
	t.Run("every fault, by row", func(t *testing.T) {
		d := small(t)
		before := snapshotOf(t, d)
		taken := row("H50", 2, "")
		taken.Aliases = []string{"H26"}
		result := try(t, d, &directoryv1.ImportAgencies{Agencies: []*directoryv1.Agency{
			row("H40", 2, ""),
			row("H41", 7, ""),
			row("H41.01", 3, "H41"), // no fault of its own
			row("H42", 2, "H98"),
			row("H43.01", 3, "H43"),
			row("H43", 2, ""),
			row("H40", 2, ""),
			taken,
			row("000.00.00.G22", 2, ""),
		}})
		if result.GetReason() != invalidField {
			t.Errorf("reason %v, want that of the first fault", result.GetReason())
		}
		for _, want := range []string{
			"agencies[1] H41: tier 7", "agencies[3] H42: parent_code: agency H98 is not in the directory",
			"agencies[4] H43.01: parent_code: H43 comes later, at agencies[5]", "agencies[6] H40: stands twice, first at agencies[0]",
			"agencies[7] H50: alias H26 belongs to agency H26", "agencies[8] 000.00.00.G22: code 000.00.00.G22 is an alias of agency G22",
		} {
			if !strings.Contains(result.GetMessage(), want) {
				t.Errorf("message lacks %q:\n%s", want, result.GetMessage())
			}
		}
		var rows []string
		for _, f := range result.GetFaults() {
			rows = append(rows, fmt.Sprintf("%d %s %s", f.GetRow(), f.GetCode(), strings.TrimPrefix(f.GetReason().String(), "ERROR_REASON_")))
			if f.GetMessage() == "" || !strings.Contains(result.GetMessage(), f.GetMessage()) {
				t.Errorf("row %d says %q, which is not in the message", f.GetRow(), f.GetMessage())
			}
		}
		if want := []string{"1 H41 INVALID_FIELD", "6 H40 CONFLICT", "3 H42 NOT_FOUND", "4 H43.01 CONFLICT", "7 H50 CONFLICT", "8 000.00.00.G22 CONFLICT"}; !slices.Equal(rows, want) {
			t.Errorf("faults %q, want %q", rows, want)
		}
		if strings.Contains(result.GetMessage(), "H41.01") {
			t.Errorf("a row is blamed for its superior's fault:\n%s", result.GetMessage())
		}
		if string(snapshotOf(t, d)) != string(before) {
			t.Error("a refused import changed the directory")
		}
	})
	t.Run("many faults are counted", func(t *testing.T) {
		var rows []*directoryv1.Agency
		for range 30 {
			rows = append(rows, row("", 2, ""))
		}
		result := try(t, fresh3(t), &directoryv1.ImportAgencies{Agencies: rows})
		if len(result.GetFaults()) != 20 {
			t.Errorf("%d faults, want 20", len(result.GetFaults()))
		}
		if !strings.HasSuffix(result.GetMessage(), "and 10 more") {
			t.Errorf("message %q does not count the rest", result.GetMessage())
		}
	})
}

func TestStagedImport(t *testing.T) {
	part := func(last bool, rows ...*directoryv1.Agency) *directoryv1.ImportAgencies {
		return &directoryv1.ImportAgencies{Staging: "t10", Last: last, Agencies: rows}
	}
	t.Run("takes effect with the last part", func(t *testing.T) {
		d := fresh3(t)
		must(t, d, part(false, row("H26", 2, "")), part(false, row("H26.12", 3, "H26")))
		if got := d.View().AgencyCount(); got != 0 {
			t.Fatalf("%d agencies before the last part", got)
		}
		// A copy made in between holds what is staged.
		copied := routing.NewDirectory()
		s, _ := d.Snapshot()
		restoreFrom(t, copied, s)
		for _, d := range []*routing.Directory{d, copied} {
			result := try(t, d, part(true, row("H01", 2, "")))
			if result.GetReason() != applied || result.GetAgencies() != 3 || d.View().AgencyCount() != 3 {
				t.Errorf("last part: %v, %d agencies", result, d.View().AgencyCount())
			}
			// The name is free again.
			if result := try(t, d, part(true, row("H02", 2, ""))); result.GetReason() != applied || result.GetAgencies() != 1 {
				t.Errorf("another import under the name: %v", result)
			}
		}
		if string(snapshotOf(t, d)) != string(snapshotOf(t, copied)) {
			t.Error("directory and its copy differ")
		}
	})
	t.Run("all or nothing, then again from the beginning", func(t *testing.T) {
		d := fresh3(t)
		must(t, d, part(false, row("H26", 2, "")))
		result := try(t, d, part(true, row("H27", 2, "H98")))
		if result.GetReason() != notFound || !strings.Contains(result.GetMessage(), "agencies[1] H27") {
			t.Errorf("result %v, want row 1 not found", result)
		}
		if d.View().AgencyCount() != 0 {
			t.Error("a refused import left agencies behind")
		}
		if result := try(t, d, part(true, row("H26", 2, ""))); result.GetReason() != applied || result.GetAgencies() != 1 {
			t.Errorf("again: %v", result)
		}
	})
	t.Run("dropped, and no part of it takes effect later", func(t *testing.T) {
		d := fresh3(t)
		must(t, d, part(false, row("H26", 2, ""), row("H27", 2, "")), &directoryv1.DiscardImport{Staging: "t10"})
		if got := d.View().Staged(); len(got) != 0 {
			t.Errorf("staged after it was dropped: %v", got)
		}
		// Whoever staged them does not know it yet.
		for _, last := range []bool{false, true} {
			late := part(last, row("H01", 2, ""))
			late.Staged = 2
			if result := try(t, d, late); result.GetReason() != conflict || !strings.Contains(result.GetMessage(), "begin it again") {
				t.Errorf("a part after it was dropped, last %v: %v", last, result)
			}
		}
		if d.View().AgencyCount() != 0 || len(d.View().Staged()) != 0 {
			t.Errorf("%d agencies, staged %v; want none", d.View().AgencyCount(), d.View().Staged())
		}
		if result := try(t, d, &directoryv1.DiscardImport{Staging: "t10"}); result.GetReason() != notFound {
			t.Errorf("dropped twice: %v", result)
		}
	})
	t.Run("counts what was staged before", func(t *testing.T) {
		d := fresh3(t)
		must(t, d, part(false, row("H26", 2, ""), row("H27", 2, "")))
		next := part(false, row("H28", 2, ""))
		next.Staged = 2
		must(t, d, next)
		if result := try(t, d, next); result.GetReason() != conflict { // the same again, under another request id
			t.Errorf("a part that came twice: %v", result)
		}
		if got := d.View().Staged(); got["t10"] != 3 {
			t.Fatalf("staged %v, want 3: a part that is refused drops nothing", got)
		}
		last := part(true, row("H29", 2, ""))
		last.Staged = 3
		if result := try(t, d, last); result.GetReason() != applied || result.GetAgencies() != 4 {
			t.Errorf("last part: %v", result)
		}
	})
	t.Run("a snapshot is of its moment", func(t *testing.T) {
		d := fresh3(t)
		var rows []*directoryv1.Agency
		for i := range 500 {
			rows = append(rows, row(fmt.Sprintf("H26.%03d", i), 3, ""))
		}
		must(t, d, part(false, rows...))
		s, err := d.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		var before, during bytes.Buffer
		if _, err := s.WriteTo(&before); err != nil {
			t.Fatal(err)
		}
		written := make(chan error)
		go func() {
			_, err := s.WriteTo(&during)
			written <- err
		}()
		must(t, d, part(true, row("H01", 2, "")))
		if err := <-written; err != nil || !bytes.Equal(before.Bytes(), during.Bytes()) {
			t.Errorf("written while the import takes effect, a snapshot is another, %v", err)
		}
		var after bytes.Buffer
		if _, err := s.WriteTo(&after); err != nil || !bytes.Equal(before.Bytes(), after.Bytes()) {
			t.Errorf("written after the import has taken effect, a snapshot is another, %v", err)
		}
	})
	t.Run("bounded", func(t *testing.T) {
		d := fresh3(t)
		for _, name := range []string{"a", "b", "c", "d"} {
			must(t, d, &directoryv1.ImportAgencies{Staging: name, Agencies: []*directoryv1.Agency{row("H26", 2, "")}})
		}
		result := try(t, d, part(false, row("H26", 2, "")))
		if result.GetReason() != conflict || !strings.Contains(result.GetMessage(), "a, b, c, d") {
			t.Errorf("a fifth open import: %v", result)
		}
		for range 5 {
			if !bytes.Equal(snapshotOf(t, d), snapshotOf(t, d)) {
				t.Fatal("two snapshots of the same staged imports differ")
			}
		}
	})
}
