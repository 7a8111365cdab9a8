package routing_test

import (
	"io"
	"sync"
	"testing"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/routing"
)

// country is the directory of 111,339 agencies, made once.
var country = sync.OnceValue(func() *routing.Directory {
	d := routing.NewDirectory()
	t := panics{}
	must(t, d, relay("bac"), relay("trung"), relay("nam"))
	importAll(t, d, large())
	return d
})

type panics struct{}

func (panics) Helper()                        {}
func (panics) Fatalf(format string, _ ...any) { panic(format) }

func TestLookupsDoNotAllocate(t *testing.T) {
	d := small(t)
	v := d.View()
	for name, lookup := range map[string]func(){
		"Agency by code":  func() { v.Agency("H26.12.05") },
		"Agency by alias": func() { v.Agency("000.05.12.H26") },
		"Agency unknown":  func() { v.Agency("H99") },
		"Relay":           func() { v.Relay("bac") },
		"Bound":           func() { v.Bound([32]byte{1}) },
		"SpeaksFor":       func() { v.SpeaksFor("tinh-hn", "H26") },
		"Allowed":         func() { v.Allowed("G22", "H26.12.05", document) },
		"View":            func() { d.View() },
	} {
		if n := testing.AllocsPerRun(100, lookup); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	d := country()
	v := d.View()
	var list []routing.AgencyCode
	for after := ""; len(list) < 100_000; {
		page, next := v.Agencies(routing.Query{Limit: 1000, After: after})
		for _, a := range page {
			list = append(list, routing.AgencyCode(a.GetCode()))
		}
		after = next
	}
	// A prime stride, so that look-ups do not follow memory.
	at := func(i int) routing.AgencyCode { return list[i*7919%len(list)] }
	b.Run("agency", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, ok := d.View().Agency(at(i)); !ok {
				b.Fatal("not found")
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "look-ups/s")
	})
	b.Run("relay", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v.Relay("trung")
		}
	})
	b.Run("allowed", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			v.Allowed("G00", at(i), document)
		}
	})
	b.Run("resolve communes of a province", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v.Resolve(recipients(toGroup("communes-of/H26")))
		}
	})
	b.Run("resolve all communes", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v.Resolve(recipients(toGroup("communes")))
		}
	})
	for name, q := range map[string]routing.Query{ // a page each
		"nobody":                   {Search: "khong co"},
		"one":                      {Search: "uy ban nhan dan h63 03 002"},
		"everybody, first page":    {Search: "uy ban nhan dan", Limit: 1000},
		"everybody, last page":     {Search: "uy ban nhan dan", Limit: 1000, After: "H62"},
		"words that never meet":    {Search: "uy ban h26 h27"},
		"under a province":         {Under: "H63", Tier: 4, Limit: 1000},
		"under the root, by words": {Under: "VN", Search: "ph nhan d"},
		"without conditions":       {Limit: 1000, After: "H40"},
	} {
		b.Run("search/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				v.Agencies(q)
			}
		})
	}
}

func BenchmarkApplyImport(b *testing.B) {
	agencies := large()
	const size = 5000
	var commands [][]byte
	for i := 0; i < len(agencies); i += size {
		end := min(i+size, len(agencies))
		commands = append(commands, marshal(b, command(&directoryv1.ImportAgencies{Staging: "all", Last: end == len(agencies), Agencies: agencies[i:end]})))
	}
	b.ReportAllocs()
	for b.Loop() {
		d := routing.NewDirectory()
		must(b, d, relay("bac"), relay("trung"), relay("nam"))
		for _, c := range commands {
			if _, err := d.Apply(c); err != nil {
				b.Fatal(err)
			}
		}
		if d.View().AgencyCount() != uint64(len(agencies)) {
			b.Fatalf("%d agencies", d.View().AgencyCount())
		}
	}
	b.ReportMetric(float64(len(agencies)*b.N)/b.Elapsed().Seconds(), "agencies/s")
}

func BenchmarkApplyPut(b *testing.B) {
	d := country()
	c := marshal(b, command(put(row("H26.01.01.001", 4, "H26.01"))))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Apply(c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	d := country()
	b.ReportAllocs()
	var size int64
	for b.Loop() {
		s, err := d.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		if size, err = s.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(size), "bytes")
}

func BenchmarkRestore(b *testing.B) {
	s, err := country().Snapshot()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		restoreFrom(b, routing.NewDirectory(), s)
	}
}
