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
		{"empty", "", []string{"line 1: the file is empty"}},
		{"columns missing", "code,nom\n", []string{"line 1: columns missing: name, tier, parent_code"}},
		{"column twice", "code,name,tier,parent_code,home,home_relay\n", []string{"column home stands twice"}},
		{"every line at once", header + "H01,,2,\nH02,Tên,x,\nH03,Tên,2\nH04,\"Tên\nhai dòng\",2,\nH05,Tên,9,\nH06,Tên,2,\nH06,Tên,2,\n", []string{
			"line 2: name is missing", "line 3: tier \"x\"", "line 4: 3 fields, the header has 4",
			"line 5: name has control characters", "line 7: tier 9", "line 9: code H06 stands on line 8 already",
		}},
		{"not UTF-8", header + "H01,Tên,2,\nH02,T\xean,2,\nH03,T\xean,2,\n", []string{"line 3: name is not UTF-8", "CSV UTF-8"}},
		{"a header that is not UTF-8", "code,t\xean,tier,parent_code\n", []string{"line 1: column 2 is not UTF-8"}},
		{"UTF-16", "\xff\xfec\x00o\x00d\x00e\x00", []string{"line 1: the file is UTF-16", "CSV UTF-8"}},
		{"semicolons", "code;name;tier;parent_code\n", []string{"line 1: columns missing", "not separated by commas"}},
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

func file(name, content string) routing.AgencyFile {
	return routing.AgencyFile{Name: name, Content: strings.NewReader(content)}
}

const levelOne = "code,code_qcvn102,name,kind,gso_code,confidence\n" +
	"G22,000.00.00.G22,Văn phòng Chính phủ,ministry,,published\n" +
	"H26,000.00.00.H26,Ủy ban nhân dân thành phố Hà Nội,province,01,recalled\n" +
	"H17,000.00.00.H17,Ủy ban nhân dân thành phố Đà Nẵng,province,48,seen-in-code\n"

// Units of the statistics office get identification codes from a list of level 1.
func TestReadAgencyFiles(t *testing.T) {
	list, err := routing.ReadAgencyFiles(
		file("4.csv", "code,name,tier,parent_code,home\nVN,Trung ương,1,,\nG22,VPCP,1,VN,nam\n00001,Phường Phúc Xá,4,001,\n"+
			"01,Thành phố Hà Nội,2,VN,bac\n001,Quận Ba Đình,3,01,\n"),
		file("1.csv", levelOne),
		file("2.csv", "code,name,tier,parent_code\nVN,Trung ương,1,\n01,Hà Nội,2,VN\n48,Đà Nẵng,2,VN\n00001,Phường Ba Đình,3,01\n"),
		file("own.csv", "code,name,tier,parent_code\nH26.001.00001.7,Trạm Y tế,4,H26.001.00001\nvxp.saas.02,Thử,1,\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"G22 1  VPCP nam", "H26 2  Ủy ban nhân dân thành phố Hà Nội bac", "H17 2  Ủy ban nhân dân thành phố Đà Nẵng ",
		"H26.001 3 H26 Quận Ba Đình ", "H26.001.00001 4 H26.001 Phường Phúc Xá ",
		"H26.00001 4 H26 Phường Ba Đình ", "H26.001.00001.7 4 H26.001.00001 Trạm Y tế ", "vxp.saas.02 1  Thử ",
	}
	want[0] = "G22 1  Văn phòng Chính phủ nam"
	var got []string
	for _, a := range list.Agencies {
		got = append(got, fmt.Sprintf("%s %d %s %s %s", a.GetCode(), a.GetTier(), a.GetParentCode(), a.GetName(), a.GetHomeRelayId()))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for code, place := range map[string]string{"H26": "1.csv line 3", "H26.001": "4.csv line 6", "vxp.saas.02": "own.csv line 3"} {
		if got := list.Place(code); got != place {
			t.Errorf("place of %s: %q, want %q", code, got, place)
		}
	}
	d := fresh3(t)
	must(t, d, &directoryv1.ImportAgencies{Agencies: list.Agencies})
	for old, code := range map[routing.AgencyCode]string{"000.00.00.G22": "G22", "000.00.00.H17": "H17"} {
		if a := agency(t, d, old); a.GetCode() != code {
			t.Errorf("%s means %s, want %s", old, a.GetCode(), code)
		}
	}
}

func TestReadAgencyFilesFaults(t *testing.T) {
	const header = "code,name,tier,parent_code\n"
	for _, c := range []struct {
		name  string
		files []routing.AgencyFile
		want  []string
	}{
		{"each file names its lines", []routing.AgencyFile{file("a.csv", header+"A,,1,\n"), file("b.csv", "code\n"), file("c.csv", header+"C,c,9,\n")}, []string{
			"a.csv line 2: name is missing", "b.csv line 1: columns missing", "c.csv line 2: tier 9"}},
		{"a code in two files", []routing.AgencyFile{file("a.csv", header+"A,a,1,\n"), file("b.csv", header+"B,b,1,\nA,a,1,\n")}, []string{
			"b.csv line 3: code A stands on a.csv line 2 already"}},
		{"a circle over two files", []routing.AgencyFile{file("a.csv", header+"A,a,1,B\n"), file("b.csv", header+"B,b,1,A\n")}, []string{
			"a.csv line 2: agency A is its own superior"}},
		{"a list of level 1 without kind", []routing.AgencyFile{file("1.csv", "code,name,gso_code\n")}, []string{"line 1: columns missing: kind"}},
		{"two provinces of one number", []routing.AgencyFile{file("1.csv", levelOne+"H99,,x,province,48,\n")}, []string{"line 5: gso_code 48 is that of H17 already"}},
		{"units", []routing.AgencyFile{file("1.csv", levelOne), file("u.csv", header+
			"01,Hà Nội,2,VN\n99,Không có,2,VN\n990,Dưới,3,99\n48,Đà Nẵng,3,VN\n001,Ba Đình,3,01\n002,Hoàn Kiếm,4,01\n"+
			"00001,Phúc Xá,3,001\n00002,Không có trên,4,009\n00003,Ngược,4,00001\n001,Lại,3,01\n79,Dưới tỉnh,2,01\n")}, []string{
			"u.csv line 3: code 99: no row of the list of level 1 has it as gso_code", "u.csv line 5: tier 3: 48 has 2 digits, which is tier 2",
			"u.csv line 7: tier 4: 002 has 3 digits, which is tier 3", "u.csv line 8: tier 3: 00001 has 5 digits, which is tier 4",
			"u.csv line 9: parent_code: 009 is no unit above 00002 in this file", "u.csv line 10: parent_code: 00001 is no unit above 00003 in this file",
			"u.csv line 11: code 001 stands on u.csv line 6 already", "u.csv line 12: parent_code: 01 above 79"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := routing.ReadAgencyFiles(c.files...)
			if err == nil || got != nil {
				t.Fatalf("ReadAgencyFiles = %v, %v; want an error", got, err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q:\n%v", want, err)
				}
			}
			if n := strings.Count(err.Error(), "\n"); n != len(c.want) {
				t.Errorf("%d faults, want %d:\n%v", n, len(c.want), err)
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

// The lists of before and after July 2025 and the list of level 1, at once.
func TestReadNationalFiles(t *testing.T) {
	var files []routing.AgencyFile
	for _, name := range []string{"admin-units-4tier.csv", "admin-units-2tier-2025.csv", "agency-codes-level1.csv"} {
		f, err := os.Open("../../shared/data/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			t.Skipf("%s is not here: tested with small lists only", name)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, routing.AgencyFile{Name: name, Content: f})
	}
	list, err := routing.ReadAgencyFiles(files...)
	if err != nil {
		t.Fatal(err)
	}
	d := fresh3(t)
	importAll(t, d, list.Agencies)
	v := d.View()
	for group, want := range map[string]int{"centrals": 28, "provinces": 63, "districts": 696, "communes": 10_035 + 3_321, "communes-of/H26": 526 + 126} {
		if got, faults := v.Resolve(recipients(toGroup(group))); len(got) != want || faults != nil {
			t.Errorf("%s: %d agencies, faults %v; want %d", group, len(got), faults, want)
		}
	}
	if a := agency(t, d, "H26.001.00004"); a.GetName() != "Phường Trúc Bạch" {
		t.Errorf("H26.001.00004 is %s", a.GetName())
	}
	if a := agency(t, d, "H26.00004"); a.GetName() != "Phường Ba Đình" || a.GetParentCode() != "H26" {
		t.Errorf("H26.00004 is %v", a)
	}
	for _, id := range []routing.RelayID{"bac", "trung", "nam"} { // by provinces, as nothing is above those
		if share := v.Homes(id) * 3 * 10 / v.AgencyCount(); share < 7 || share > 13 {
			t.Errorf("%s is home of %d of %d", id, v.Homes(id), v.AgencyCount())
		}
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
