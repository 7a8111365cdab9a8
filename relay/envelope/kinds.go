package envelope

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
)

// DocumentKind is one of the 29 kinds of administrative documents, by its place in
// ND30 Art. 7; the first 19 have the same in table B of QCVN 102. 0 is none of them,
// or not known.
type DocumentKind uint8

// CongVan is the kind without abbreviation that most documents have.
const CongVan DocumentKind = 18

// DocumentKinds is how many there are.
const DocumentKinds = 29

// kinds are names and abbreviations (ND30 Annex III), from place 1 on.
var kinds = [DocumentKinds + 1]struct{ name, abbreviation string }{
	1: {"Nghị quyết", "NQ"}, 2: {"Quyết định", "QĐ"}, 3: {"Chỉ thị", "CT"}, 4: {"Quy chế", "QC"}, 5: {"Quy định", "QyĐ"},
	6: {"Thông cáo", "TC"}, 7: {"Thông báo", "TB"}, 8: {"Hướng dẫn", "HD"}, 9: {"Chương trình", "CTr"}, 10: {"Kế hoạch", "KH"},
	11: {"Phương án", "PA"}, 12: {"Đề án", "ĐA"}, 13: {"Dự án", "DA"}, 14: {"Báo cáo", "BC"}, 15: {"Biên bản", "BB"},
	16: {"Tờ trình", "TTr"}, 17: {"Hợp đồng", "HĐ"}, CongVan: {"Công văn", ""}, 19: {"Công điện", "CĐ"}, 20: {"Bản ghi nhớ", "BGN"},
	21: {"Bản thỏa thuận", "BTT"}, 22: {"Giấy ủy quyền", "GUQ"}, 23: {"Giấy mời", "GM"}, 24: {"Giấy giới thiệu", "GGT"},
	25: {"Giấy nghỉ phép", "GNP"}, 26: {"Phiếu gửi", "PG"}, 27: {"Phiếu chuyển", "PC"}, 28: {"Phiếu báo", "PB"}, 29: {"Thư công", ""},
}

// elsewhere are kinds of documents that are no administrative ones and go over the
// axis too: normative ones (Law 80/2015/QH13) and copies (ND30 Annex III).
var elsewhere = []string{
	"Hiến pháp", "Bộ luật", "Luật", "Pháp lệnh", "Lệnh", "Nghị định", "Thông tư", "Nghị quyết liên tịch", "Thông tư liên tịch",
	"Sao y", "Trích sao", "Sao lục",
}

var kindByName, kindByAbbreviation, otherKinds = func() (map[string]DocumentKind, map[string]DocumentKind, map[string]bool) {
	names, abbreviations, others := map[string]DocumentKind{}, map[string]DocumentKind{}, map[string]bool{}
	for k := DocumentKind(1); k <= DocumentKinds; k++ {
		names[folded(kinds[k].name)] = k
		if a := kinds[k].abbreviation; a != "" {
			abbreviations[strings.ToUpper(a)] = k
		}
	}
	for _, name := range elsewhere {
		others[folded(name)] = true
	}
	return names, abbreviations, others
}()

// Name is the name of the kind, "" for none.
func (k DocumentKind) Name() string {
	if k > DocumentKinds {
		return ""
	}
	return kinds[k].name
}

// Abbreviation stands for the kind in the notation of a document; "" for those that
// have none: Công văn and Thư công.
func (k DocumentKind) Abbreviation() string {
	if k > DocumentKinds {
		return ""
	}
	return kinds[k].abbreviation
}

// KindNamed finds a kind by its name, in letters of any case, with the marks of
// tone or without them.
func KindNamed(name string) DocumentKind { return kindByName[folded(name)] }

// KindNoted finds a kind by its abbreviation in a notation: the first piece of it,
// behind the number if that stands there too ("BC-UBND", "125/BC-UBND").
func KindNoted(notation string) DocumentKind {
	notation = norm.NFC.String(strings.TrimSpace(notation))
	notation = notation[strings.LastIndexByte(notation, '/')+1:]
	piece, _, unit := strings.Cut(notation, "-")
	if !unit {
		return 0 // "CĐ" alone is an agency's or a typist's
	}
	return kindByAbbreviation[strings.ToUpper(strings.TrimSpace(piece))]
}

// KindOf is the kind of a document, for statistics: by its name, else by its
// notation.
func KindOf(d *exchangev1.Document) DocumentKind {
	if name := d.GetTypeName(); strings.TrimSpace(name) != "" {
		return KindNamed(name)
	}
	return KindNoted(d.GetCode().GetNotation())
}

// folded is a name in small letters without marks, and with single blanks.
func folded(name string) string {
	var b strings.Builder
	for _, r := range norm.NFD.String(strings.ToLower(name)) {
		switch {
		case unicode.Is(unicode.Mn, r):
		case r == 'đ':
			b.WriteByte('d')
		default:
			b.WriteRune(r)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// documentKind warns where name or notation do not say what kind of document it is,
// or not the same. Never more: both are unreliable in the field.
func (c *checker) documentKind(d *exchangev1.Document) {
	name, noted := d.GetTypeName(), KindNoted(d.GetCode().GetNotation())
	if strings.TrimSpace(name) == "" {
		return
	}
	named := KindNamed(name)
	switch {
	case named == 0 && !otherKinds[folded(name)]:
		c.warn("header.document.type_name", "is %q, which is none of the 29 kinds of Decree 30/2020/NĐ-CP Art. 7, nor a normative document", clip(name))
	case named != 0 && noted != 0 && noted != named:
		c.warn("header.document.code.notation", "begins with %s, the abbreviation of %s, but the document is named %s",
			noted.Abbreviation(), noted.Name(), named.Name())
	}
}
