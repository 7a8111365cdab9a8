package scenario

import (
	"bytes"
	"encoding/csv"
	"os"
	"path/filepath"
	"testing"

	"github.com/truclienthong/truc/cmd/relayd/sample"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/test/mesh"
)

// country is a part of the reference data with homes spread over the relays:
// the whole list where it lies beside the project, else the small copy.
type country struct {
	csv       []byte
	provinces []string
	// communes are those of one province, the one with the most here.
	province string
	communes []string
}

// agenciesOf reads the reference data down to the communes of one province.
func agenciesOf(t *testing.T, province string) country {
	t.Helper()
	file := filepath.Join("..", "..", "..", "shared", "data", "admin-units-4tier.csv")
	if _, err := os.Stat(file); err != nil {
		file = filepath.Join("..", "data", "admin-units-sample.csv")
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(raw)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("agencies from %s", filepath.Base(file))
	parent := map[string]string{}
	for _, row := range rows[1:] {
		parent[row[0]] = row[3]
	}
	if parent[province] == "" || communesBelow(rows, parent, province) == nil {
		for _, row := range rows[1:] { // the small copy has communes of one province only
			if row[2] == "4" {
				province = parent[row[3]]
				break
			}
		}
	}
	c := country{province: province, communes: communesBelow(rows, parent, province)}
	homes := []string{"bac", "trung", "nam"}
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	_ = w.Write([]string{"code", "name", "tier", "parent_code", "home", "standby"})
	for i, row := range rows[1:] {
		below := row[0] == province || parent[row[0]] == province || parent[parent[row[0]]] == province
		if (row[2] == "3" || row[2] == "4") && !below {
			continue
		}
		if row[2] == "2" {
			c.provinces = append(c.provinces, row[0])
		}
		_ = w.Write([]string{row[0], row[1], row[2], row[3], homes[i%3], homes[(i+1)%3]})
	}
	w.Flush()
	c.csv = out.Bytes()
	return c
}

func communesBelow(rows [][]string, parent map[string]string, province string) (communes []string) {
	for _, row := range rows[1:] {
		if row[2] == "4" && parent[parent[row[0]]] == province {
			communes = append(communes, row[0])
		}
	}
	return communes
}

// One circular reaches every member of a group, and each relay gets one copy of
// it, however many recipients live there.
func TestCircular(t *testing.T) {
	t.Parallel()
	c := agenciesOf(t, "48")
	for _, group := range []struct {
		name, to string
		members  []string
	}{
		{"to 63 provinces", "@provinces", c.provinces},
		{"to every commune of a province", "@communes-of/" + c.province, c.communes},
	} {
		t.Run(group.name, func(t *testing.T) {
			m := mesh.Start(t, mesh.Config{Agencies: c.csv, Profiles: append([]string{"G01"}, group.members...)})
			for _, code := range group.members {
				m.Agency(code).Receive()
			}
			sender := m.Agency("G01")
			files := mesh.Files{"circular.pdf": sample.PDF("circular", 230_000)}
			document := sender.Document(files, group.to)
			sent, err := sender.TrySend(t.Context(), document, files, group.members...)
			if err != nil {
				t.Fatal(err)
			}
			if got := int(sent.Receipt.Recipients); got != len(group.members) {
				t.Errorf("receipt for %d recipients, want %d", got, len(group.members))
			}
			m.Settle()
			id := sent.ID()
			trace, err := m.Operator("").Custody.Trace(t.Context(), &adminv1.TraceRequest{EnvelopeId: id[:]})
			if err != nil {
				t.Fatal(err)
			}
			handedOn := map[string]int{}
			for _, e := range trace.GetEvents() {
				if e.GetAction() == exchangev1.TraceAction_TRACE_ACTION_HANDED_ON && e.GetRelayId() == sent.Receipt.Relay {
					handedOn[e.GetPeerRelayId()]++
				}
			}
			if len(handedOn) != 2 {
				t.Errorf("handed on to %v, want the two other relays", handedOn)
			}
			for relay, copies := range handedOn {
				if copies != 1 {
					t.Errorf("%d copies to relay %s, want 1", copies, relay)
				}
			}
			t.Logf("%d recipients", len(group.members))
		})
	}
}
