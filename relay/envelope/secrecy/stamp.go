package secrecy

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Measures of the text of a document.
const (
	// maxStamp is the most characters of a line that may be a stamp, with what is
	// stamped beside the mark.
	maxStamp = 64
	// beginning is how many lines of a text are its beginning, where a mark in small
	// letters may stand. Further down it is a cell of a table.
	beginning = 15
	// near is how far the levels of a list lie apart, in lines.
	near = 6
)

// stamp is a line that is a mark.
type stamp struct {
	at   int // which line, of those that are not empty
	mark Mark
}

// InText finds the highest mark in the text of a document, in which a line, or a
// cell of a table, ends with a line break and an empty line ends a block. A line is
// a mark if it says nothing else. All three levels one after the other are a list
// of the levels and no marks. In small letters a line is a mark only at the
// beginning of a text that names no other level.
func InText(text string) Mark {
	var found Mark
	var capitals, small []stamp
	levels := map[Mark]bool{}
	// sentence: what stands in small letters may be the end of one.
	at, before, asked, sentence := 0, "", false, false
	for line := range strings.Lines(norm.NFC.String(text)) {
		line = plain(line)
		if line == "" {
			before = ""
			continue
		}
		at++
		found = max(found, ticked(line))
		if asked {
			// A field whose value stands in the next column.
			found = max(found, words[strings.ToUpper(strings.TrimFunc(line, ornament))])
		}
		m, isField := field(line)
		asked = isField && strings.HasSuffix(line, ":")
		if isField {
			found = max(found, m)
		} else if m, large := alone(line); m != None && !goesOn(before) {
			levels[m] = true
			switch s := (stamp{at, m}); {
			case large:
				capitals = append(capitals, s)
			default:
				small, sentence = append(small, s), sentence || strings.Count(before, " ") >= 3
			}
		}
		before = line
	}
	for _, s := range withoutLists(capitals) {
		found = max(found, s.mark)
	}
	if len(levels) == 1 && len(small) == 1 && !sentence && small[0].at <= beginning {
		found = max(found, small[0].mark)
	}
	return found
}

// withoutLists leaves out the stamps that together are a list of the levels, as a
// form or a rule about secrecy shows them.
func withoutLists(stamps []stamp) []stamp {
	var kept []stamp
	for i := 0; i < len(stamps); {
		j, levels := i+1, 1<<stamps[i].mark
		for ; j < len(stamps) && stamps[j].at-stamps[j-1].at <= near; j++ {
			levels |= 1 << stamps[j].mark
		}
		if levels != 1<<Mat|1<<ToiMat|1<<TuyetMat {
			kept = append(kept, stamps[i:j]...)
		}
		i = j
	}
	return kept
}

// alone reports the mark of a line that is nothing else, and whether it stands in
// capital letters. Letters of TCVN 5712 are, whichever they are: the font is.
func alone(line string) (m Mark, large bool) {
	if len(line) > 3*maxStamp || utf8.RuneCountInString(line) > maxStamp || hasBox(line) {
		return None, false
	}
	ended := strings.HasSuffix(line, ".") || strings.HasSuffix(line, ",") || strings.HasSuffix(line, ";")
	inside := strings.TrimFunc(line, ornament)
	upper := strings.ToUpper(inside)
	together := apart.Replace(upper)
	if m := condensed[together]; m != None {
		switch first, _ := utf8.DecodeRuneInString(inside); {
		case inside == upper, strings.Contains(together, "MËT"):
			return m, true
		case together != "TOIMAT" && together != "TUYETMAT" && unicode.IsUpper(first) && !ended:
			return m, false
		}
		// The rest of a sentence.
		return None, false
	}
	return beside(line), true
}

// apart takes away what sets letters of a stamp apart.
var apart = strings.NewReplacer(" ", "", ".", "", "_", "")

// companions are what is stamped beside a mark.
var companions = regexp.MustCompile(`^(?:KHẨN|THƯỢNG KHẨN|H[ỎO][ẢA]? TỐC|HOẢ TỐC|HỎA TỐC HẸN GIỜ|HOẢ TỐC HẸN GIỜ|(?:BẢN |TỜ )?SỐ(?: BẢN)?(?:[^\pL].{0,12})?|[ABC]|[0-9./ …]*)$`)

// separators stand between a mark and what is stamped beside it.
var separators = regexp.MustCompile(`[-–—/,;|•·:()\[\]*]+`)

// beside finds the mark in a line in capital letters in which there is nothing but
// what is stamped beside one: "MẬT - HỎA TỐC", "TỐI MẬT (Bản số: 02)".
func beside(line string) Mark {
	if !strings.Contains(line, "MẬT") && !strings.Contains(line, " MAT") {
		return None
	}
	found := None
	for _, piece := range separators.Split(line, -1) {
		piece = strings.TrimSpace(piece)
		m := words[piece]
		if m == None {
			for word, level := range words {
				rest, ok := strings.CutPrefix(piece, word+" ")
				if ok && level > m && companions.MatchString(strings.ToUpper(rest)) {
					m = level
				}
			}
		}
		switch {
		case m != None && found != None && m != found:
			return None // a list of levels
		case m != None:
			found = m
		case !companions.MatchString(strings.ToUpper(piece)):
			return None
		}
	}
	return found
}

// begun are the words that make of "mật" behind them something that is no mark, in
// a line that was too long: bí mật, bảo mật, độ mật, tài liệu mật, túi mật.
var begun = map[string]bool{
	"BÍ": true, "BẢO": true, "CƠ": true, "GIẢI": true, "GIẢM": true, "TĂNG": true, "HÓA": true, "HOÁ": true,
	"THÂN": true, "KÍN": true, "ĐỘ": true, "DẤU": true, "LIỆU": true, "BẢN": true, "TIN": true, "VÀ": true,
	"HOẶC": true, "LÀ": true, "CÁC": true, "NHỮNG": true, "ĐƯỜNG": true, "NỘI": true, "TÚI": true, "SỎI": true,
	"GAN": true, "ONG": true, "LẤY": true, "VĂN": true, "THỊ": true, "MỨC": true, "THUỘC": true,
}

// goesOn reports whether a line goes on with "mật" of the next.
func goesOn(line string) bool {
	line = strings.TrimRightFunc(line, unicode.IsSpace)
	if hasBox(line) {
		return true // a form with boxes to tick
	}
	return begun[strings.ToUpper(line[strings.LastIndexByte(line, ' ')+1:])]
}

// named are the names of the fields that tell how secret a document is.
var named = map[string]bool{
	"độ mật": true, "mức độ mật": true, "cấp độ mật": true, "mức mật": true, "độ bảo mật": true,
	"mức độ bảo mật": true, "dấu độ mật": true, "dấu chỉ độ mật": true, "dấu chỉ mức độ mật": true,
	"chỉ mức độ mật": true, "độ mật của văn bản": true, "do mat": true, "muc do mat": true, "domat": true, "do_mat": true,
	"mucdomat": true, "muc_do_mat": true,
}

// field is the mark in a line "Độ mật: …" or "Mức độ mật: …"; ok for such a line,
// whatever it says.
func field(line string) (m Mark, ok bool) {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return None, false
	}
	name = strings.ToLower(strings.TrimLeftFunc(strings.TrimSpace(name), func(r rune) bool { return !unicode.IsLetter(r) }))
	if !named[name] {
		return None, false
	}
	if hasBox(value) {
		return None, true // what is ticked was found before
	}
	value = strings.ToUpper(strings.TrimLeftFunc(value, ornament))
	if strings.TrimRightFunc(value, ornament) == "MAT" {
		return Mat, true // what no other line means
	}
	for word, level := range words {
		rest, ok := strings.CutPrefix(value, word)
		rest = strings.TrimLeft(rest, " .…")
		// What follows is nothing, a note, or the next field.
		if ok && (strings.TrimFunc(rest, ornament) == "" || rest[0] == '(' || strings.HasPrefix(rest, "ĐỘ ") || strings.HasPrefix(rest, "MỨC ")) {
			m = max(m, level)
		}
	}
	return m, true
}

// boxes that are ticked, with the level behind.
var boxes = regexp.MustCompile(`(?:[☑☒■✓✔⊠]|\[ ?[xX] ?\]|\( ?[xX] ?\)) ?([Tt]uyệt mật|[Tt]ối mật|[Mm]ật|TUYỆT MẬT|TỐI MẬT|MẬT)(?:$|[^\pL])`)

// hasBox reports whether a line has boxes of a form.
func hasBox(line string) bool {
	return strings.ContainsAny(line, "☐☑☒□■▢◻✓✔⊠") || emptyBox.MatchString(line)
}

var emptyBox = regexp.MustCompile(`\[[ xX]{1,3}\]|\([ xX]{1,3}\)`)

// ticked finds the level whose box is ticked on a form.
func ticked(line string) (found Mark) {
	if !strings.ContainsAny(line, "☑☒■✓✔⊠xX") {
		return None
	}
	for _, match := range boxes.FindAllStringSubmatch(line, -1) {
		found = max(found, words[strings.ToUpper(match[1])])
	}
	return found
}
