package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/truclienthong/truc/cmd/internal/cli"
)

// statsColumns are those of --csv; none changes its name.
var statsColumns = []struct {
	name string
	of   func(r *statsRow) any
}{
	{"key", func(r *statsRow) any { return plainCell(r.Key) }},
	{"name", func(r *statsRow) any { return plainCell(r.Name) }},
	{"sent", func(r *statsRow) any { return r.Sent }},
	{"digitally_signed", func(r *statsRow) any { return r.Signed }},
	{"digitally_signed_share", func(r *statsRow) any { return shareCell(r.SignedShare) }},
	{"on_time", func(r *statsRow) any { return r.OnTime }},
	{"late", func(r *statsRow) any { return r.Late }},
	{"on_time_share", func(r *statsRow) any { return shareCell(r.OnTimeShare) }},
	{"priority_thuong", func(r *statsRow) any { return r.Priorities.Thuong }},
	{"priority_khan", func(r *statsRow) any { return r.Priorities.Khan }},
	{"priority_thuong_khan", func(r *statsRow) any { return r.Priorities.ThuongKhan }},
	{"priority_hoa_toc", func(r *statsRow) any { return r.Priorities.HoaToc }},
	{"priority_hoa_toc_hen_gio", func(r *statsRow) any { return r.Priorities.HoaTocHenGio }},
	{"deliveries", func(r *statsRow) any { return r.Deliveries }},
	{"delivered", func(r *statsRow) any { return r.Delivered }},
	{"pending", func(r *statsRow) any { return r.Pending }},
	{"expired", func(r *statsRow) any { return r.Expired }},
	{"refused", func(r *statsRow) any { return r.Refused }},
	{"recalled", func(r *statsRow) any { return r.Recalled }},
	{"addressed", func(r *statsRow) any { return r.Addressed }},
	{"received", func(r *statsRow) any { return r.Received }},
	{"phase_sent", func(r *statsRow) any { return r.Phases.Sent }},
	{"phase_arrived", func(r *statsRow) any { return r.Phases.Arrived }},
	{"phase_accepted", func(r *statsRow) any { return r.Phases.Accepted }},
	{"phase_assigned", func(r *statsRow) any { return r.Phases.Assigned }},
	{"phase_processing", func(r *statsRow) any { return r.Phases.Processing }},
	{"phase_finished", func(r *statsRow) any { return r.Phases.Finished }},
	{"phase_returned", func(r *statsRow) any { return r.Phases.Returned }},
	{"phase_recalled", func(r *statsRow) any { return r.Phases.Recalled }},
	{"accepted_on_time", func(r *statsRow) any { return r.AcceptedOnTime }},
	{"accepted_late", func(r *statsRow) any { return r.AcceptedLate }},
	{"statuses_sent", func(r *statsRow) any { return r.Statuses.Sent }},
	{"statuses_deliveries", func(r *statsRow) any { return r.Statuses.Deliveries }},
	{"statuses_delivered", func(r *statsRow) any { return r.Statuses.Delivered }},
	{"statuses_pending", func(r *statsRow) any { return r.Statuses.Pending }},
	{"statuses_expired", func(r *statsRow) any { return r.Statuses.Expired }},
	{"statuses_refused", func(r *statsRow) any { return r.Statuses.Refused }},
	{"statuses_recalled", func(r *statsRow) any { return r.Statuses.Recalled }},
	{"statuses_addressed", func(r *statsRow) any { return r.Statuses.Addressed }},
	{"statuses_received", func(r *statsRow) any { return r.Statuses.Received }},
}

// csv writes the rows with the month and what they are by, so that files of several
// months can be put together.
func (s statistics) csv(w io.Writer) error {
	out := csv.NewWriter(w)
	line := []string{"month", "by"}
	for _, c := range statsColumns {
		line = append(line, c.name)
	}
	if err := out.Write(line); err != nil {
		return err
	}
	by := s.By
	if by == "" {
		by = "relay"
	}
	for _, row := range s.table() {
		line = append(line[:0], s.Month, by)
		for _, c := range statsColumns {
			line = append(line, fmt.Sprint(c.of(&row)))
		}
		if err := out.Write(line); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

func shareCell(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'f', -1, 64)
}

// plainCell keeps a spreadsheet from taking a text for a formula (OWASP, CSV
// Injection): agencies choose their names.
func plainCell(text string) string {
	text = cli.OneLine(text)
	if first := strings.TrimSpace(text); first != "" && strings.ContainsRune("=+-@＝＋－＠", []rune(first)[0]) {
		return "'" + text
	}
	return text
}
