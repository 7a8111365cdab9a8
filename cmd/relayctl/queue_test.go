package main

import (
	"fmt"
	"strings"
	"testing"
)

// A document that waits in an inbox is seen, held, released, given up, and sent
// again, with the words of an operator's day.
func TestQueue(t *testing.T) {
	t.Parallel()
	o := newConsole(t)
	sender, recipient := o.Agency("H17.97.08"), o.Agency("G22")
	sent := sender.Send(files("công văn"), "G22")
	id := sent.ID().String()

	home := o.do("agency", "show", "G22")[0]["home"]
	row := o.until("the inbox has it", func(rows []map[string]any) bool { return len(rows) == 1 && rows[0]["agency"] == "G22" },
		"queue", "list", "--agency", "G22")[0]
	if row["envelope_id"] != id || row["at"] != home || row["to"] != "" || row["held"] != false || row["recipients"] != 1.0 || row["late"] != false {
		t.Errorf("list: %v", row)
	}
	if rows := o.do("queue", "list", "--to", "nam"); len(rows) != 0 {
		t.Errorf("for another relay: %v", rows)
	}
	shape := o.until("the shape has it", func(rows []map[string]any) bool { return len(rows) == 1 }, "queue", "shape")[0]
	if shape["agency"] != "G22" || shape["total"] != 1.0 || len(shape["counts"].([]any)) != 8 {
		t.Errorf("shape: %v", shape)
	}

	if held := o.do("queue", "hold", id, "--reason", "chờ xác minh")[0]; held["done"] != "held" || held["entries"].(float64) < 1 {
		t.Errorf("hold: %v", held)
	}
	if rows := o.do("queue", "list", "--held"); len(rows) != 1 || rows[0]["envelope_id"] != id {
		t.Errorf("held: %v", rows)
	}
	o.refused([]string{"queue", "retry", id}, "held", "release")
	if trace := o.run(t.Context(), "trace", id); !strings.Contains(trace.stdout, "chờ xác minh") {
		t.Errorf("the trace does not say why: %s", trace.stdout)
	}
	if released := o.do("queue", "release", id)[0]; released["done"] != "released" {
		t.Errorf("release: %v", released)
	}
	o.refused([]string{"queue", "release", id}, "not held")
	o.refused([]string{"queue", "retry", id}, "waits for its recipient")

	if given := o.do("queue", "expire", id, "--reason", "sai nơi nhận")[0]; given["entries"] != 1.0 || given["done"] != "given up" {
		t.Errorf("expire: %v", given)
	}
	dead := o.until("it is a dead letter", func(rows []map[string]any) bool { return len(rows) == 1 }, "queue", "list", "--expired")[0]
	if dead["envelope_id"] != id || dead["expired"] != true || !strings.Contains(fmt.Sprint(dead["last_error"]), "sai nơi nhận") {
		t.Errorf("dead letter: %v", dead)
	}
	// The report of it may still be on its way.
	o.until("the shape is that of one dead letter", func(rows []map[string]any) bool {
		return len(rows) == 1 && rows[0]["expired"] == true && rows[0]["total"] == 1.0
	}, "queue", "shape")
	if rows := o.do("queue", "show", id); len(rows) != 1 || rows[0]["expired"] != true {
		t.Errorf("show: %v", rows)
	}
	if audit := o.do("audit")[0]; audit["balanced"] != true || audit["totals"].(map[string]any)["expired"] != 1.0 {
		t.Errorf("audit: %v", audit)
	}

	// It is sent again to where its recipient is now.
	o.do("agency", "move", "G22", "nam")
	o.stdin = id + "\n\n" + id + "\n"
	if retried := o.do("queue", "retry", "-", "--reason", "nhận lại được"); len(retried) != 1 || retried[0]["entries"] != 1.0 {
		t.Errorf("retry: %v", retried)
	}
	if trace := o.run(t.Context(), "trace", id); !strings.Contains(trace.stdout, "nhận lại được") {
		t.Errorf("the trace does not say why it was tried again: %s", trace.stdout)
	}
	o.until("it waits at the new home", func(rows []map[string]any) bool { return len(rows) == 1 && rows[0]["at"] == "nam" },
		"queue", "list", "--agency", "G22")
	recipient.Receive()
	o.Settle()
	o.until("nothing is left", func(rows []map[string]any) bool { return len(rows) == 0 }, "queue", "list")
	o.refused([]string{"queue", "retry", id}, "nothing to do")
	if r := o.run(t.Context(), "queue", "show", id); r.code != 0 || !strings.Contains(r.stderr, "nothing of "+id) {
		t.Errorf("show what is delivered: %+v", r)
	}
	unknown := strings.Repeat("0", len(id)-1) + "1"
	if strings.Contains(id, "-") {
		unknown = "00000000-0000-8000-8000-000000000001"
	}
	o.refused([]string{"queue", "show", unknown}, "no relay knows")
	o.refused([]string{"queue", "expire", unknown}, "no relay knows")
	if r := o.run(t.Context(), "queue", "hold", "x"); r.code != 2 {
		t.Errorf("hold no id: %+v, want wrong usage", r)
	}
}

// Thousands are steered at once, and each is told of.
func TestQueueSteersMany(t *testing.T) {
	t.Parallel()
	o := newConsole(t)
	sender, recipient := o.Agency("H17.97.08"), o.Agency("G22")
	var ids []string
	for i := range 60 {
		ids = append(ids, sender.Send(files(fmt.Sprint("số ", i)), "G22").ID().String())
	}
	all := func(rows []map[string]any) bool { return len(rows) == len(ids) }
	o.until("all have arrived", all, "queue", "list", "--agency", "G22")
	o.stdin = strings.Join(ids, "\n")
	if rows := o.do("queue", "expire", "-"); !all(rows) {
		t.Errorf("%d given up", len(rows))
	}
	o.until("all are dead letters", all, "queue", "list", "--expired", "--relay", o.do("trace", ids[0])[0]["ingress"].(string))
	o.stdin = strings.Join(append(ids, "00000000-0000-8000-8000-000000000001"), "\n")
	r := o.run(t.Context(), "queue", "retry", "-", "-o", "json")
	rows := r.objects(t)
	failed := 0
	for _, row := range rows {
		if row["error"] != "" {
			failed++
		}
	}
	if r.code != 1 || len(rows) != len(ids)+1 || failed != 1 || !strings.Contains(r.stderr, "1 of 61") {
		t.Errorf("retry with one that is unknown: exit %d, %d rows, %d failed, %s", r.code, len(rows), failed, r.stderr)
	}
	recipient.Receive()
}
