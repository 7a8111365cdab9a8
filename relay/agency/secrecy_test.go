package agency_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/agency"
	"github.com/truclienthong/truc/relay/agency/agencytest"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/envelope/secrecy/secrecytest"
)

// A document of which a file shows a mark leaves the agency by no way: no relay
// hears of it, and no copy is made.
func TestMarkedFilesStayAtTheAgency(t *testing.T) {
	clean := secrecytest.PDF{Runs: secrecytest.Text("Báo cáo")}.Bytes()
	marked := secrecytest.DOCX{Body: "Báo cáo", Box: "TUYỆT MẬT"}.Bytes()
	onDisk := filepath.Join(t.TempDir(), "phụ lục.docx")
	if err := os.WriteFile(onDisk, marked, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, second := range map[string]agency.Source{"in memory": agency.BytesSource("phụ lục.docx", marked), "on disk": agency.FileSource(onDisk)} {
		s := newSender(t, bac)
		heard := 0
		s.mesh.Fault(func(string, agencytest.Step) error { heard++; return nil })
		d := agency.Document{Header: header("1", "H26"), Parts: []agency.Source{agency.BytesSource("báo cáo.pdf", clean), second}}
		for way, submit := range map[string]func() error{
			"Client.Submit": func() error { _, err := s.client.Submit(testContext(t), d); return err },
			"Outbox.Submit": func() error { _, err := s.outbox.Submit(testContext(t), d); return err },
		} {
			err := submit()
			refusal, ok := envelope.AsRefusal(err)
			if !ok || refusal.Reason != exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET || envelope.Temporary(err) ||
				!slices.ContainsFunc(refusal.Problems, func(p envelope.Problem) bool { return p.Field == "header.parts[1]" }) || len(refusal.Problems) != 1 {
				t.Errorf("%s, %s: got %v, want STATE_SECRET for header.parts[1]", name, way, err)
			}
		}
		if heard != 0 || s.mesh.Accepted() != 0 {
			t.Errorf("%s: a relay heard of it %d times", name, heard)
		}
		s.emptied()
		d.Parts[1] = agency.BytesSource("phụ lục.docx", secrecytest.DOCX{Body: "Báo cáo"}.Bytes())
		s.submit(d)
	}
}
