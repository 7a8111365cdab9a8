package secrecy_test

import (
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	. "github.com/truclienthong/truc/relay/envelope/secrecy"
)

func TestInText(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want Mark
	}{
		"a stamp":                          {"ỦY BAN NHÂN DÂN\nMẬT\nSố: 12/BC-UBND", Mat},
		"a stamp, decomposed":              {norm.NFD.String("UBND\nTỐI MẬT\n"), ToiMat},
		"a frame":                          {"| TUYỆT MẬT |\r\n", TuyetMat},
		"letters set apart":                {"T U Y Ệ T  M Ậ T", TuyetMat},
		"letters set apart, one word":      {"M Ậ T", Mat},
		"hard blanks":                      {"TỐI\u00a0MẬT", ToiMat},
		"letters that nobody sees":         {"M\u200bẬT", Mat},
		"without tones":                    {"TUYET MAT\n", TuyetMat},
		"a field":                          {"Độ mật: Mật\nĐộ khẩn: Hỏa tốc", Mat},
		"a field, dots":                    {"Mức độ mật: ... Tối mật ...", ToiMat},
		"small letters, alone":             {"Nơi nhận\nTối mật\n", ToiMat},
		"the highest of several":           {"MẬT\nTUYỆT MẬT", TuyetMat},
		"an empty field":                   {"Độ mật:\nĐộ khẩn: Khẩn", None},
		"a field that says no":             {"Độ mật: Không", None},
		"a field that says ordinary":       {"Độ mật: Thường", None},
		"a sentence":                       {"Thực hiện Luật Bảo vệ bí mật nhà nước, văn bản Mật, Tối mật, Tuyệt mật không gửi qua trục.", None},
		"a sentence in capitals":           {"DANH MỤC BÍ MẬT NHÀ NƯỚC ĐỘ TUYỆT MẬT", None},
		"small letters, behind a sentence": {"Hợp tác xã thu hoạch được nhiều\nMật\n", None},
		"small letters, far below":         {strings.Repeat("Mục lục\n", 15) + "Mật\n", None},
		"small letters, twice":             {"Kế hoạch\nMật\nBáo cáo\nMật\n", None},
		"honey":                            {"Mật ong\nMật khẩu\nBẢO MẬT", None},
		"a list of levels":                 {"Tuyệt mật\nTối mật\nMật\n", None},
		"a form with boxes":                {"□ Mật  □ Tối mật  □ Tuyệt mật", None},
		"a word without tones is many":     {"MAT", None},
		"given free":                       {"ĐÃ GIẢI MẬT", None},
		"nothing":                          {"", None},
	} {
		if got := InText(c.text); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestInTitle(t *testing.T) {
	t.Parallel()
	for title, want := range map[string]Mark{
		"MẬT":                     Mat,
		"(Mật) Báo cáo tình hình": Mat,
		"Báo cáo tình hình (độ mật: Tối mật)":                       ToiMat,
		"Báo cáo tình hình [TUYỆT MẬT]":                             TuyetMat,
		"TỐI MẬT - Phương án bảo vệ":                                ToiMat,
		"Phương án bảo vệ – MẬT":                                    Mat,
		"MẬT: kế hoạch":                                             Mat,
		"V/v triển khai công tác bảo vệ bí mật nhà nước":            None,
		"V/v rà soát văn bản mật (lần 2)":                           None,
		"Hướng dẫn bảo mật hệ thống thông tin":                      None,
		"V/v quản lý mật ong (xuất khẩu)":                           None,
		"Danh mục bí mật nhà nước độ Tuyệt mật":                     None,
		"Quy định về độ mật (Mật, Tối mật, Tuyệt mật) của tài liệu": None,
	} {
		if got := InTitle(title); got != want {
			t.Errorf("%q: %q, want %q", title, got, want)
		}
	}
}

func TestInNotation(t *testing.T) {
	t.Parallel()
	for notation, want := range map[string]Mark{
		"12/BC-UBND(M)": Mat, "BC-UBND (TM)": ToiMat, "QĐ-BCA-MẬT": Mat, "TUYỆT MẬT/01": TuyetMat,
		"12/BC-UBND": None, "7816/VPCP-TTĐT": None, "TB-TM": None, "QĐ-BTM": None, "12/2026/NĐ-CP": None, "M-12": None,
	} {
		if got := InNotation(notation); got != want {
			t.Errorf("%q: %q, want %q", notation, got, want)
		}
	}
}

func FuzzInText(f *testing.F) {
	f.Add("MẬT\nĐộ mật: x")
	f.Fuzz(func(t *testing.T, text string) {
		if InText(text) != None && InText(text+"\nx") == None {
			t.Errorf("%q: a line more hides the mark", text)
		}
		InTitle(text)
		InNotation(text)
	})
}
