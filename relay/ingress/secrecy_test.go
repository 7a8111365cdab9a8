package ingress_test

import (
	"slices"
	"strings"
	"testing"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/relay/envelope/secrecy/secrecytest"
	"github.com/truclienthong/truc/relay/ingress"
)

var (
	clean  = string(secrecytest.PDF{Runs: secrecytest.Text("BÁO CÁO\nCông tác bảo vệ bí mật nhà nước")}.Bytes())
	marked = string(secrecytest.PDF{Runs: secrecytest.Text("BÁO CÁO\n\n\nTỐI MẬT\n\n\nKính gửi:"), Packed: true}.Bytes())
	header = string(secrecytest.DOCX{Body: "Báo cáo", Header: "MẬT"}.Bytes())
	large  = string(secrecytest.PDF{Runs: secrecytest.Text("MẬT"), Filler: 600 << 10}.Bytes())
	locked = string(secrecytest.PDF{Runs: secrecytest.Text("Báo cáo"), Locked: true}.Bytes())
)

// Nothing that shows a mark is accepted, whichever way its bytes come, and the
// answer names every file that does. What was refused is not kept.
func TestMarkedFilesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		eager bool
		want  []string
	}{
		"a PDF":                 {files: []string{marked}, want: []string{"header.parts[0]"}},
		"a DOCX":                {files: []string{header}, want: []string{"header.parts[0]"}},
		"sent at once":          {files: []string{marked}, eager: true, want: []string{"header.parts[0]"}},
		"a large one":           {files: []string{clean, large}, want: []string{"header.parts[1]"}},
		"two of them":           {files: []string{marked, clean, header}, want: []string{"header.parts[0]", "header.parts[2]"}},
		"behind an empty file":  {files: []string{"", marked}, want: []string{"header.parts[1]"}},
		"none":                  {files: []string{clean, "MẬT", ""}},
		"a PDF in all but name": {files: []string{"junk\n" + marked}, want: []string{"header.parts[0]"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, ingress.Limits{})
			h := document("G22", "1", c.files, "H26")
			for i := range h.Parts {
				h.Parts[i].Name, h.Parts[i].MediaType = "tệp.bin", "application/octet-stream" // nobody believes it
			}
			start := startOf(h)
			start.GetStart().Eager = c.eager
			_, err := m.sendMessages("bac", "agency/G22", start, func(*exchangev1.SubmitResume) (messages []*exchangev1.SubmitRequest) {
				for i, content := range c.files {
					for at := 0; at < len(content); at += 100_000 {
						messages = append(messages, chunk(i, uint64(at), content[at:min(at+100_000, len(content))]))
					}
				}
				return append(messages, commit())
			})
			if len(c.want) == 0 {
				if err != nil {
					t.Errorf("got %v, want it accepted", err)
				}
				return
			}
			refusal, ok := envelope.AsRefusal(err)
			if !ok || refusal.Reason != exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET || envelope.Temporary(err) {
				t.Fatalf("got %v, want STATE_SECRET for good", err)
			}
			var fields []string
			for _, p := range refusal.Problems {
				fields = append(fields, p.Field)
			}
			if !slices.Equal(fields, c.want) || !strings.Contains(refusal.Message, "MẬT") {
				t.Errorf("fields %v, want %v: %s", fields, c.want, refusal.Message)
			}
			if got := m.relays["bac"].spool.kept(); got != 0 {
				t.Errorf("%d bytes of what was refused are kept", got)
			}
			if entries, err := m.relays["bac"].spool.Inbox("H26", envelope.Position{}, 10); err != nil || len(entries) != 0 {
				t.Errorf("in the inbox: %v, %v", entries, err)
			}
		})
	}
}

// A file that comes in two calls is looked into whole.
func TestMarkedFileOfACutStream(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	h := document("G22", "1", []string{marked}, "H26")
	_, err := m.sendMessages("bac", "agency/G22", startOf(h), func(*exchangev1.SubmitResume) []*exchangev1.SubmitRequest {
		return []*exchangev1.SubmitRequest{chunk(0, 0, marked[:500])}
	})
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_STREAM_CUT) {
		t.Fatalf("the first call: %v", err)
	}
	if _, err := m.send("bac", "agency/G22", h, marked); !has(err, exchangev1.ErrorReason_ERROR_REASON_STATE_SECRET) {
		t.Errorf("got %v, want STATE_SECRET", err)
	}
}

// What cannot be looked into is accepted, and the sender is told.
func TestUnreadFilesAreWarnedOf(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	accepted := m.mustSend("bac", "agency/G22", document("G22", "1", []string{clean, locked}, "H26"), clean, locked)
	var fields []string
	for _, w := range accepted.GetWarnings() {
		fields = append(fields, w.GetField()+": "+w.GetDescription())
	}
	if len(fields) != 1 || !strings.HasPrefix(fields[0], "header.parts[1]: was not looked into") || !strings.Contains(fields[0], "encrypted") {
		t.Errorf("warnings: %q", fields)
	}
}

// A file of which bytes are missing is refused for that: what is there of it is
// not looked into.
func TestMissingBytesAreSaidFirst(t *testing.T) {
	m := newMesh(t, ingress.Limits{})
	_, err := m.sendMessages("bac", "agency/G22", startOf(document("G22", "1", []string{marked}, "H26")), func(*exchangev1.SubmitResume) []*exchangev1.SubmitRequest {
		return []*exchangev1.SubmitRequest{chunk(0, 0, marked[:len(marked)-1]), commit()}
	})
	if !has(err, exchangev1.ErrorReason_ERROR_REASON_SIZE_MISMATCH) {
		t.Errorf("got %v, want SIZE_MISMATCH", err)
	}
}
