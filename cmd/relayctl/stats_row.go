package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/truclienthong/truc/cmd/internal/cli"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/relay/ledger"
)

// statistics is the JSON of stats.
type statistics struct {
	Month       string     `json:"month"`
	By          string     `json:"by"`
	AddsUp      bool       `json:"adds_up"`
	Differences []string   `json:"differences"`
	Total       statsRow   `json:"total"`
	Rows        []statsRow `json:"rows"`
	Relays      []statsRow `json:"relays"`
	Silent      []string   `json:"silent"`
}

type statsRow struct {
	Key            string          `json:"key"`
	Name           string          `json:"name"`
	Sent           uint64          `json:"sent"`
	Signed         uint64          `json:"digitally_signed"`
	SignedShare    *float64        `json:"digitally_signed_share"`
	OnTime         uint64          `json:"on_time"`
	Late           uint64          `json:"late"`
	OnTimeShare    *float64        `json:"on_time_share"`
	Priorities     statsPriorities `json:"priorities"`
	Deliveries     uint64          `json:"deliveries"`
	Delivered      uint64          `json:"delivered"`
	Pending        uint64          `json:"pending"`
	Expired        uint64          `json:"expired"`
	Refused        uint64          `json:"refused"`
	Recalled       uint64          `json:"recalled"`
	Addressed      uint64          `json:"addressed"`
	Received       uint64          `json:"received"`
	Phases         statsPhases     `json:"phases"`
	AcceptedOnTime uint64          `json:"accepted_on_time"`
	AcceptedLate   uint64          `json:"accepted_late"`
	Statuses       statsStatuses   `json:"statuses"`
}

type statsPriorities struct {
	Thuong       uint64 `json:"thuong"`
	Khan         uint64 `json:"khan"`
	ThuongKhan   uint64 `json:"thuong_khan"`
	HoaToc       uint64 `json:"hoa_toc"`
	HoaTocHenGio uint64 `json:"hoa_toc_hen_gio"`
}

type statsPhases struct {
	Sent       uint64 `json:"sent"`
	Arrived    uint64 `json:"arrived"`
	Accepted   uint64 `json:"accepted"`
	Assigned   uint64 `json:"assigned"`
	Processing uint64 `json:"processing"`
	Finished   uint64 `json:"finished"`
	Returned   uint64 `json:"returned"`
	Recalled   uint64 `json:"recalled"`
}

type statsStatuses struct {
	Sent       uint64 `json:"sent"`
	Deliveries uint64 `json:"deliveries"`
	Delivered  uint64 `json:"delivered"`
	Pending    uint64 `json:"pending"`
	Expired    uint64 `json:"expired"`
	Refused    uint64 `json:"refused"`
	Recalled   uint64 `json:"recalled"`
	Addressed  uint64 `json:"addressed"`
	Received   uint64 `json:"received"`
}

func statsOf(r *adminv1.StatsResponse, by string) statistics {
	s := statistics{Month: r.GetMonth(), By: by, Differences: append([]string{}, ledger.Differences(r)...), Total: statsRowOf(r.GetTotal()),
		Rows: []statsRow{}, Relays: []statsRow{}, Silent: append([]string{}, r.GetSilentRelayIds()...)}
	s.AddsUp = len(s.Differences) == 0
	for _, row := range r.GetRelays() {
		s.Relays = append(s.Relays, statsRowOf(row))
	}
	if by != "" {
		for _, row := range r.GetRows() {
			s.Rows = append(s.Rows, statsRowOf(row))
		}
	}
	return s
}

func statsRowOf(r *adminv1.StatsRow) statsRow {
	priority, phase, st := listed(r.GetByPriority()), listed(r.GetByPhase()), r.GetStatuses()
	return statsRow{
		Key: r.GetKey(), Name: r.GetName(), Sent: r.GetSent(), Signed: r.GetDigitallySigned(), SignedShare: share(r.GetDigitallySigned(), r.GetSent()),
		OnTime: r.GetOnTime(), Late: r.GetLate(), OnTimeShare: share(r.GetOnTime(), r.GetOnTime()+r.GetLate()),
		Priorities: statsPriorities{priority(0), priority(1), priority(2), priority(3), priority(4)},
		Deliveries: r.GetDeliveries(), Delivered: r.GetDelivered(), Pending: r.GetPending(), Expired: r.GetExpired(),
		Refused: r.GetRefused(), Recalled: r.GetRecalled(), Addressed: r.GetAddressed(), Received: r.GetReceived(),
		Phases:         statsPhases{phase(0), phase(1), phase(2), phase(3), phase(4), phase(5), phase(6), phase(7)},
		AcceptedOnTime: r.GetAcceptedOnTime(), AcceptedLate: r.GetAcceptedLate(),
		Statuses: statsStatuses{st.GetSent(), st.GetDeliveries(), st.GetDelivered(), st.GetPending(), st.GetExpired(),
			st.GetRefused(), st.GetRecalled(), st.GetAddressed(), st.GetReceived()},
	}
}

// listed reads a list that another release may have made shorter.
func listed(list []uint64) func(int) uint64 {
	return func(i int) uint64 {
		if i < len(list) {
			return list[i]
		}
		return 0
	}
}

// share is a part of one, to four places; nil of nothing.
func share(part, whole uint64) *float64 {
	if whole == 0 {
		return nil
	}
	v := math.Round(float64(part)/float64(whole)*1e4) / 1e4
	return &v
}

// table are the rows that are shown.
func (s statistics) table() []statsRow {
	if s.By == "" {
		return s.Relays
	}
	return s.Rows
}

func (s statistics) text(w io.Writer, out *cli.Output) error {
	head, name := "RELAY", func(statsRow) string { return "" }
	if s.By != "" {
		head = strings.ToUpper(s.By)
	}
	if s.By == ledger.ByAgency {
		head += "\tNAME"
		name = func(r statsRow) string { return "\t" + orDash(cli.OneLine(r.Name)) }
	}
	total := s.Total
	total.Key = "total"
	err := list(out, head+"\tSENT\tSIGNED\tON TIME\tLATE\tDELIVERIES\tDELIVERED\tPENDING\tEXPIRED\tREFUSED\tRECALLED\tADDRESSED\tRECEIVED\tSTATUSES",
		append(s.table(), total), func(r statsRow) string {
			return fmt.Sprintf("%s%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d", cli.OneLine(r.Key), name(r), r.Sent, percent(r.Signed, r.SignedShare),
				r.OnTime, r.Late, r.Deliveries, r.Delivered, r.Pending, r.Expired, r.Refused, r.Recalled, r.Addressed, r.Received, r.Statuses.Sent)
		})
	if err != nil {
		return err
	}
	p, f := total.Priorities, total.Phases
	if _, err := fmt.Fprintf(w, `month: %s
documents sent: thường %d, khẩn %d, thượng khẩn %d, hỏa tốc %d, hỏa tốc hẹn giờ %d
at the recipients: sent %d, arrived %d, accepted %d, assigned %d, processing %d, finished %d, returned %d, recalled %d
receipt confirmed by officers: %d the same day, %d later or not yet
`, s.Month, p.Thuong, p.Khan, p.ThuongKhan, p.HoaToc, p.HoaTocHenGio,
		f.Sent, f.Arrived, f.Accepted, f.Assigned, f.Processing, f.Finished, f.Returned, f.Recalled, total.AcceptedOnTime, total.AcceptedLate); err != nil {
		return err
	}
	return s.addsUp(w)
}

// addsUp says whether the rows and the relays come to the same.
func (s statistics) addsUp(w io.Writer) error {
	of := cli.Count(len(s.Relays), "relay")
	if s.By != "" {
		of = fmt.Sprintf("%d by %s and %s", len(s.Rows), s.By, of)
	}
	documents, statuses := s.Total.Deliveries, s.Total.Statuses.Deliveries
	if s.AddsUp {
		_, err := fmt.Fprintf(w, "adds up: %s come to %d deliveries of documents and %d of statuses, together %d\n",
			of, documents, statuses, documents+statuses)
		return err
	}
	for _, what := range s.Differences {
		if _, err := fmt.Fprintf(w, "does not add up: %s\n", cli.OneLine(what)); err != nil {
			return err
		}
	}
	return nil
}

// percent is a count with its share.
func percent(n uint64, share *float64) string {
	if share == nil {
		return strconv.FormatUint(n, 10)
	}
	return fmt.Sprintf("%d (%.1f%%)", n, *share*100)
}
