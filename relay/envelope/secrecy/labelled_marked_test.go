package secrecy_test

import (
	"fmt"

	. "github.com/truclienthong/truc/relay/envelope/secrecy"
	"github.com/truclienthong/truc/relay/envelope/secrecy/secrecytest"
)

var levels = map[Mark]string{Mat: "MẬT", ToiMat: "TỐI MẬT", TuyetMat: "TUYỆT MẬT"}

func positives() []specimen {
	var all []specimen
	add := func(s ...specimen) { all = append(all, s...) }
	for _, text := range []struct {
		want Mark
		s    string
	}{
		{Mat, "MẬT"}, {Mat, "Mật"}, {Mat, "(Mật) Báo cáo tình hình an ninh"}, {Mat, "V/v phối hợp bảo vệ mục tiêu [MẬT]"},
		{ToiMat, "TỐI MẬT - Phương án bảo vệ"}, {TuyetMat, "Kế hoạch A2 (độ mật: Tuyệt mật)"}, {Mat, "Kế hoạch diễn tập – MẬT"},
		{ToiMat, "TỐI MẬT: kế hoạch"}, {TuyetMat, "{TUYỆT MẬT} Đề án"}, {Mat, "Báo cáo quý III. MẬT"},
	} {
		add(said("subject", text.want, InTitle, text.s))
	}
	for notation, want := range map[string]Mark{"12/BC-UBND(M)": Mat, "BC-UBND (TM)": ToiMat, "QĐ-BCA-MẬT": Mat, "TUYỆT MẬT/01": TuyetMat, "05-KH/TU(TuM)": TuyetMat, "TM/TỐI MẬT-03": ToiMat} {
		add(said("notation", want, InNotation, notation))
	}
	for _, text := range []struct {
		want Mark
		s    string
	}{
		{Mat, "Độ mật: Mật"}, {ToiMat, "ĐỘ MẬT: TỐI MẬT"}, {Mat, "Độ mật: Mật   Độ khẩn: Hỏa tốc"}, {TuyetMat, "Mức độ mật:\nTuyệt mật\n"},
		{Mat, "1. Độ mật: Mật (theo Quyết định số 12)"}, {Mat, "DO MAT: MAT"}, {ToiMat, "Do mat: Toi mat"}, {Mat, "MẬT - HỎA TỐC"},
		{ToiMat, "TỐI MẬT (Bản số: 02)"}, {Mat, "MẬT, KHẨN"}, {TuyetMat, "TUYỆT MẬT Bản số: 03/10"}, {Mat, "M Ậ T"}, {TuyetMat, "T U Y Ệ T   M Ậ T"},
		{ToiMat, "TOI MAT"}, {Mat, "mËt"}, {ToiMat, "TOÁI MAÄT"}, {Mat, "Độ mật: □ Tuyệt mật □ Tối mật ☑ Mật"}, {ToiMat, "[ ] Tuyệt mật  [x] Tối mật  [ ] Mật"},
		{Mat, "UBND TỈNH\nSố: 12\n* MẬT *"}, {Mat, "M\u1ea8\u0323T"[0:1] + "A\u0302\u0323T"},
	} {
		add(said("text", text.want, InText, text.s))
	}
	for m, text := range levels {
		for w, writer := range []secrecytest.Writer{secrecytest.Word, secrecytest.LibreOffice, secrecytest.Named} {
			add(file(fmt.Sprintf("pdf: %s under the number, writer %d", m, w), m,
				secrecytest.PDF{Writer: writer, Packed: w != 1, Runs: page(secrecytest.Run{X: 90, Y: 712, Size: 14, Text: text})}.Bytes()))
		}
		add(file(fmt.Sprintf("docx: %s in a box", m), m, secrecytest.DOCX{Body: letter("", "Kết quả công tác", ordinary), Box: text}.Bytes()),
			file(fmt.Sprintf("docx: %s in the header", m), m, secrecytest.DOCX{Body: letter("", "Kết quả công tác", ordinary), Header: text}.Bytes()),
			file(fmt.Sprintf("docx: %s under the number", m), m, secrecytest.DOCX{Body: letter(text, "Kết quả công tác", ordinary)}.Bytes()))
	}
	mark := secrecytest.Run{X: 90, Y: 712, Size: 14, Text: "TỐI MẬT"}
	with := func(change func(*secrecytest.Run)) []secrecytest.Run {
		m := mark
		change(&m)
		return page(m)
	}
	whole := page(secrecytest.Run{})
	for name, p := range map[string]secrecytest.PDF{
		"turned across the page":         {Runs: with(func(r *secrecytest.Run) { r.X, r.Y, r.Size, r.Angle = 150, 300, 60, 45 })},
		"turned upright":                 {Runs: with(func(r *secrecytest.Run) { r.X, r.Y, r.Angle = 560, 300, 90 })},
		"upside down":                    {Runs: with(func(r *secrecytest.Run) { r.X, r.Y, r.Angle = 300, 40, 180 })},
		"over other words":               {Runs: with(func(r *secrecytest.Run) { r.X, r.Y = 80, 640 }), Writer: secrecytest.LibreOffice},
		"letters set apart":              {Runs: with(func(r *secrecytest.Run) { r.Apart = 6 })},
		"letters far apart":              {Runs: with(func(r *secrecytest.Run) { r.Apart = 12 }), Writer: secrecytest.LibreOffice},
		"drawn by a form":                {Runs: with(func(r *secrecytest.Run) { r.Boxed = true }), Packed: true},
		"decomposed letters":             {Runs: with(func(r *secrecytest.Run) { r.Text = "TO\u0302\u0301I MA\u0323\u0302T" }), Writer: secrecytest.LibreOffice},
		"in brackets":                    {Runs: with(func(r *secrecytest.Run) { r.Text = "[TỐI MẬT]" })},
		"beside the date":                {Runs: with(func(r *secrecytest.Run) { r.X, r.Y = 200, 750 })},
		"a stamp put on it":              {Runs: whole, Stamps: []string{"TỐI MẬT"}},
		"a note put on it":               {Runs: whole, Notes: []string{"TỐI MẬT"}},
		"a field of a form":              {Runs: whole, Fields: map[string]string{"Độ mật": "Tối mật", "Độ khẩn": "Khẩn"}},
		"the title":                      {Runs: whole, Title: "TỐI MẬT - Báo cáo"},
		"a keyword":                      {Runs: whole, Keywords: "báo cáo; TỐI MẬT; 2025", Packed: true},
		"the description in XML":         {Runs: whole, XMP: "TỐI MẬT"},
		"words for a picture":            {Runs: whole, Alt: "TỐI MẬT"},
		"words for glyphs":               {Runs: whole, Actual: "TỐI MẬT"},
		"a line of a field":              {Runs: with(func(r *secrecytest.Run) { r.Text = "Độ mật: Tối mật" })},
		"two lines in a frame":           {Runs: append(with(func(r *secrecytest.Run) { r.Text = "TỐI MẬT" }), secrecytest.Run{X: 90, Y: 696, Size: 14, Text: "Bản số: 05"})},
		"packed as letters":              {Runs: page(mark), Filter: "ASCII85"},
		"packed as digits":               {Runs: page(mark), Filter: "ASCIIHex", Writer: secrecytest.LibreOffice},
		"not packed":                     {Runs: page(mark), Filter: "None"},
		"letters that are no characters": {Runs: page(mark), Writer: secrecytest.Mute},
		"the stamp is a picture":         {Runs: whole, Filler: 4096},
	} {
		add(file("pdf: "+name, ToiMat, p.Bytes()))
	}
	for _, stamped := range []struct {
		want Mark
		s    string
	}{
		{Mat, "MẬT - KHẨN"}, {ToiMat, "HỎA TỐC - TỐI MẬT"}, {Mat, "MẬT/A"}, {TuyetMat, "TUYỆT MẬT (B)"}, {Mat, "ĐỘ MẬT: MẬT"},
		{ToiMat, "Mức độ mật : Tối mật"}, {Mat, "« MẬT »"}, {Mat, "MẬT Số: 05"}, {ToiMat, "DẤU ĐỘ MẬT: TỐI MẬT"}, {Mat, "M.Ậ.T"},
		{ToiMat, "TỐI  MẬT  A"}, {Mat, "Mật"}, {Mat, "Bản số 01 - MẬT"}, {Mat, "MẬT\nHỎA TỐC"},
		{Mat, "TÀI LIỆU MẬT"}, {ToiMat, "VĂN BẢN TỐI MẬT"}, {TuyetMat, "ĐỘ TUYỆT MẬT"}, {Mat, "LOẠI: MẬT"},
	} {
		add(file(fmt.Sprintf("pdf: stamped %q", stamped.s), stamped.want,
			secrecytest.PDF{Runs: append(page(secrecytest.Run{}), secrecytest.Run{X: 90, Y: 710, Size: 14, Text: stamped.s})}.Bytes()),
			file(fmt.Sprintf("docx: stamped %q", stamped.s), stamped.want, secrecytest.DOCX{Body: letter("", "Kết quả", ordinary), Box: stamped.s}.Bytes()))
	}
	body := letter("", "Kết quả công tác", ordinary)
	for name, d := range map[string]secrecytest.DOCX{
		"the watermark":              {Body: body, Watermark: "TỐI MẬT"},
		"the footer":                 {Body: body, Footer: "Trang 1\tTỐI MẬT"},
		"the keywords":               {Body: body, Keywords: "TỐI MẬT"},
		"the category":               {Body: body, Category: "Tối mật"},
		"the status":                 {Body: body, Status: "Tối mật"},
		"a property":                 {Body: body, Custom: map[string]string{"Độ mật": "Tối mật"}},
		"a property without accents": {Body: body, Custom: map[string]string{"DoMat": "TOI MAT"}},
		"behind a tab":               {Body: letter("Số bản: 3\tTỐI MẬT", "x", ordinary)},
		"a field with a tab":         {Body: letter("Độ mật:\tTối mật", "x", ordinary)},
		"a cell of a table":          {Body: body, Raw: "<w:tbl><w:tr><w:tc>" + secrecytest.Paragraphs("TỐI MẬT") + "</w:tc><w:tc>" + secrecytest.Paragraphs("Số 12") + "</w:tc></w:tr></w:tbl>"},
		"small letters shown large":  {Body: body, Raw: `<w:p><w:r><w:rPr><w:caps/></w:rPr><w:t>tối mật</w:t></w:r></w:p>`},
		"inserted with changes":      {Body: body, Raw: `<w:p><w:ins w:id="1"><w:r><w:t>TỐI </w:t></w:r><w:r><w:t>MẬT</w:t></w:r></w:ins></w:p>`},
		"what a picture shows":       {Body: body, Raw: `<w:p><w:r><w:drawing><wp:docPr id="1" name="Picture" descr="TỐI MẬT"/></w:drawing></w:r></w:p>`},
		"decomposed letters":         {Body: letter("TO\u0302\u0301I MA\u0323\u0302T", "x", ordinary)},
		"said in a sentence":         {Body: letter("", "x", "Văn bản này thuộc độ Tối mật, chỉ những người có tên mới được đọc.")},
	} {
		add(file("docx: "+name, ToiMat, d.Bytes()))
	}
	marked := secrecytest.PDF{Runs: page(mark)}.Bytes()
	add(file("zip: a PDF in it", ToiMat, secrecytest.Zip(map[string]string{"phụ lục/a.pdf": string(marked), "b.txt": "x"})))
	return all
}
