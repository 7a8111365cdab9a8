package relay_test

import (
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope/secrecy/secrecytest"
)

// DESIGN §3.8: a document that shows the mark of a state secret is refused by the
// relay, whoever handed it over: here nobody's connector looked at it. Small files
// wait for the commit in memory, large ones in the journal.
func TestSecretsNeverEnter(t *testing.T) {
	m := newMesh(t)
	m.start("bac", nil)
	m.serving("bac")
	m.putAgency("G22", "bac")
	m.putAgency("H26", "bac")
	client := m.agency("bac", "G22")
	for name, filler := range map[string]int{"small": 0, "large": 2 << 20} {
		for mark, reason := range map[string]exchangev1.ErrorReason{"TỐI MẬT": exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET, "KHẨN": 0} {
			content := string(secrecytest.PDF{Runs: secrecytest.Text("BÁO CÁO\n\n\n" + mark), Filler: filler}.Bytes())
			_, err := submit(t.Context(), client, document("G22", name+mark, content, "H26"), content)
			if reason == 0 && err != nil || reason != 0 && !has(err, reason) {
				t.Errorf("%s, %s: got %v, want %v", name, mark, err, reason)
			}
		}
	}
}
