package secrecy_test

import (
	"fmt"
	"strings"
	"testing"

	. "github.com/truclienthong/truc/relay/envelope/secrecy"
	"github.com/truclienthong/truc/relay/envelope/secrecy/secrecytest"
)

// specimen is one document of the labelled set, or one field of a header.
type specimen struct {
	name string
	want Mark
	got  func() (Mark, error)
}

func file(name string, want Mark, b []byte) specimen {
	return specimen{name, want, func() (Mark, error) { return InFile(b) }}
}

func said(name string, want Mark, find func(string) Mark, text string) specimen {
	return specimen{name + " " + fmt.Sprintf("%.60q", text), want, func() (Mark, error) { return find(text), nil }}
}

// What the guard is known to get wrong on the labelled set. It may get better, and
// must not get worse.
var (
	// A picture and a font without characters cannot be read; a sentence is no mark;
	// and what no rule gives as the words of a stamp looks like a part of a heading.
	knownMisses = map[string]bool{
		"pdf: letters that are no characters": true, "pdf: the stamp is a picture": true, "docx: said in a sentence": true,
		`pdf: stamped "TÀI LIỆU MẬT"`: true, `pdf: stamped "VĂN BẢN TỐI MẬT"`: true, `pdf: stamped "ĐỘ TUYỆT MẬT"`: true, `pdf: stamped "LOẠI: MẬT"`: true,
		`docx: stamped "TÀI LIỆU MẬT"`: true, `docx: stamped "VĂN BẢN TỐI MẬT"`: true, `docx: stamped "ĐỘ TUYỆT MẬT"`: true, `docx: stamped "LOẠI: MẬT"`: true,
	}
	// A manual that shows one stamp looks like a document that bears it.
	knownAlarms = map[string]bool{
		"pdf: a manual shows one stamp": true, "docx: a manual shows one stamp": true,
	}
)

// TestLabelledSet measures misses and false alarms over headers, PDF and DOCX.
func TestLabelledSet(t *testing.T) {
	t.Parallel()
	marked, misses, levels := 0, 0, 0
	for _, s := range positives() {
		if s.want == None {
			t.Fatalf("%s: has no label", s.name)
		}
		marked++
		got, err := s.got()
		switch {
		case got == None:
			misses++
			t.Logf("miss: %s (%v)", s.name, err)
			if !knownMisses[s.name] {
				t.Errorf("%s: bears %s and was not found (%v)", s.name, s.want, err)
			}
		case got != s.want:
			levels++
			t.Errorf("%s: bears %s, found %s", s.name, s.want, got)
		}
	}
	public, alarms := 0, 0
	for _, s := range negatives() {
		public++
		got, err := s.got()
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		if got != None {
			alarms++
			t.Logf("false alarm: %s: %s", s.name, got)
			if !knownAlarms[s.name] {
				t.Errorf("%s: is public, found %s", s.name, got)
			}
		}
	}
	t.Logf("misses: %d of %d marked; level wrong: %d; false alarms: %d of %d public", misses, marked, levels, alarms, public)
	if marked < 60 || public < 60 || misses > len(knownMisses) || alarms > len(knownAlarms) {
		t.Errorf("the set is smaller, or the guard worse, than when it was measured")
	}
}

// letter is a document as ND30 lays it out, with room for a mark under its number.
func letter(mark, subject, text string) string {
	return "ỦY BAN NHÂN DÂN\nTỈNH BÌNH MINH\nSố: 125/BC-UBND\n" + mark + "\n\nCỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM\nĐộc lập - Tự do - Hạnh phúc\n\nBÁO CÁO\n" +
		subject + "\n\nKính gửi: Bộ Nội vụ\n\n" + text + "\n\nNơi nhận:\n- Như trên;\n- Lưu: VT.\nTM. ỦY BAN NHÂN DÂN\nCHỦ TỊCH\nNguyễn Văn An"
}

const ordinary = "Thực hiện kế hoạch công tác năm 2025, Ủy ban nhân dân tỉnh báo cáo kết quả sáu tháng đầu năm như sau."

// page is the letter on a page of two columns, with the mark below the number.
func page(mark secrecytest.Run) []secrecytest.Run {
	runs := []secrecytest.Run{
		{X: 72, Y: 790, Size: 13, Text: "ỦY BAN NHÂN DÂN"}, {X: 72, Y: 774, Size: 13, Text: "TỈNH BÌNH MINH"},
		{X: 290, Y: 790, Size: 12, Text: "CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM"},
		{X: 72, Y: 750, Size: 13, Text: "Số: 125/BC-UBND"}, {X: 290, Y: 750, Size: 13, Text: "Bình Minh, ngày 20 tháng 10 năm 2025"},
	}
	if mark.Text != "" {
		runs = append(runs, mark)
	}
	y := 640.0
	for _, line := range []string{"BÁO CÁO", "Kết quả công tác sáu tháng đầu năm", "Kính gửi: Bộ Nội vụ", ordinary[:60], "Nơi nhận:", "- Như trên;"} {
		runs = append(runs, secrecytest.Run{X: 72, Y: y, Size: 13, Text: strings.ToValidUTF8(line, "")})
		y -= 20
	}
	return runs
}
