package routing

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
)

// Columns of a list of agencies, found by the header's names in any order.
// Others are passed over.
const (
	columnCode     = "code"
	columnName     = "name"
	columnTier     = "tier"
	columnParent   = "parent_code"
	columnHome     = "home"
	columnHomeLong = "home_relay"
	columnStandby  = "standby"
	columnAliases  = "aliases"      // separated by ";"
	columnOldForm  = "code_qcvn102" // one alias, put first
	// Of a list of level 1 only, which needs neither tier nor parent_code.
	columnKind = "kind"     // "province", else a central body
	columnGSO  = "gso_code" // of the province in the statistics office's lists
)

const kindProvince = "province"

// AgencyFile is one list of agencies as CSV (RFC 4180, UTF-8, a header row).
type AgencyFile struct {
	// Name is for faults; it may be empty where there is one file.
	Name    string
	Content io.Reader
}

// AgencyList is what files say of agencies.
type AgencyList struct {
	// Agencies are ready for ImportAgencies: superiors before those below,
	// otherwise in the order of the files; names in NFC. Superiors that no file
	// holds are left to the directory.
	Agencies []*directoryv1.Agency

	places map[string]place // by code
	files  []AgencyFile
}

// place is a line of a file.
type place struct{ file, line int }

// Place says where the agency with that code stands: "line 7", of several files
// "units.csv line 7".
func (l *AgencyList) Place(code string) string { return l.at(l.places[code]) }

func (l *AgencyList) at(p place) string {
	switch name := l.files[p.file].Name; {
	case p.line == 0:
		return name
	case len(l.files) == 1 || name == "":
		return fmt.Sprintf("line %d", p.line)
	default:
		return fmt.Sprintf("%s line %d", name, p.line)
	}
}

// ReadAgencies is ReadAgencyFiles for one file.
func ReadAgencies(r io.Reader) ([]*directoryv1.Agency, error) {
	list, err := ReadAgencyFiles(AgencyFile{Content: r})
	if err != nil {
		return nil, err
	}
	return list.Agencies, nil
}

// ReadAgencyFiles reads lists of agencies as one. Where one of them is a list of
// level 1 (it has the column gso_code), units of the statistics office in the
// others get identification codes, as numbered says. What is wrong with them is a
// *FileError.
func ReadAgencyFiles(files ...AgencyFile) (*AgencyList, error) {
	list := &AgencyList{files: files, places: map[string]place{}}
	faults := &lineFaults{list: list}
	var levelOne, rows []csvRow
	for i := range files {
		table := readTable(i, files[i].Content, faults)
		if table.levelOne {
			levelOne = append(levelOne, table.rows...)
		} else {
			rows = append(rows, table.rows...)
		}
	}
	if len(levelOne) > 0 {
		rows = append(levelOne, numbered(levelOne, rows, faults)...)
	}
	var agencies []*directoryv1.Agency
	for _, r := range rows {
		if before, twice := list.places[r.GetCode()]; twice {
			faults.add(r.place, fmt.Sprintf("code %s stands on %s already", r.GetCode(), list.at(before)))
			continue
		}
		list.places[r.GetCode()] = r.place
		agencies = append(agencies, r.Agency)
	}
	if len(agencies) > maxStagedAgencies {
		faults.add(rows[len(rows)-1].place, fmt.Sprintf("%d agencies, at most %d are taken at a time", len(agencies), maxStagedAgencies))
	}
	list.Agencies = superiorsFirst(agencies, list.places, faults)
	if err := faults.err(); err != nil {
		return nil, err
	}
	return list, nil
}

// csvRow is one line.
type csvRow struct {
	*directoryv1.Agency
	place
	gso string // of a list of level 1
}

// csvTable is one file.
type csvTable struct {
	rows     []csvRow
	levelOne bool
}

const notUTF8 = `is not UTF-8: save the file again as "CSV UTF-8"`

func readTable(file int, content io.Reader, faults *lineFaults) (table csvTable) {
	buffered := bufio.NewReader(content)
	if mark, _ := buffered.Peek(2); bytes.Equal(mark, []byte{0xff, 0xfe}) || bytes.Equal(mark, []byte{0xfe, 0xff}) {
		faults.add(place{file, 1}, "the file is UTF-16, which "+notUTF8)
		return table
	}
	in := csv.NewReader(buffered)
	in.ReuseRecord = true
	header, err := in.Read()
	switch {
	case errors.Is(err, io.EOF):
		faults.add(place{file, 1}, "the file is empty")
		return table
	case err != nil:
		faults.add(place{file: file}, err.Error())
		return table
	}
	header = slices.Clone(header)
	columns, err := csvColumns(header)
	if err != nil {
		faults.add(place{file, 1}, err.Error())
		return table
	}
	_, table.levelOne = columns[columnGSO]
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return table
		}
		if parse := (*csv.ParseError)(nil); errors.As(err, &parse) && errors.Is(err, csv.ErrFieldCount) {
			faults.add(place{file, parse.Line}, fmt.Sprintf("%d fields, the header has %d", len(record), len(header)))
			continue
		}
		if err != nil { // what follows can no longer be told apart
			faults.add(place{file: file}, err.Error())
			return table
		}
		line, _ := in.FieldPos(0)
		if i := slices.IndexFunc(record, func(s string) bool { return !utf8.ValidString(s) }); i >= 0 {
			// So is the rest of the file, as a rule: said once.
			faults.add(place{file, line}, fmt.Sprintf("%s %s", header[i], notUTF8))
			return table
		}
		row, fault := csvAgency(columns, record)
		row.place = place{file, line}
		if fault != "" {
			faults.add(row.place, fault)
			continue
		}
		table.rows = append(table.rows, row)
	}
}

func csvColumns(header []string) (map[string]int, error) {
	columns := map[string]int{}
	for i, name := range header {
		if !utf8.ValidString(name) {
			return nil, fmt.Errorf("column %d %s", i+1, notUTF8)
		}
		if i == 0 {
			name = strings.TrimPrefix(name, "\ufeff") // as spreadsheets save it
		}
		name = strings.ToLower(strings.TrimSpace(name))
		if name == columnHomeLong {
			name = columnHome
		}
		if _, twice := columns[name]; twice && name != "" {
			return nil, fmt.Errorf("column %s stands twice", name)
		}
		columns[name] = i
	}
	needed := []string{columnCode, columnName, columnTier, columnParent}
	if _, levelOne := columns[columnGSO]; levelOne {
		needed = []string{columnCode, columnName, columnKind}
	}
	var missing []string
	for _, name := range needed {
		if _, ok := columns[name]; !ok {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) > 0 && len(header) == 1 && strings.ContainsAny(header[0], ";\t"):
		return nil, errors.New("columns missing: the fields are not separated by commas; save the file again as \"CSV UTF-8\" with commas")
	case len(missing) > 0:
		return nil, fmt.Errorf("columns missing: %s", strings.Join(missing, ", "))
	}
	return columns, nil
}

// csvAgency reads one line; fault is empty where it is sound.
func csvAgency(columns map[string]int, record []string) (row csvRow, fault string) {
	field := func(name string) string {
		if i, ok := columns[name]; ok {
			return strings.Clone(strings.TrimSpace(record[i]))
		}
		return ""
	}
	a := &directoryv1.Agency{
		Code: field(columnCode), Name: norm.NFC.String(field(columnName)), ParentCode: field(columnParent),
		HomeRelayId: field(columnHome), StandbyRelayId: field(columnStandby),
	}
	row = csvRow{Agency: a, gso: field(columnGSO)}
	if _, stated := columns[columnTier]; stated {
		tier, err := strconv.ParseUint(field(columnTier), 10, 32)
		if err != nil {
			return row, fmt.Sprintf("tier %q: a number from 1 to 4", field(columnTier))
		}
		a.Tier = uint32(tier)
	} else if a.Tier = uint32(TierCentral); field(columnKind) == kindProvince {
		a.Tier = uint32(TierProvince)
	}
	for _, alias := range append([]string{field(columnOldForm)}, strings.Split(field(columnAliases), ";")...) {
		if alias = strings.TrimSpace(alias); alias != "" && !slices.Contains(a.Aliases, alias) {
			a.Aliases = append(a.Aliases, alias)
		}
	}
	var p problems
	if p.agency(a); p.found() {
		return row, p.err().Error()
	}
	return row, ""
}

// WriteAgencies writes a list of agencies that ReadAgencies reads again.
func WriteAgencies(w io.Writer, agencies []*directoryv1.Agency) error {
	out := csv.NewWriter(w)
	rows := [][]string{{columnCode, columnName, columnTier, columnParent, columnHome, columnStandby, columnAliases}}
	for _, a := range agencies {
		rows = append(rows, []string{
			a.GetCode(), a.GetName(), strconv.FormatUint(uint64(a.GetTier()), 10), a.GetParentCode(),
			a.GetHomeRelayId(), a.GetStandbyRelayId(), strings.Join(a.GetAliases(), ";"),
		})
	}
	if err := out.WriteAll(rows); err != nil {
		return fmt.Errorf("write agencies: %w", err)
	}
	return nil
}
