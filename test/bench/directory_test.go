package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/truclienthong/truc/cmd/relayd/dev"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/routing"
	"github.com/truclienthong/truc/test/mesh"
)

// addressable is how many agencies the axis could address in 2025.
const addressable = 111_339

// BenchmarkNationalDirectory fills the directory of three relay processes with
// the whole country by relayctl, looks agencies up in it as an agency does, and
// lets two relays join: one that takes the log from its beginning, and one that
// takes a snapshot. Run it with -benchtime 1x: it takes minutes.
func BenchmarkNationalDirectory(b *testing.B) {
	files := country(b)
	for b.Loop() {
		m := mesh.Start(b, mesh.Config{Processes: true, Agencies: []byte("code,name,tier,parent_code\nG22,Văn phòng Chính phủ,1,\n")})
		begun := time.Now()
		result := m.Relayctl(append([]string{"agency", "import"}, files...)...)[0]
		b.ReportMetric(time.Since(begun).Seconds(), "import-s")
		if result["read"] != float64(addressable) {
			b.Fatalf("import: %v, want %d agencies", result, addressable)
		}
		begun = time.Now()
		if again := m.Relayctl(append([]string{"agency", "import"}, files...)...)[0]; again["changed"] != 0.0 {
			b.Fatalf("the same again: %v", again)
		}
		b.ReportMetric(time.Since(begun).Seconds(), "import-again-s")

		lookUp(b, m.Agency("G22").Client)
		b.ReportMetric(join(b, m, "tay").Seconds(), "join-by-log-s")
		backup := filepath.Join(b.TempDir(), "directory.bak")
		m.Relayctl("raft", "backup", backup)
		m.Relayctl("raft", "restore", backup) // no log goes further back
		b.ReportMetric(join(b, m, "dong").Seconds(), "join-by-snapshot-s")
	}
}

// lookUp reports the time of the slowest kind of page and of a look-up by code,
// over the wire and averaged over a few of each.
func lookUp(b *testing.B, client *agency.Client) {
	b.Helper()
	slowest := time.Duration(0)
	for _, q := range []agency.Query{
		{Search: "tram y te"}, {Search: "ủy ban nhân dân"}, {Search: "hoc tieu phuong"}, {Search: "không ai"},
		{Under: "H26", Search: "tr"}, {Under: "H01", Tier: 4}, {Tier: 3},
	} {
		slowest = max(slowest, mean(b, func() error {
			_, _, err := client.LookupPage(b.Context(), q, 100, "")
			return err
		}))
	}
	b.ReportMetric(float64(slowest.Microseconds())/1000, "page-ms")
	b.ReportMetric(float64(mean(b, func() error {
		page, _, err := client.LookupPage(b.Context(), agency.Query{Code: "000.00.00.H26"}, 0, "")
		if err == nil && (len(page) != 1 || page[0].GetCode() != "H26") {
			err = fmt.Errorf("H26 by its older code: %v", page)
		}
		return err
	}).Microseconds())/1000, "look-up-by-wire-ms")
}

func mean(b *testing.B, call func() error) time.Duration {
	b.Helper()
	const times = 20
	begun := time.Now()
	for range times {
		if err := call(); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(begun) / times
}

// join lets a relay join and returns after how long it had the whole directory.
func join(b *testing.B, m *mesh.Mesh, id string) time.Duration {
	b.Helper()
	m.AddRelay(dev.Relay{ID: id, Region: "Tây"})
	begun := time.Now()
	m.Relayctl("raft", "add-nonvoter", id, m.Layout.Address(id))
	// It registers itself once it has the directory; what counts is what it had
	// before, the whole of it.
	m.Await(id+" has the directory", func(ctx context.Context) error {
		r, err := m.Operator(id).Directory.ListAgencies(ctx, &adminv1.ListAgenciesRequest{Search: lastName})
		if err == nil && len(r.GetAgencies()) == 0 {
			err = errors.New("not yet")
		}
		return err
	})
	return time.Since(begun)
}

// lastName is that of the last agency of the country.
const lastName = "Đơn vị cuối cùng"

// country writes the lists of the whole country: those at hand, where they are,
// and units below them until there are as many as there should be.
func country(b *testing.B) (names []string) {
	b.Helper()
	var files []routing.AgencyFile
	for _, name := range []string{"agency-codes-level1.csv", "admin-units-4tier.csv", "admin-units-2tier-2025.csv"} {
		path := filepath.Join("../../../shared/data", name)
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // all are made up then
		}
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		files, names = append(files, routing.AgencyFile{Name: name, Content: f}), append(names, path)
	}
	var known []*directoryv1.Agency
	if len(files) > 0 {
		list, err := routing.ReadAgencyFiles(files...)
		if err != nil {
			b.Fatal(err)
		}
		known = list.Agencies
	}
	var made []*directoryv1.Agency
	add := func(code, name string, tier uint32, parent string) {
		made = append(made, &directoryv1.Agency{Code: code, Name: name, Tier: tier, ParentCode: parent})
	}
	if len(known) == 0 {
		for i := range 63 {
			add(fmt.Sprintf("H%02d", i+1), fmt.Sprintf("Ủy ban nhân dân tỉnh số %d", i+1), 2, "")
		}
	}
	units := []string{"Trạm Y tế", "Trường Tiểu học", "Trường Trung học cơ sở", "Trường Mầm non", "Ban Chỉ huy Quân sự", "Công an", "Trung tâm Phục vụ hành chính công"}
	for above := append(known, made...); len(known)+len(made) < addressable-1; {
		i := len(made)
		parent := above[i%len(above)]
		add(fmt.Sprintf("%s.%02d", parent.GetCode(), 50+i/len(above)), units[i/len(above)%len(units)]+" thuộc "+parent.GetName(), max(parent.GetTier(), 2), parent.GetCode())
	}
	add("H26.99.99", lastName, 4, "H26")
	path := filepath.Join(b.TempDir(), "units.csv")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(routing.WriteAgencies(f, made), f.Close()); err != nil {
		b.Fatal(err)
	}
	return append(names, path)
}
