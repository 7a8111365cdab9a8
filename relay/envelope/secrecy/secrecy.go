// Package secrecy finds the marks of state secrets in text: Mật, Tối mật, Tuyệt
// mật (Law 29/2018/QH14; they must not travel here: QD28 Art. 1(2)).
//
// A mark is what somebody put on a document to say how secret it is: a stamp, a
// line of its own, a field "Độ mật: …", a bracket behind the subject, a notation
// of the series that secret documents have (ND30 Art. 15). The words inside a
// sentence are none: most documents about secrecy are public.
//
// It would rather refuse a document that shows a stamp for another reason than
// let one through that bears it. What it cannot see: stamps that are pictures, and
// text that is drawn without its characters.
package secrecy

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Mark is a level of secrecy.
type Mark uint8

// The marks, as the law ranks them.
const (
	None Mark = iota
	Mat
	ToiMat
	TuyetMat
)

var names = [...]string{"", "MẬT", "TỐI MẬT", "TUYỆT MẬT"}

func (m Mark) String() string { return names[m] }

// words are the marks in capital letters; those of two words also as they are
// written where letters have no marks of tone. MAT alone is too many words.
var words = map[string]Mark{
	"MẬT": Mat, "TỐI MẬT": ToiMat, "TUYỆT MẬT": TuyetMat,
	"TOI MAT": ToiMat, "TUYET MAT": TuyetMat,
}

// InText finds the highest mark in the text of a document, in which a line, or a
// cell of a table, ends with a line break. A line is a mark if it says nothing
// else. In small letters it is one only where the text names no other level: a
// list of the levels is none.
func InText(text string) Mark {
	found, small, levels := None, None, map[Mark]bool{}
	for line := range strings.Lines(norm.NFC.String(text)) {
		line = plain(line)
		if value, ok := field(line); ok {
			found = max(found, words[strings.ToUpper(joined(value))])
			continue
		}
		line = joined(line)
		m := words[strings.ToUpper(line)]
		if m == None {
			continue
		}
		levels[m] = true
		if strings.ToUpper(line) == line {
			found = max(found, m)
		} else {
			small = max(small, m)
		}
	}
	if len(levels) == 1 {
		found = max(found, small)
	}
	return found
}

// InTitle finds a mark in a subject: all of it, set off at its beginning or end in
// capital letters, or in brackets anywhere.
func InTitle(title string) Mark {
	title = plain(norm.NFC.String(title))
	if m := InText(title); m != None {
		return m
	}
	found := None
	for rest := title; ; {
		from := strings.IndexAny(rest, "([{")
		if from < 0 {
			break
		}
		rest = rest[from+1:]
		if to := strings.IndexAny(rest, ")]}"); to >= 0 {
			inside := plain(rest[:to])
			if value, ok := field(inside); ok {
				inside = value
			}
			found = max(found, words[strings.ToUpper(inside)])
		}
	}
	for word, m := range words {
		for _, sign := range []string{":", "-", "–", "—", "|", "*", "."} {
			if begins, ok := strings.CutPrefix(title, word); ok && strings.HasPrefix(strings.TrimSpace(begins), sign) {
				found = max(found, m)
			}
			if ends, ok := strings.CutSuffix(title, word); ok && strings.HasSuffix(strings.TrimSpace(ends), sign) {
				found = max(found, m)
			}
		}
	}
	return found
}

// InNotation finds the mark of the series of secret documents in a number or
// notation: a piece of it that is the mark, or its letter in brackets.
func InNotation(notation string) Mark {
	notation = strings.ToUpper(plain(norm.NFC.String(notation)))
	found := None
	for letters, m := range map[string]Mark{"(M)": Mat, "(TM)": ToiMat, "(TUM)": TuyetMat} {
		if strings.HasSuffix(notation, letters) {
			found = max(found, m)
		}
	}
	for _, piece := range strings.FieldsFunc(notation, func(r rune) bool { return strings.ContainsRune(`/-_.,()[]\`, r) }) {
		found = max(found, words[strings.TrimSpace(piece)])
	}
	return found
}

// field is the value of a line "Độ mật: …" or "Mức độ mật: …".
func field(line string) (value string, ok bool) {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return "", false
	}
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "độ mật", "mức độ mật", "cấp độ mật", "mức mật", "độ bảo mật":
		return strings.TrimFunc(value, ornament), true
	}
	return "", false
}

// plain is a line without what surrounds its words, with single blanks.
func plain(line string) string {
	line = strings.Map(func(r rune) rune {
		switch {
		case r == '\u200b', r == '\u200c', r == '\u200d', r == '\ufeff', r == '\u00ad':
			return -1 // nobody sees them
		case unicode.IsSpace(r), unicode.IsControl(r):
			return ' '
		}
		return r
	}, line)
	return strings.Join(strings.Fields(line), " ")
}

// joined is a line without frames and brackets around it, its letters together
// where they were set apart (M Ậ T).
func joined(line string) string {
	line = strings.TrimSpace(strings.TrimFunc(line, ornament))
	pieces := strings.Fields(line)
	for _, p := range pieces {
		if len([]rune(p)) != 1 {
			return line
		}
	}
	all := strings.Join(pieces, "")
	for word := range words {
		if strings.ReplaceAll(word, " ", "") == strings.ToUpper(all) {
			return word
		}
	}
	return line
}

// ornament is what stands around a mark and is no part of it.
func ornament(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r)
}
