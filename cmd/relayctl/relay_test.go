package main

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	"github.com/truclienthong/truc/test/mesh"
	"github.com/truclienthong/truc/tls"
)

// A relay is drained, says so with its signature, is retired and taken out of
// Raft; nothing that it had is lost, and nothing is accepted out of order.
func TestDrainAndRetire(t *testing.T) {
	t.Parallel()
	o := newConsole(t)
	sender := o.Agency("H17.97.08")
	var codes []string
	for _, a := range o.do("agency", "list") {
		if a["home"] == "nam" && a["code"] != "H17.97.08" {
			codes = append(codes, a["code"].(string))
		}
	}
	if len(codes) < 2 {
		t.Fatalf("agencies at nam: %v", codes)
	}
	for _, code := range codes {
		sender.Send(files("gửi "+code), code)
	}
	o.until("they wait at nam", func(rows []map[string]any) bool { return len(rows) == len(codes) }, "queue", "list", "--relay", "nam")

	o.refused([]string{"relay", "retire", "nam"}, "drain it first")
	o.refused([]string{"relay", "drain", "tay"}, "not in the directory")
	file := o.temp("nam.p7m")
	statement := o.do("relay", "drain", "nam", "--statement", file, "--timeout", "50s")[0]
	if statement["statement"] != "drained" || statement["relay"] != "nam" || statement["remaining"] != 0.0 || statement["directory_version"] == 0.0 {
		t.Errorf("statement: %v", statement)
	}
	if rows := o.do("queue", "list", "--relay", "nam"); len(rows) != 0 {
		t.Errorf("left at nam: %v", rows)
	}
	if openssl, err := exec.LookPath("openssl"); err == nil {
		out, err := exec.Command(openssl, "cms", "-verify", "-inform", "DER", "-in", file, "-CAfile", o.Layout.Dir+"/ca/root.crt", "-purpose", "any").CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"statement":"drained"`) {
			t.Errorf("openssl: %v, %s", err, out)
		}
	}
	c, err := connectAs(t, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	signed := o.read(file)
	if _, err := statementOf(c, "trung", signed); err == nil {
		t.Error("the statement of nam was taken for one of trung")
	}
	// Another relay of the mesh cannot speak for it either.
	dir := filepath.Dir(o.Layout.RelayConfig("trung"))
	other, err := tls.New(tls.Config{CertificateFile: dir + "/relay.crt", KeyFile: dir + "/relay.key", TrustFile: filepath.Join(o.Layout.Dir, "ca", "root.crt")})
	if err != nil {
		t.Fatal(err)
	}
	forged, err := other.Sign([]byte(`{"statement":"drained","relay":"nam","remaining":0}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := statementOf(c, "nam", forged); !errors.Is(err, tls.ErrWrongIdentity) {
		t.Errorf("trung states that nam is drained: got %v, want %v", err, tls.ErrWrongIdentity)
	}
	signed[len(signed)/2] ^= 1
	if _, err := statementOf(c, "nam", signed); err == nil {
		t.Error("a statement that was changed was believed")
	}

	show := o.do("relay", "show", "nam")[0]
	if health := show["health"].(map[string]any); show["state"] != "draining" || health["serving"] != false || health["reason"] != "draining" || health["disk_free"] == 0.0 {
		t.Errorf("show: %v", show)
	}
	if row := o.do("relay", "activate", "nam")[0]; row["done"] != "active" {
		t.Errorf("activate: %v", row)
	}
	o.refused([]string{"relay", "retire", "nam"}, "drain it first")
	o.do("relay", "drain", "nam")
	o.do("raft", "transfer-leader", "nam") // which makes no difference
	result := o.do("relay", "retire", "nam")[0]
	if result["done"] != "retired" || result["raft_member"] != true || result["next"] != "relayctl raft remove nam" {
		t.Errorf("retire: %v", result)
	}
	o.refused([]string{"relay", "retire", "nam"}, "retired already")
	o.refused([]string{"relay", "drain", "nam"}, "relayctl relay activate nam")
	o.do("raft", "remove", "nam")
	o.StopRelay("nam")

	for _, code := range codes {
		o.Agency(code).Receive()
	}
	o.Settle()
	o.until("the audit balances", func(rows []map[string]any) bool { return rows[0]["balanced"] == true }, "audit")
}

// A drain that cannot end says why, goes on when nobody watches, and can be
// taken back.
func TestDrainWaits(t *testing.T) {
	t.Parallel()
	o := newConsole(t)
	o.Agency("H17.97.08").Send(files("công văn"), "G22")
	home := o.do("agency", "show", "G22")[0]["home"].(string)
	o.until("it waits", func(rows []map[string]any) bool { return len(rows) == 1 }, "queue", "list", "--relay", home)
	// Held, it cannot be handed on.
	id := o.do("queue", "list", "--relay", home)[0]["envelope_id"].(string)
	o.do("queue", "hold", id)
	r := o.refused([]string{"relay", "drain", home, "--timeout", "3s"}, "1 envelope still nowhere else", "--timeout", "goes on draining", "relay activate "+home)
	if strings.Contains(r.stdout, "handed everything over") {
		t.Errorf("a statement with an entry left: %s", r.stdout)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if r := o.run(ctx, "relay", "drain", home); r.code != 1 || !strings.Contains(r.stderr, "interrupted") || !strings.Contains(r.stderr, "goes on draining") {
		t.Errorf("interrupted: %+v", r)
	}
	o.refused([]string{"relay", "retire", home}, "still has 1")
	o.do("queue", "release", id)
	o.do("relay", "drain", home, "--timeout", "50s")
	o.Agency("G22").Receive()
}

// A relay that is not reached keeps a drain from ending while something waits
// for it, and is named.
func TestDrainNamesWhoIsNotReached(t *testing.T) {
	t.Parallel()
	o := newConsole(t)
	o.StopRelay("trung")
	for _, other := range []string{"bac", "nam"} { // else one would take what waits, to pass it on
		o.Await(other+" knows that trung is gone", func(ctx context.Context) error {
			seen, err := o.Operator(other).Directory.ListRelays(ctx, &adminv1.ListRelaysRequest{})
			if err != nil {
				return err
			}
			for _, r := range seen.GetRelays() {
				if r.GetRelay().GetId() == "trung" && r.GetReachable() {
					return errors.New("not yet")
				}
			}
			return nil
		})
	}
	recipient := o.Agency("H41") // at home there
	sender := o.Agency("H26.12.05")
	for range 2 {
		sender.Send(files("công văn"), "H41")
	}
	at := o.until("they wait", func(rows []map[string]any) bool { return len(rows) == 2 && rows[0]["bare"] == false }, "queue", "list", "--to", "trung")[0]["at"].(string)
	o.refused([]string{"relay", "drain", at, "--timeout", "3s"}, "relay trung", "not reach", "goes on draining")
	o.StartRelay("trung")
	o.do("relay", "drain", at, "--timeout", "50s")
	recipient.Receive()
}

// A relay that is gone is given up; one that answers is not.
func TestRetireLost(t *testing.T) {
	t.Parallel()
	o := newConsole(t)
	sent := o.Agency("H17.97.08").Send(files("công văn"), "G22")
	home := o.do("agency", "show", "G22")[0]["home"].(string)
	o.until("it waits", func(rows []map[string]any) bool { return len(rows) == 1 }, "queue", "list", "--relay", home)
	o.refused([]string{"relay", "retire", home, "--lost", "--yes"}, "so it is not lost")
	o.StopRelay(home)
	o.refused([]string{"relay", "retire", home}, "drain it first")
	o.refused([]string{"relay", "retire", home, "--lost"}, "--yes")
	o.refused([]string{"audit"}, "nothing is proved: "+home)
	o.refused([]string{"queue", "show", sent.ID().String()}, "not all relays answered", home)
	if rows := o.run(t.Context(), "queue", "list"); rows.code != 0 || !strings.Contains(rows.stderr, "relay "+home+" does not answer") {
		t.Errorf("list: %+v", rows)
	}
	result := o.do("relay", "retire", home, "--lost", "--yes")[0]
	if result["done"] != "lost" || result["next"] != "relayctl raft remove "+home {
		t.Errorf("retire: %v", result)
	}
	o.do("raft", "remove", home)
	// What was there is sent to the new home of its recipient.
	o.Agency("G22").Receive()
	o.Settle()
	o.until("the audit balances without it", func(rows []map[string]any) bool { return rows[0]["balanced"] == true }, "audit")
}

// A change is made where the leader is, also when the first relay of the profile
// answers and has no way to it.
func TestChangeGoesToWhereTheLeaderIs(t *testing.T) {
	t.Parallel()
	m := mesh.Start(t, mesh.Config{Links: true})
	o := &console{Mesh: m, t: t}
	for _, other := range []string{"trung", "nam"} { // the operator still reaches bac
		m.Link("bac", other).Cut()
		m.Link(other, "bac").Cut()
	}
	o.Await("bac knows no leader", func(ctx context.Context) error {
		r, err := m.Operator("bac").Raft.Status(ctx, &adminv1.StatusRequest{})
		if err == nil && r.GetLeaderId() != "" {
			err = errors.New("it has " + r.GetLeaderId())
		}
		return err
	})
	o.do("agency", "move", "H41", "nam")
	for _, other := range []string{"trung", "nam"} {
		m.Link("bac", other).Heal()
		m.Link(other, "bac").Heal()
	}
}
