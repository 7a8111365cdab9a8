package relay_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// Documents at the edges of what the contract allows travel like any other:
// without files, with 200 empty ones, with 200 of which one is large, and to
// 20,000 recipients; one that is named by its code, its alias and in a group gets
// it once.
func TestEdgesOfTheContract(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.start("nam", nil)
	m.serving("bac", "nam")
	const communes = 20_000
	m.putAgency("G22", "bac")
	agencies := []*directoryv1.Agency{
		{Code: "H26", Name: "H26", Tier: 2, HomeRelayId: "nam"}, {Code: "H27", Name: "H27", Tier: 2, HomeRelayId: "nam"},
		{Code: "H27.1", Name: "H27.1", Tier: 4, ParentCode: "H27", HomeRelayId: "nam", Aliases: []string{"000.1.H27"}},
		{Code: "H27.2", Name: "H27.2", Tier: 4, ParentCode: "H27", HomeRelayId: "bac"},
	}
	var named []string
	for i := range communes {
		home := []string{"bac", "nam"}[i%2]
		code, alias := fmt.Sprintf("H26.%05d", i), fmt.Sprintf("000.%05d.H26", i)
		agencies = append(agencies, &directoryv1.Agency{Code: code, Name: code, Tier: 4, ParentCode: "H26", HomeRelayId: home, Aliases: []string{alias}})
		named = append(named, []string{code, alias}[i%2])
	}
	m.change(&directoryv1.Command{Change: &directoryv1.Command_ImportAgencies{ImportAgencies: &directoryv1.ImportAgencies{Agencies: agencies}}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sender := m.agency("bac", "G22")
	big := strings.Repeat("x", 2<<20)
	parts := func(h *exchangev1.Header, n int) {
		sum := sha256.Sum256(nil)
		for i := len(h.Parts); i < n; i++ {
			h.Parts = append(h.Parts, &exchangev1.Part{Name: fmt.Sprintf("%d.pdf", i), Sha256: sum[:]})
		}
	}
	for name, test := range map[string]struct {
		header  *exchangev1.Header
		content string
		change  func(*exchangev1.Header)
		want    uint32
		reason  exchangev1.ErrorReason
	}{
		"no files":          {header: document("G22", "1", "", "H26"), change: func(h *exchangev1.Header) { h.Parts = nil }, want: 1},
		"200 empty files":   {header: document("G22", "2", "", "H26"), change: func(h *exchangev1.Header) { h.Parts = nil; parts(h, 200) }, want: 1},
		"one file of 200":   {header: document("G22", "3", big, "H26"), content: big, change: func(h *exchangev1.Header) { parts(h, 200) }, want: 1},
		"20,000 recipients": {header: document("G22", "4", "x", named...), content: "x", want: communes},
		"one too many": {header: document("G22", "5", "x", append([]string{"H26"}, named...)...), content: "x",
			reason: exchangev1.ErrorReason_ERROR_REASON_TOO_MANY_RECIPIENTS},
		"named three times": {header: document("G22", "6", "x", "H27.1", "000.1.H27"), content: "x", want: 2,
			change: func(h *exchangev1.Header) {
				h.Recipients = append(h.Recipients, &exchangev1.Recipient{To: &exchangev1.Recipient_Group{Group: "communes-of/H27"}})
			}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.change != nil {
				test.change(test.header)
			}
			accepted, err := submit(ctx, sender, test.header, test.content)
			if test.reason != 0 {
				if !has(err, test.reason) {
					t.Errorf("got %v, want %s", err, test.reason)
				}
				return
			}
			if err != nil || accepted.GetReceipt().GetRecipients() != test.want {
				t.Fatalf("got %v, %v, want %d recipients", accepted, err, test.want)
			}
			code := map[uint32]string{1: "H26", 2: "H27.1", communes: "H26.00001"}[test.want]
			stream, err := m.agency("bac", code).Receive(ctx, &exchangev1.ReceiveRequest{InlineLimit: 10})
			if err != nil {
				t.Fatal(err)
			}
			for {
				arrival, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if arrival.GetEnvelope().GetHeader().GetDocumentId() == test.header.GetDocumentId() {
					if !proto.Equal(arrival.GetEnvelope().GetHeader(), test.header) {
						t.Error("the header is not what was sent")
					}
					return
				}
			}
		})
	}
}
