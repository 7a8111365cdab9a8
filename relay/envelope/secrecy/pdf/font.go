package pdf

import (
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/unicode/norm"
)

// font turns the codes of a string into characters and their widths.
type font struct {
	// composite fonts have codes of several bytes, two where nothing says else.
	composite bool
	unicode   *cmap
	// simple are the characters of a font of one byte each.
	simple [256]string
	widths map[int]float64
	// missing is the width of what has none, unit that of one of the font's units.
	missing, unit float64
}

// letter is one code of a string.
type letter struct {
	means string
	width float64 // of a font of size 1
	space bool    // the code that word spacing widens
}

// fontOf reads a font of the resources.
func (d *document) fontOf(v value) *font {
	number, isRef := v.(ref)
	if f := d.fonts[int(number)]; isRef && f != nil {
		return f
	}
	f := d.readFont(d.dictOf(v))
	if isRef {
		d.fonts[int(number)] = f
	}
	return f
}

func (d *document) readFont(of dict) *font {
	d.work.spend(512)
	f := &font{widths: map[int]float64{}, unit: 1. / 1000, missing: 500, composite: of["Subtype"] == name("Type0")}
	if s, ok := d.get(of["ToUnicode"]).(*stream); ok {
		f.unicode = d.readCMap(d.decode(s))
	}
	if f.composite {
		d.compositeWidths(f, of)
		return f
	}
	d.encoding(f, of)
	if m, ok := d.get(of["FontMatrix"]).(array); ok && len(m) == 6 {
		f.unit = d.numberOf(m[0], f.unit)
	}
	if descriptor := d.dictOf(of["FontDescriptor"]); descriptor != nil {
		if w := d.numberOf(descriptor["MissingWidth"], 0); w > 0 {
			f.missing = w
		}
	}
	first := int(d.numberOf(of["FirstChar"], 0))
	if widths, ok := d.get(of["Widths"]).(array); ok {
		for i := range min(len(widths), 256) {
			f.widths[first+i] = d.numberOf(widths[i], f.missing)
		}
	}
	return f
}

// compositeWidths reads the array W of the descendant (9.7.4.3).
func (d *document) compositeWidths(f *font, of dict) {
	descendants, _ := d.get(of["DescendantFonts"]).(array)
	if len(descendants) == 0 {
		return
	}
	descendant := d.dictOf(descendants[0])
	f.missing = d.numberOf(descendant["DW"], 1000)
	w, _ := d.get(descendant["W"]).(array)
	set := func(cid int, width float64) {
		if d.letters++; d.letters <= maxLetters && d.work.spend(2) {
			f.widths[cid] = width
		}
	}
	for i := 0; i+1 < len(w); {
		first := int(d.numberOf(w[i], 0))
		if list, ok := d.get(w[i+1]).(array); ok {
			for j, width := range list {
				set(first+j, d.numberOf(width, f.missing))
			}
			i += 2
			continue
		}
		if i+2 >= len(w) {
			return
		}
		last, width := int(d.numberOf(w[i+1], 0)), d.numberOf(w[i+2], f.missing)
		for cid := first; cid <= min(last, 1<<16) && d.letters <= maxLetters; cid++ {
			set(cid, width)
		}
		i += 3
	}
}

// encoding says what the bytes of a simple font mean (9.6.6).
func (d *document) encoding(f *font, of dict) {
	table := charmap.Windows1252
	encoding := d.get(of["Encoding"])
	base, differences := encoding, array(nil)
	if e, ok := encoding.(dict); ok {
		base = d.get(e["BaseEncoding"])
		differences, _ = d.get(e["Differences"]).(array)
	}
	if base == name("MacRomanEncoding") {
		table = charmap.Macintosh
	}
	for b := 32; b < 256; b++ {
		f.simple[b] = string(table.DecodeByte(byte(b)))
	}
	code := 0
	for _, v := range differences {
		switch v := d.get(v).(type) {
		case float64:
			code = int(v)
		case name:
			if code >= 0 && code < 256 {
				f.simple[code] = glyph(string(v))
			}
			code++
		}
	}
}

// letters takes a string apart.
func (f *font) letters(s text, draw func(letter)) {
	b := []byte(s)
	for len(b) > 0 {
		n := f.length(b)
		code := b[:n]
		b = b[n:]
		number := 0
		for _, c := range code {
			number = number<<8 | int(c)
		}
		l := letter{space: n == 1 && code[0] == ' '}
		if w, ok := f.widths[number]; ok {
			l.width = w * f.unit
		} else {
			l.width = f.missing * f.unit
		}
		known := false
		if f.unicode != nil {
			l.means, known = f.unicode.means[key(code)]
		}
		if !known && !f.composite {
			l.means = f.simple[code[0]]
		}
		draw(l)
	}
}

// length is that of the next code.
func (f *font) length(b []byte) int {
	switch {
	case !f.composite:
		return 1
	case f.unicode != nil && f.unicode.widths[b[0]] > 0:
		return min(int(f.unicode.widths[b[0]]), len(b))
	}
	return min(2, len(b))
}

// signs are the names of glyphs that are no letters; letters have their own name,
// with those of their marks behind it (Adobe Glyph List).
var signs = map[string]string{
	"space": " ", "nbspace": " ", "hyphen": "-", "minus": "-", "endash": "–", "emdash": "—", "colon": ":",
	"semicolon": ";", "comma": ",", "period": ".", "slash": "/", "backslash": `\`, "bar": "|", "asterisk": "*",
	"parenleft": "(", "parenright": ")", "bracketleft": "[", "bracketright": "]", "braceleft": "{",
	"braceright": "}", "quotedbl": `"`, "quotesingle": "'", "quoteleft": "‘", "quoteright": "’",
	"quotedblleft": "“", "quotedblright": "”", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4",
	"five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "dcroat": "đ", "Dcroat": "Đ",
	"dmacron": "đ", "Dslash": "Đ", "Eth": "Ð", "eth": "ð", "underscore": "_", "numbersign": "#", "plus": "+",
	"fi": "fi", "fl": "fl", "ff": "ff",
}

// accents are the names of marks, and the marks.
var accents = []struct{ name, mark string }{
	{"circumflex", "\u0302"}, {"breve", "\u0306"}, {"horn", "\u031b"}, {"acute", "\u0301"}, {"grave", "\u0300"},
	{"hookabove", "\u0309"}, {"hook", "\u0309"}, {"tilde", "\u0303"}, {"dotbelow", "\u0323"}, {"dieresis", "\u0308"},
}

// glyph is what the name of a glyph means; "" where it says nothing.
func glyph(glyph string) string {
	if s, ok := signs[glyph]; ok {
		return s
	}
	glyph, _, _ = strings.Cut(glyph, ".")
	for _, prefix := range []string{"uni", "u"} {
		if digits, ok := strings.CutPrefix(glyph, prefix); ok && len(digits) >= 4 && len(digits) <= 6 {
			if n, err := strconv.ParseUint(digits, 16, 32); err == nil && n <= unicode.MaxRune {
				return string(rune(n))
			}
		}
	}
	if glyph == "" {
		return ""
	}
	letter, rest := glyph[:1], glyph[1:]
	for rest != "" {
		found := false
		for _, a := range accents {
			if after, ok := strings.CutPrefix(rest, a.name); ok {
				letter, rest, found = letter+a.mark, after, true
				break
			}
		}
		if !found {
			return ""
		}
	}
	return norm.NFC.String(letter)
}
