package envelope_test

import (
	"strings"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// A mark refuses a document wherever in the header it shows, and the answer names
// the place.
func TestCheckRefusesSecretsWhereverTheyShow(t *testing.T) {
	t.Parallel()
	for field, change := range map[string]func(*exchangev1.Header){
		"header.secrecy":                func(h *exchangev1.Header) { h.Secrecy = exchangev1.Secrecy_SECRECY_TUYET_MAT },
		"header.document.subject":       func(h *exchangev1.Header) { h.Document.Subject = "Kế hoạch diễn tập (Tối mật)" },
		"header.document.summary":       func(h *exchangev1.Header) { h.Document.Summary = "Kính gửi\nMẬT\nnội dung" },
		"header.document.code.number":   func(h *exchangev1.Header) { h.Document.Code.Number = "05(M)" },
		"header.document.code.notation": func(h *exchangev1.Header) { h.Document.Code.Notation = "BC-UBND (TM)" },
		"header.document.appendixes[1]": func(h *exchangev1.Header) { h.Document.Appendixes = []string{"Phụ lục 1", "MẬT - Phụ lục 2"} },
		"header.parts[1].name":          func(h *exchangev1.Header) { h.Parts[1].Name = "MẬT - phụ lục.docx" },
		"header.parts[0].description":   func(h *exchangev1.Header) { h.Parts[0].Description = "[TUYỆT MẬT] bản chính" },
	} {
		problems, _ := envelope.Check(with(good(), change), envelope.Limits{})
		if len(problems) != 1 || problems[0].Field != field || problems[0].Reason != exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET {
			t.Errorf("%s: got %v", field, problems)
		}
	}
	problems, _ := envelope.Check(with(good(), func(h *exchangev1.Header) { h.Secrecy = exchangev1.Secrecy_SECRECY_TOI_MAT }), envelope.Limits{})
	if len(problems) != 1 || !strings.Contains(problems[0].Description, "TỐI MẬT") {
		t.Errorf("the mark is not named: %v", problems)
	}
}
