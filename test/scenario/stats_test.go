package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/truclienthong/truc/relay/lifecycle"
	"github.com/truclienthong/truc/test/mesh"
)

// outcomes are counted by audit and statistics in the same words.
var outcomes = []string{"accepted", "delivered", "pending", "expired", "refused", "recalled"}

// Three real relays, documents with everything that can become of them, and the
// statuses about them: by every key the statistics are what the audit counts, for
// each relay and for the mesh.
func TestStatsAreThoseOfTheAudit(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Processes: true})
	dir := t.TempDir()
	at := func(code string) commandDesk { return commandDesk{t, m, code, dir} }
	commune, office, ward, province := at("H17.97.08"), at("G22"), at("H26.12.05"), at("H13")
	file := filepath.Join(dir, "a.pdf")
	if err := os.WriteFile(file, []byte("%PDF-1.4 a"), 0o600); err != nil {
		t.Fatal(err)
	}
	operator := []string{"--profile", m.Layout.Profile("operator")}
	month := lifecycle.MonthOf(time.Now()).String()

	// Refused for good: two documents with one id, handed over at relays that do not
	// reach one another.
	for _, relay := range []string{"bac", "trung", "nam"} {
		m.StopRelay(relay)
	}
	for _, relay := range []string{"bac", "nam"} {
		m.StartRelay(relay)
		m.AwaitServing()
		// Each from a profile, and so from an outbox, of its own.
		profile := strings.TrimSuffix(m.Layout.Profile("G12"), ".yaml") + "-" + relay + ".yaml"
		raw, err := os.ReadFile(m.Layout.Profile("G12"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(profile, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, stderr, code := tool(t, "connector", "send", "--to", "H41", "--subject", "Tại "+relay, "--document-id", "D-1", "--profile", profile, file); code != 0 {
			t.Fatalf("send at %s: %s", relay, stderr)
		}
		m.StopRelay(relay)
	}
	for _, relay := range []string{"bac", "trung", "nam"} {
		m.StartRelay(relay)
	}
	m.AwaitServing()

	// Delivered and accepted, returned, and pending.
	first := commune.say("send", "--to", "G22,H13", "--subject", "Kế hoạch", "--type", "Kế hoạch", "--priority", "3", file)
	second := ward.say("send", "--to", "G22,H41", "--subject", "Báo cáo", "--type", "Báo cáo", file)
	office.takes()
	commune.awaits(first, "G22", "done sent")
	office.say("status", first, "03")
	office.say("status", second, "02", "--note", "Không thuộc thẩm quyền")
	commune.awaits(first, "G22", "done accepted")
	ward.awaits(second, "G22", "done returned")
	if got := commune.takes(); !slices.Equal(got, []string{"03"}) { // the ward leaves its own where it is
		t.Errorf("the commune took %v", got)
	}
	// Recalled before it was fetched; given up by an operator.
	third := commune.say("send", "--to", "H26.12.05", "--subject", "Nhầm", "--type", "Giấy mời", file)
	commune.say("recall", third, "--reason", "Sai nơi nhận")
	commune.awaits(third, "H26.12.05", "fail recalled")
	fourth := province.say("send", "--to", "H41", "--subject", "Thư ngỏ", "--type", "Thư ngỏ", file)
	province.awaits(fourth, "H41", "processing sent")
	if _, stderr, code := tool(t, "relayctl", append([]string{"queue", "expire", fourth, "--reason", "thử"}, operator...)...); code != 0 {
		t.Fatalf("expire: %s", stderr)
	}
	province.awaits(fourth, "H41", "fail sent")
	audit := func(args ...string) map[string]any {
		return asked(t, "relayctl", append(append([]string{"audit"}, args...), operator...)...)[0]
	}
	m.Await("something has ended in every way, and the audit rests", func(context.Context) error {
		before := audit()["totals"].(map[string]any)
		for _, o := range outcomes {
			if before[o] == 0.0 {
				return fmt.Errorf("nothing is %s: %v", o, before)
			}
		}
		if after := audit()["totals"]; fmt.Sprint(before) != fmt.Sprint(after) {
			return fmt.Errorf("%v, then %v", before, after)
		}
		return nil
	})
	wanted := audit("--since", month+"-01")
	totals := tallyOf(wanted["totals"].(map[string]any), "")
	if totals != tallyOf(audit()["totals"].(map[string]any), "") {
		t.Fatalf("since the beginning of the month: %v, want all", totals)
	}
	for _, by := range []string{"", "agency", "tier", "kind"} {
		args := []string{"stats", "--month", month}
		rows := "relays"
		if by != "" {
			args, rows = append(args, "--by", by), "rows"
		}
		stats := asked(t, "relayctl", append(args, operator...)...)[0]
		var sum [6]float64
		keys := []string{}
		for _, row := range stats[rows].([]any) {
			keys = append(keys, row.(map[string]any)["key"].(string))
			for i, n := range tallyOf(row.(map[string]any), "statuses") {
				sum[i] += n
			}
		}
		if sum != totals || stats["adds_up"] != true || len(stats["silent"].([]any)) > 0 {
			t.Errorf("by %q: %v, the audit says %v", by, sum, totals)
		}
		want := map[string]string{
			"": "bac nam trung", "agency": "G12 G22 H13 H17.97.08 H26.12.05 H41", "tier": "1 2 4",
		}[by]
		if by == "kind" {
			want = "Kế hoạch Báo cáo Giấy mời other status"
			keys = slices.DeleteFunc(keys, func(key string) bool { return key == "Công văn" }) // what was sent without --type
		}
		if got := strings.Join(keys, " "); got != want {
			t.Errorf("by %q: rows of %s, want %s", by, got, want)
		}
		for i, row := range stats["relays"].([]any) {
			r, a := row.(map[string]any), wanted["rows"].([]any)[i].(map[string]any)
			if r["key"] != a["relay"] || tallyOf(r, "statuses") != tallyOf(a, "") {
				t.Errorf("by %q, relay %v: %v, the audit says %v of %v", by, r["key"], tallyOf(r, "statuses"), tallyOf(a, ""), a["relay"])
			}
		}
	}
	for _, row := range wanted["rows"].([]any) {
		relay := row.(map[string]any)["relay"].(string)
		stats := asked(t, "relayctl", append([]string{"stats", "--relay", relay, "--by", "agency"}, operator...)...)[0]
		if got, want := tallyOf(stats["total"].(map[string]any), "statuses"), tallyOf(row.(map[string]any), ""); got != want {
			t.Errorf("relay %s alone: %v, the audit says %v", relay, got, want)
		}
	}
	// What takes a document back is as urgent as that can be.
	total := asked(t, "relayctl", append([]string{"stats"}, operator...)...)[0]["total"].(map[string]any)
	phases := total["phases"].(map[string]any)
	if phases["accepted"] != 1.0 || phases["returned"] != 1.0 || phases["recalled"] == 0.0 || total["accepted_on_time"] != 2.0 ||
		total["priorities"].(map[string]any)["hoa_toc"] != 2.0 || total["statuses"].(map[string]any)["sent"] != 2.0 {
		t.Errorf("total %v", total)
	}
}

// tallyOf are the outcomes of a row, with those of the part named.
func tallyOf(row map[string]any, part string) (sum [6]float64) {
	for i, o := range outcomes {
		n, ok := row[o].(float64)
		if !ok {
			n = row["deliveries"].(float64)
		}
		sum[i] += n
	}
	if part != "" {
		for i, n := range tallyOf(row[part].(map[string]any), "") {
			sum[i] += n
		}
	}
	return sum
}
