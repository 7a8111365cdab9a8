package routing

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

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
)

const maxCSVFaults = 20

// ReadAgencies reads a list of agencies from CSV (RFC 4180, UTF-8, a header
// row), ready for ImportAgencies: superiors before those below, otherwise in
// the order of the file; names in NFC. Superiors that the file does not hold
// are left to the directory. The error names every line at fault, up to 20.
func ReadAgencies(r io.Reader) ([]*directoryv1.Agency, error) {
	in := csv.NewReader(r)
	in.ReuseRecord = true
	header, err := in.Read()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		return nil, fmt.Errorf("read agencies: %w", err)
	}
	columns, err := csvColumns(header)
	if err != nil {
		return nil, fmt.Errorf("read agencies: %w", err)
	}
	var (
		agencies []*directoryv1.Agency
		faults   lineFaults
		lines    = map[string]int{} // by code
	)
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if parse := (*csv.ParseError)(nil); errors.As(err, &parse) && errors.Is(err, csv.ErrFieldCount) {
			faults.add(parse.Line, fmt.Sprintf("%d fields, the header has %d", len(record), len(header)))
			continue
		}
		if err != nil { // what follows can no longer be told apart
			faults.add(0, err.Error())
			break
		}
		line, _ := in.FieldPos(0)
		a, fault := csvAgency(columns, record)
		if before, twice := lines[a.GetCode()]; fault == "" && twice {
			fault = fmt.Sprintf("code %s stands on line %d already", a.GetCode(), before)
		}
		if fault != "" {
			faults.add(line, fault)
			continue
		}
		lines[a.GetCode()] = line
		agencies = append(agencies, a)
	}
	ordered := superiorsFirst(agencies, lines, &faults)
	if err := faults.err(); err != nil {
		return nil, err
	}
	return ordered, nil
}

func csvColumns(header []string) (map[string]int, error) {
	columns := map[string]int{}
	for i, name := range header {
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
	var missing []string
	for _, name := range []string{columnCode, columnName, columnTier, columnParent} {
		if _, ok := columns[name]; !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("line 1: columns missing: %s", strings.Join(missing, ", "))
	}
	return columns, nil
}

// csvAgency reads one line; fault is empty where it is sound.
func csvAgency(columns map[string]int, record []string) (a *directoryv1.Agency, fault string) {
	field := func(name string) string {
		if i, ok := columns[name]; ok {
			return strings.Clone(strings.TrimSpace(record[i]))
		}
		return ""
	}
	a = &directoryv1.Agency{
		Code: field(columnCode), Name: norm.NFC.String(field(columnName)), ParentCode: field(columnParent),
		HomeRelayId: field(columnHome), StandbyRelayId: field(columnStandby),
	}
	tier, err := strconv.ParseUint(field(columnTier), 10, 32)
	if err != nil {
		return a, fmt.Sprintf("tier %q: a number from 1 to 4", field(columnTier))
	}
	a.Tier = uint32(tier)
	for _, alias := range append([]string{field(columnOldForm)}, strings.Split(field(columnAliases), ";")...) {
		if alias = strings.TrimSpace(alias); alias != "" && !slices.Contains(a.Aliases, alias) {
			a.Aliases = append(a.Aliases, alias)
		}
	}
	var p problems
	if p.agency(a); p.found() {
		return a, p.err().Error()
	}
	return a, ""
}

// superiorsFirst orders agencies so that each comes after its superior, where
// that is among them, and otherwise as they are.
func superiorsFirst(agencies []*directoryv1.Agency, lines map[string]int, faults *lineFaults) []*directoryv1.Agency {
	byCode := make(map[string]*directoryv1.Agency, len(agencies))
	for _, a := range agencies {
		byCode[a.GetCode()] = a
	}
	ordered := make([]*directoryv1.Agency, 0, len(agencies))
	done := make(map[string]bool, len(agencies))
	for _, a := range agencies {
		var way []*directoryv1.Agency // from a upwards, not yet in ordered
		onWay := map[string]bool{}
		for here := a; here != nil && !done[here.GetCode()]; here = byCode[here.GetParentCode()] {
			if onWay[here.GetCode()] {
				faults.add(lines[here.GetCode()], fmt.Sprintf("agency %s is its own superior", here.GetCode()))
				break
			}
			onWay[here.GetCode()] = true
			way = append(way, here)
		}
		for _, here := range slices.Backward(way) {
			done[here.GetCode()] = true
			ordered = append(ordered, here)
		}
	}
	return ordered
}

// lineFaults gathers what is wrong with a file.
type lineFaults struct {
	list []string
	more int
}

func (f *lineFaults) add(line int, fault string) {
	if len(f.list) == maxCSVFaults {
		f.more++
		return
	}
	if line > 0 {
		fault = fmt.Sprintf("line %d: %s", line, fault)
	}
	f.list = append(f.list, fault)
}

func (f *lineFaults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	message := strings.Join(f.list, "\n")
	if f.more > 0 {
		message += fmt.Sprintf("\nand %d more", f.more)
	}
	return fmt.Errorf("read agencies:\n%s", message)
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
