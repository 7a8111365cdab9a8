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
// text that is drawn without its characters. How often it errs is measured on the
// labelled set of its tests (TestLabelledSet).
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
// written where letters have no marks of tone. MAT alone is too many words. The
// last are how the fonts of before Unicode write them, TCVN 5712 (ABC) and VNI.
var words = map[string]Mark{
	"MẬT": Mat, "TỐI MẬT": ToiMat, "TUYỆT MẬT": TuyetMat,
	"TOI MAT": ToiMat, "TUYET MAT": TuyetMat,
	"MËT": Mat, "TÈI MËT": ToiMat, "TUYÖT MËT": TuyetMat,
	"MAÄT": Mat, "TOÁI MAÄT": ToiMat, "TUYEÄT MAÄT": TuyetMat,
}

// condensed are the words without blanks: letters of a stamp are often set apart.
var condensed = func() map[string]Mark {
	c := make(map[string]Mark, len(words))
	for word, m := range words {
		c[strings.ReplaceAll(word, " ", "")] = m
	}
	return c
}()

// InTitle finds a mark in a subject: all of it, set off at its beginning or end in
// capital letters, or in brackets anywhere.
func InTitle(title string) Mark {
	title = plain(norm.NFC.String(title))
	found := words[strings.ToUpper(strings.TrimFunc(title, ornament))]
	found = max(found, InText(title))
	for rest := title; ; {
		from := strings.IndexAny(rest, "([{")
		if from < 0 {
			break
		}
		rest = rest[from+1:]
		if to := strings.IndexAny(rest, ")]}"); to >= 0 {
			inside := plain(rest[:to])
			if m, ok := field(inside); ok {
				found = max(found, m)
			}
			found = max(found, words[strings.ToUpper(inside)])
		}
	}
	for word, m := range words {
		for _, sign := range []string{":", "-", "–", "—", "|", "*", "."} {
			if begins, ok := strings.CutPrefix(title, word); ok && strings.HasPrefix(strings.TrimSpace(begins), sign) {
				found = max(found, m)
			}
			ends, ok := strings.CutSuffix(title, word)
			if before, signed := strings.CutSuffix(strings.TrimSpace(ends), sign); ok && signed && !goesOn(before) {
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

// plain is a line without what nobody sees, with single blanks.
func plain(line string) string {
	line = strings.Map(func(r rune) rune {
		switch {
		case r == '\u200b', r == '\u200c', r == '\u200d', r == '\ufeff', r == '\u00ad':
			return -1
		case unicode.IsSpace(r), unicode.IsControl(r):
			return ' '
		}
		return r
	}, line)
	return strings.Join(strings.Fields(line), " ")
}

// ornament is what stands around a mark and is no part of it.
func ornament(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r)
}
