package routing_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/routing"
)

func TestReadAgencies(t *testing.T) {
	got, err := routing.ReadAgencies(strings.NewReader("\ufeffParent_Code, tier ,NAME,code,note,home_relay,standby,aliases,code_qcvn102\n" +
		"H26,3,Sở Y tế,H26.12,passed over,nam,bac,a1; a2 ;,000.00.12.H26\n" +
		",2,\"Hà Nội, thành phố\",H26,,,,000.00.00.H26,000.00.00.H26\n" +
		"H01,3,Bo\u0323\u0302,H01.01,,,,,\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []*directoryv1.Agency{ // the superior first
		{Code: "H26", Name: "Hà Nội, thành phố", Tier: 2, Aliases: []string{"000.00.00.H26"}},
		{Code: "H26.12", Name: "Sở Y tế", Tier: 3, ParentCode: "H26", HomeRelayId: "nam", StandbyRelayId: "bac",
			Aliases: []string{"000.00.12.H26", "a1", "a2"}},
		{Code: "H01.01", Name: "Bộ", Tier: 3, ParentCode: "H01"},
	}
	if !slices.EqualFunc(got, want, func(a, b *directoryv1.Agency) bool { return proto.Equal(a, b) }) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	var out bytes.Buffer
	if err := routing.WriteAgencies(&out, got); err != nil {
		t.Fatal(err)
	}
	again, err := routing.ReadAgencies(&out)
	if err != nil || !slices.EqualFunc(again, want, func(a, b *directoryv1.Agency) bool { return proto.Equal(a, b) }) {
		t.Errorf("written and read again: %v, %v", again, err)
	}
}

func TestReadAgenciesFaults(t *testing.T) {
	const header = "code,name,tier,parent_code\n"
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"empty", "", []string{"the file is empty"}},
		{"columns missing", "code,nom\n", []string{"columns missing: name, tier, parent_code"}},
		{"column twice", "code,name,tier,parent_code,home,home_relay\n", []string{"column home stands twice"}},
		{"every line at once", header + "H01,,2,\nH02,Tên,x,\nH03,Tên,2\nH04,\"Tên\nhai dòng\",2,\nH05,Tên,9,\nH06,Tên,2,\nH06,Tên,2,\n", []string{
			"line 2: name is missing", "line 3: tier \"x\"", "line 4: 3 fields, the header has 4",
			"line 5: name has control characters", "line 7: tier 9", "line 9: code H06 stands on line 8 already",
		}},
		{"open quotes", header + "H01,\"Tên,2,\n", []string{"parse error"}},
		{"circle", header + "A,Tên,2,B\nB,Tên,2,A\n", []string{"line 2: agency A is its own superior"}},
		{"many", header + strings.Repeat("H01,,2,\n", 25), []string{"line 21: ", "and 5 more"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := routing.ReadAgencies(strings.NewReader(c.in))
			if err == nil || got != nil {
				t.Fatalf("ReadAgencies = %v, %v; want an error", got, err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q:\n%v", want, err)
				}
			}
		})
	}
}

// administration imports a list of agencies, in parts as a large one travels.
func administration(t fataler, file string) (*routing.Directory, []*directoryv1.Agency) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer f.Close()
	agencies, err := routing.ReadAgencies(f)
	if err != nil {
		t.Fatalf("%v", err)
	}
	d := routing.NewDirectory()
	must(t, d, relay("bac"), relay("trung"), relay("nam"))
	importAll(t, d, agencies)
	return d, agencies
}

func importAll(t fataler, d *routing.Directory, agencies []*directoryv1.Agency) {
	t.Helper()
	const size = 5000
	for i := 0; i < len(agencies); i += size {
		end := min(i+size, len(agencies))
		must(t, d, &directoryv1.ImportAgencies{Staging: "all", Last: end == len(agencies), Agencies: agencies[i:end]})
	}
}

func TestImportSample(t *testing.T) {
	d, agencies := administration(t, "../test/data/admin-units-sample.csv")
	v := d.View()
	if v.AgencyCount() != uint64(len(agencies)) || len(agencies) != 127 {
		t.Errorf("%d agencies of %d, want 127", v.AgencyCount(), len(agencies))
	}
	for group, want := range map[string]int{
		"centrals": 9, "provinces": 63, "provinces-of/VN": 63, "districts": 8, "districts-of/48": 8,
		"communes-of/48": 47, "communes-of/VN": 47, "communes-of/490": 5,
	} {
		if got, faults := v.Resolve(recipients(toGroup(group))); len(got) != want || faults != nil {
			t.Errorf("%s: %d agencies, faults %v; want %d", group, len(got), faults, want)
		}
	}
	all, _ := v.Resolve(recipients(toGroup("communes"), toGroup("districts"), toGroup("provinces"), toGroup("centrals")))
	if spread := v.Spread(all); len(spread) != 1 || uint64(len(all)) != v.Homes("bac") {
		t.Errorf("homes %v: all follow their superior VN to bac", spread)
	}
	if page, _ := v.Agencies(routing.Query{Search: "hoa phuoc"}); len(page) != 1 || page[0].GetCode() != "20329" {
		t.Errorf("search: %v, want 20329", page)
	}
}

func TestImportFourTiers(t *testing.T) {
	const file = "../../shared/data/admin-units-4tier.csv"
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s is not here: tested with the sample only", file)
	}
	d, _ := administration(t, file)
	for group, want := range map[string]int{"centrals": 29, "provinces": 63, "districts": 696, "communes": 10_035, "communes-of/VN": 10_035} {
		if got, faults := d.View().Resolve(recipients(toGroup(group))); len(got) != want || faults != nil {
			t.Errorf("%s: %d agencies, faults %v; want %d", group, len(got), faults, want)
		}
	}
	copied := routing.NewDirectory()
	snapshot := snapshotOf(t, d)
	if err := copied.Restore(bytes.NewReader(snapshot)); err != nil || !bytes.Equal(snapshotOf(t, copied), snapshot) {
		t.Errorf("copy differs, restore: %v", err)
	}
}

// large makes the directory of the whole country, 111,339 agencies.
func large() []*directoryv1.Agency {
	agencies := []*directoryv1.Agency{row("VN", 1, "")}
	add := func(a *directoryv1.Agency) *directoryv1.Agency {
		a.Name = "Ủy ban nhân dân đơn vị hành chính số " + a.Code
		agencies = append(agencies, a)
		return a
	}
	for p := range 63 {
		province := add(row(fmt.Sprintf("H%02d", p+1), 2, "VN"))
		for q := range 11 {
			district := add(row(fmt.Sprintf("%s.%02d", province.Code, q+1), 3, province.Code))
			for c := range 160 {
				if len(agencies) < 111_339 {
					add(row(fmt.Sprintf("%s.%02d.%03d", district.Code, c/20+1, c%20+1), 4, district.Code))
				}
			}
		}
	}
	for i := 0; len(agencies) < 111_339; i++ {
		add(row(fmt.Sprintf("G%02d.%03d", i%40, i), 1, "VN"))
	}
	return agencies
}
