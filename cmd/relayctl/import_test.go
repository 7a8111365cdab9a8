package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	conn "github.com/truclienthong/truc/cmd/internal/operator"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/test/mesh"
)

func TestMain(m *testing.M) {
	code := m.Run()
	mesh.RemoveBinaries()
	os.Exit(code)
}

// file writes a list of agencies.
func (o *console) file(name, content string) string {
	o.t.Helper()
	path := o.temp(name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		o.t.Fatal(err)
	}
	return path
}

// imports are the staged imports of a relay, and how many agencies it has.
func (o *console) imports(relay string) (staged []*adminv1.StagedImport, agencies int) {
	o.t.Helper()
	r, err := o.Operator(relay).Directory.ListImports(o.t.Context(), &adminv1.ListImportsRequest{Consistency: adminv1.Consistency_CONSISTENCY_LINEARIZABLE})
	if err != nil {
		o.t.Fatal(err)
	}
	return r.GetImports(), len(o.do("agency", "list"))
}

// wards are so many agencies below H26.
func wards(n int) []*directoryv1.Agency {
	var list []*directoryv1.Agency
	for i := range n {
		list = append(list, &directoryv1.Agency{
			Code: fmt.Sprintf("H26.9.%05d", i), Tier: 4, ParentCode: "H26", Name: fmt.Sprintf("Đơn vị sự nghiệp công lập trực thuộc số %d, %s", i, strings.Repeat("x", 60)),
		})
	}
	return list
}

const listHeader = "code,name,tier,parent_code\n"

// What is wrong with a list is named by its line, found in the file or by the
// directory; nothing of it is there afterwards.
func TestImportRefusesByLine(t *testing.T) {
	t.Parallel()
	o := newConsole(t)
	_, before := o.imports("bac")
	good := o.file("good.csv", listHeader+"H26.9,Tốt,3,H26\n")
	for name, c := range map[string]struct {
		content string
		words   []string
	}{
		"columns":      {"code,name\nH26.8,a\n", []string{"bad.csv line 1: columns missing: tier, parent_code"}},
		"encoding":     {listHeader + "H26.8,T\xean,3,H26\n", []string{"bad.csv line 2: name is not UTF-8"}},
		"circle":       {listHeader + "A,a,3,B\nB,b,3,A\n", []string{"bad.csv line 2: agency A is its own superior"}},
		"twice":        {listHeader + "H26.8,a,3,H26\nH26.8,b,3,H26\n", []string{"bad.csv line 3: code H26.8 stands on", "line 2 already"}},
		"in two files": {listHeader + "H26.9,b,3,H26\n", []string{"bad.csv line 2: code H26.9 stands on", "good.csv line 2 already"}},
		"by the directory": {"code,name,tier,parent_code,aliases\nH26.8,a,3,H26,\nH26.7,a,3,H98,\nH26.6,a,3,H26,G22\nH26.12,a,3,H26.12.05,\n", []string{
			"bad.csv line 3: H26.7: parent_code: agency H98 is not in the directory", "bad.csv line 4: H26.6: alias G22 belongs to agency G22",
			"bad.csv line 5: H26.12: parent_code: agency H26.12.05 is itself below H26.12", "3 problems"}},
		"an alias as a code": {listHeader + "000.00.00.G22,a,1,\n", []string{"bad.csv line 2: 000.00.00.G22: code 000.00.00.G22 is an alias of agency G22"}},
	} {
		bad := o.file("bad.csv", c.content)
		r := o.refused([]string{"agency", "import", good, bad}, c.words...)
		if r.stdout != "" {
			t.Errorf("%s: printed %q", name, r.stdout)
		}
		if staged, agencies := o.imports("nam"); len(staged) != 0 || agencies != before {
			t.Errorf("%s: %d agencies, staged %v; want %d and none", name, agencies, staged, before)
		}
	}
	if r := o.run(t.Context(), "agency", "import"); r.code != 2 {
		t.Errorf("no file: exit %d, want 2", r.code)
	}
}

// A list of level 1 and units of the statistics office become agencies at their
// homes, found by either form of their codes, page by page.
func TestImportUnits(t *testing.T) {
	t.Parallel()
	o := newConsole(t)
	levelOne := o.file("1.csv", "code,code_qcvn102,name,kind,gso_code\nG09,000.00.00.G09,Bộ Nội vụ,ministry,\n"+
		"H37,000.00.00.H37,Ủy ban nhân dân tỉnh Lạng Sơn,province,20\nH03,000.00.00.H03,Ủy ban nhân dân tỉnh Bắc Kạn,province,06\n")
	units := o.file("4.csv", listHeader+"VN,Trung ương,1,\nG09,Bộ Nội vụ,1,VN\n06,Bắc Kạn,2,VN\n20,Lạng Sơn,2,VN\n178,Thành phố Lạng Sơn,3,20\n05977,Phường Hoàng Văn Thụ,4,178\n")
	if r := o.do("agency", "import", units, levelOne); r[0]["read"] != 5.0 || r[0]["changed"] != 5.0 {
		t.Errorf("import: %v", r)
	}
	ward := o.do("agency", "show", "H37.178.05977")[0]
	if ward["parent"] != "H37.178" || ward["home"] != o.do("agency", "show", "000.00.00.H37")[0]["home"] {
		t.Errorf("a ward: %v", ward)
	}
	o.refused([]string{"agency", "show", "VN"}, "not in the directory")
	first := o.run(t.Context(), "agency", "list", "--search", "LANG thanh", "--under", "000.00.00.H37", "--limit", "1", "-o", "json")
	if rows := first.objects(t); len(rows) != 1 || rows[0]["code"] != "H37.178" || first.stderr != "" {
		t.Errorf("search: %+v", first)
	}
	first = o.run(t.Context(), "agency", "list", "--under", "H37", "--limit", "2", "-o", "json")
	if rows := first.objects(t); len(rows) != 2 || first.stderr != "there are more: --after H37.178\n" {
		t.Errorf("first page: %+v", first)
	}
	if rows := o.do("agency", "list", "--under", "H37", "--limit", "2", "--after", "H37.178"); len(rows) != 1 || rows[0]["code"] != "H37.178.05977" {
		t.Errorf("second page: %v", rows)
	}

	var many strings.Builder
	many.WriteString(listHeader)
	for _, a := range wards(6000) {
		fmt.Fprintf(&many, "%s,\"%s\",4,%s\n", a.GetCode(), a.GetName(), a.GetParentCode())
	}
	r := o.run(t.Context(), "agency", "import", o.file("many.csv", many.String()), "-o", "json")
	if rows := r.objects(t); len(rows) != 1 || rows[0]["read"] != 6000.0 || rows[0]["changed"] != 6000.0 ||
		!strings.Contains(r.stderr, "6000 of 6000 agencies staged, taking effect") {
		t.Errorf("import of many: %+v", r)
	}

	again := o.do("agency", "import", units, levelOne)
	if again[0]["changed"] != 0.0 {
		t.Errorf("the same again: %v", again)
	}
	o.do("agency", "import", units, levelOne, "--home", "nam")
	for _, row := range o.do("agency", "list", "--under", "H37") {
		if row["home"] != "nam" {
			t.Errorf("after --home nam: %v", row)
		}
	}
}

// An import that is interrupted, refused or cut off leaves nothing, and no part
// of it takes effect when it goes on all the same.
func TestImportLeavesNothingHalf(t *testing.T) {
	t.Parallel()
	o := newConsole(t)
	_, before := o.imports("bac")
	c, err := connectAs(t, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list := wards(9000)
	none := func(what string) {
		t.Helper()
		if staged, agencies := o.imports("nam"); len(staged) != 0 || agencies != before {
			t.Fatalf("%s: %d agencies, staged %v; want %d and none", what, agencies, staged, before)
		}
	}

	ctx, interrupt := context.WithCancel(t.Context())
	batches := 0
	_, err = c.Import(ctx, conn.Import{Agencies: list, Progress: func(staged int) {
		if batches++; batches == 2 {
			if open, _ := o.imports("bac"); len(open) != 1 || open[0].GetAgencies() == 0 {
				t.Errorf("staged before the interrupt: %v", open)
			}
			interrupt()
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "nothing was imported") || batches < 2 {
		t.Errorf("interrupted at batch %d: %v", batches, err)
	}
	none("interrupted")

	// Dropped by another operator while it goes on: it must not take effect with
	// its tail.
	batches = 0
	_, err = c.Import(t.Context(), conn.Import{Agencies: list, Progress: func(staged int) {
		if batches++; staged == len(list) {
			open, _ := o.imports("bac")
			o.do("agency", "import", "--drop", open[0].GetStaging())
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "begin it again") || batches < 3 {
		t.Errorf("dropped before batch %d: %v", batches, err)
	}
	none("dropped")

	// Killed: what it has staged is dropped by an import that comes much later.
	for _, age := range []time.Duration{0, time.Hour} {
		stage(t, o, stagedAt(time.Now().Add(-age)), list[:10])
	}
	r := o.run(t.Context(), "agency", "import", o.file("a.csv", listHeader+"H26.9,a,3,H26\n"))
	if r.code != 0 || !strings.Contains(r.stderr, "another import is under way") || !strings.Contains(r.stderr, "dropped an import that was cut off") {
		t.Errorf("an import after two that were killed: %+v", r)
	}
	staged, _ := o.imports("bac")
	if len(staged) != 1 || time.Since(begunAt(t, staged[0].GetStaging())) > time.Minute {
		t.Fatalf("left: %v, want the one that began just now", staged)
	}
	if r := o.do("agency", "import", "--drop", staged[0].GetStaging())[0]; r["done"] != "dropped" {
		t.Errorf("drop: %v", r)
	}
	o.refused([]string{"agency", "import", "--drop", staged[0].GetStaging()}, "no import is staged")

	// Interrupted while it takes effect: what came of it is waited for.
	ctx, interrupt = context.WithCancel(t.Context())
	defer interrupt()
	result, err := c.Import(ctx, conn.Import{Agencies: list, Progress: func(staged int) {
		if staged == len(list) {
			interrupt()
		}
	}})
	if err != nil || int(result.Changed) != len(list) {
		t.Errorf("interrupted while it takes effect: %+v, %v", result, err)
	}
}

// The leader goes while an import is staged: it is completed by the next one.
func TestImportOutlivesTheLeader(t *testing.T) {
	t.Parallel()
	o := &console{Mesh: mesh.Start(t, mesh.Config{Processes: true}), t: t}
	c, err := connectAs(t, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list, gone := wards(9000), ""
	result, err := c.Import(t.Context(), conn.Import{Agencies: list, Progress: func(staged int) {
		if gone == "" && staged > 0 {
			status, err := o.Operator("bac").Raft.Status(t.Context(), &adminv1.StatusRequest{})
			if err != nil {
				t.Error(err)
			}
			gone = status.GetLeaderId()
			o.KillRelay(gone)
		}
	}})
	if err != nil || int(result.Changed) != len(list) {
		t.Errorf("import without %s: %+v, %v", gone, result, err)
	}
	o.StartRelay(gone)
	o.AwaitServing()
	if staged, _ := o.imports(gone); len(staged) != 0 {
		t.Errorf("staged: %v", staged)
	}
	if rows := o.do("agency", "list", "--under", "H26", "--search", "8999"); len(rows) != 1 {
		t.Errorf("the last of all: %v", rows)
	}
}

// stage stages agencies as an import does, and no more.
func stage(t *testing.T, o *console, name string, agencies []*directoryv1.Agency) {
	t.Helper()
	id := uuid.New()
	r, err := o.Operator("bac").Directory.Change(t.Context(), &adminv1.ChangeRequest{RequestId: id[:], Command: &directoryv1.Command{
		Change: &directoryv1.Command_ImportAgencies{ImportAgencies: &directoryv1.ImportAgencies{Staging: name, Agencies: agencies}}}})
	if err != nil || r.GetResult().GetReason() != 0 {
		t.Fatalf("stage %s: %v, %v", name, r, err)
	}
}

// stagedAt is a name that an import takes that begins then: a UUID of version 7,
// which begins with 48 bits of milliseconds.
func stagedAt(begun time.Time) string {
	id := uuid.Must(uuid.NewV7())
	copy(id[:6], binary.BigEndian.AppendUint64(nil, uint64(begun.UnixMilli()))[2:])
	return id.String()
}

func begunAt(t *testing.T, staging string) time.Time {
	t.Helper()
	id, err := uuid.Parse(staging)
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(append([]byte{0, 0}, id[:6]...))))
}
