package tally

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// Read returns the rows of a file that tests appended to.
func Read(file string) (rows []Row, err error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	scan := bufio.NewScanner(in)
	for scan.Scan() {
		var r Row
		if err := json.Unmarshal(scan.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		rows = append(rows, r)
	}
	return rows, scan.Err()
}

// Sum adds up the rows of each kind, in the order in which kinds come first.
func Sum(rows []Row) (sums []Row) {
	for _, r := range rows {
		i := slices.IndexFunc(sums, func(s Row) bool { return s.Kind == r.Kind && s.Measured == r.Measured })
		if i < 0 {
			sums = append(sums, r)
			continue
		}
		sums[i].Injected += r.Injected
		sums[i].Survived += r.Survived
		sums[i].Longest = max(sums[i].Longest, r.Longest)
		sums[i].Failed = sums[i].Failed || r.Failed
		sums[i].Suite = cmp.Or(sums[i].Suite, r.Suite)
	}
	return sums
}

// Print writes the table: kind of fault, injected, survived, longest recovery.
func Print(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KIND OF FAULT\tINJECTED\tSURVIVED\tLONGEST RECOVERY\tMEASURED")
	for _, r := range Sum(rows) {
		mark := ""
		if r.Failed || r.Survived < r.Injected {
			mark = "  <--"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s%s\n", r.Kind, r.Injected, r.Survived, r.Longest.Round(time.Millisecond), r.Measured, mark)
	}
	return t.Flush()
}
