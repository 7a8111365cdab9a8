package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/truclienthong/truc/cmd/internal/cli"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
)

// counted is an answer that adds up: G22 sent two documents to two agencies, of
// which one has a name that a spreadsheet would take for a formula.
func counted() *adminv1.StatsResponse {
	sender := func(key string) *adminv1.StatsRow {
		return &adminv1.StatsRow{Key: key, Sent: 3, DigitallySigned: 2, OnTime: 1, Late: 1, ByPriority: []uint64{1, 0, 0, 2, 0},
			Deliveries: 5, Delivered: 1, Pending: 1, Expired: 1, Refused: 1, Recalled: 1,
			Statuses: &adminv1.StatsStatuses{}}
	}
	all := sender("")
	all.Addressed, all.Received, all.ByPhase, all.AcceptedOnTime = 5, 1, []uint64{4, 0, 1}, 1
	all.Statuses = &adminv1.StatsStatuses{Sent: 1, Deliveries: 1, Delivered: 1, Addressed: 1, Received: 1}
	g22, h26, odd := sender("G22"), &adminv1.StatsRow{Key: "H26"}, &adminv1.StatsRow{Key: "X9", Name: "=HYPERLINK(\"http://x\",\"a\")"}
	g22.Name, g22.Statuses.Addressed, g22.Statuses.Received = "Bộ Tài chính, \"BTC\"", 1, 1
	h26.Name, h26.Addressed, h26.Received, h26.ByPhase, h26.AcceptedOnTime = "UBND thành phố Hà Nội", 3, 1, []uint64{2, 0, 1}, 1
	h26.Statuses = &adminv1.StatsStatuses{Sent: 1, Deliveries: 1, Delivered: 1}
	odd.Addressed, odd.ByPhase = 2, []uint64{2}
	bac := proto.Clone(all).(*adminv1.StatsRow)
	bac.Key = "bac"
	return &adminv1.StatsResponse{Month: "2026-10", Rows: []*adminv1.StatsRow{g22, h26, odd}, Total: all,
		Relays: []*adminv1.StatsRow{bac, {Key: "nam"}}}
}

func show(t *testing.T, s statistics) string {
	t.Helper()
	var b bytes.Buffer
	cmd := new(cobra.Command)
	cmd.SetOut(&b)
	if err := s.text(&b, new(cli.Options).Output(cmd)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestStatsText(t *testing.T) {
	const below = `month: 2026-10
documents sent: thường 1, khẩn 0, thượng khẩn 0, hỏa tốc 2, hỏa tốc hẹn giờ 0
at the recipients: sent 4, arrived 0, accepted 1, assigned 0, processing 0, finished 0, returned 0, recalled 0
receipt confirmed by officers: 1 the same day, 0 later or not yet
`
	for by, want := range map[string]string{
		"": `RELAY  SENT  SIGNED     ON TIME  LATE  DELIVERIES  DELIVERED  PENDING  EXPIRED  REFUSED  RECALLED  ADDRESSED  RECEIVED  STATUSES
bac    3     2 (66.7%)  1        1     5           1          1        1        1        1         5          1         1
nam    0     0          0        0     0           0          0        0        0        0         0          0         0
total  3     2 (66.7%)  1        1     5           1          1        1        1        1         5          1         1
` + below + `adds up: 2 relays come to 5 deliveries of documents and 1 of statuses, together 6
`,
		"agency": `AGENCY  NAME                        SENT  SIGNED     ON TIME  LATE  DELIVERIES  DELIVERED  PENDING  EXPIRED  REFUSED  RECALLED  ADDRESSED  RECEIVED  STATUSES
G22     Bộ Tài chính, "BTC"         3     2 (66.7%)  1        1     5           1          1        1        1        1         0          0         0
H26     UBND thành phố Hà Nội       0     0          0        0     0           0          0        0        0        0         3          1         1
X9      =HYPERLINK("http://x","a")  0     0          0        0     0           0          0        0        0        0         2          0         0
total   -                           3     2 (66.7%)  1        1     5           1          1        1        1        1         5          1         1
` + below + `adds up: 3 by agency and 2 relays come to 5 deliveries of documents and 1 of statuses, together 6
`,
	} {
		if diff := cmp.Diff(want, show(t, statsOf(counted(), by))); diff != "" {
			t.Errorf("by %q, want - got +\n%s", by, diff)
		}
	}
	wrong := counted()
	wrong.Rows[1].Received++
	s := statsOf(wrong, "agency")
	if text := show(t, s); !strings.Contains(text, "\ndoes not add up: rows: received come to 2, not 1\n") || strings.Contains(text, "\nadds up") {
		t.Errorf("what does not add up reads %s", text)
	}
	if err := s.verdict(); err == nil || !strings.Contains(err.Error(), "received come to 2, not 1") {
		t.Errorf("verdict %v of what does not add up", err)
	}
	silent := counted()
	silent.SilentRelayIds = []string{"trung"}
	if err := statsOf(silent, "").verdict(); err == nil || !strings.Contains(err.Error(), "trung") {
		t.Errorf("verdict %v with a relay that is silent", err)
	}
	if err := statsOf(counted(), "").verdict(); err != nil {
		t.Errorf("verdict %v of what is all right", err)
	}
}

func TestStatsCSV(t *testing.T) {
	var b bytes.Buffer
	if err := statsOf(counted(), "agency").csv(&b); err != nil {
		t.Fatal(err)
	}
	const want = `month,by,key,name,sent,digitally_signed,digitally_signed_share,on_time,late,on_time_share,priority_thuong,priority_khan,priority_thuong_khan,priority_hoa_toc,priority_hoa_toc_hen_gio,deliveries,delivered,pending,expired,refused,recalled,addressed,received,phase_sent,phase_arrived,phase_accepted,phase_assigned,phase_processing,phase_finished,phase_returned,phase_recalled,accepted_on_time,accepted_late,statuses_sent,statuses_deliveries,statuses_delivered,statuses_pending,statuses_expired,statuses_refused,statuses_recalled,statuses_addressed,statuses_received
2026-10,agency,G22,"Bộ Tài chính, ""BTC""",3,2,0.6667,1,1,0.5,1,0,0,2,0,5,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,1
2026-10,agency,H26,UBND thành phố Hà Nội,0,0,,0,0,,0,0,0,0,0,0,0,0,0,0,0,3,1,2,0,1,0,0,0,0,0,1,0,1,1,1,0,0,0,0,0,0
2026-10,agency,X9,"'=HYPERLINK(""http://x"",""a"")",0,0,,0,0,,0,0,0,0,0,0,0,0,0,0,0,2,0,2,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0
`
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("want - got +\n%s", diff)
	}
	for text, want := range map[string]string{
		"=1+1": "'=1+1", "+84": "'+84", "-1": "'-1", "@x": "'@x", "＝1": "'＝1", "\t=1": "' =1", " =1": "' =1", "\r@x": "' @x",
		"UBND": "UBND", "a=b": "a=b", "": "", "Sở KH-CN": "Sở KH-CN",
	} {
		if got := plainCell(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestStatsRequest(t *testing.T) {
	now := time.Date(2026, 10, 31, 20, 0, 0, 0, time.UTC) // November in Vietnam
	for args, ok := range map[[2]string]bool{
		{"", ""}: true, {"2026-11", "agency"}: true, {"2026-10", "tier"}: true, {"2020-01", "kind"}: true,
		{"2026-12", ""}: false, {"2026-13", ""}: false, {"10/2026", ""}: false, {"", "sender"}: false, {"", "Agency"}: false,
	} {
		if r, err := statsRequest(args[0], args[1], "nam", now); (err == nil) != ok || ok && (r.GetMonth() != args[0] || r.GetBy() != args[1] || r.GetRelayId() != "nam") {
			t.Errorf("%v: %v, %v", args, r, err)
		}
	}
}

// The command against three relays: table, JSON and CSV say the same, as the audit
// does; what cannot be asked, and a relay that is silent, end as they should.
func TestStats(t *testing.T) {
	t.Parallel()
	o := newConsole(t)
	o.Agency("G22").Receive()
	o.Agency("H17.97.08").Send(files("a"), "G22", "H13")
	o.Agency("H26.12.05").Send(files("b"), "G22")
	o.until("G22 has both", func(rows []map[string]any) bool {
		return rows[0]["totals"].(map[string]any)["delivered"] == 2.0
	}, "audit")
	for _, by := range []string{"", "agency", "tier", "kind"} {
		args := []string{"stats"}
		if by != "" {
			args = append(args, "--by", by)
		}
		object := o.do(args...)[0]
		total := object["total"].(map[string]any)
		if object["adds_up"] != true || total["sent"] != 2.0 || total["deliveries"] != 3.0 || total["delivered"] != 2.0 || total["pending"] != 1.0 ||
			len(object["relays"].([]any)) != 3 || object["month"] != time.Now().In(cli.Vietnam).Format("2006-01") {
			t.Errorf("by %q: %v", by, object)
		}
		rows := object["rows"].([]any)
		if by == "" {
			rows = object["relays"].([]any)
		}
		shown := o.run(t.Context(), args...)
		if shown.code != 0 || shown.stderr != "" || strings.Count(shown.stdout, "\n") != len(rows)+7 || !strings.Contains(shown.stdout, "\nadds up: ") {
			t.Errorf("by %q: %+v", by, shown)
		}
		raw := o.run(t.Context(), append(args, "--csv")...)
		records, err := csv.NewReader(strings.NewReader(raw.stdout)).ReadAll()
		if err != nil || raw.code != 0 || len(records) != len(rows)+1 {
			t.Fatalf("by %q: %v in %+v", by, err, raw)
		}
		for i, row := range rows {
			for j, name := range records[0] {
				want, known := row.(map[string]any)[name]
				if want == nil {
					want = ""
				}
				if got := records[i+1][j]; known && got != fmt.Sprint(want) {
					t.Errorf("by %q, %s: %s in CSV, %v in JSON", by, name, got, want)
				}
			}
		}
	}
	rows := o.do("stats", "--by", "agency")[0]["rows"].([]any)
	if names := []any{rows[0].(map[string]any)["key"], rows[0].(map[string]any)["name"]}; names[0] != "G22" || names[1] == "" || len(rows) != 4 {
		t.Errorf("rows %v, want those of four agencies by code, with names", rows)
	}
	one := o.do("stats", "--relay", "nam")[0]
	if relays := one["relays"].([]any); len(relays) != 1 || relays[0].(map[string]any)["key"] != "nam" || one["adds_up"] != true {
		t.Errorf("of nam: %v", one)
	}
	for _, args := range [][]string{
		{"--month", "2026"}, {"--month", "9999-01"}, {"--by", "sender"}, {"--csv", "-o", "json"}, {"all"},
	} {
		if r := o.run(t.Context(), append([]string{"stats"}, args...)...); r.code != 2 || r.stdout != "" {
			t.Errorf("%v: %+v, want wrong usage", args, r)
		}
	}
	o.refused([]string{"stats", "--month", "2020-01"}, "month", "does not remember")
	o.refused([]string{"stats", "--relay", "tay"}, "relay_id", "tay")

	o.StopRelay("nam")
	silent := o.refused([]string{"stats", "--by", "tier"}, "nam", "nothing is counted")
	if !strings.Contains(silent.stdout, "adds up") || !strings.HasPrefix(silent.stdout, "TIER") || strings.Contains(silent.stdout, "nothing is counted") {
		t.Errorf("with a relay that is silent: %+v", silent)
	}
	var object map[string]any
	r := o.run(t.Context(), "stats", "-o", "json")
	if err := json.Unmarshal([]byte(r.stdout), &object); err != nil || r.code != 1 || !slices.Equal(object["silent"].([]any), []any{any("nam")}) {
		t.Errorf("%v, with a relay that is silent: %+v", err, r)
	}
	o.StartRelay("nam")
	o.AwaitServing()
	o.Agency("H13").Receive()
}
