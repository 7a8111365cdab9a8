package agency_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/agency/agencytest"
)

const recalledReason = exchangev1.ErrorReason_ERROR_REASON_RECALLED

// savedUnconfirmed is a folder with one envelope, whose process ended before the
// confirmation.
func savedUnconfirmed(t *testing.T, mesh *agencytest.Mesh) (a *agency.Arrival, dir string) {
	t.Helper()
	a, dir = arrive(t, mesh, 100, "a.pdf"), t.TempDir()
	if _, err := a.Save(testContext(t), dir); err != nil {
		t.Fatal(err)
	}
	return a, dir
}

// What is confirmed loses its mark, and stays whatever a relay says later.
func TestAConfirmedFolderStays(t *testing.T) {
	mesh := newMesh(t, bac)
	a, dir := savedUnconfirmed(t, mesh)
	id := a.ID.String()
	if err := a.Confirm(testContext(t)); err != nil {
		t.Fatal(err)
	}
	want := []string{id, id + "/a.pdf", id + "/envelope.json"}
	mesh.Fail(a.ID, "H26", recalledReason, "") // as where the agency has moved
	if err := a.Confirm(testContext(t)); err != nil {
		t.Errorf("confirmed again: %v", err)
	}
	all, err := newClient(t, configOf(t, mesh, "H26")).DestroyTakenBack(testContext(t), dir)
	if got := tree(t, dir); !slices.Equal(got, want) || len(all) > 0 || err != nil {
		t.Errorf("there is %v, want %v; %v were taken back, %v", got, want, all, err)
	}
}

// What is taken back before it is confirmed is destroyed, by the confirmation.
func TestAFolderIsTakenBack(t *testing.T) {
	mesh := newMesh(t, bac)
	a, dir := savedUnconfirmed(t, mesh)
	mesh.Fail(a.ID, "H26", recalledReason, "")
	recalled := (*agency.RecalledError)(nil)
	if err := a.Confirm(testContext(t)); !errors.As(err, &recalled) {
		t.Errorf("confirmed with %v, want it taken back", err)
	}
	if got := tree(t, dir); len(got) > 0 {
		t.Errorf("there is %v", got)
	}
}

// Nor does it stay where the process ended before it could confirm: it does not come
// again. What was not taken back does, and stays.
func TestAFolderIsTakenBackLater(t *testing.T) {
	mesh := newMesh(t, bac)
	a, dir := savedUnconfirmed(t, mesh)
	other := arrive(t, mesh, 200, "b.pdf")
	if _, err := other.Save(testContext(t), dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".x.takenback", "một thư mục khác"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "z"), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	next := newClient(t, configOf(t, mesh, "H26"))
	if all, err := next.DestroyTakenBack(testContext(t), dir); len(all) > 0 || err != nil {
		t.Errorf("%v were taken back, %v", all, err)
	}
	mesh.Fail(a.ID, "H26", recalledReason, "")
	all, err := next.DestroyTakenBack(testContext(t), dir)
	if err != nil || len(all) != 1 || all[0] != (agency.TakenBack{ID: a.ID, Sender: "G22"}) {
		t.Errorf("%v were taken back, %v", all, err)
	}
	id := other.ID.String()
	if got, want := tree(t, dir), []string{id, id + "/.unconfirmed", id + "/b.pdf", id + "/envelope.json", "một thư mục khác", "một thư mục khác/z"}; !slices.Equal(got, want) {
		t.Errorf("there is %v, want %v", got, want)
	}
	if all, err := next.DestroyTakenBack(testContext(t), filepath.Join(dir, "not there")); len(all) > 0 || err != nil {
		t.Errorf("of a folder that is not there %v were taken back, %v", all, err)
	}
}
