// Package secrecytest writes PDF and DOCX files for tests of what looks into them,
// as the programs write them that officers use.
package secrecytest

import (
	"bytes"
	"compress/zlib"
	"encoding/ascii85"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf16"
)

// Writer is a way in which programs write the text of a PDF.
type Writer int

const (
	// Word writes letters of Latin-1 in a font of one byte, and all others in one of
	// two bytes with a ToUnicode table, changing within a word, each letter with
	// its kerning.
	Word Writer = iota
	// LibreOffice writes a subset font whose codes count from 1.
	LibreOffice
	// Named writes a font of one byte with names of glyphs and no table.
	Named
	// Mute writes a font of two bytes that says nothing of its characters: what it
	// draws can be seen and not read.
	Mute
)

// Run is a text on the page; sizes and places are in points, angles in degrees.
type Run struct {
	X, Y, Size, Angle float64
	Text              string
	// Apart is how far letters are set apart; each is then drawn by itself.
	Apart float64
	// Boxed runs are drawn by a form, as text boxes and letterheads are.
	Boxed bool
}

// PDF is a file of one page, or more where Lines is long.
type PDF struct {
	Writer Writer
	Runs   []Run
	// Packed puts the objects into compressed streams of objects.
	Packed bool
	// Filter is Flate where empty, or "ASCII85", "ASCIIHex" or "None".
	Filter string
	// Title, Keywords and XMP describe the document; Alt stands for a picture.
	Title, Keywords, XMP, Alt string
	// Actual stands for glyphs that are drawn.
	Actual string
	// Stamps are annotations that draw themselves, Notes such that only say it.
	Stamps, Notes []string
	// Fields are those of a form.
	Fields map[string]string
	// Locked files are encrypted.
	Locked bool
	// Filler adds a picture of so many bytes, which nothing can be read from.
	Filler int
}

// Text lays a text out from the top of the page, a run for each line, as a page of
// a letter: 12 points, lines 16 points apart.
func Text(text string) []Run {
	var runs []Run
	y := 780.0
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\n"); strings.TrimSpace(line) != "" {
			runs = append(runs, Run{X: 72, Y: y, Size: 12, Text: line})
		}
		y -= 16
	}
	return runs
}

// Wrapped is Text with lines of at most width characters, as a paragraph is set.
func Wrapped(text string, width int) []Run {
	var out strings.Builder
	for line := range strings.Lines(text) {
		n := 0
		for _, word := range strings.Fields(line) {
			if length := len([]rune(word)); n > 0 && n+1+length > width {
				out.WriteByte('\n')
				n = 0
			} else if n > 0 {
				out.WriteByte(' ')
				n++
			}
			out.WriteString(word)
			n += len([]rune(word))
		}
		out.WriteByte('\n')
	}
	return Text(out.String())
}

// letterWidth is that of all letters, in thousandths of the size.
const letterWidth = 500

// writer collects the objects of a file.
type writer struct {
	PDF
	objects []string
	streams map[int]bool
	glyphs  map[rune]int
	order   []rune
}

// Bytes writes the file.
func (p PDF) Bytes() []byte {
	w := &writer{PDF: p, objects: []string{""}, streams: map[int]bool{}, glyphs: map[rune]int{}}
	for _, r := range p.Runs {
		w.collect(r.Text)
	}
	for _, s := range p.Stamps {
		w.collect(s)
	}
	fonts := w.fonts()
	boxes := ""
	var content, outside strings.Builder
	for i, r := range p.Runs {
		if !r.Boxed {
			outside.WriteString(w.draw(r))
			continue
		}
		form := w.stream(fmt.Sprintf("/Type /XObject /Subtype /Form /BBox [0 0 600 800] /Resources << /Font %s >>", fonts), w.draw(r))
		boxes += fmt.Sprintf("/Fm%d %d 0 R ", i, form)
		fmt.Fprintf(&outside, "q 1 0 0 1 0 0 cm /Fm%d Do Q\n", i)
	}
	if p.Actual != "" {
		fmt.Fprintf(&content, "/Span << /ActualText %s >> BDC BT /F1 12 Tf 72 50 Td (.) Tj ET EMC\n", utf16Hex(p.Actual))
	}
	content.WriteString(outside.String())
	page := len(w.objects)
	w.object("") // filled in below
	annotations := ""
	for _, s := range p.Stamps {
		look := w.stream(fmt.Sprintf("/Type /XObject /Subtype /Form /BBox [0 0 200 50] /Resources << /Font %s >>", fonts), w.draw(Run{X: 5, Y: 5, Size: 24, Text: s}))
		annotations += fmt.Sprintf("%d 0 R ", w.object(fmt.Sprintf("<< /Type /Annot /Subtype /Stamp /Rect [10 10 210 60] /AP << /N %d 0 R >> >>", look)))
	}
	for _, s := range p.Notes {
		annotations += fmt.Sprintf("%d 0 R ", w.object(fmt.Sprintf("<< /Type /Annot /Subtype /FreeText /Rect [10 10 210 60] /Contents %s >>", utf16Hex(s))))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Fields)) {
		annotations += fmt.Sprintf("%d 0 R ", w.object(fmt.Sprintf("<< /Type /Annot /Subtype /Widget /FT /Tx /Rect [10 10 210 60] /T %s /V %s >>", utf16Hex(name), utf16Hex(p.Fields[name]))))
	}
	stream := w.stream("", content.String())
	w.objects[page] = fmt.Sprintf("<< /Type /Page /Parent %d 0 R /MediaBox [0 0 595 842] /Resources << /Font %s /XObject << %s >> >> /Contents %d 0 R /Annots [ %s ] >>",
		len(w.objects), fonts, boxes, stream, annotations)
	pages := w.object(fmt.Sprintf("<< /Type /Pages /Kids [ %d 0 R ] /Count 1 >>", page))
	catalog := fmt.Sprintf("<< /Type /Catalog /Pages %d 0 R", pages)
	if p.XMP != "" {
		catalog += fmt.Sprintf(" /Metadata %d 0 R", w.stream("/Type /Metadata /Subtype /XML", `<x:xmpmeta><rdf:RDF><rdf:li>`+p.XMP+`</rdf:li></rdf:RDF></x:xmpmeta>`))
	}
	if p.Alt != "" {
		w.object(fmt.Sprintf("<< /Type /StructElem /S /Figure /Alt %s >>", utf16Hex(p.Alt)))
	}
	if p.Filler > 0 {
		b := make([]byte, p.Filler)
		for i, x := 0, uint32(1); i < len(b); i++ { // what does not compress, always the same
			x = x*1664525 + 1013904223
			b[i] = byte(x >> 24)
		}
		n := w.object(fmt.Sprintf("<< /Type /XObject /Subtype /Image /Filter /DCTDecode /Length %d >>\nstream\n%s\nendstream", len(b), b))
		w.streams[n] = true
	}
	root := w.object(catalog + " >>")
	info := w.object(fmt.Sprintf("<< /Title %s /Keywords %s /Producer (test) >>", utf16Hex(p.Title), utf16Hex(p.Keywords)))
	return w.finish(root, info)
}

func (w *writer) object(s string) int {
	w.objects = append(w.objects, s)
	return len(w.objects) - 1
}

func (w *writer) stream(dict, content string) int {
	filter, b := "", []byte(content)
	switch w.Filter {
	case "":
		filter, b = "/Filter /FlateDecode", deflated(b)
	case "ASCII85":
		packed := deflated(b)
		b = make([]byte, ascii85.MaxEncodedLen(len(packed)))
		b = append(b[:ascii85.Encode(b, packed)], "~>"...)
		filter = "/Filter [ /ASCII85Decode /FlateDecode ]"
	case "ASCIIHex":
		b = append([]byte(hex.EncodeToString(b)), '>')
		filter = "/Filter /ASCIIHexDecode"
	}
	n := w.object(fmt.Sprintf("<< %s %s /Length %d >>\nstream\r\n%s\r\nendstream", dict, filter, len(b), b))
	w.streams[n] = true
	return n
}

func deflated(b []byte) []byte {
	var out bytes.Buffer
	z := zlib.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

// collect gives each letter a glyph.
func (w *writer) collect(text string) {
	for _, r := range text {
		if _, ok := w.glyphs[r]; !ok {
			w.order = append(w.order, r)
			w.glyphs[r] = len(w.order)
			if w.Writer == Word {
				w.glyphs[r] += 0x120
			}
		}
	}
}

// fonts writes them and returns the dictionary that names them.
func (w *writer) fonts() string {
	latin := w.object("<< /Type /Font /Subtype /TrueType /BaseFont /TimesNewRomanPSMT /Encoding /WinAnsiEncoding /FirstChar 32 /LastChar 33 /Widths [ 500 500 ] /FontDescriptor << /MissingWidth 500 >> >>")
	switch w.Writer {
	case LibreOffice:
		unicode := w.stream("", w.toUnicode(1))
		own := w.object(fmt.Sprintf("<< /Type /Font /Subtype /TrueType /BaseFont /BAAAAA+LiberationSerif /FirstChar 0 /LastChar 255 /Widths [ %s ] /ToUnicode %d 0 R >>", strings.Repeat("500 ", 256), unicode))
		return fmt.Sprintf("<< /F1 %d 0 R /F2 %d 0 R >>", own, own)
	case Named:
		var differences strings.Builder
		for i, r := range w.order {
			if i < 255 {
				fmt.Fprintf(&differences, "%d /%s ", i+1, glyphName(r))
			}
		}
		own := w.object(fmt.Sprintf("<< /Type /Font /Subtype /Type1 /BaseFont /VNTimes /FirstChar 0 /Widths [ %s ] /Encoding << /Differences [ %s ] >> >>", strings.Repeat("500 ", 256), differences.String()))
		return fmt.Sprintf("<< /F1 %d 0 R /F2 %d 0 R >>", own, own)
	}
	descendant := w.object("<< /Type /Font /Subtype /CIDFontType2 /BaseFont /ABCDEE+TimesNewRoman /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> /DW 500 /W [ 3 [ 500 ] 4 600 500 ] >>")
	unicode := ""
	if w.Writer != Mute {
		unicode = fmt.Sprintf("/ToUnicode %d 0 R", w.stream("", w.toUnicode(2)))
	}
	own := w.object(fmt.Sprintf("<< /Type /Font /Subtype /Type0 /BaseFont /ABCDEE+TimesNewRoman /Encoding /Identity-H /DescendantFonts [ %d 0 R ] %s >>", descendant, unicode))
	return fmt.Sprintf("<< /F1 %d 0 R /F2 %d 0 R >>", latin, own)
}

func glyphName(r rune) string {
	if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
		return string(r)
	}
	if r == ' ' {
		return "space"
	}
	return fmt.Sprintf("uni%04X", r)
}

func (w *writer) toUnicode(width int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n1 begincodespacerange <%0*X> <%0*X> endcodespacerange\n", 2*width, 0, 2*width, 1<<(8*width)-1)
	for from := 0; from < len(w.order); from += 100 {
		group := w.order[from:min(from+100, len(w.order))]
		fmt.Fprintf(&b, "%d beginbfchar\n", len(group))
		for _, r := range group {
			fmt.Fprintf(&b, "<%0*X> %s\n", 2*width, w.glyphs[r], strings.Replace(utf16Hex(string(r)), "FEFF", "", 1))
		}
		b.WriteString("endbfchar\n")
	}
	b.WriteString("endcmap CMapName currentdict /CMap defineresource pop end end")
	return b.String()
}

// code is a letter as a string in one of the fonts.
func (w *writer) code(r rune) (font, code string) {
	switch {
	case w.Writer == Word && r < 0x7f:
		return "F1", fmt.Sprintf("<%02X>", r)
	case w.Writer == Word, w.Writer == Mute:
		return "F2", fmt.Sprintf("<%04X>", w.glyphs[r])
	}
	return "F1", fmt.Sprintf("<%02X>", w.glyphs[r])
}

// draw is the content that draws a run.
func (w *writer) draw(r Run) string {
	var b strings.Builder
	sin, cos := math.Sincos(r.Angle * math.Pi / 180)
	at := 0.0
	place := func() {
		fmt.Fprintf(&b, "%.4f %.4f %.4f %.4f %.3f %.3f Tm ", cos, sin, -sin, cos, r.X+at*cos, r.Y+at*sin)
	}
	b.WriteString("BT ")
	font := ""
	for i, letter := range []rune(r.Text) {
		f, code := w.code(letter)
		if f != font {
			fmt.Fprintf(&b, "/%s %.1f Tf ", f, r.Size)
			font = f
		}
		if i == 0 || r.Apart > 0 || w.Writer == LibreOffice && i%3 == 0 {
			place()
		}
		fmt.Fprintf(&b, "[%s -2]TJ ", code)
		at += r.Size*letterWidth/1000 + r.Apart
	}
	b.WriteString("ET\n")
	return b.String()
}

func utf16Hex(s string) string {
	var b strings.Builder
	b.WriteString("<FEFF")
	for _, u := range utf16.Encode([]rune(s)) {
		fmt.Fprintf(&b, "%04X", u)
	}
	b.WriteByte('>')
	return b.String()
}

// finish puts the objects into a file.
func (w *writer) finish(root, info int) []byte {
	var out bytes.Buffer
	out.WriteString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	encrypt := ""
	if w.Locked {
		encrypt = fmt.Sprintf(" /Encrypt %d 0 R", w.object("<< /Filter /Standard /V 2 /R 3 >>"))
	}
	offsets := make([]int, len(w.objects))
	var table, values strings.Builder
	packed := 0
	for n := 1; n < len(w.objects); n++ {
		if w.Packed && !w.streams[n] {
			fmt.Fprintf(&table, "%d %d ", n, values.Len())
			values.WriteString(w.objects[n] + "\n")
			packed++
			continue
		}
		offsets[n] = out.Len()
		fmt.Fprintf(&out, "%d 0 obj\n%s\nendobj\n", n, w.objects[n])
	}
	if w.Packed {
		b := deflated([]byte(table.String() + values.String()))
		fmt.Fprintf(&out, "%d 0 obj\n<< /Type /ObjStm /N %d /First %d /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream\nendobj\n",
			len(w.objects), packed, table.Len(), len(b), b)
		fmt.Fprintf(&out, "%d 0 obj\n<< /Type /XRef /Size %d /Root %d 0 R /Info %d 0 R%s /W [1 2 1] /Length 0 >>\nstream\n\nendstream\nendobj\n",
			len(w.objects)+1, len(w.objects)+2, root, info, encrypt)
		fmt.Fprintf(&out, "startxref\n%d\n%%%%EOF\n", out.Len())
		return out.Bytes()
	}
	start := out.Len()
	fmt.Fprintf(&out, "xref\n0 %d\n0000000000 65535 f \n", len(w.objects))
	for _, offset := range offsets[1:] {
		fmt.Fprintf(&out, "%010d 00000 n \n", offset)
	}
	fmt.Fprintf(&out, "trailer\n<< /Size %d /Root %d 0 R /Info %d 0 R%s >>\nstartxref\n%d\n%%%%EOF\n", len(w.objects), root, info, encrypt, start)
	return out.Bytes()
}
